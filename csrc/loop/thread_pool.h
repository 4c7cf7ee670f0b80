/* Threads that run Python functions for an event loop of ours: what stands behind
   AnyIO's to_thread.run_sync() and run_in_executor(None, ...) there.

   Many short calls are what it is made for. One thread is woken for what a turn of
   the loop has queued, and runs call after call without giving the GIL up between
   them; the results go back with one wake-up of the loop. A call that blocks stops
   nobody: before a thread begins a call while others wait, it sees to it that one
   more thread is awake, which waits for the GIL and gets it as soon as the call gives
   it up.

   Everything here is guarded by the GIL. */
#ifndef CAP_LOOP_THREAD_POOL_H
#define CAP_LOOP_THREAD_POOL_H

#include "loop/loop.h"

int cap_thread_pool_type_init(PyObject *module, cap_state *st);

/* Between turns: a thread that was woken before the last one and has still not got the
   GIL gets it now, before the loop takes more work. */
void cap_thread_pools_let_in(cap_loop *loop);

/* The thread that the turn's end chose wakes when the GIL is free, and so finds it free.
   With or without the GIL. */
static inline void
cap_thread_pool_wake_now(cap_loop *loop)
{
    PyThread_type_lock lock = loop->to_wake;
    if (lock != NULL) {
        loop->to_wake = NULL;
        PyThread_release_lock(lock);
    }
}

#endif
