/* capicorn._core.Loop: the turn, when to sleep, and libuv's side. */
#include "loop/loop.h"
#include "loop/resolver.h"
#include "loop/thread_pool.h"
#include "loop/transport.h"

#include "base/mem.h"

#include <math.h>
#include <sched.h>
#include <time.h>

#define MAX_SLEEP_MS (24 * 3600 * 1000.0) /* asyncio's MAXIMUM_SELECT_TIMEOUT */
#define CLOCK_RESOLUTION 1e-9
/* For how long what is ready runs again before the next poll. */
#define ROUNDS_S 50e-6

double
cap_loop_now(void)
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
    cap_loop *self = loop_of((uv_handle_t *)async);
    cap_reactor_enter(&self->reactor);
    cap_resolver_deliver(self);
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
        self->reactor.gathered || self->stopping || self->reactor.fatal != NULL) {
        uv_idle_start(&uv->idle, on_idle);
        beat(self);
        return;
    }
    cap_timer *first = cap_timer_heap_first(&self->timers);
    if (first != NULL) {
        double ms = ceil((first->when - cap_loop_now()) * 1e3);
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
    double start = cap_loop_now();
    Py_XSETREF(self->current_handle, Py_NewRef((PyObject *)h));
    int rc = cap_handle_run(h);
    PyObject *exc = rc < 0 ? cap_err_take() : NULL;
    Py_CLEAR(self->current_handle);
    double took = cap_loop_now() - start;
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
        cap_handle_end_queued(h);
    }
    self->in_ready = false;
    return rc;
}

/* Without memory for a longer queue a timer stays where it is, and is due again in the next
   turn, when what is queued now has run. */
static void
queue_due_timers(cap_loop *self, double now)
{
    double end = now + CLOCK_RESOLUTION;
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

/* A poll that finds nothing costs as much as a task's step: what became ready meanwhile
   runs first, as it would in further turns, until so much time is gone since `start` that
   descriptors have to be looked at. */
static int
further_rounds(cap_loop *self, double start)
{
    const cap_reactor *r = &self->reactor;
    while (self->ready.len != 0 && r->first == NULL && r->fatal == NULL && !self->stopping) {
        double now = cap_loop_now();
        if (now - start > ROUNDS_S)
            break;
        queue_due_timers(self, now);
        if (run_queue(self, &self->ready) < 0)
            return -1;
    }
    return 0;
}

/* `rounds`: more than one of what is ready, if they are short. */
static int
turn(cap_loop *self, bool rounds)
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
    cap_reactor_flush(r);
    self->polling = false;
    self->may_sleep = false;
    self->asleep = false;
    if (uv_is_active((uv_handle_t *)&self->uv->idle))
        uv_idle_stop(&self->uv->idle);
    /* The wake-up descriptor ended the sleep: now the handlers of signal.signal(). */
    if (check_fatal(self) == 0 && PyErr_CheckSignals() == 0 && run_queue(self, &self->io) == 0) {
        double now = self->ready.len != 0 || self->timers.len != 0 ? cap_loop_now() : 0;
        queue_due_timers(self, now);
        if (run_queue(self, &self->ready) == 0 && (!rounds || further_rounds(self, now) == 0)) {
            cap_reactor_run_deferred(r);
            rc = check_fatal(self);
        }
    }
    cap_reactor_flush(r);
    r->running = was_running;
    return rc;
}

int
cap_loop_check_closed(cap_loop *self)
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
    if (cap_loop_check_closed(self) < 0)
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

PyObject *
cap_loop_run(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    if (check_turn(self) < 0)
        return NULL;
    int rc;
    do
        rc = turn(self, true);
    while (rc == 0 && !self->stopping);
    cap_thread_pool_wake_now(self);
    if (self->reactor.beat != NULL)
        cap_beat_asleep(self->reactor.beat); /* who does not run is not late */
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *
cap_loop_run_once(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    if (check_turn(self) < 0)
        return NULL;
    int rc = turn(self, false);
    cap_thread_pool_wake_now(self);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- libuv's side ---- */

int
cap_loop_open_uv(cap_loop *self)
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

int
cap_loop_close_uv(cap_loop *self)
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
