/* The ASGI scope of a request, from its head. */
#ifndef CAP_ASGI_SCOPE_H
#define CAP_ASGI_SCOPE_H

#include "asgi/conn.h"

/* Fill r->scope and what the log says of it (method, raw_path, query, headers,
   client). `base` is the head's first octet. `memo`: the header memo's entry that
   holds the fields, or -1: they are in `h` (and may be remembered; then c->memo is
   set). 0, or -1 with an exception. May run Python (proxy_headers). */
int cap_scope_fill(cap_request *r, cap_conn *c, const cap_h1_head *h, const char *base, int memo);

#endif
