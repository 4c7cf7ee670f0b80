/* What the application is given to call, and what it gets to await: receive() and send()
   differ in what they do, not in what they are. The callable holds its request; the awaitable
   is made when a call has to wait, or has something to give only when it is awaited, and waits
   on a future of the loop.

   Both keep their request alive. Loop thread, GIL held. */
#ifndef CAP_ASGI_CALLABLE_H
#define CAP_ASGI_CALLABLE_H

#include "py/state.h"

struct cap_request;

/* --- the callable ---------------------------------------------------------------- */

typedef struct cap_callable {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    struct cap_request *request; /* owned */
} cap_callable;

/* A type of callables. New reference, or NULL with an exception. */
PyTypeObject *cap_callable_type(PyObject *module, const char *name);
PyObject *cap_callable_new(PyTypeObject *type, vectorcallfunc call, struct cap_request *r);

/* --- waiting --------------------------------------------------------------------- */

/* An awaitable of ours that waits on an asyncio.Future; in a list of its request. */
typedef struct cap_waiter {
    struct cap_waiter *next;
    struct cap_waiter **at; /* what points to us; NULL: in no list */
    PyObject *future;       /* owned */
    PyObject *iter;         /* owned: the future's iterator */
} cap_waiter;

/* Begin to wait: makes a future of the loop, enters the list. Returns what the Task
   has to see (the future, new reference), or NULL with an exception. */
PyObject *cap_waiter_begin(cap_waiter *w, cap_waiter **list, PyObject *loop, cap_state *st);
/* Take it out of the list and let go of its objects. */
void cap_waiter_end(cap_waiter *w);
/* throw() of an awaitable: it no longer waits, and the exception is raised. NULL. */
PyObject *cap_waiter_throw(cap_waiter *w, PyObject *const *args, Py_ssize_t nargs);
/* Resolve the future of each in the list; they leave it when they run. Runs Python
   (the loop's call_soon). */
void cap_waiters_wake(cap_waiter *list, cap_state *st);

/* --- the awaitable ---------------------------------------------------------------- */

typedef struct cap_awaitable {
    PyObject_HEAD
    struct cap_request *request; /* owned */
    cap_waiter waiter;
    bool turn; /* first a bare yield: the task goes on in the next turn */
} cap_awaitable;

/* A type of awaitables, of which each step is `step` (am_send). They have send, throw, close
   and __await__, which makes them a collections.abc.Coroutine: asyncio.create_task(receive())
   works. New reference, or NULL with an exception. */
PyTypeObject *cap_awaitable_type(PyObject *module, const char *name, sendfunc step);
PyObject *cap_awaitable_new(PyTypeObject *type, struct cap_request *r);
/* What each step begins with: true, it does not wait any more; false, `*rc` is the step's
   result. */
bool cap_awaitable_resume(cap_awaitable *a, PyObject *value, PyObject **result, PySendResult *rc);

#endif
