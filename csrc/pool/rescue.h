/* What is done for the connections of an event loop while it is blocked, by the guard's thread
   (pool/guard.h): those that rest (pool/claims.h) and on which something waits to be read go
   to a worker that is free (pool/handover.h), or get the answer to their health check. When no
   worker is free, and there are health checks, new connections are accepted, too: who asks for
   something else is kept for the loop. The loop's side of it is asgi/server_rescue.c.

   Shared by the loop and the guard, counted: it lives until both are done with it. */
#ifndef CAP_POOL_RESCUE_H
#define CAP_POOL_RESCUE_H

#include "pool/claims.h"
#include "pool/handover.h"
#include "pool/health.h"

#include <pthread.h>

#define CAP_RESCUE_LISTENERS 32
/* Connections that are kept for the loop; more wait in the kernel. */
#define CAP_RESCUE_HELD 256

typedef struct cap_rescue {
    _Atomic uint32_t users;
    cap_claims claims;

    /* Set before the guard's thread starts. */
    cap_board *board;      /* or NULL: there are no siblings */
    uint32_t slot;
    int channel;           /* where connections are sent; the caller's; -1: nowhere */
    cap_health health;     /* answered on the loop's connections; its path may be "" */
    _Atomic uint32_t ready; /* for it */

    pthread_mutex_t lock;  /* for what follows; held for system calls that do not wait */
    void (*wake)(void *);  /* make the loop look at what was done, when it runs again; NULL: it is gone */
    void *waking;
    int listening[CAP_RESCUE_LISTENERS];
    size_t listeners;
    int held[CAP_RESCUE_HELD];
    size_t holds;
} cap_rescue;

/* Counted once. NULL without memory. */
cap_rescue *cap_rescue_new(void);
void cap_rescue_ref(cap_rescue *r);
void cap_rescue_unref(cap_rescue *r);

/* Who is to be woken; NULL: nobody any more, and no call is under way on return. Any thread. */
void cap_rescue_on_wake(cap_rescue *r, void (*wake)(void *), void *waking);

/* The loop listens on `fd`, where connections begin with HTTP in clear; it accepts no more. */
void cap_rescue_listen(cap_rescue *r, int fd);
void cap_rescue_unlisten(cap_rescue *r);
/* Take the connections that are kept: how many; they are the caller's. The loop's thread. */
size_t cap_rescue_take(cap_rescue *r, int fds[CAP_RESCUE_HELD]);

/* Once while the loop is late, in the guard's thread. ms after which it is worth while again. */
uint64_t cap_rescue_pass(cap_rescue *r, uint64_t now);

#endif
