/* capicorn._core.ThreadPool. Threads are made in Python, so that they are what
   threading knows (names, trace functions, the end of the interpreter); each runs
   work(). Idle ones lie on a stack: the one that stopped last is woken first, and
   those below it end after a while.

   `searching` counts the threads that were woken or started and have not got the GIL
   since. As long as there is one, nobody else needs to be woken: it looks at the
   queue, and wakes the next before it begins a call while more of them wait. */
#include "loop/thread_pool.h"

#include "base/mem.h"

#include <time.h>

/* For how long threads keep the loop waiting with calls that are short, one after
   another; calls that are longer run into CPython's own switch interval. */
#define BATCH_NS 2000000
#define LET_IN_US 1000
/* For how long they leave what waits to a loop that does not take their results. */
#define PATIENCE_US 20000

typedef struct call {
    struct call *next;
    PyObject *func;
    PyObject *args;    /* a tuple */
    PyObject *context; /* contextvars.Context, or NULL: the thread's own */
    PyObject *scope;   /* what the thread shows as `local.current_cancel_scope`, or NULL */
    PyObject *future;  /* asyncio.Future; NULL: nobody asks for the result */
    PyObject *result;  /* once done: this or the other, unless it was not called at all */
    PyObject *error;
} call;

typedef struct queue {
    call *first;
    call *last;
    size_t len;
} queue;

/* On the stack of its thread. */
typedef struct worker {
    struct worker *below;    /* on the stack of idle ones */
    PyThread_type_lock lock; /* held by the thread; released to wake it */
    bool woken;
} worker;

typedef struct cap_thread_pool {
    PyObject_HEAD
    cap_loop *loop;         /* strong */
    struct cap_thread_pool *next; /* in the loop's list */
    PyObject *start;        /* makes a thread that calls work() */
    PyObject *local;        /* threading.local for `scope`; or NULL */
    PyObject *scope_name;
    cap_handle *deliver;    /* takes the results, in the loop's thread */
    cap_deferred deferred;  /* wakes a thread at the turn's end; holds a reference while queued */
    queue waiting;
    queue done;
    worker *idle;
    size_t nthreads;
    size_t expected;        /* of them: started, and not yet in work() */
    size_t nidle;
    size_t running;
    size_t searching;
    size_t size;            /* no more threads than that; 0: as many as calls */
    uint64_t wanted_since;  /* ns: when the first of `done` came; the loop wants the GIL since */
    unsigned turns;         /* of the loop since a thread was woken that still has to come */
    PyThread_type_lock came; /* held but for the moment in which it has come and the loop waits */
    bool letting_in;        /* the loop waits for that */
    PY_TIMEOUT_T idle_us;   /* an idle thread ends after so long */
    bool delivering;        /* `deliver` is in the loop's queue */
    bool closed;
    PyObject *weakrefs;
} cap_thread_pool;

static uint64_t
now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* ---- calls ---- */

static void
put(queue *q, call *c)
{
    c->next = NULL;
    if (q->last != NULL)
        q->last->next = c;
    else
        q->first = c;
    q->last = c;
    q->len++;
}

static call *
take(queue *q)
{
    call *c = q->first;
    if (c != NULL) {
        q->first = c->next;
        if (q->first == NULL)
            q->last = NULL;
        q->len--;
    }
    return c;
}

/* Runs Python. */
static void
call_free(call *c)
{
    Py_XDECREF(c->func);
    Py_XDECREF(c->args);
    Py_XDECREF(c->context);
    Py_XDECREF(c->scope);
    Py_XDECREF(c->future);
    Py_XDECREF(c->result);
    Py_XDECREF(c->error);
    cap_free(c);
    cap_count.thread_calls--;
}

static void
drop(queue *q)
{
    call *c;
    while ((c = take(q)) != NULL)
        call_free(c);
}

/* Steals nothing. NULL with an exception. */
static call *
call_new(PyObject *func, PyObject *args, PyObject *context, PyObject *scope)
{
    call *c = cap_calloc(1, sizeof *c);
    if (c == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    cap_count.thread_calls++;
    c->func = Py_NewRef(func);
    c->args = Py_NewRef(args);
    c->context = context != Py_None ? Py_NewRef(context) : NULL;
    c->scope = scope != Py_None ? Py_NewRef(scope) : NULL;
    return c;
}

static int
is_done(cap_state *st, PyObject *future)
{
    PyObject *done = PyObject_CallMethodNoArgs(future, st->str.done);
    int is = done != NULL ? PyObject_IsTrue(done) : -1;
    Py_XDECREF(done);
    return is;
}

/* A future refuses StopIteration: what a coroutine does with it. */
static PyObject *
as_runtime_error(PyObject *stop)
{
    PyObject *text = PyUnicode_FromString("coroutine raised StopIteration");
    PyObject *error = text != NULL ? PyObject_CallOneArg(PyExc_RuntimeError, text) : NULL;
    Py_XDECREF(text);
    if (error == NULL) {
        Py_DECREF(stop);
        return cap_err_take();
    }
    PyException_SetCause(error, stop);
    return error;
}

/* In a thread. What was called is let go of here, and not in the loop's thread. */
static void
call_run(cap_thread_pool *self, call *c)
{
    bool shown = false;
    int skip = c->future != NULL ? is_done(self->loop->reactor.st, c->future) : 0;
    if (skip == 0 && c->scope != NULL) {
        shown = PyObject_SetAttr(self->local, self->scope_name, c->scope) == 0;
        skip = shown ? 0 : -1;
    }
    if (skip == 0 && c->context != NULL && PyContext_Enter(c->context) < 0)
        skip = -1;
    if (skip == 0) {
        c->result = PyObject_Call(c->func, c->args, NULL);
        if (c->context != NULL && PyContext_Exit(c->context) < 0)
            Py_CLEAR(c->result);
    }
    if (c->result == NULL && skip <= 0) {
        c->error = cap_err_take();
        if (PyErr_GivenExceptionMatches(c->error, PyExc_StopIteration))
            c->error = as_runtime_error(c->error);
    }
    if (shown && PyObject_SetAttr(self->local, self->scope_name, Py_None) < 0)
        PyErr_WriteUnraisable(self->local);
    Py_CLEAR(c->func);
    Py_CLEAR(c->args);
    Py_CLEAR(c->context);
    Py_CLEAR(c->scope);
}

/* In the loop's thread: its future learns of it; of an error in that, too. Frees `c`. */
static void
call_report(cap_thread_pool *self, call *c)
{
    cap_state *st = self->loop->reactor.st;
    int gone = is_done(st, c->future); /* cancelled */
    PyObject *told = NULL;
    if (gone == 0)
        told = c->result != NULL
                   ? PyObject_CallMethodOneArg(c->future, st->str.set_result, c->result)
                   : PyObject_CallMethodOneArg(c->future, st->str.set_exception,
                                               c->error != NULL ? c->error : Py_None);
    if (gone <= 0 && told == NULL) {
        PyObject *exc = cap_err_take();
        told = PyObject_CallMethodOneArg(c->future, st->str.set_exception, exc);
        if (told == NULL)
            PyErr_Clear(); /* it was done after all */
        cap_err_restore(exc);
        cap_reactor_report(&self->loop->reactor, "The result of a call in a thread was lost");
    }
    Py_XDECREF(told);
    call_free(c);
}

/* ---- threads ---- */

/* One that was started does not come to work(). */
static void
expect_less(cap_thread_pool *self)
{
    if (self->expected == 0)
        return; /* it came: what `start` raised was raised behind that, by a signal's handler say */
    self->expected--;
    self->nthreads--;
    self->searching--;
}

/* 0, or -1 with an exception. Runs Python. */
static int
start_thread(cap_thread_pool *self)
{
    self->nthreads++;
    self->expected++;
    self->searching++;
    self->turns = 0;
    PyObject *done = PyObject_CallNoArgs(self->start);
    if (done == NULL) {
        expect_less(self);
        return -1;
    }
    Py_DECREF(done);
    return 0;
}

/* `later`: when the loop gives the GIL up. */
static void
wake(cap_thread_pool *self, worker *w, bool later)
{
    self->idle = w->below;
    self->nidle--;
    self->searching++;
    self->turns = 0;
    w->woken = true;
    if (later && self->loop->to_wake == NULL)
        self->loop->to_wake = w->lock;
    else
        PyThread_release_lock(w->lock);
}

/* In a child process its threads are not there, and the loop is the parent's. */
static bool
is_forked(const cap_thread_pool *self)
{
    return self->loop->forks != cap_forks;
}

/* What threading raises when the system has no thread for us? */
static bool
is_shortage(void)
{
    return PyErr_ExceptionMatches(PyExc_RuntimeError) || PyErr_ExceptionMatches(PyExc_MemoryError);
}

/* See that somebody looks at what waits. Where no thread can be started but there are
   some, they will: no error. 0, or -1 with an exception. May run Python. */
static int
see_to_it(cap_thread_pool *self, bool later)
{
    if (self->waiting.first == NULL || self->searching != 0)
        return 0;
    if (self->idle != NULL)
        wake(self, self->idle, later);
    else if (self->size == 0 || self->nthreads < self->size) {
        if (start_thread(self) < 0) {
            if (self->nthreads == 0 || !is_shortage())
                return -1;
            PyErr_Clear();
        }
    }
    return 0;
}

/* The turn's end: what it has queued is all there. */
static void
on_turn_end(cap_deferred *deferred)
{
    cap_thread_pool *self =
        (cap_thread_pool *)((char *)deferred - offsetof(cap_thread_pool, deferred));
    if (see_to_it(self, true) < 0)
        cap_reactor_report(&self->loop->reactor, "No thread could be started");
    Py_DECREF((PyObject *)self);
}

static void
at_turn_end(cap_thread_pool *self)
{
    if (self->deferred.queued)
        return;
    Py_INCREF((PyObject *)self);
    cap_reactor_defer(&self->loop->reactor, &self->deferred);
}

void
cap_thread_pools_let_in(cap_loop *loop)
{
    for (cap_thread_pool *self = loop->pools; self != NULL; self = self->next) {
        if (self->searching == 0 || self->waiting.first == NULL || self->turns++ == 0)
            continue;
        /* One that does not come at once is not waited for: CPython sees to it in the end. */
        Py_INCREF((PyObject *)self);
        self->letting_in = true;
        cap_thread_pool_wake_now(loop);
        PyLockStatus came;
        Py_BEGIN_ALLOW_THREADS
        came = PyThread_acquire_lock_timed(self->came, LET_IN_US, 0);
        Py_END_ALLOW_THREADS
        if (came != PY_LOCK_ACQUIRED && !self->letting_in)
            PyThread_acquire_lock(self->came, WAIT_LOCK); /* it came when we had stopped waiting */
        self->letting_in = false;
        self->turns = 0;
        Py_DECREF((PyObject *)self);
        return;
    }
}

/* A thread that was woken or started has the GIL. */
static void
has_come(cap_thread_pool *self)
{
    self->searching--;
    if (self->letting_in) {
        self->letting_in = false;
        PyThread_release_lock(self->came);
    }
}

static bool
in_loop(const cap_thread_pool *self)
{
    const cap_loop *loop = self->loop;
    return loop->reactor.running && loop->has_thread &&
           loop->thread_id == PyThread_get_thread_ident();
}

/* ---- in a thread ---- */

static void
put_result(cap_thread_pool *self, call *c)
{
    cap_loop *loop = self->loop;
    if (c->future == NULL || loop->closed || is_forked(self)) {
        call_free(c);
        return;
    }
    if (self->done.first == NULL)
        self->wanted_since = now_ns();
    put(&self->done, c);
    if (!self->delivering) {
        if (cap_ready_push(&loop->io, self->deliver) == 0)
            self->delivering = true;
        else
            PyErr_Clear(); /* again with the next result, or when the thread stops */
    }
}

/* The loop shall take the results now. `later`: the caller wakes it, if this is true, when
   it has given the GIL up, so that the loop finds it free. */
static bool
hand_back(cap_thread_pool *self, bool later)
{
    cap_loop *loop = self->loop;
    if (self->done.first == NULL || loop->closed)
        return false;
    if (!self->delivering && cap_ready_push(&loop->io, self->deliver) == 0)
        self->delivering = true;
    PyErr_Clear();
    if (!later) {
        cap_loop_wake(loop);
        return false;
    }
    if (!loop->asleep || loop->woken || loop->uv == NULL)
        return false;
    loop->woken = true;
    atomic_fetch_add(&loop->sending, 1); /* nor can it be closed now */
    return true;
}

/* Sleep until woken, after waking the loop with `send`. false: for so long that the thread may
   end, and nothing waits. */
static bool
sleep_idle(cap_thread_pool *self, worker *w, bool send)
{
    cap_loop *loop = self->loop;
    cap_uv *uv = loop->uv; /* close() waits for us before it frees it, but not to forget it */
    w->woken = false;
    w->below = self->idle;
    self->idle = w;
    self->nidle++;
    PY_TIMEOUT_T wait = self->waiting.first != NULL ? PATIENCE_US : self->idle_us;
    PyLockStatus got;
    Py_BEGIN_ALLOW_THREADS
    if (send) {
        uv_async_send(&uv->async);
        atomic_fetch_sub(&loop->sending, 1);
    }
    got = PyThread_acquire_lock_timed(w->lock, wait, 0);
    Py_END_ALLOW_THREADS
    if (!w->woken) {
        for (worker **at = &self->idle; *at != NULL; at = &(*at)->below) {
            if (*at == w) {
                *at = w->below;
                self->nidle--;
                break;
            }
        }
        if (self->waiting.first == NULL)
            return false;
        self->searching++; /* the loop is busy, perhaps waiting for one of these calls */
        self->wanted_since = now_ns();
        return true;
    }
    if (got != PY_LOCK_ACQUIRED) { /* chosen in the moment of the time-out */
        Py_BEGIN_ALLOW_THREADS
        PyThread_acquire_lock(w->lock, WAIT_LOCK);
        Py_END_ALLOW_THREADS
    }
    return true;
}

static void
work(cap_thread_pool *self, worker *w)
{
    if (self->expected != 0) {
        self->expected--;
        has_come(self);
    }
    else
        self->nthreads++; /* its start was taken for a failure */
    hand_back(self, false); /* whoever had the GIL before is in a call: perhaps a long one */
    for (;;) {
        bool enough = self->done.first != NULL && self->loop->has_thread && !self->closed &&
                      now_ns() - self->wanted_since > BATCH_NS;
        call *c = enough ? NULL : take(&self->waiting);
        if (c == NULL) {
            bool over = self->closed && self->waiting.first == NULL;
            bool send = hand_back(self, !over);
            if (over || !sleep_idle(self, w, send))
                return;
            has_come(self);
            hand_back(self, false);
            continue;
        }
        if (see_to_it(self, false) < 0)
            PyErr_Clear();
        if (self->searching == 0)
            hand_back(self, false); /* nobody else would, should this call take long */
        self->running++;
        call_run(self, c);
        self->running--;
        put_result(self, c);
        if (is_forked(self))
            return; /* the call did it */
    }
}

/* There will be no more results. What the loop has in its queue stays there. */
static void
ended(cap_thread_pool *self)
{
    if (self->closed && self->nthreads == 0 && self->waiting.first == NULL &&
        (self->delivering || self->done.first == NULL))
        Py_CLEAR(self->deliver);
}

PyDoc_STRVAR(work_doc, "work()\n--\n\nWhat a thread that `start` made does: run calls.");

static PyObject *
pool_work(cap_thread_pool *self, PyObject *Py_UNUSED(ignored))
{
    worker w = {.lock = PyThread_allocate_lock()};
    if (w.lock == NULL) {
        expect_less(self);
        return PyErr_NoMemory();
    }
    PyThread_acquire_lock(w.lock, WAIT_LOCK);
    work(self, &w);
    self->nthreads--;
    ended(self);
    PyThread_release_lock(w.lock);
    PyThread_free_lock(w.lock);
    Py_RETURN_NONE;
}

/* ---- for the loop ---- */

/* Queue it, and see that a thread comes: at the end of the turn, when this is one, but for
   `now`. Steals `c`. 0, or -1 with an exception. */
static int
queue_call(cap_thread_pool *self, call *c, bool now)
{
    if (self->closed || is_forked(self)) {
        call_free(c);
        PyErr_SetString(PyExc_RuntimeError,
                        self->closed ? "cannot schedule new futures after shutdown"
                                     : "These threads belong to the parent process");
        return -1;
    }
    put(&self->waiting, c);
    if (self->nthreads != 0 && in_loop(self)) {
        if (!now) {
            at_turn_end(self);
            return 0;
        }
        cap_thread_pool_wake_now(self->loop);
    }
    if (see_to_it(self, false) == 0)
        return 0;
    /* Mostly there is no thread at all, and it still is where it was put. */
    PyObject *exc = cap_err_take();
    call **at = &self->waiting.first, *last = NULL;
    while (*at != NULL && *at != c) {
        last = *at;
        at = &(*at)->next;
    }
    if (*at != NULL) {
        *at = c->next;
        if (self->waiting.last == c)
            self->waiting.last = last;
        self->waiting.len--;
        call_free(c);
    }
    cap_err_restore(exc);
    return -1;
}

static int
check_args(PyObject *const *args, Py_ssize_t nargs, Py_ssize_t most)
{
    if (nargs < 2 || nargs > most) {
        PyErr_SetString(PyExc_TypeError, "a function and a tuple of its arguments are expected");
        return -1;
    }
    if (!PyTuple_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "the arguments must be a tuple");
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(call_doc,
             "call($self, func, args, context=None, scope=None, /)\n--\n\n"
             "Run func(*args) in a thread; a future of the loop. Only in the loop's thread.\n"
             "`context`: where it runs; None: whatever the thread's own context is.");

static PyObject *
pool_call(cap_thread_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (check_args(args, nargs, 4) < 0)
        return NULL;
    PyObject *context = nargs > 2 ? args[2] : Py_None, *scope = nargs > 3 ? args[3] : Py_None;
    if (context != Py_None && !PyContext_CheckExact(context)) {
        PyErr_SetString(PyExc_TypeError, "the context must be a contextvars.Context");
        return NULL;
    }
    if (scope != Py_None && self->local == NULL) {
        PyErr_SetString(PyExc_TypeError, "this pool has no place for a scope");
        return NULL;
    }
    cap_state *st = self->loop->reactor.st;
    PyObject *stack[2] = {NULL, (PyObject *)self->loop};
    PyObject *future = PyObject_Vectorcall(st->imp.asyncio_Future, stack + 1,
                                           PY_VECTORCALL_ARGUMENTS_OFFSET,
                                           cap_loop_state_of(st)->future_kwnames);
    if (future == NULL)
        return NULL;
    call *c = call_new(args[0], args[1], context, scope);
    if (c == NULL) {
        Py_DECREF(future);
        return NULL;
    }
    c->future = Py_NewRef(future);
    if (queue_call(self, c, false) < 0)
        Py_CLEAR(future);
    return future;
}

PyDoc_STRVAR(run_doc, "run($self, func, args, /)\n--\n\n"
                      "Run func(*args) in a thread; nobody learns of its result. From any thread.");

static PyObject *
pool_run(cap_thread_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (check_args(args, nargs, 2) < 0)
        return NULL;
    call *c = call_new(args[0], args[1], Py_None, Py_None);
    /* Now: the loop's thread may be going to wait for it, and then there is no turn's end. */
    if (c == NULL || queue_call(self, c, true) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* The callback of `deliver`. */
static PyObject *
pool_deliver(cap_thread_pool *self, PyObject *Py_UNUSED(ignored))
{
    queue done = self->done;
    self->done = (queue){0};
    self->delivering = false;
    call *c;
    while ((c = take(&done)) != NULL)
        call_report(self, c);
    if (self->waiting.first != NULL && self->searching == 0 && !self->loop->closed)
        at_turn_end(self);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(lost_doc, "lost()\n--\n\nA thread that `start` made will not come to work().");

static PyObject *
pool_lost(cap_thread_pool *self, PyObject *Py_UNUSED(ignored))
{
    expect_less(self);
    if (see_to_it(self, false) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(close_doc, "close()\n--\n\n"
                        "Take no more calls. The threads end when those that wait are done.");

static PyObject *
pool_close(cap_thread_pool *self, PyObject *Py_UNUSED(ignored))
{
    self->closed = true;
    while (self->idle != NULL && !is_forked(self))
        wake(self, self->idle, false);
    if (self->deferred.queued) {
        cap_reactor_undefer(&self->loop->reactor, &self->deferred);
        Py_DECREF((PyObject *)self); /* the caller has one */
    }
    ended(self);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(forget_doc, "forget()\n--\n\nDrop the calls that wait; their futures, in order.");

static PyObject *
pool_forget(cap_thread_pool *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *out = PyList_New(0);
    queue waiting = self->waiting;
    self->waiting = (queue){0};
    call *c;
    while ((c = take(&waiting)) != NULL) {
        PyObject *what = c->future != NULL ? c->future : c->args;
        if (out != NULL && PyList_Append(out, what) < 0)
            Py_CLEAR(out);
        call_free(c);
    }
    return out;
}

/* ---- the type ---- */

static PyObject *
pool_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"loop", "start", "size", "idle", "local", "scope_name", NULL};
    PyObject *loop, *start, *local = Py_None, *scope_name = Py_None;
    Py_ssize_t size = 0;
    double idle = 10;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$ndOO:ThreadPool", names, &loop, &start,
                                     &size, &idle, &local, &scope_name))
        return NULL;
    cap_state *st = PyType_GetModuleState(type);
    if (!cap_loop_check(st, loop)) {
        PyErr_SetString(PyExc_TypeError, "the loop must be a capicorn.Loop");
        return NULL;
    }
    if (size < 0 || !(idle > 0 && idle < 1e6) ||
        (local != Py_None) != (PyUnicode_CheckExact(scope_name))) {
        PyErr_SetString(PyExc_ValueError, "not a size, a time and a local of threads");
        return NULL;
    }
    cap_thread_pool *self = (cap_thread_pool *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->loop = (cap_loop *)Py_NewRef(loop);
    self->start = Py_NewRef(start);
    if (local != Py_None) {
        self->local = Py_NewRef(local);
        self->scope_name = Py_NewRef(scope_name);
    }
    self->size = (size_t)size;
    self->idle_us = (PY_TIMEOUT_T)(idle * 1e6);
    self->deferred.run = on_turn_end;
    self->next = self->loop->pools;
    self->loop->pools = self;
    if ((self->came = PyThread_allocate_lock()) == NULL) {
        Py_DECREF((PyObject *)self);
        return PyErr_NoMemory();
    }
    PyThread_acquire_lock(self->came, WAIT_LOCK);
    PyObject *deliver = PyObject_GetAttrString((PyObject *)self, "_deliver");
    if (deliver != NULL)
        self->deliver = cap_handle_new(self->loop, deliver, NULL, 0, NULL);
    Py_XDECREF(deliver);
    if (self->deliver == NULL)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int
visit_queue(const queue *q, visitproc visit, void *arg)
{
    for (const call *c = q->first; c != NULL; c = c->next) {
        Py_VISIT(c->func);
        Py_VISIT(c->args);
        Py_VISIT(c->context);
        Py_VISIT(c->scope);
        Py_VISIT(c->future);
        Py_VISIT(c->result);
        Py_VISIT(c->error);
    }
    return 0;
}

static int
pool_traverse(cap_thread_pool *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)self->loop);
    Py_VISIT(self->start);
    Py_VISIT(self->local);
    Py_VISIT((PyObject *)self->deliver);
    int rc = visit_queue(&self->waiting, visit, arg);
    return rc != 0 ? rc : visit_queue(&self->done, visit, arg);
}

/* Each thread has a reference, and so has what is deferred: neither is there now. The
   loop stays to the end, as what is called meanwhile may still ask for it. */
static int
pool_clear(cap_thread_pool *self)
{
    self->closed = true;
    drop(&self->waiting);
    drop(&self->done);
    Py_CLEAR(self->deliver);
    Py_CLEAR(self->start);
    return 0;
}

static void
pool_dealloc(cap_thread_pool *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack((PyObject *)self);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    pool_clear(self);
    Py_CLEAR(self->local);
    Py_CLEAR(self->scope_name);
    if (self->came != NULL) {
        PyThread_release_lock(self->came);
        PyThread_free_lock(self->came);
    }
    for (cap_thread_pool **at = self->loop != NULL ? &self->loop->pools : NULL; at != NULL && *at;
         at = &(*at)->next) {
        if (*at == self) {
            *at = self->next;
            break;
        }
    }
    Py_CLEAR(self->loop);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

#define COUNT(name, value)                                                     \
    static PyObject *get_##name(cap_thread_pool *self, void *Py_UNUSED(closure)) \
    {                                                                          \
        return PyLong_FromSize_t(value);                                       \
    }
COUNT(busy, self->running)
COUNT(queued, self->waiting.len)
COUNT(threads, self->nthreads)
#undef COUNT

static PyObject *
get_closed(cap_thread_pool *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->closed);
}

static PyGetSetDef pool_getset[] = {
    {"busy", (getter)get_busy, NULL, PyDoc_STR("Calls that run now."), NULL},
    {"queued", (getter)get_queued, NULL, PyDoc_STR("Calls that wait for a thread."), NULL},
    {"threads", (getter)get_threads, NULL, PyDoc_STR("Threads, busy and idle."), NULL},
    {"closed", (getter)get_closed, NULL, PyDoc_STR("Whether close() was called."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define FAST(f) (PyCFunction)(void (*)(void))f

static PyMethodDef pool_methods[] = {
    {"call", FAST(pool_call), METH_FASTCALL, call_doc},
    {"run", FAST(pool_run), METH_FASTCALL, run_doc},
    {"work", (PyCFunction)pool_work, METH_NOARGS, work_doc},
    {"lost", (PyCFunction)pool_lost, METH_NOARGS, lost_doc},
    {"close", (PyCFunction)pool_close, METH_NOARGS, close_doc},
    {"forget", (PyCFunction)pool_forget, METH_NOARGS, forget_doc},
    {"_deliver", (PyCFunction)pool_deliver, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef pool_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(cap_thread_pool, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc, PyDoc_STR("Threads that run Python functions for a capicorn.Loop.")},
    {Py_tp_new, pool_new},
    {Py_tp_dealloc, pool_dealloc},
    {Py_tp_traverse, pool_traverse},
    {Py_tp_clear, pool_clear},
    {Py_tp_methods, pool_methods},
    {Py_tp_getset, pool_getset},
    {Py_tp_members, pool_members},
    {0, NULL},
};

static PyType_Spec pool_spec = {
    .name = "capicorn._core.ThreadPool",
    .basicsize = sizeof(cap_thread_pool),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pool_slots,
};

int
cap_thread_pool_type_init(PyObject *module, cap_state *st)
{
    st->type.ThreadPool = (PyTypeObject *)PyType_FromModuleAndSpec(module, &pool_spec, NULL);
    return st->type.ThreadPool != NULL ? PyModule_AddType(module, st->type.ThreadPool) : -1;
}
