/* capicorn._core.Loop: scheduling, the turn, and when to sleep. */
#include "loop/loop.h"
#include "loop/thread_pool.h"
#include "loop/transport.h"

#include "base/mem.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

unsigned cap_forks;

#define MAX_SLEEP_MS (24 * 3600 * 1000.0) /* asyncio's MAXIMUM_SELECT_TIMEOUT */
#define CLOCK_RESOLUTION 1e-9

static double
now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts); /* time.monotonic()'s clock */
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

int
cap_ready_grow(cap_ready *q)
{
    size_t size = q->slot != NULL ? (q->mask + 1) * 2 : 256;
    cap_handle **slot = cap_malloc(size * sizeof *slot);
    if (slot == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < q->len; i++)
        slot[i] = q->slot[(q->head + i) & q->mask];
    cap_free(q->slot);
    q->slot = slot;
    q->mask = size - 1;
    q->head = 0;
    return 0;
}

/* ---- libuv's callbacks ---- */

static cap_loop *
loop_of(const uv_handle_t *handle)
{
    return handle->data;
}

static void
on_idle(uv_idle_t *Py_UNUSED(idle))
{
}

static void
on_timer(uv_timer_t *timer)
{
    cap_reactor_enter(&loop_of((uv_handle_t *)timer)->reactor);
}

static void
on_async(uv_async_t *async)
{
    cap_reactor_enter(&loop_of((uv_handle_t *)async)->reactor);
}

static void
on_watcher(uv_poll_t *poll, int Py_UNUSED(status), int Py_UNUSED(events))
{
    cap_loop *self = loop_of((uv_handle_t *)poll);
    cap_reactor_enter(&self->reactor);
    if (cap_watcher_collect(self) < 0)
        cap_reactor_report(&self->reactor, "Descriptors that are ready could not be looked up");
}

/* A turn begins that does not sleep; one that does beats in cap_reactor_enter. */
static void
beat(cap_loop *self)
{
    if (self->reactor.beat == NULL)
        return;
    uv_update_time(&self->uv->loop);
    cap_beat_awake(self->reactor.beat, uv_now(&self->uv->loop));
}

/* The last prepare handle before the poll (the first that was started runs last).
   What the others did may have left work: then the poll must not sleep. Whether it
   will is decided from our own queues, as uv_backend_timeout() says 0 while a
   watcher of this turn is not yet in epoll. */
static void
on_prepare(uv_prepare_t *prepare)
{
    cap_loop *self = loop_of((uv_handle_t *)prepare);
    cap_uv *uv = self->uv;
    if (!self->may_sleep) {
        beat(self);
        return;
    }
    if (self->ready.len != 0 || self->io.len != 0 || self->reactor.first != NULL ||
        self->stopping || self->reactor.fatal != NULL) {
        uv_idle_start(&uv->idle, on_idle);
        beat(self);
        return;
    }
    cap_timer *first = cap_timer_heap_first(&self->timers);
    if (first != NULL) {
        double ms = ceil((first->when - now()) * 1e3);
        if (!(ms > 0)) {
            uv_idle_start(&uv->idle, on_idle);
            beat(self);
            return;
        }
        uv_update_time(&uv->loop);
        uv_timer_start(&uv->timer, on_timer, (uint64_t)(ms < MAX_SLEEP_MS ? ms : MAX_SLEEP_MS), 0);
    }
    else if (uv_is_active((uv_handle_t *)&uv->timer))
        uv_timer_stop(&uv->timer);
    self->asleep = true;
    self->woken = false;
    if (self->reactor.beat != NULL)
        cap_beat_asleep(self->reactor.beat);
    self->reactor.parked = PyEval_SaveThread();
    cap_thread_pool_wake_now(self);
}

void
cap_loop_wake(cap_loop *self)
{
    if (self->asleep && !self->woken && self->uv != NULL) {
        self->woken = true;
        uv_async_send(&self->uv->async);
    }
}

/* ---- the turn ---- */

static int
run_in_debug(cap_loop *self, cap_handle *h)
{
    double start = now();
    Py_XSETREF(self->current_handle, Py_NewRef((PyObject *)h));
    int rc = cap_handle_run(h);
    PyObject *exc = rc < 0 ? cap_err_take() : NULL;
    Py_CLEAR(self->current_handle);
    double took = now() - start;
    if (rc == 0) {
        PyObject *done =
            PyObject_CallMethod((PyObject *)self, "_callback_took", "Od", (PyObject *)h, took);
        Py_XDECREF(done);
        return done != NULL ? 0 : -1;
    }
    cap_err_restore(exc);
    return -1;
}

int
cap_loop_run_handle(cap_loop *self, cap_handle *h)
{
    return self->debug ? run_in_debug(self, h) : cap_handle_run(h);
}

/* What is in `q` now, and not what comes meanwhile. */
static int
run_queue(cap_loop *self, cap_ready *q)
{
    int rc = 0;
    self->in_ready = true;
    for (size_t n = q->len; n != 0 && q->len != 0 && rc == 0; n--) {
        cap_handle *h = cap_ready_pop(q);
        if (!(h->flags & CAP_HANDLE_CANCELLED))
            rc = cap_loop_run_handle(self, h);
        Py_DECREF((PyObject *)h);
    }
    self->in_ready = false;
    return rc;
}

/* Without memory for a longer queue a timer stays where it is, and is due again in the next
   turn, when what is queued now has run. */
static void
queue_due_timers(cap_loop *self)
{
    if (self->timers.len == 0)
        return;
    double end = now() + CLOCK_RESOLUTION;
    cap_timer *timer;
    while ((timer = cap_timer_heap_first(&self->timers)) != NULL && timer->when < end) {
        if (cap_ready_push(&self->ready, &timer->base) < 0) {
            PyErr_Clear();
            return;
        }
        cap_timer_heap_remove(&self->timers, timer);
        Py_DECREF((PyObject *)timer);
    }
}

/* An error that came up where it could not be raised. */
static int
check_fatal(cap_loop *self)
{
    PyObject *fatal = self->reactor.fatal;
    if (fatal == NULL)
        return 0;
    self->reactor.fatal = NULL;
    cap_err_restore(fatal);
    return -1;
}

static int
turn(cap_loop *self)
{
    cap_reactor *r = &self->reactor;
    uv_loop_t *uv = r->uv;
    if (self->pools != NULL)
        cap_thread_pools_let_in(self);
    bool busy = self->ready.len != 0 || self->io.len != 0 || r->first != NULL || self->stopping;
    bool was_running = r->running;
    int rc = -1;
    r->running = true;
    self->may_sleep = !busy;
    self->polling = true;
    uv_run(uv, busy ? UV_RUN_NOWAIT : UV_RUN_ONCE);
    cap_reactor_enter(r);
    cap_thread_pool_wake_now(self);
    self->polling = false;
    self->may_sleep = false;
    self->asleep = false;
    if (uv_is_active((uv_handle_t *)&self->uv->idle))
        uv_idle_stop(&self->uv->idle);
    /* The wake-up descriptor ended the sleep: now the handlers of signal.signal(). */
    if (check_fatal(self) == 0 && PyErr_CheckSignals() == 0 && run_queue(self, &self->io) == 0) {
        queue_due_timers(self);
        if (run_queue(self, &self->ready) == 0) {
            cap_reactor_run_deferred(r);
            rc = check_fatal(self);
        }
    }
    r->running = was_running;
    return rc;
}

static int
check_closed(cap_loop *self)
{
    if (!self->closed)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
    return -1;
}

/* Whether a turn may begin. */
static int
check_turn(cap_loop *self)
{
    if (check_closed(self) < 0)
        return -1;
    if (self->forks != cap_forks)
        PyErr_SetString(PyExc_RuntimeError, "This event loop belongs to the parent process: "
                                            "make a new one after a fork");
    else if (self->polling)
        PyErr_SetString(PyExc_RuntimeError, "This event loop is already running");
    else
        return 0;
    return -1;
}

PyDoc_STRVAR(run_doc, "_run()\n--\n\nTurn after turn until stop(); at least one.");

static PyObject *
loop_run(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    if (check_turn(self) < 0)
        return NULL;
    int rc;
    do
        rc = turn(self);
    while (rc == 0 && !self->stopping);
    cap_thread_pool_wake_now(self);
    if (self->reactor.beat != NULL)
        cap_beat_asleep(self->reactor.beat); /* who does not run is not late */
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
loop_run_once(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    if (check_turn(self) < 0)
        return NULL;
    int rc = turn(self);
    cap_thread_pool_wake_now(self);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- scheduling ---- */

/* The arguments of f(NAME..., *args, context=None): the named ones, of which
   there are `nnames`, go to `named`; what follows them stays where it is. */
static int
split_args(cap_loop *self, const char *function, const char *const *names, int nnames,
           PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **named,
           PyObject **context)
{
    *context = NULL;
    for (int i = 0; i < nnames; i++)
        named[i] = i < nargs ? args[i] : NULL;
    Py_ssize_t nkw = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    for (Py_ssize_t k = 0; k < nkw; k++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, k), *value = args[nargs + k];
        if (key == self->reactor.st->str.context ||
            PyUnicode_CompareWithASCIIString(key, "context") == 0) {
            *context = value;
            continue;
        }
        int i = 0;
        while (i < nnames && PyUnicode_CompareWithASCIIString(key, names[i]) != 0)
            i++;
        if (i == nnames || named[i] != NULL) {
            PyErr_Format(PyExc_TypeError,
                         i == nnames ? "%s() got an unexpected keyword argument '%U'"
                                     : "%s() got multiple values for argument '%U'",
                         function, key);
            return -1;
        }
        named[i] = value;
    }
    for (int i = 0; i < nnames; i++) {
        if (named[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument: '%s'", function,
                         names[i]);
            return -1;
        }
    }
    return 0;
}

static int
check_thread(cap_loop *self)
{
    if (self->has_thread && self->thread_id != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError, "Non-thread-safe operation invoked on an event loop "
                                            "other than the current one");
        return -1;
    }
    return 0;
}

static int
check_callback(cap_loop *self, PyObject *callback, const char *function)
{
    PyObject *done =
        PyObject_CallMethod((PyObject *)self, "_check_callback", "Os", callback, function);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

static const char *const soon_names[] = {"callback"};
static const char *const later_names[] = {"delay", "callback"};
static const char *const at_names[] = {"when", "callback"};
static const char *const watch_names[] = {"fd", "callback"};

PyDoc_STRVAR(call_soon_doc,
             "call_soon($self, callback, *args, context=None)\n--\n\n"
             "Call callback(*args) at the next turn, in the order of the calls of this.\n"
             "Returns a Handle.");

static PyObject *
loop_call_soon(cap_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *callback, *context;
    if (split_args(self, "call_soon", soon_names, 1, args, nargs, kwnames, &callback, &context) <
            0 ||
        check_closed(self) < 0)
        return NULL;
    if (self->debug &&
        (check_thread(self) < 0 || check_callback(self, callback, "call_soon") < 0))
        return NULL;
    cap_handle *h =
        cap_handle_new(self, callback, args + 1, nargs > 1 ? nargs - 1 : 0, context);
    if (h == NULL)
        return NULL;
    if (self->capture) {
        self->capture = false;
        self->captured = (cap_handle *)Py_NewRef((PyObject *)h);
    }
    else if (cap_ready_push(&self->ready, h) < 0)
        Py_CLEAR(h);
    return (PyObject *)h;
}

PyDoc_STRVAR(call_soon_threadsafe_doc,
             "call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"
             "As call_soon(), from any thread, or a signal handler.");

static PyObject *
loop_call_soon_threadsafe(cap_loop *self, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    PyObject *callback, *context;
    if (split_args(self, "call_soon_threadsafe", soon_names, 1, args, nargs, kwnames, &callback,
                   &context) < 0 ||
        check_closed(self) < 0)
        return NULL;
    if (self->debug && check_callback(self, callback, "call_soon_threadsafe") < 0)
        return NULL;
    cap_handle *h =
        cap_handle_new(self, callback, args + 1, nargs > 1 ? nargs - 1 : 0, context);
    if (h == NULL)
        return NULL;
    h->flags |= CAP_HANDLE_THREADSAFE;
    /* Making it ran Python, so the loop's thread may have closed it. */
    if (check_closed(self) < 0 || cap_ready_push(&self->ready, h) < 0)
        Py_CLEAR(h);
    else
        cap_loop_wake(self);
    return (PyObject *)h;
}

static PyObject *
schedule(cap_loop *self, const char *function, double when, PyObject *callback,
         PyObject *const *args, Py_ssize_t nargs, PyObject *context)
{
    if (check_closed(self) < 0)
        return NULL;
    if (when != when) {
        PyErr_SetString(PyExc_ValueError, "Invalid delay: NaN (not a number)");
        return NULL;
    }
    if (self->debug && (check_thread(self) < 0 || check_callback(self, callback, function) < 0))
        return NULL;
    cap_timer *timer =
        cap_timer_new(self, when, callback, args + 2, nargs > 2 ? nargs - 2 : 0, context);
    if (timer != NULL && cap_timer_heap_push(&self->timers, timer) < 0)
        Py_CLEAR(timer);
    return (PyObject *)timer;
}

PyDoc_STRVAR(call_later_doc,
             "call_later($self, delay, callback, *args, context=None)\n--\n\n"
             "Call callback(*args) in `delay` seconds. Returns a TimerHandle.");

static PyObject *
loop_call_later(cap_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *named[2], *context;
    if (split_args(self, "call_later", later_names, 2, args, nargs, kwnames, named, &context) < 0)
        return NULL;
    if (named[0] == Py_None) {
        PyErr_SetString(PyExc_TypeError, "delay must not be None");
        return NULL;
    }
    double delay = PyFloat_AsDouble(named[0]);
    if (delay == -1.0 && PyErr_Occurred())
        return NULL;
    return schedule(self, "call_at", now() + delay, named[1], args, nargs, context);
}

PyDoc_STRVAR(call_at_doc,
             "call_at($self, when, callback, *args, context=None)\n--\n\n"
             "Call callback(*args) when time() is `when`. Returns a TimerHandle.");

static PyObject *
loop_call_at(cap_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *named[2], *context;
    if (split_args(self, "call_at", at_names, 2, args, nargs, kwnames, named, &context) < 0)
        return NULL;
    if (named[0] == Py_None) {
        PyErr_SetString(PyExc_TypeError, "when cannot be None");
        return NULL;
    }
    double when = PyFloat_AsDouble(named[0]);
    if (when == -1.0 && PyErr_Occurred())
        return NULL;
    return schedule(self, "call_at", when, named[1], args, nargs, context);
}

static PyObject *
loop_time(cap_loop *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    return PyFloat_FromDouble(now());
}

static PyObject *
loop_stop(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    self->stopping = true;
    Py_RETURN_NONE;
}

static PyObject *
loop_is_running(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->has_thread);
}

static PyObject *
loop_is_closed(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->closed);
}

static PyObject *
loop_get_debug(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->debug);
}

static PyObject *
loop_create_future(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    cap_state *st = self->reactor.st;
    PyObject *stack[2] = {NULL, (PyObject *)self};
    return PyObject_Vectorcall(st->imp.asyncio_Future, stack + 1,
                               PY_VECTORCALL_ARGUMENTS_OFFSET,
                               cap_loop_state_of(st)->future_kwnames);
}

static PyObject *
loop_write_to_self(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    cap_loop_wake(self);
    Py_RETURN_NONE;
}

static PyObject *
loop_timer_handle_cancelled(cap_loop *Py_UNUSED(self), PyObject *Py_UNUSED(handle))
{
    Py_RETURN_NONE; /* a cancelled timer has left the heap already */
}

/* (fd, callback, *args, context=None) */
static PyObject *
add_watch(cap_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, bool writer)
{
    PyObject *named[2], *context;
    if (split_args(self, writer ? "_add_writer" : "_add_reader", watch_names, 2, args, nargs,
                   kwnames, named, &context) < 0 ||
        check_closed(self) < 0)
        return NULL;
    if (nargs < 2)
        return cap_watcher_add(self, named, 2, writer, context);
    return cap_watcher_add(self, args, nargs, writer, context);
}

static PyObject *
loop_add_reader(cap_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return add_watch(self, args, nargs, kwnames, false);
}

static PyObject *
loop_add_writer(cap_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return add_watch(self, args, nargs, kwnames, true);
}

static PyObject *
loop_remove_reader(cap_loop *self, PyObject *fd)
{
    if (self->closed)
        Py_RETURN_FALSE;
    return cap_watcher_remove(self, fd, false);
}

static PyObject *
loop_remove_writer(cap_loop *self, PyObject *fd)
{
    if (self->closed)
        Py_RETURN_FALSE;
    return cap_watcher_remove(self, fd, true);
}

static PyObject *
loop_watch_of(cap_loop *self, PyObject *fd)
{
    return cap_watcher_lookup(self, fd);
}

static PyObject *
loop_watched_fds(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    return cap_watcher_fds(self);
}

/* ---- life ---- */

static int
open_uv(cap_loop *self)
{
    cap_uv *uv = cap_calloc(1, sizeof *uv);
    if (uv == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int rc = uv_loop_init(&uv->loop);
    if (rc < 0) {
        cap_free(uv);
        errno = -rc;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    self->uv = uv;
    self->reactor.uv = &uv->loop;
    uv->loop.data = self;
    uv_prepare_init(&uv->loop, &uv->prepare);
    uv_timer_init(&uv->loop, &uv->timer);
    uv_idle_init(&uv->loop, &uv->idle);
    uv->prepare.data = uv->timer.data = uv->idle.data = self;
    cap_count.uv_handles += 3;
    uv_prepare_start(&uv->prepare, on_prepare);
    if ((rc = uv_async_init(&uv->loop, &uv->async, on_async)) < 0)
        goto fail;
    uv->async.data = self;
    cap_count.uv_handles++;
    if (cap_watcher_open(self) < 0)
        return -1;
    if ((rc = uv_poll_init(&uv->loop, &uv->poll, self->watcher.fd)) < 0)
        goto fail;
    uv->poll.data = self;
    cap_count.uv_handles++;
    uv_poll_start(&uv->poll, UV_READABLE, on_watcher);
    return 0;
fail:
    errno = -rc;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static void
on_closed(uv_handle_t *Py_UNUSED(handle))
{
    cap_count.uv_handles--;
}

static void
close_one(cap_uv *uv, uv_handle_t *handle)
{
    if (handle->loop == &uv->loop && !uv_is_closing(handle)) /* loop: it was initialised */
        uv_close(handle, on_closed);
}

/* Close libuv's side. 0; 1 when handles that are not the loop's are still open:
   then the memory stays, since libuv and their owners hold addresses in it. */
static int
close_uv(cap_loop *self)
{
    cap_uv *uv = self->uv;
    if (uv == NULL)
        return 0;
    self->uv = NULL;
    self->reactor.uv = NULL;
    if (self->forks != cap_forks)
        return 0; /* libuv would take descriptors out of the parent's epoll set */
    while (atomic_load(&self->sending) != 0) { /* for the moment that uv_async_send() takes */
        Py_BEGIN_ALLOW_THREADS
        sched_yield();
        Py_END_ALLOW_THREADS
    }
    close_one(uv, (uv_handle_t *)&uv->prepare);
    close_one(uv, (uv_handle_t *)&uv->async);
    close_one(uv, (uv_handle_t *)&uv->timer);
    close_one(uv, (uv_handle_t *)&uv->idle);
    close_one(uv, (uv_handle_t *)&uv->poll);
    /* Close callbacks of others run here too. */
    for (int i = 0; i < 8 && uv_loop_alive(&uv->loop); i++)
        uv_run(&uv->loop, UV_RUN_NOWAIT);
    if (uv_loop_close(&uv->loop) != 0)
        return 1;
    cap_free(uv);
    return 0;
}

/* Everything that is queued, given back. Runs Python. */
static void
drop_queues(cap_loop *self)
{
    while (self->ready.len != 0)
        Py_DECREF((PyObject *)cap_ready_pop(&self->ready));
    while (self->io.len != 0)
        Py_DECREF((PyObject *)cap_ready_pop(&self->io));
    cap_timer *timer;
    while ((timer = cap_timer_heap_first(&self->timers)) != NULL) {
        cap_timer_heap_remove(&self->timers, timer);
        Py_DECREF((PyObject *)timer);
    }
}

PyDoc_STRVAR(dispose_doc, "_dispose()\n--\n\nThe native part of close(). Idempotent.");

static PyObject *
loop_dispose(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    if (self->has_thread) {
        PyErr_SetString(PyExc_RuntimeError, "Cannot close a running event loop");
        return NULL;
    }
    self->closed = true;
    drop_queues(self);
    cap_transports_drop(self);
    int left = close_uv(self);
    cap_watcher_close(self);
    cap_handle_drop_spares(self);
    if (left && PyErr_ResourceWarning((PyObject *)self, 1,
                                      "event loop %R was closed while something in C still used it",
                                      self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static cap_state *
state_for(PyTypeObject *type)
{
    /* The type is a Python subclass; the module is that of the base made here. */
    for (; type != NULL; type = type->tp_base) {
        if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE))
            continue;
        void *state = PyType_GetModuleState(type);
        if (state != NULL)
            return state;
        PyErr_Clear();
    }
    PyErr_SetString(PyExc_TypeError, "capicorn._core.Loop is not among the bases");
    return NULL;
}

static PyObject *
loop_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    cap_state *st = state_for(type);
    cap_loop *self = st != NULL ? (cap_loop *)type->tp_alloc(type, 0) : NULL;
    if (self == NULL)
        return NULL;
    self->reactor.st = st;
    self->reactor.loop = (PyObject *)self;
    self->watcher.fd = -1;
    self->forks = cap_forks;
    if (open_uv(self) < 0) {
        self->closed = true;
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
loop_traverse(cap_loop *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    for (size_t i = 0; i < self->ready.len; i++)
        Py_VISIT((PyObject *)self->ready.slot[(self->ready.head + i) & self->ready.mask]);
    for (size_t i = 0; i < self->io.len; i++)
        Py_VISIT((PyObject *)self->io.slot[(self->io.head + i) & self->io.mask]);
    for (size_t i = 0; i < self->timers.len; i++)
        Py_VISIT((PyObject *)self->timers.item[i]);
    Py_VISIT((PyObject *)self->captured);
    Py_VISIT(self->current_handle);
    Py_VISIT(self->task_factory);
    Py_VISIT(self->reactor.fatal);
    int rc = cap_transports_traverse(self, visit, arg);
    return rc != 0 ? rc : cap_watcher_traverse(self, visit, arg);
}

static int
loop_clear(cap_loop *self)
{
    drop_queues(self);
    cap_transports_drop(self);
    for (size_t i = 0; i < self->watcher.len; i++) {
        Py_CLEAR(self->watcher.item[i].reader);
        Py_CLEAR(self->watcher.item[i].writer);
    }
    Py_CLEAR(self->captured);
    Py_CLEAR(self->current_handle);
    Py_CLEAR(self->task_factory);
    Py_CLEAR(self->reactor.fatal);
    return 0;
}

static void
loop_dealloc(cap_loop *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack((PyObject *)self);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    self->closed = true; /* handles that die now are freed, not kept */
    loop_clear(self);
    (void)close_uv(self);
    cap_watcher_close(self);
    cap_handle_drop_spares(self);
    cap_free(self->ready.slot);
    cap_free(self->io.slot);
    cap_free(self->timers.item);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* ---- attributes that BaseEventLoop keeps in Python ---- */

#define FLAG(name)                                                             \
    static PyObject *get_##name(cap_loop *self, void *Py_UNUSED(closure))      \
    {                                                                          \
        return PyBool_FromLong(self->name);                                    \
    }                                                                          \
    static int set_##name(cap_loop *self, PyObject *value, void *Py_UNUSED(closure)) \
    {                                                                          \
        int on = value != NULL ? PyObject_IsTrue(value) : 0;                   \
        if (on < 0)                                                            \
            return -1;                                                         \
        self->name = on;                                                       \
        return 0;                                                              \
    }
FLAG(stopping)
FLAG(debug)
FLAG(closed)
#undef FLAG

static PyObject *
get_thread_id(cap_loop *self, void *Py_UNUSED(closure))
{
    if (!self->has_thread)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLong(self->thread_id);
}

static int
set_thread_id(cap_loop *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL || value == Py_None) {
        self->has_thread = false;
        return 0;
    }
    unsigned long id = PyLong_AsUnsignedLong(value);
    if (id == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    self->thread_id = id;
    self->has_thread = true;
    return 0;
}

static PyObject *
get_ready(cap_loop *self, void *Py_UNUSED(closure))
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < self->ready.len; i++) {
        if (PyList_Append(list, (PyObject *)self->ready.slot[(self->ready.head + i) &
                                                             self->ready.mask]) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *
get_scheduled(cap_loop *self, void *Py_UNUSED(closure))
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < self->timers.len; i++) {
        if (PyList_Append(list, (PyObject *)self->timers.item[i]) < 0)
            Py_CLEAR(list);
    }
    if (list != NULL && PyList_Sort(list) < 0)
        Py_CLEAR(list);
    return list;
}

/* BaseEventLoop.__init__ gives them empty containers: nothing to do. */
static int
set_snapshot(cap_loop *Py_UNUSED(self), PyObject *Py_UNUSED(value), void *Py_UNUSED(closure))
{
    return 0;
}

#define OBJECT(name)                                                           \
    static PyObject *get_##name(cap_loop *self, void *Py_UNUSED(closure))      \
    {                                                                          \
        return Py_NewRef(self->name != NULL ? self->name : Py_None);           \
    }                                                                          \
    static int set_##name(cap_loop *self, PyObject *value, void *Py_UNUSED(closure)) \
    {                                                                          \
        Py_XSETREF(self->name, value != Py_None ? Py_XNewRef(value) : NULL);   \
        return 0;                                                              \
    }
OBJECT(current_handle)
OBJECT(task_factory)
#undef OBJECT

static PyGetSetDef loop_getset[] = {
    {"_stopping", (getter)get_stopping, (setter)set_stopping, NULL, NULL},
    {"_debug", (getter)get_debug, (setter)set_debug, NULL, NULL},
    {"_closed", (getter)get_closed, (setter)set_closed, NULL, NULL},
    {"_thread_id", (getter)get_thread_id, (setter)set_thread_id, NULL, NULL},
    {"_ready", (getter)get_ready, (setter)set_snapshot,
     PyDoc_STR("What is ready to run, in order: a list, new each time."), NULL},
    {"_scheduled", (getter)get_scheduled, (setter)set_snapshot,
     PyDoc_STR("The timers, in order: a list, new each time."), NULL},
    {"_current_handle", (getter)get_current_handle, (setter)set_current_handle, NULL, NULL},
    {"_task_factory", (getter)get_task_factory, (setter)set_task_factory, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define FAST(f) (PyCFunction)(void (*)(void))f

static PyMethodDef loop_methods[] = {
    {"call_soon", FAST(loop_call_soon), METH_FASTCALL | METH_KEYWORDS, call_soon_doc},
    {"call_soon_threadsafe", FAST(loop_call_soon_threadsafe), METH_FASTCALL | METH_KEYWORDS,
     call_soon_threadsafe_doc},
    {"call_later", FAST(loop_call_later), METH_FASTCALL | METH_KEYWORDS, call_later_doc},
    {"call_at", FAST(loop_call_at), METH_FASTCALL | METH_KEYWORDS, call_at_doc},
    {"time", (PyCFunction)loop_time, METH_NOARGS,
     PyDoc_STR("time($self)\n--\n\nThe loop's clock, time.monotonic(), in seconds.")},
    {"stop", (PyCFunction)loop_stop, METH_NOARGS,
     PyDoc_STR("stop($self)\n--\n\nrun_forever() returns at the end of this turn.")},
    {"is_running", (PyCFunction)loop_is_running, METH_NOARGS,
     PyDoc_STR("is_running($self)\n--\n\nWhether run_forever() is being executed.")},
    {"is_closed", (PyCFunction)loop_is_closed, METH_NOARGS,
     PyDoc_STR("is_closed($self)\n--\n\nWhether close() was called.")},
    {"get_debug", (PyCFunction)loop_get_debug, METH_NOARGS,
     PyDoc_STR("get_debug($self)\n--\n\nWhether debug mode is on.")},
    {"create_future", (PyCFunction)loop_create_future, METH_NOARGS,
     PyDoc_STR("create_future($self)\n--\n\nA new asyncio.Future of this loop.")},
    {"_add_reader", FAST(loop_add_reader), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_add_writer", FAST(loop_add_writer), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_remove_reader", (PyCFunction)loop_remove_reader, METH_O, NULL},
    {"_remove_writer", (PyCFunction)loop_remove_writer, METH_O, NULL},
    {"_accept", FAST(cap_loop_accept), METH_FASTCALL, NULL},
    {"_watch_of", (PyCFunction)loop_watch_of, METH_O, NULL},
    {"_watched_fds", (PyCFunction)loop_watched_fds, METH_NOARGS, NULL},
    {"_write_to_self", (PyCFunction)loop_write_to_self, METH_NOARGS, NULL},
    {"_timer_handle_cancelled", (PyCFunction)loop_timer_handle_cancelled, METH_O, NULL},
    {"_run", (PyCFunction)loop_run, METH_NOARGS, run_doc},
    {"_run_once", (PyCFunction)loop_run_once, METH_NOARGS, NULL},
    {"_dispose", (PyCFunction)loop_dispose, METH_NOARGS, dispose_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef loop_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(cap_loop, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, PyDoc_STR("The native part of capicorn.Loop; of no use alone.")},
    {Py_tp_new, loop_new},
    {Py_tp_dealloc, loop_dealloc},
    {Py_tp_traverse, loop_traverse},
    {Py_tp_clear, loop_clear},
    {Py_tp_methods, loop_methods},
    {Py_tp_getset, loop_getset},
    {Py_tp_members, loop_members},
    {0, NULL},
};

static PyType_Spec loop_spec = {
    .name = "capicorn._core.Loop",
    .basicsize = sizeof(cap_loop),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = loop_slots,
};

static void
count_fork(void)
{
    cap_forks++;
}

bool
cap_loop_check(cap_state *st, PyObject *obj)
{
    return PyObject_TypeCheck(obj, st->type.Loop);
}

int
cap_loop_type_init(PyObject *module, cap_state *st)
{
    static bool counting; /* once for the process: it cannot be taken back */
    if (!counting && pthread_atfork(NULL, NULL, count_fork) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    counting = true;
    st->type.Loop = (PyTypeObject *)PyType_FromModuleAndSpec(module, &loop_spec, NULL);
    return st->type.Loop != NULL ? PyModule_AddType(module, st->type.Loop) : -1;
}
