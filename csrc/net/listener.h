/* Accepting connections from a listening socket: readiness by uv_poll, accept4 by
   us, so that we decide how many to take in a turn (libuv's own listener takes one
   for each poll) and what happens when descriptors run out.

   The descriptor stays the caller's and has to stay open until `closed`. */
#ifndef CAP_NET_LISTENER_H
#define CAP_NET_LISTENER_H

#include <stdbool.h>
#include <uv.h>

typedef struct cap_listener cap_listener;

typedef struct cap_listener_events {
    /* First thing in a turn of accepting, before any other callback of it. */
    void (*enter)(cap_listener *l);
    /* A connected, non-blocking, close-on-exec socket; it is the callee's. */
    void (*accepted)(cap_listener *l, int fd);
    /* May we take a connection now? False: a process that shares the socket should have
       it, and we look away for a moment. Comes before `enter`, the GIL perhaps not held:
       no Python. NULL: always. */
    bool (*may_accept)(cap_listener *l);
    /* accept failed with this errno for want of descriptors or memory. True: something
       was freed, try again soon; false: wait CAP_ACCEPT_PAUSE_MS. */
    bool (*exhausted)(cap_listener *l, int err);
    void (*closed)(cap_listener *l);
} cap_listener_events;

/* Connections taken in one turn before others' reads get theirs. */
#define CAP_ACCEPT_BATCH 64
#define CAP_ACCEPT_PAUSE_MS 100
/* So often may_accept is heard, with a pause each time. When the connection still waits
   then, the siblings are busy: it is taken after all, and the next one with half the
   patience, but never at once (they may just have woken up), until a sibling is seen to
   take one. The pause does not grow: meanwhile it may be our turn. */
#define CAP_ACCEPT_HOLD_MS 1
#define CAP_ACCEPT_PATIENCE 64

struct cap_listener {
    uv_poll_t poll;
    uv_timer_t pause;
    const cap_listener_events *on;
    void *owner;
    int fd;
    int family; /* AF_INET, AF_INET6, AF_UNIX */
    int open_handles;
    unsigned char held;     /* times that this connection was left to siblings */
    unsigned char patience;
    bool closing;
    bool asks_peer;         /* who connects from this machine gets another congestion control */
};

/* Begin to accept from `fd`, which listens. 0, or UV_E...: then nothing is left to
   close. */
int cap_listener_start(cap_listener *l, uv_loop_t *loop, int fd, const cap_listener_events *on,
                       void *owner);
/* Accept what the kernel holds for us (and who shares the socket) now: when a listening
   socket is closed, those clients would get an RST. As on->accepted, with the GIL. */
void cap_listener_take_waiting(cap_listener *l);
/* Accept no more; on->closed comes later, from uv_run. Once. */
void cap_listener_close(cap_listener *l);

#endif
