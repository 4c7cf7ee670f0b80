/* Host names for getaddrinfo(), looked up in threads that know nothing of Python: a
   thread of the executor wants the GIL for each of its steps, and gets it from a loop that
   has just gone to sleep, or is busy.

   Only what socket.getaddrinfo() hands to the C library as it stands; the rest is
   refused, and the caller asks the socket module. A resolver belongs to one loop. What it
   shares with its threads is guarded by its lock, and lives until the last of them has
   ended: one that hangs in a lookup keeps nobody waiting.

   GIL held, loop thread, unless said otherwise. */
#ifndef CAP_LOOP_RESOLVER_H
#define CAP_LOOP_RESOLVER_H

#include "loop/loop.h"

/* Method: (host, port, family, type, proto, flags) to a future of what
   _socket.getaddrinfo() returns, or raises; None: not for us. NULL with an exception.
   Runs Python (audit hooks). */
PyObject *cap_resolver_look_up(cap_loop *loop, PyObject *const *args, Py_ssize_t nargs);
/* Method: nobody waits for this future any more. Its lookup is not begun, if it was not. */
PyObject *cap_resolver_forget(cap_loop *loop, PyObject *future);
/* The loop was woken: results go to their futures. May run Python. */
void cap_resolver_deliver(cap_loop *loop);
/* The loop ends, while its uv_async_t is open: futures are let go of, threads end when they
   can. May run Python. Idempotent. */
void cap_resolver_close(cap_loop *loop);
int cap_resolver_traverse(cap_loop *loop, visitproc visit, void *arg);

#endif
