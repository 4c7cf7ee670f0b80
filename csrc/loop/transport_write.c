/* Streams and the writing ends of pipes: what is written. */
#include "loop/transport.h"

#include "base/mem.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define CHUNKS_AT_ONCE 64
#define GATHER_MAX (256 * 1024) /* octets; more is not kept until the turn's end */
/* Octets. When they are the first of a turn they leave at once: they are in the cache still, and
   their memory serves for the next connection's. With messages of 100 KiB that is half of all. */
#define LARGE (32 * 1024)
#define WARN_AFTER 5            /* asyncio's LOG_THRESHOLD_FOR_CONNLOST_WRITES */

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* CPython ignores SIGPIPE */
#endif

static const char *
write_failed(const cap_transport *t)
{
    return t->kind == CAP_WRITE_PIPE ? "Fatal write error on pipe transport"
                                     : "Fatal write error on socket transport";
}

/* ---- the queue ---- */

void
cap_transport_drop_queue(cap_transport *t)
{
    cap_chunk *chunk = t->chunk;
    size_t head = t->head, len = t->len;
    t->chunk = NULL;
    t->head = t->len = t->cap = 0;
    t->queued = 0;
    for (size_t i = 0; i < len; i++) {
        Py_DECREF(chunk[head + i].bytes);
        Py_XDECREF(chunk[head + i].address);
    }
    cap_free(chunk);
}

int
cap_transport_append(cap_transport *t, PyObject *bytes, Py_ssize_t sent, PyObject *address)
{
    if (t->head + t->len == t->cap) {
        if (t->head >= t->cap / 2 && t->head != 0) {
            memmove(t->chunk, t->chunk + t->head, t->len * sizeof *t->chunk);
            t->head = 0;
        }
        else {
            size_t cap = t->cap != 0 ? t->cap * 2 : 4;
            cap_chunk *chunk = cap_realloc(t->chunk, cap * sizeof *chunk);
            if (chunk == NULL) {
                Py_DECREF(bytes);
                Py_XDECREF(address);
                PyErr_NoMemory();
                return -1;
            }
            t->chunk = chunk;
            t->cap = cap;
        }
    }
    t->chunk[t->head + t->len++] = (cap_chunk){bytes, address, sent};
    t->queued += PyBytes_GET_SIZE(bytes) - sent;
    if (t->kind == CAP_DATAGRAM)
        t->queued += CAP_DATAGRAM_HEADER;
    return 0;
}

/* All that is not yet sent of `data`, whose octets are in `view`. Only bytes can be
   kept without a copy: others may change before they are sent. */
static int
append_rest(cap_transport *t, PyObject *data, const Py_buffer *view, Py_ssize_t sent)
{
    if (PyBytes_CheckExact(data))
        return cap_transport_append(t, Py_NewRef(data), sent, NULL);
    PyObject *copy = PyBytes_FromStringAndSize((const char *)view->buf + sent, view->len - sent);
    return copy != NULL ? cap_transport_append(t, copy, 0, NULL) : -1;
}

static void
consume(cap_transport *t, Py_ssize_t n)
{
    t->queued -= n;
    while (t->len != 0) {
        cap_chunk *c = &t->chunk[t->head];
        Py_ssize_t left = PyBytes_GET_SIZE(c->bytes) - c->sent;
        if (n < left) {
            c->sent += n;
            return;
        }
        n -= left;
        PyObject *bytes = c->bytes;
        t->head++;
        t->len--;
        Py_DECREF(bytes);
    }
    t->head = 0;
}

/* ---- to the kernel ---- */

/* Octets taken; 0: no room now; -1 with errno. */
static ssize_t
send_some(const cap_transport *t, struct iovec *iov, size_t n)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
    ssize_t sent = !t->is_socket ? cap_pipe_write(t->fd, iov, n)
                   : n == 1      ? send(t->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL)
                                 : sendmsg(t->fd, &msg, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return 0;
    return sent;
}

/* As much of the queue as the kernel takes. 0, or -1 with errno. */
static int
send_queue(cap_transport *t)
{
    while (t->len != 0) {
        struct iovec iov[CHUNKS_AT_ONCE];
        size_t n = t->len < CHUNKS_AT_ONCE ? t->len : CHUNKS_AT_ONCE;
        ssize_t want = 0;
        for (size_t i = 0; i < n; i++) {
            cap_chunk *c = &t->chunk[t->head + i];
            iov[i].iov_base = PyBytes_AS_STRING(c->bytes) + c->sent;
            iov[i].iov_len = (size_t)(PyBytes_GET_SIZE(c->bytes) - c->sent);
            want += (ssize_t)iov[i].iov_len;
        }
        ssize_t sent = send_some(t, iov, n);
        if (sent < 0)
            return -1;
        consume(t, sent);
        if (sent < want)
            return 0;
    }
    return 0;
}

/* ---- flow control ---- */

int
cap_transport_call_in_context(cap_transport *t, PyObject *self, PyObject *name, PyObject *arg)
{
    /* A context cannot be entered twice. Inside a callback of ours a copy serves, as
       others do it. */
    PyObject *context = t->entered ? PyContext_Copy(t->context) : Py_NewRef(t->context);
    if (context == NULL)
        return -1;
    int rc = PyContext_Enter(context);
    if (rc == 0) {
        t->entered++;
        PyObject *done = arg != NULL ? PyObject_CallMethodOneArg(self, name, arg)
                                     : PyObject_CallMethodNoArgs(self, name);
        t->entered--;
        PyObject *exc = done == NULL ? cap_err_take() : NULL;
        Py_XDECREF(done);
        rc = PyContext_Exit(context);
        if (exc != NULL) {
            cap_err_restore(exc);
            rc = -1;
        }
    }
    Py_DECREF(context);
    return rc;
}

int
cap_transport_pause_protocol(cap_transport *t)
{
    if (t->queued <= t->high_water || t->protocol_paused)
        return 0;
    return cap_transport_call_in_context(t, (PyObject *)t, cap_transport_state(t)->maybe_pause, NULL);
}

int
cap_transport_resume_protocol(cap_transport *t)
{
    if (!t->protocol_paused || t->queued > t->low_water)
        return 0;
    return cap_transport_call_in_context(t, (PyObject *)t, cap_transport_state(t)->maybe_resume, NULL);
}

/* ---- the end of a turn ---- */

static int
fail_write(cap_transport *t)
{
    PyErr_SetFromErrno(PyExc_OSError);
    cap_transport_drop_queue(t);
    t->want_write = false;
    return cap_transport_fatal(t, write_failed(t));
}

int
cap_transport_send_gathered(cap_transport *t)
{
    if (t->len == 0 || t->want_write || t->conn_lost)
        return 0;
    if (send_queue(t) < 0)
        return fail_write(t);
    if (t->len == 0)
        return 0;
    t->want_write = true;
    return cap_transport_update(t);
}

void
cap_transport_end_of_turn(cap_deferred *d)
{
    cap_transport *t = (cap_transport *)((char *)d - offsetof(cap_transport, gather));
    cap_loop *loop = t->loop;
    if (loop != NULL && t->len != 0) {
        Py_INCREF((PyObject *)loop);
        if (cap_transport_send_gathered(t) < 0 ||
            (t->loop != NULL && !t->conn_lost && cap_transport_pause_protocol(t) < 0))
            cap_reactor_report(&loop->reactor, write_failed(t));
        Py_DECREF((PyObject *)loop);
    }
    Py_DECREF((PyObject *)t);
}

/* What is written in this turn is gathered. Outside of a turn there is no end of it. */
static void
gather_from_now(cap_transport *t)
{
    cap_reactor *r = &t->loop->reactor;
    if (!r->running || t->gather.queued)
        return;
    Py_INCREF((PyObject *)t);
    cap_reactor_defer(r, &t->gather);
}

/* ---- write ---- */

/* close() ends a pipe for its writer; what is written to a stream then still goes out
   when something waits. */
static bool
for_nobody(const cap_transport *t)
{
    return t->conn_lost || t->loop == NULL || (t->kind == CAP_WRITE_PIPE && t->closing);
}

/* 0, or -1 with an exception. */
static int
check_write(cap_transport *t, const char *what)
{
    if (t->eof_written) {
        PyErr_Format(PyExc_RuntimeError, "Cannot call %s() after write_eof()", what);
        return -1;
    }
    if (t->empty_waiter != NULL && t->empty_waiter != Py_None) {
        PyErr_Format(PyExc_RuntimeError, "unable to %s; sendfile is in progress", what);
        return -1;
    }
    return 0;
}

PyObject *
cap_transport_write_to_nobody(cap_transport *t)
{
    if (t->conn_lost >= WARN_AFTER) {
        PyObject *done = PyObject_CallMethod((PyObject *)t, "_warn_lost", NULL);
        if (done == NULL)
            return NULL;
        Py_DECREF(done);
    }
    if (t->conn_lost) /* a pipe that is closed may still have something to send */
        t->conn_lost++;
    Py_RETURN_NONE;
}

/* Outside of a turn, or with much of it, what is queued goes out. */
static int
after_append(cap_transport *t)
{
    if (!t->want_write && (!t->gather.queued || t->queued >= GATHER_MAX) &&
        cap_transport_send_gathered(t) < 0)
        return -1;
    if (!t->want_write || t->loop == NULL)
        return 0; /* all is with the kernel, or will be at the turn's end */
    return cap_transport_pause_protocol(t);
}

static int
write_view(cap_transport *t, PyObject *data, const Py_buffer *view)
{
    bool keep = t->gather.queued || (t->loop->reactor.running && view->len < LARGE);
    gather_from_now(t);
    if (t->len != 0 || (keep && view->len < GATHER_MAX))
        return append_rest(t, data, view, 0) < 0 ? -1 : after_append(t);
    struct iovec iov = {.iov_base = view->buf, .iov_len = (size_t)view->len};
    ssize_t sent = send_some(t, &iov, 1);
    if (sent < 0)
        return fail_write(t);
    if (sent == view->len)
        return 0;
    if (append_rest(t, data, view, sent) < 0) /* with a part of it out, what follows would not fit */
        return sent > 0 ? cap_transport_fatal(t, write_failed(t)) : -1;
    t->want_write = true;
    if (cap_transport_update(t) < 0)
        return -1;
    return cap_transport_pause_protocol(t);
}

PyObject *
cap_transport_write(cap_transport *t, PyObject *data)
{
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data))
        return PyErr_Format(PyExc_TypeError,
                            "data argument must be a bytes-like object, not '%s'",
                            Py_TYPE(data)->tp_name);
    if (check_write(t, "write") < 0)
        return NULL;
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *res;
    if (view.len == 0)
        res = Py_NewRef(Py_None);
    else if (for_nobody(t))
        res = cap_transport_write_to_nobody(t);
    else
        res = write_view(t, data, &view) < 0 ? NULL : Py_NewRef(Py_None);
    PyBuffer_Release(&view);
    return res;
}

PyObject *
cap_transport_writelines(cap_transport *t, PyObject *list)
{
    if (check_write(t, "writelines") < 0)
        return NULL;
    /* A list of our own: taking the octets of an item may run Python. */
    PyObject *items = PySequence_List(list);
    if (items == NULL)
        return NULL;
    PyObject *res = NULL;
    size_t before = t->len;
    Py_ssize_t n = PyList_GET_SIZE(items);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PyList_GET_ITEM(items, i);
        if (PyBytes_CheckExact(item))
            continue;
        PyObject *bytes = PyObject_CheckBuffer(item) ? PyBytes_FromObject(item) : NULL;
        if (bytes == NULL) {
            if (!PyErr_Occurred())
                PyErr_Format(PyExc_TypeError, "data argument must be a bytes-like object, not '%s'",
                             Py_TYPE(item)->tp_name);
            goto end;
        }
        PyList_SetItem(items, i, bytes);
    }
    if (for_nobody(t)) {
        res = n != 0 ? cap_transport_write_to_nobody(t) : Py_NewRef(Py_None);
        goto end;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *bytes = PyList_GET_ITEM(items, i);
        if (PyBytes_GET_SIZE(bytes) != 0 && cap_transport_append(t, Py_NewRef(bytes), 0, NULL) < 0)
            goto end;
    }
    gather_from_now(t);
    if (t->len == before || after_append(t) == 0)
        res = Py_NewRef(Py_None);
end:
    Py_DECREF(items);
    return res;
}

static int
shut_write(cap_transport *t)
{
    if (shutdown(t->fd, SHUT_WR) == 0)
        return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

PyObject *
cap_transport_write_eof(cap_transport *t, PyObject *Py_UNUSED(ignored))
{
    if (t->kind == CAP_WRITE_PIPE)
        return cap_transport_close(t, NULL);
    if (t->closing || t->eof_written || t->loop == NULL)
        Py_RETURN_NONE;
    t->eof_written = true;
    if (cap_transport_send_gathered(t) < 0)
        return NULL;
    if (t->len == 0 && !t->conn_lost && shut_write(t) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int
tell_waiter(cap_transport *t, PyObject *name, PyObject *value)
{
    PyObject *waiter = t->empty_waiter, *done = NULL;
    if (waiter == NULL || waiter == Py_None)
        return 0;
    Py_INCREF(waiter);
    PyObject *is_done = PyObject_CallMethodNoArgs(waiter, t->loop->reactor.st->str.done);
    if (is_done == Py_False)
        done = PyObject_CallMethodOneArg(waiter, name, value);
    else if (is_done != NULL)
        done = Py_NewRef(Py_None);
    Py_XDECREF(is_done);
    Py_XDECREF(done);
    Py_DECREF(waiter);
    return done != NULL ? 0 : -1;
}

static int
write_ready(cap_transport *t)
{
    cap_state *st = t->loop->reactor.st;
    if (send_queue(t) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        PyObject *exc = cap_err_take();
        int rc = -1;
        cap_transport_drop_queue(t);
        t->want_write = false;
        cap_err_restore(Py_XNewRef(exc));
        if (cap_transport_fatal(t, write_failed(t)) == 0)
            rc = t->loop != NULL ? tell_waiter(t, st->str.set_exception, exc) : 0;
        Py_XDECREF(exc);
        return rc;
    }
    if (t->len == 0) {
        t->want_write = false;
        if (cap_transport_update(t) < 0)
            return -1;
    }
    if (cap_transport_resume_protocol(t) < 0)
        return -1;
    /* It may have written more, closed, or aborted. */
    if (t->len != 0 || t->loop == NULL || t->conn_lost)
        return 0;
    if (tell_waiter(t, st->str.set_result, Py_None) < 0)
        return -1;
    if (t->closing)
        return cap_transport_lost(t, Py_None);
    return t->eof_written ? shut_write(t) : 0;
}

PyObject *
cap_transport_write_ready(cap_transport *t, PyObject *Py_UNUSED(ignored))
{
    if (t->conn_lost || !t->want_write || t->loop == NULL)
        Py_RETURN_NONE;
    t->entered++;
    int rc = t->kind == CAP_DATAGRAM ? cap_datagrams_write_ready(t) : write_ready(t);
    t->entered--;
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}
