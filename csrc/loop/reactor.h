/* The reactor: what C code that lives on an event loop needs from it. One
   uv_loop_t, the queue of work for the end of this turn, and who holds the GIL.

   There are two kinds. Of our own loop (loop.c): `run_forever` is uv_run, and
   the GIL is given up around a poll that sleeps. Of a foreign asyncio loop
   (foreign.c): that loop watches the uv_loop's backend descriptor and calls
   uv_run(NOWAIT); the GIL is always held.

   All functions: loop thread. Nothing here is thread-safe. */
#ifndef CAP_LOOP_REACTOR_H
#define CAP_LOOP_REACTOR_H

#include "base/beat.h"
#include "py/state.h"
#include <uv.h>

/* Work put off to the end of the turn: after every callback that is ready has
   run, before the loop sleeps. Embedded in its owner; the owner keeps itself
   alive while `queued` (a connection holds a reference for it). */
typedef struct cap_deferred {
    struct cap_deferred *next;
    struct cap_deferred *prev;
    void (*run)(struct cap_deferred *self); /* GIL held; may queue again: next turn */
    bool queued;
} cap_deferred;

typedef struct cap_reactor {
    uv_loop_t *uv;         /* owned by the loop object or the driver */
    cap_state *st;
    PyObject *loop;        /* borrowed: the asyncio event loop, which outlives us */
    PyThreadState *parked; /* not NULL: the GIL is given up; take it back with this */
    cap_beat *beat;        /* what a guard sees of us; borrowed; NULL: there is none */
    void *stepping;        /* whose step runs, as the beat says it; borrowed */
    cap_deferred *first;   /* deferred work, in order */
    cap_deferred *last;
    /* Responses that leave together (pool/outbox.h): when the poll's callbacks have run, and at
       the turn's end, if there are any. Borrowed, of our own loop's guard; NULL: none is held back. */
    struct cap_outbox *outbox;
    void (*flush_outbox)(struct cap_outbox *o); /* runs Python */
    bool gathered;
    bool foreign;
    bool running;          /* inside uv_run or the ready queue: a turn's end will come */
    /* Called when work is deferred while not `running`: see that a turn comes
       (own loop: nothing to do; foreign: loop.call_soon(drive)). May be NULL. */
    void (*want_turn)(struct cap_reactor *r);
    PyObject *fatal;       /* KeyboardInterrupt or SystemExit on its way out of
                              run_forever; see cap_reactor_report */
} cap_reactor;

/* The reactor of an asyncio event loop: for a capicorn.Loop its own, for any
   other loop a driver made on first use and kept until
   cap_reactor_release. NULL with an exception. Counted: one release for each. */
cap_reactor *cap_reactor_acquire(cap_state *st, PyObject *loop);
void cap_reactor_release(cap_reactor *r);

/* First thing in every libuv callback of ours: take the GIL back if the poll
   gave it up. Cheap when held. The GIL then stays with us until the next poll. */
static inline void
cap_reactor_enter(cap_reactor *r)
{
    if (r->parked != NULL) {
        PyThreadState *ts = r->parked;
        r->parked = NULL;
        /* Other threads may keep the GIL from us for long: that is a late loop, too. */
        cap_beat *beat = r->beat;
        if (beat != NULL) {
            cap_beat_gil(beat, true);
            cap_beat_awake(beat, uv_now(r->uv));
        }
        PyEval_RestoreThread(ts);
        if (beat != NULL)
            cap_beat_gil(beat, false);
    }
}

/* Queue for the end of this turn; once, however often it is called. */
void cap_reactor_defer(cap_reactor *r, cap_deferred *d);
/* Take it out again, if queued. */
void cap_reactor_undefer(cap_reactor *r, cap_deferred *d);
/* Run what is queued now; what queues itself meanwhile waits for the next call.
   Runs Python. */
void cap_reactor_run_deferred(cap_reactor *r);
/* What was gathered leaves. Keeps the exception that is set, if one is. */
void cap_reactor_flush(cap_reactor *r);
static inline bool
cap_reactor_has_deferred(const cap_reactor *r)
{
    return r->first != NULL;
}

/* After new uv handles or timers were started outside uv_run: a foreign loop's
   driver must look at them (the backend descriptor does not know them yet). No
   work on our own loop. */
void cap_reactor_watchers_changed(cap_reactor *r);

/* Start an asyncio.Task for `coro` in `context` (an exact contextvars.Context),
   its first step run at once where that can be: eager_start on 3.12+, on 3.11
   with our own loop by taking the handle that Task's constructor gives to
   call_soon; its name is Request-N then, since the next Task-N would be made at once
   there. A task factory of the loop is honoured (then it decides). Not from
   inside another task's step. Runs Python: anything may have happened on return.
   New reference to the task, or NULL with an exception. */
PyObject *cap_task_start(cap_reactor *r, PyObject *coro, PyObject *context);

/* An error that nobody can receive: to loop.call_exception_handler with
   `message`. Takes the current exception. KeyboardInterrupt and SystemExit come
   out of run_forever instead, at the end of what runs now. May run Python. */
void cap_reactor_report(cap_reactor *r, const char *message);

/* This process has forked: a child of the application may hold our sockets open. */
extern _Atomic bool cap_has_forked;

#endif
