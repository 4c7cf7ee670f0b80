#include "asgi/server_rescue.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "asgi/conn.h"
#include "base/mem.h"

/* Connections taken in one turn: others' loops are awake, too. */
#define BATCH 8
/* ms: so often, and so many times, what waits is left to siblings that have less to do. */
#define HOLD_MS 1
#define HOLDS 8

struct cap_server_rescue {
    uv_async_t async;    /* the guard's thread did something for us */
    uv_poll_t poll;      /* of the channel */
    uv_timer_t pause;    /* of that poll */
    int channel;         /* -1: nothing is received, and there is neither poll nor pause */
    unsigned holds;
    int open_handles;
    cap_server *server;  /* borrowed; NULL after close */
    cap_reactor *reactor; /* counted: this outlives the server until its handles are closed */
    cap_rescue *rescue;  /* counted */
};

static void on_message(uv_poll_t *poll, int status, int events);

/* ---- sent away ---- */

/* Connections that were accepted for us. May run Python. */
static void
take_held(struct cap_server_rescue *self)
{
    int fds[CAP_RESCUE_HELD];
    size_t n = cap_rescue_take(self->rescue, fds);
    for (size_t i = 0; i < n; i++)
        if (self->server != NULL)
            cap_conn_adopt(self->server, fds[i], NULL);
        else
            close(fds[i]);
}

static void
on_async(uv_async_t *async)
{
    struct cap_server_rescue *self = async->data;
    cap_reactor_enter(self->reactor);
    cap_server *s = self->server;
    if (s == NULL || cap_server_loop_gone(s))
        return;
    Py_INCREF((PyObject *)s);
    take_held(self);
    cap_conn *c = s->first;
    while (c != NULL) { /* closing one that was moved runs no Python and takes none off the list */
        cap_conn *next = c->next;
        if (c->claim != NULL && cap_claim_moved(c->claim))
            cap_conn_close(c, false);
        c = next;
    }
    Py_DECREF((PyObject *)s);
}

static void
wake(void *async)
{
    uv_async_send(async);
}

/* ---- received ---- */

/* Is there room for the descriptor of the next one? The kernel drops it when there is none. */
static bool
has_room(struct cap_server_rescue *self)
{
    int probe = fcntl(self->channel, F_DUPFD_CLOEXEC, 0);
    if (probe < 0)
        return false;
    close(probe);
    return true;
}

/* Take one. False: there is none. May run Python. */
static bool
take_one(struct cap_server_rescue *self)
{
    cap_handover h;
    int fd;
    int rc = cap_handover_receive(self->channel, &h, &fd);
    if (rc > 0)
        cap_conn_adopt(self->server, fd, &h);
    else if (rc < 0)
        cap_server_log(self->server, CAP_LOG_ERROR, NULL,
                       "A connection from a blocked worker could not be taken.");
    return rc != 0;
}

static void
on_pause_over(uv_timer_t *timer)
{
    struct cap_server_rescue *self = timer->data;
    (void)uv_poll_start(&self->poll, UV_READABLE, on_message);
}

static void
rest(struct cap_server_rescue *self, uint64_t ms)
{
    uv_poll_stop(&self->poll);
    uv_timer_start(&self->pause, on_pause_over, ms, 0);
}

static void
on_message(uv_poll_t *poll, int status, int events)
{
    (void)events;
    struct cap_server_rescue *self = poll->data;
    cap_server *s = self->server;
    if (s == NULL || status < 0)
        return;
    if (s->board != NULL && self->holds < HOLDS &&
        !cap_board_may_accept(s->board, s->slot, cap_board_now())) {
        self->holds++;
        rest(self, HOLD_MS);
        return;
    }
    self->holds = 0;
    cap_reactor_enter(self->reactor);
    if (cap_server_loop_gone(s))
        return;
    Py_INCREF((PyObject *)s);
    for (int i = 0; i < BATCH && self->server != NULL && self->channel >= 0; i++) {
        if (!has_room(self)) {
            int err = errno;
            if (!cap_server_exhausted(s, err) && self->channel >= 0)
                rest(self, CAP_ACCEPT_PAUSE_MS); /* a sibling may take it meanwhile */
            break;
        }
        if (!take_one(self))
            break;
    }
    Py_DECREF((PyObject *)s);
}

/* ---- beginning and end ---- */

static void
on_handle_closed(uv_handle_t *handle)
{
    struct cap_server_rescue *self = handle->data;
    cap_count.uv_handles--;
    if (--self->open_handles != 0)
        return;
    cap_reactor *r = self->reactor;
    cap_reactor_enter(r);
    cap_rescue_unref(self->rescue);
    cap_free(self);
    cap_reactor_release(r);
}

static void
open_handle(struct cap_server_rescue *self, uv_handle_t *handle)
{
    handle->data = self;
    uv_unref(handle);
    self->open_handles++;
    cap_count.uv_handles++;
}

int
cap_server_join(cap_server *s, cap_rescue *r, int channel)
{
    if (s->rescue != NULL || s->closed) {
        PyErr_SetString(PyExc_RuntimeError, "the server is closed, or has a guard");
        return -1;
    }
    struct cap_server_rescue *self = cap_calloc(1, sizeof *self);
    if (self == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->reactor = cap_reactor_acquire(s->st, s->loop);
    if (self->reactor == NULL) {
        cap_free(self);
        return -1;
    }
    self->server = s;
    self->channel = -1;
    int rc = uv_async_init(self->reactor->uv, &self->async, on_async);
    if (rc < 0)
        goto fail;
    cap_rescue_ref(r);
    self->rescue = r;
    open_handle(self, (uv_handle_t *)&self->async);
    s->rescue_io = self;
    cap_rescue_ref(r);
    s->rescue = r;
    if (channel >= 0) {
        if ((rc = uv_poll_init(self->reactor->uv, &self->poll, channel)) < 0) {
            cap_server_rescue_close(s);
            PyErr_Format(PyExc_OSError, "cannot watch descriptor %d: %s", channel, uv_strerror(rc));
            return -1;
        }
        self->channel = channel;
        open_handle(self, (uv_handle_t *)&self->poll);
        uv_timer_init(self->reactor->uv, &self->pause);
        open_handle(self, (uv_handle_t *)&self->pause);
        (void)uv_poll_start(&self->poll, UV_READABLE, on_message);
    }
    cap_rescue_on_wake(r, wake, &self->async);
    cap_reactor_watchers_changed(self->reactor);
    return 0;
fail:
    PyErr_Format(PyExc_OSError, "cannot make a wake-up: %s", uv_strerror(rc));
    cap_reactor_release(self->reactor);
    cap_free(self);
    return -1;
}

static void
stop_receiving(struct cap_server_rescue *self)
{
    if (self->channel < 0)
        return;
    self->channel = -1;
    uv_close((uv_handle_t *)&self->poll, on_handle_closed);
    uv_close((uv_handle_t *)&self->pause, on_handle_closed);
    cap_reactor_watchers_changed(self->reactor);
}

void
cap_server_rescue_stop(cap_server *s)
{
    struct cap_server_rescue *self = s->rescue_io;
    if (self == NULL || cap_server_loop_gone(s))
        return;
    /* Nobody sends to a worker that does not serve; what was sent before would be lost. */
    Py_INCREF((PyObject *)s);
    take_held(self);
    if (s->board == NULL || !cap_board_sibling_free(s->board, s->slot, cap_board_now()))
        while (self->server != NULL && self->channel >= 0 && has_room(self) && take_one(self))
            ;
    if (s->rescue_io == self)
        stop_receiving(self);
    Py_DECREF((PyObject *)s);
}

void
cap_server_rescue_close(cap_server *s)
{
    struct cap_server_rescue *self = s->rescue_io;
    if (self == NULL)
        return;
    s->rescue_io = NULL;
    self->server = NULL;
    cap_rescue_on_wake(self->rescue, NULL, NULL);
    take_held(self);
    stop_receiving(self);
    uv_close((uv_handle_t *)&self->async, on_handle_closed);
    cap_reactor_watchers_changed(self->reactor);
}
