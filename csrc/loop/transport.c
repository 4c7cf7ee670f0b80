/* Transports: their life, and what streams and pipes read. */
#include "loop/transport.h"

#include "base/mem.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define READS_AT_ONCE 16

/* ---- libuv's side ---- */


static int
queue_call(cap_transport *t, cap_ready *q, PyObject *method, PyObject *a, PyObject *b)
{
    PyObject *args[] = {(PyObject *)t, a, b};
    if (cap_loop_check_closed(t->loop) < 0)
        return -1;
    cap_handle *h = cap_handle_queue(t->loop, q, method, args,
                                     a == NULL ? 1 : b == NULL ? 2 : 3, t->context);
    Py_XDECREF((PyObject *)h);
    return h != NULL ? 0 : -1;
}

int
cap_transport_call_soon(cap_transport *t, PyObject *method, PyObject *a, PyObject *b)
{
    return queue_call(t, &t->loop->ready, method, a, b);
}

static void
on_poll(uv_poll_t *poll, int status, int events)
{
    cap_loop *loop = poll->loop->data;
    cap_reactor_enter(&loop->reactor);
    cap_transport *t = ((cap_poll *)poll)->owner; /* not before we have the GIL */
    if (t == NULL)
        return;
    Py_INCREF((PyObject *)t);
    if (status < 0) {
        /* An error waits in the socket and libuv has stopped looking. The system call
           tells which one. */
        t->polled = 0;
        events = UV_READABLE | UV_WRITABLE;
    }
    int wanted = (cap_transport_wants_read(t) ? UV_READABLE : 0) | (t->want_write ? UV_WRITABLE : 0), rc = 0;
    /* Datagrams come behind what is ready already, as with asyncio: what is lost on a
       protocol that is not prepared for it yet does not come again. So does the first that
       a stream reads: who waits for the connection gets it before. */
    cap_ready *q = t->kind == CAP_DATAGRAM || t->awaited ? &loop->ready : &loop->io;
    t->awaited = false;
    if (events & wanted & UV_READABLE)
        rc = queue_call(t, q, cap_transport_method(t, CAP_ON_READ), NULL, NULL);
    if (rc == 0 && (events & wanted & UV_WRITABLE))
        rc = queue_call(t, q, cap_transport_method(t, CAP_ON_WRITE), NULL, NULL);
    /* Reading that is paused, or ended, is still looked for until something comes: a
       pause that is short costs nothing. */
    if (rc == 0 && t->polled != wanted)
        rc = cap_transport_update(t);
    if (rc < 0)
        cap_reactor_report(&loop->reactor, "A transport that is ready could not be called");
    Py_DECREF((PyObject *)t);
}

static void
hold(cap_transport *t, bool on)
{
    if (t->held == on)
        return;
    t->held = on;
    if (on)
        Py_INCREF((PyObject *)t);
    else
        Py_DECREF((PyObject *)t);
}

int
cap_transport_update(cap_transport *t)
{
    int wanted = (cap_transport_wants_read(t) ? UV_READABLE : 0) | (t->want_write ? UV_WRITABLE : 0);
    if (!t->listed || wanted == t->polled)
        return 0;
    if (t->poll == NULL)
        return cap_pipe_update(t, wanted);
    if (t->conn_lost && t->polled != 0)
        return 0; /* connection_lost() is next, and the end of the poll: one system call less */
    int rc = wanted != 0 ? uv_poll_start(&t->poll->poll, wanted, on_poll)
                         : uv_poll_stop(&t->poll->poll);
    if (rc < 0) {
        errno = -rc;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    t->polled = wanted;
    hold(t, wanted != 0);
    return 0;
}

static void
on_poll_closed(uv_handle_t *handle)
{
    cap_count.uv_handles--;
    cap_free(handle);
}

static int
open_poll(cap_transport *t, int fd)
{
    cap_poll *p = cap_calloc(1, sizeof *p);
    if (p == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int rc = uv_poll_init(t->loop->reactor.uv, &p->poll, fd);
    if (rc < 0) {
        cap_free(p);
        errno = -rc;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    cap_count.uv_handles++;
    p->owner = t;
    t->poll = p;
    return 0;
}

static int
open_descriptor(cap_transport *t, int fd)
{
    bool pipe = t->kind == CAP_READ_PIPE || t->kind == CAP_WRITE_PIPE;
    t->is_socket = true;
    if (pipe ? cap_pipe_open(t, fd) < 0 : open_poll(t, fd) < 0)
        return -1;
    t->fd = fd;
    t->listed = true;
    t->prev = NULL;
    t->next = t->loop->transports;
    if (t->next != NULL)
        t->next->prev = t;
    t->loop->transports = t;
    return 0;
}

void
cap_transport_detach(cap_transport *t)
{
    cap_loop *loop = t->loop;
    cap_poll *p = t->poll;
    cap_pipe_detach(t);
    t->poll = NULL;
    t->polled = 0;
    if (p != NULL) {
        p->owner = NULL;
        /* After a fork the epoll set is the parent's. */
        if (loop->uv != NULL && loop->forks == cap_forks)
            uv_close((uv_handle_t *)&p->poll, on_poll_closed);
    }
    if (t->listed) {
        t->listed = false;
        if (t->prev != NULL)
            t->prev->next = t->next;
        else
            loop->transports = t->next;
        if (t->next != NULL)
            t->next->prev = t->prev;
        t->next = t->prev = NULL;
    }
    if (t->gather.queued) {
        cap_reactor_undefer(&loop->reactor, &t->gather);
        Py_DECREF((PyObject *)t);
    }
    hold(t, false);
}

void
cap_transports_drop(cap_loop *loop)
{
    while (loop->transports != NULL) {
        cap_transport *t = loop->transports;
        Py_INCREF((PyObject *)t);
        cap_transport_detach(t);
        Py_DECREF((PyObject *)t);
    }
    cap_free(loop->read_buffer);
    loop->read_buffer = NULL;
}

int
cap_transports_traverse(cap_loop *loop, visitproc visit, void *arg)
{
    for (cap_transport *t = loop->transports; t != NULL; t = t->next) {
        if (t->held)
            Py_VISIT((PyObject *)t);
        if (t->gather.queued)
            Py_VISIT((PyObject *)t);
    }
    return 0;
}

/* ---- ends ---- */

int
cap_transport_fatal(cap_transport *t, const char *message)
{
    if (cap_err_is_exit())
        return -1;
    PyObject *exc = cap_err_take();
    if (exc == NULL || t->loop == NULL) {
        Py_XDECREF(exc);
        return 0;
    }
    PyObject *done = PyObject_CallMethod((PyObject *)t, "_fatal_error", "Os", exc, message);
    Py_DECREF(exc);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

int
cap_transport_force_close(cap_transport *t, PyObject *exc)
{
    if (t->conn_lost || t->loop == NULL)
        return 0;
    cap_transport_drop_queue(t);
    t->want_write = false;
    t->closing = true;
    t->conn_lost++;
    if (cap_transport_update(t) < 0)
        return -1;
    return cap_transport_call_soon(t, cap_transport_method(t, CAP_ON_LOST), exc, NULL);
}

static int
end_waiter(cap_transport *t, cap_state *st)
{
    PyObject *waiter = t->empty_waiter, *done = NULL;
    if (waiter == NULL || waiter == Py_None)
        return 0;
    Py_INCREF(waiter);
    PyObject *is_done = PyObject_CallMethodNoArgs(waiter, st->str.done);
    PyObject *exc =
        PyObject_CallFunction(PyExc_ConnectionError, "s", "Connection is closed by peer");
    if (is_done == Py_False && exc != NULL)
        done = PyObject_CallMethodOneArg(waiter, st->str.set_exception, exc);
    else if (is_done != NULL && exc != NULL)
        done = Py_NewRef(Py_None);
    Py_XDECREF(exc);
    Py_XDECREF(is_done);
    Py_XDECREF(done);
    Py_DECREF(waiter);
    return done != NULL ? 0 : -1;
}

int
cap_transport_lost(cap_transport *t, PyObject *exc)
{
    cap_loop *loop = t->loop;
    if (loop == NULL)
        return 0;
    cap_state *st = loop->reactor.st;
    cap_loop_state *ls = cap_loop_state_of(st);
    PyObject *done = Py_None, *failed = NULL, *protocol = t->protocol;
    Py_INCREF((PyObject *)t);
    if (t->conn_lost == 0)
        t->conn_lost = 1;
    t->closing = true;
    if (t->connected && protocol != NULL) {
        Py_INCREF(protocol);
        t->entered++;
        done = PyObject_CallMethodOneArg(protocol, ls->connection_lost, exc);
        t->entered--;
        Py_DECREF(protocol);
        if (done == NULL)
            failed = cap_err_take();
        else
            Py_DECREF(done);
    }
    if (t->loop == loop) { /* not done by the protocol itself, in some strange way */
        cap_transport_detach(t);
        cap_transport_drop_queue(t);
        t->loop = NULL;
        t->fd = -1;
        Py_CLEAR(t->protocol);
        done = PyObject_CallMethodNoArgs((PyObject *)t, ls->closed_name);
        if (done == NULL || end_waiter(t, st) < 0) {
            if (failed == NULL)
                failed = cap_err_take();
            else
                PyErr_WriteUnraisable((PyObject *)t);
        }
        Py_XDECREF(done);
        Py_DECREF((PyObject *)loop);
    }
    Py_DECREF((PyObject *)t);
    if (failed == NULL)
        return 0;
    cap_err_restore(failed);
    return -1;
}

PyObject *
cap_transport_close(cap_transport *t, PyObject *Py_UNUSED(ignored))
{
    if (t->closing || t->loop == NULL)
        Py_RETURN_NONE;
    t->closing = true;
    if (cap_transport_send_gathered(t) < 0)
        return NULL;
    if (t->len != 0 || t->conn_lost)
        return cap_transport_update(t) < 0 ? NULL : Py_NewRef(Py_None);
    t->conn_lost++;
    if (cap_transport_update(t) < 0 ||
        cap_transport_call_soon(t, cap_transport_method(t, CAP_ON_LOST), Py_None, NULL) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- reading ---- */

static int
read_eof(cap_transport *t, PyObject *protocol)
{
    if (t->kind == CAP_READ_PIPE)
        return cap_pipe_read_eof(t);
    cap_loop_state *ls = cap_transport_state(t);
    PyObject *keep = PyObject_CallMethodNoArgs(protocol, ls->eof_received);
    int open = keep != NULL ? PyObject_IsTrue(keep) : -1;
    Py_XDECREF(keep);
    if (open < 0)
        return cap_transport_fatal(t, "Fatal error: protocol.eof_received() call failed.");
    if (open) {
        t->eof_read = true; /* the other direction stays open */
        return cap_transport_update(t);
    }
    PyObject *done = PyObject_CallMethodNoArgs((PyObject *)t, ls->close_name);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

/* After recv() failed with errno. */
static int
read_failed(cap_transport *t)
{
    t->nothing_read = true;
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
        return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return cap_transport_fatal(t, t->kind == CAP_STREAM ? "Fatal read error on socket transport"
                                                        : "Fatal read error on pipe transport");
}

static ssize_t
receive(const cap_transport *t, void *buffer, size_t size)
{
    return t->is_socket ? recv(t->fd, buffer, size, 0) : read(t->fd, buffer, size);
}

int
cap_transport_need_buffer(cap_loop *loop)
{
    if (loop->read_buffer != NULL)
        return 0;
    cap_mem_expect(4 * CAP_TRANSPORT_READ); /* the messages of several connections */
    loop->read_buffer = cap_malloc(CAP_TRANSPORT_READ);
    if (loop->read_buffer == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static int
read_data(cap_transport *t, PyObject *protocol)
{
    cap_loop *loop = t->loop;
    if (cap_transport_need_buffer(loop) < 0)
        return -1;
    ssize_t n = receive(t, loop->read_buffer, CAP_TRANSPORT_READ);
    if (n < 0)
        return read_failed(t);
    if (n == 0)
        return read_eof(t, protocol);
    PyObject *data = PyBytes_FromStringAndSize(loop->read_buffer, n);
    if (data == NULL) /* they are gone: what comes next would not fit what came before */
        return cap_transport_fatal(t, "Fatal error: no memory for what was received");
    PyObject *done =
        PyObject_CallMethodOneArg(protocol, cap_transport_state(t)->data_received, data);
    Py_DECREF(data);
    Py_XDECREF(done);
    if (done != NULL)
        return 0;
    if (t->kind == CAP_READ_PIPE)
        return -1; /* asyncio's pipes go on */
    return cap_transport_fatal(t, "Fatal error: protocol.data_received() call failed.");
}

/* protocol.get_buffer(-1) */
static int
get_buffer(cap_transport *t, PyObject *protocol, Py_buffer *view)
{
    cap_loop_state *ls = cap_transport_state(t);
    PyObject *buf = PyObject_CallMethodOneArg(protocol, ls->get_buffer, ls->minus_one);
    int rc = buf != NULL ? PyObject_GetBuffer(buf, view, PyBUF_WRITABLE) : -1;
    Py_XDECREF(buf);
    if (rc == 0 && view->len == 0) {
        PyBuffer_Release(view);
        PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
        return -1;
    }
    return rc;
}

/* One recv() into the protocol's buffer. `full`: there may be more. */
static int
read_into_buffer(cap_transport *t, PyObject *protocol, bool *full)
{
    Py_buffer view;
    *full = false;
    if (get_buffer(t, protocol, &view) < 0)
        return cap_transport_fatal(t, "Fatal error: protocol.get_buffer() call failed.");
    if (t->loop == NULL || t->conn_lost) {
        PyBuffer_Release(&view);
        return 0;
    }
    ssize_t n = receive(t, view.buf, (size_t)view.len);
    int error = errno;
    *full = n == view.len;
    t->nothing_read = n <= 0;
    PyBuffer_Release(&view);
    errno = error;
    if (n < 0)
        return read_failed(t);
    if (n == 0)
        return read_eof(t, protocol);
    PyObject *count = PyLong_FromSsize_t(n), *done = NULL;
    if (count != NULL)
        done = PyObject_CallMethodOneArg(protocol, cap_transport_state(t)->buffer_updated, count);
    Py_XDECREF(count);
    Py_XDECREF(done);
    if (done != NULL)
        return 0;
    *full = false;
    return cap_transport_fatal(t, "Fatal error: protocol.buffer_updated() call failed.");
}

/* A buffer that was filled was too small: then all that there is, and the end with it,
   as far as others have not to wait long for it. */
static int
read_into(cap_transport *t, PyObject *protocol)
{
    bool full, small = false;
    int rc;
    for (int i = 0; i < READS_AT_ONCE; i++) {
        rc = read_into_buffer(t, protocol, &full);
        small = small || full;
        if (rc < 0 || !small || t->loop == NULL || t->protocol != protocol || !t->buffered ||
            !cap_transport_wants_read(t))
            return rc;
        /* recv() said EAGAIN, an error, or an end that leaves the other direction open */
        if (t->nothing_read)
            return rc;
    }
    return rc;
}

static int
read_ready(cap_transport *t, PyObject *protocol)
{
    switch (t->kind) {
    case CAP_WRITE_PIPE: return cap_pipe_peer_gone(t);
    case CAP_DATAGRAM: return cap_datagrams_read(t, protocol);
    default: return t->buffered ? read_into(t, protocol) : read_data(t, protocol);
    }
}

PyObject *
cap_transport_read_ready(cap_transport *t, PyObject *Py_UNUSED(ignored))
{
    if (t->loop == NULL)
        Py_RETURN_NONE;
    if (!cap_transport_wants_read(t))
        return cap_transport_update(t) < 0 ? NULL : Py_NewRef(Py_None);
    PyObject *protocol = Py_NewRef(t->protocol);
    cap_loop *loop = (cap_loop *)Py_NewRef((PyObject *)t->loop);
    t->entered++;
    int rc = read_ready(t, protocol);
    t->entered--;
    Py_DECREF((PyObject *)loop);
    Py_DECREF(protocol);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- opening ---- */

/* futures._set_result_unless_cancelled */
static int
set_waiter(cap_state *st, PyObject *waiter)
{
    PyObject *done = NULL, *cancelled = PyObject_CallMethodNoArgs(waiter, st->str.cancelled);
    if (cancelled == Py_True)
        done = Py_NewRef(Py_None);
    else if (cancelled != NULL)
        done = PyObject_CallMethodOneArg(waiter, st->str.set_result, Py_None);
    Py_XDECREF(cancelled);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

/* The first of two exceptions goes on: `exc`, unless it is NULL, or the current one. */
static PyObject *
first_error(PyObject *exc, cap_transport *t)
{
    if (exc == NULL)
        return cap_err_take();
    PyErr_WriteUnraisable((PyObject *)t);
    return exc;
}

/* (protocol, waiter): connection_made(), then reading, then the waiter. */
PyObject *
cap_transport_start(cap_transport *t, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || t->loop == NULL)
        Py_RETURN_NONE;
    cap_loop *loop = (cap_loop *)Py_NewRef((PyObject *)t->loop);
    cap_state *st = loop->reactor.st;
    t->entered++;
    PyObject *done = PyObject_CallMethodOneArg(args[0], cap_loop_state_of(st)->connection_made,
                                               (PyObject *)t);
    t->entered--;
    PyObject *exc = done == NULL ? cap_err_take() : NULL;
    Py_XDECREF(done);
    t->started = true;
    if (t->loop != NULL && cap_transport_update(t) < 0)
        exc = first_error(exc, t);
    if (args[1] != Py_None) {
        t->awaited = true;
        if (set_waiter(st, args[1]) < 0)
            exc = first_error(exc, t);
    }
    Py_DECREF((PyObject *)loop);
    if (exc == NULL)
        Py_RETURN_NONE;
    cap_err_restore(exc);
    return NULL;
}

PyObject *
cap_transport_start_now(cap_transport *t, PyObject *protocol)
{
    if (t->loop == NULL)
        Py_RETURN_NONE;
    cap_loop *loop = (cap_loop *)Py_NewRef((PyObject *)t->loop);
    PyObject *args[] = {protocol, Py_None}, *res = NULL;
    if (PyContext_Enter(t->context) == 0) {
        PyObject *context = Py_NewRef(t->context);
        PyObject *done = cap_transport_start(t, args, 2), *exc = NULL;
        if (done == NULL)
            exc = cap_err_take();
        if (PyContext_Exit(context) == 0) {
            if (exc != NULL) {
                cap_err_restore(Py_NewRef(exc));
                cap_reactor_report(&loop->reactor, "Exception in callback protocol.connection_made()");
            }
            res = Py_NewRef(Py_None);
        }
        Py_XDECREF(exc);
        Py_XDECREF(done);
        Py_DECREF(context);
    }
    Py_DECREF((PyObject *)loop);
    return res;
}

int
cap_transport_set_protocol(cap_transport *t, cap_state *st, PyObject *protocol)
{
    cap_loop_state *ls = cap_loop_state_of(st);
    /* Also what only looks like a BufferedProtocol. By its type: mocks have everything. */
    int buffered = PyObject_IsInstance(protocol, ls->buffered_protocol);
    if (buffered == 0) {
        int plain = PyObject_IsInstance(protocol, ls->protocol);
        if (plain < 0)
            return -1;
        buffered = !plain && PyObject_HasAttr((PyObject *)Py_TYPE(protocol), ls->get_buffer) &&
                   PyObject_HasAttr((PyObject *)Py_TYPE(protocol), ls->buffer_updated);
    }
    if (buffered < 0)
        return -1;
    t->buffered = buffered;
    t->connected = true;
    Py_XSETREF(t->protocol, Py_NewRef(protocol));
    return 0;
}

PyObject *
cap_transport_open(cap_transport *t, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 4 || t->loop != NULL || t->context != NULL) {
        PyErr_SetString(PyExc_TypeError, "_open(loop, fd, protocol, waiter), once");
        return NULL;
    }
    PyTypeObject *type = Py_TYPE((PyObject *)t);
    void *state = NULL;
    for (; type != NULL && state == NULL; type = type->tp_base) {
        if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) &&
            (state = PyType_GetModuleState(type)) == NULL)
            PyErr_Clear();
    }
    cap_state *st = state;
    if (st == NULL || !cap_loop_check(st, args[0])) {
        PyErr_SetString(PyExc_TypeError, "a capicorn.Loop is needed");
        return NULL;
    }
    int fd = (int)PyLong_AsLong(args[1]);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    cap_loop *loop = (cap_loop *)args[0];
    if (loop->uv == NULL || loop->closed) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        return NULL;
    }
    if (cap_transport_set_protocol(t, st, args[2]) < 0 ||
        (t->context = PyContext_CopyCurrent()) == NULL)
        return NULL;
    t->loop = (cap_loop *)Py_NewRef((PyObject *)loop);
    if (open_descriptor(t, fd) < 0 ||
        /* Ellipsis: _start_now() comes next. */
        (args[3] != Py_Ellipsis &&
         cap_transport_call_soon(t, cap_transport_method(t, CAP_ON_START), args[2], args[3]) <
             0)) {
        PyObject *exc = cap_err_take();
        cap_transport_detach(t);
        t->loop = NULL;
        Py_DECREF((PyObject *)loop);
        cap_err_restore(exc);
        return NULL;
    }
    Py_RETURN_NONE;
}
