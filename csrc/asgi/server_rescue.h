/* The loop's side of rescue (pool/rescue.h): takes the connections that blocked siblings sent,
   and closes its own that were sent while it was blocked itself. Loop's thread, GIL held. */
#ifndef CAP_ASGI_SERVER_RESCUE_H
#define CAP_ASGI_SERVER_RESCUE_H

#include "asgi/server.h"
#include "pool/rescue.h"

/* From now on connections that rest may be claimed through `r`, which is counted here too.
   `channel`: where siblings' connections come in, the caller's as long as the server lives;
   -1: they do not. Once. 0, or -1 with an exception. */
int cap_server_join(cap_server *s, cap_rescue *r, int channel);
/* The server accepts no more: connections that are on their way go to those siblings that are
   free, and are taken now when there is none. */
void cap_server_rescue_stop(cap_server *s);
/* The server closes. What rests may still be claimed until it is closed. */
void cap_server_rescue_close(cap_server *s);

#endif
