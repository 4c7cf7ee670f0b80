/* Datagram transports: asyncio.DatagramTransport over a socket. Flow control, closing
   and the poll are those of streams (transport.h). */
#include "loop/address.h"
#include "loop/transport.h"

#include "base/mem.h"

#include <errno.h>
#include <netinet/in.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

#define SLOT (64 * 1024) /* octets: no IP datagram is larger */
#define SLOTS (CAP_TRANSPORT_READ / SLOT)
#define ROUNDS 8 /* reads until others get their turn */

static const char read_failed[] = "Fatal read error on datagram transport";
static const char write_failed[] = "Fatal write error on datagram transport";

typedef struct cap_datagrams {
    PyObject *sock;    /* the Python socket, for what is not done here */
    PyObject *remote;  /* create_datagram_endpoint's remote_addr; or NULL */
    int family;
    bool connected;    /* what is sent goes to the socket's peer */
    /* The last sender. An echo sends to the very object that it got. */
    PyObject *from;    /* or NULL */
    cap_address from_raw;
} cap_datagrams;

/* ---- life ---- */

int
cap_datagrams_open(cap_transport *t, PyObject *sock, PyObject *remote, bool connected)
{
    struct sockaddr_storage name;
    socklen_t len = sizeof name;
    cap_datagrams *d = cap_calloc(1, sizeof *d);
    if (d == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    d->family = getsockname(t->fd, (struct sockaddr *)&name, &len) == 0 ? name.ss_family : -1;
    d->sock = Py_NewRef(sock);
    d->remote = remote != Py_None ? Py_NewRef(remote) : NULL;
    d->connected = connected;
    t->datagrams = d;
    return 0;
}

void
cap_datagrams_free(cap_transport *t)
{
    cap_datagrams *d = t->datagrams;
    t->datagrams = NULL;
    if (d == NULL)
        return;
    Py_DECREF(d->sock);
    Py_XDECREF(d->remote);
    Py_XDECREF(d->from);
    cap_free(d);
}

int
cap_datagrams_traverse(const cap_transport *t, visitproc visit, void *arg)
{
    if (t->datagrams == NULL)
        return 0;
    Py_VISIT(t->datagrams->sock);
    Py_VISIT(t->datagrams->remote);
    Py_VISIT(t->datagrams->from);
    return 0;
}

/* ---- errors ---- */

/* With the current exception: protocol.error_received() when it is an OSError, as
   asyncio does it; otherwise the end. 0, or -1 with an exception. */
static int
tell_error(cap_transport *t, const char *message)
{
    if (!PyErr_ExceptionMatches(PyExc_OSError))
        return cap_transport_fatal(t, message);
    PyObject *exc = cap_err_take(), *protocol = Py_XNewRef(t->protocol);
    int rc = 0;
    if (exc != NULL && protocol != NULL)
        rc = cap_transport_call_in_context(t, protocol, cap_transport_state(t)->error_received,
                                           exc);
    Py_XDECREF(protocol);
    Py_XDECREF(exc);
    return rc;
}

static bool
try_again(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* ---- reading ---- */

typedef struct received {
    PyObject *data;
    PyObject *from;
} received;

static PyObject *
sender(cap_datagrams *d, const cap_address *raw)
{
    if (d->from != NULL && raw->len == d->from_raw.len &&
        memcmp(&raw->raw, &d->from_raw.raw, raw->len) == 0)
        return Py_NewRef(d->from);
    PyObject *from = cap_address_to_python(raw);
    if (from != NULL) {
        PyObject *old = d->from;
        d->from = Py_NewRef(from);
        d->from_raw = *raw;
        Py_XDECREF(old);
    }
    return from;
}

/* Up to `slots` datagrams, made objects before anything is called: others read into the
   same buffer. How many; -1 with errno, or with an exception and errno 0. */
static int
receive(cap_transport *t, received *out, int slots)
{
    cap_datagrams *d = t->datagrams;
    struct mmsghdr msg[SLOTS];
    struct iovec iov[SLOTS];
    cap_address from[SLOTS];
    size_t room = CAP_TRANSPORT_READ / (size_t)slots;
    memset(msg, 0, (size_t)slots * sizeof *msg);
    for (int i = 0; i < slots; i++) {
        iov[i] = (struct iovec){t->loop->read_buffer + (size_t)i * room, room};
        msg[i].msg_hdr = (struct msghdr){
            .msg_name = &from[i].raw,
            .msg_namelen = sizeof from[i].raw,
            .msg_iov = &iov[i],
            .msg_iovlen = 1,
        };
    }
    int n = recvmmsg(t->fd, msg, (unsigned)slots, MSG_DONTWAIT, NULL);
    for (int i = 0; i < n; i++) {
        from[i].len = msg[i].msg_hdr.msg_namelen;
        out[i].from = NULL;
        out[i].data = PyBytes_FromStringAndSize(iov[i].iov_base, msg[i].msg_len);
        if (out[i].data == NULL || (out[i].from = sender(d, &from[i])) == NULL) {
            do {
                Py_XDECREF(out[i].data);
                Py_XDECREF(out[i].from);
            } while (--i >= 0);
            errno = 0;
            return -1;
        }
    }
    return n;
}

/* Of a family that only the socket module knows. 1, or -1 as receive(). */
static int
receive_foreign(cap_transport *t, received *out)
{
    PyObject *pair =
        PyObject_CallMethod(t->datagrams->sock, "recvfrom", "i", (int)CAP_TRANSPORT_READ);
    if (pair == NULL) {
        errno = 0;
        if (PyErr_ExceptionMatches(PyExc_BlockingIOError) ||
            PyErr_ExceptionMatches(PyExc_InterruptedError)) {
            PyErr_Clear();
            errno = EAGAIN;
        }
        return -1;
    }
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
        Py_DECREF(pair);
        PyErr_SetString(PyExc_TypeError, "socket.recvfrom() gave no pair");
        errno = 0;
        return -1;
    }
    out->data = Py_NewRef(PyTuple_GET_ITEM(pair, 0));
    out->from = Py_NewRef(PyTuple_GET_ITEM(pair, 1));
    Py_DECREF(pair);
    return 1;
}

/* Hands over; what comes after close() is dropped. An exception of the protocol is
   told and the others are handed over all the same, as one turn each would do. */
static void
deliver(cap_transport *t, PyObject *protocol, received *in, int n)
{
    for (int i = 0; i < n; i++) {
        if (t->loop != NULL && !t->conn_lost && !t->closing) {
            PyObject *args[] = {protocol, in[i].data, in[i].from};
            PyObject *done = PyObject_VectorcallMethod(
                cap_transport_state(t)->datagram_received, args,
                3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
            if (done == NULL && t->loop != NULL)
                cap_reactor_report(&t->loop->reactor,
                                   "Exception in callback protocol.datagram_received()");
            else if (done == NULL)
                PyErr_WriteUnraisable((PyObject *)t);
            Py_XDECREF(done);
        }
        Py_DECREF(in[i].data);
        Py_DECREF(in[i].from);
    }
}

int
cap_datagrams_read(cap_transport *t, PyObject *protocol)
{
    cap_loop *loop = t->loop;
    cap_datagrams *d = t->datagrams;
    if (cap_transport_need_buffer(loop) < 0)
        return -1;
    bool known = cap_address_knows(d->family);
    int slots = d->family == AF_INET || d->family == AF_INET6 ? SLOTS : 1;
    received in[SLOTS];
    for (int round = 0; round < ROUNDS; round++) {
        int n = known ? receive(t, in, slots) : receive_foreign(t, in);
        if (n < 0 && errno != 0) {
            if (try_again())
                return 0;
            PyErr_SetFromErrno(PyExc_OSError);
        }
        if (n < 0)
            return tell_error(t, read_failed);
        deliver(t, protocol, in, n);
        if (n < slots || t->loop == NULL || !cap_transport_wants_read(t) ||
            t->protocol != protocol)
            return 0;
    }
    return 0;
}

/* ---- writing ---- */

static int
send_foreign(cap_transport *t, const char *data, Py_ssize_t len, PyObject *address)
{
    PyObject *sent =
        PyObject_CallMethod(t->datagrams->sock, "sendto", "y#O", data, len, address);
    if (sent != NULL) {
        Py_DECREF(sent);
        return 1;
    }
    if (!PyErr_ExceptionMatches(PyExc_BlockingIOError) &&
        !PyErr_ExceptionMatches(PyExc_InterruptedError))
        return -1;
    PyErr_Clear();
    return 0;
}

/* 1; 0: no room now; -1 with an exception. Runs Python when the address is a name. */
static int
send_one(cap_transport *t, const char *data, Py_ssize_t len, PyObject *address)
{
    cap_datagrams *d = t->datagrams;
    ssize_t sent;
    if (address == NULL)
        sent = send(t->fd, data, (size_t)len, MSG_NOSIGNAL);
    else {
        cap_address parsed;
        const cap_address *to = &parsed;
        if (address == d->from && d->from_raw.len != 0)
            to = &d->from_raw;
        else if (!cap_address_from_python(&parsed, d->family, address))
            return send_foreign(t, data, len, address);
        sent = sendto(t->fd, data, (size_t)len, MSG_NOSIGNAL, (const struct sockaddr *)&to->raw,
                      to->len);
    }
    if (sent >= 0)
        return 1;
    if (try_again())
        return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* `address` borrowed, or NULL. 0, or -1 with an exception. */
static int
send_or_queue(cap_transport *t, PyObject *data, const Py_buffer *view, PyObject *address)
{
    if (t->len == 0) {
        int rc = send_one(t, view->buf, view->len, address);
        if (rc != 0)
            return rc > 0 ? 0 : tell_error(t, write_failed);
        if (t->loop == NULL || t->conn_lost)
            return 0;
    }
    PyObject *bytes = PyBytes_CheckExact(data)
                          ? Py_NewRef(data)
                          : PyBytes_FromStringAndSize(view->buf, view->len);
    if (bytes == NULL || cap_transport_append(t, bytes, 0, Py_XNewRef(address)) < 0)
        return -1;
    t->want_write = true;
    if (cap_transport_update(t) < 0)
        return -1;
    return cap_transport_pause_protocol(t);
}

PyObject *
cap_datagrams_sendto(cap_transport *t, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *data = nargs > 0 ? args[0] : NULL, *address = nargs > 1 ? args[1] : NULL;
    Py_ssize_t nkw = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    for (Py_ssize_t i = 0; i < nkw; i++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, i);
        bool is_data = PyUnicode_CompareWithASCIIString(key, "data") == 0;
        PyObject **to = is_data ? &data : &address;
        if (*to != NULL || (!is_data && PyUnicode_CompareWithASCIIString(key, "addr") != 0))
            return PyErr_Format(PyExc_TypeError, "sendto() got an unexpected argument '%U'", key);
        *to = args[nargs + i];
    }
    if (data == NULL || nargs > 2) {
        PyErr_SetString(PyExc_TypeError, "sendto(data, addr=None)");
        return NULL;
    }
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data))
        return PyErr_Format(PyExc_TypeError,
                            "data argument must be a bytes-like object, not '%s'",
                            Py_TYPE(data)->tp_name);
    if (address == Py_None)
        address = NULL;
    cap_datagrams *d = t->datagrams;
    if (d != NULL && d->remote != NULL) {
        int same = address == NULL ? 1 : PyObject_RichCompareBool(address, d->remote, Py_EQ);
        if (same < 0)
            return NULL;
        if (!same)
            return PyErr_Format(PyExc_ValueError, "Invalid address: must be None or %R",
                                d->remote);
        address = d->remote;
    }
    /* To anybody while the socket is there, also after close(), as with asyncio. */
    if (d == NULL || t->loop == NULL || (t->conn_lost && d->remote != NULL))
        return cap_transport_write_to_nobody(t);
    if (d->connected)
        address = NULL;
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    cap_loop *loop = (cap_loop *)Py_NewRef((PyObject *)t->loop);
    int rc = send_or_queue(t, data, &view, address);
    Py_DECREF((PyObject *)loop);
    PyBuffer_Release(&view);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* The first of the queue is gone, unless somebody has dropped it meanwhile. */
static void
drop_first(cap_transport *t, const cap_chunk *sent)
{
    if (t->len == 0 || t->chunk[t->head].bytes != sent->bytes)
        return;
    t->queued -= PyBytes_GET_SIZE(sent->bytes) + CAP_DATAGRAM_HEADER;
    t->len--;
    t->head = t->len != 0 ? t->head + 1 : 0;
    Py_DECREF(sent->bytes);
    Py_XDECREF(sent->address);
}

int
cap_datagrams_write_ready(cap_transport *t)
{
    while (t->len != 0) {
        cap_chunk first = t->chunk[t->head];
        Py_INCREF(first.bytes);
        Py_XINCREF(first.address);
        int rc = send_one(t, PyBytes_AS_STRING(first.bytes), PyBytes_GET_SIZE(first.bytes),
                          first.address);
        if (rc != 0)
            drop_first(t, &first);
        Py_DECREF(first.bytes);
        Py_XDECREF(first.address);
        if (rc < 0) {
            if (t->loop == NULL)
                return -1;
            if (tell_error(t, write_failed) < 0)
                return -1;
            /* The others have their turn at the next poll. */
            break;
        }
        if (rc == 0)
            break;
        if (t->loop == NULL || t->conn_lost)
            return 0;
    }
    if (t->loop == NULL || t->conn_lost)
        return 0;
    if (cap_transport_resume_protocol(t) < 0)
        return -1;
    if (t->len != 0 || t->loop == NULL || t->conn_lost)
        return 0;
    t->want_write = false;
    if (t->closing)
        return cap_transport_lost(t, Py_None);
    return cap_transport_update(t);
}
