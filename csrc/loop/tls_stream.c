#include "loop/tls_stream.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"

enum { HANDSHAKE, OPEN, ENDED /* the peer's close_notify came */, BROKEN };

/* Plaintext that is encrypted at a time: what the BIO then holds stays in the cache, and below
   malloc's threshold for memory that the kernel has to clear. */
#define SLICE 65536

/* What the inner stream was given and keeps until it is written. */
typedef struct tls_write {
    PyObject *bytes; /* owned: ciphertext */
    void *token;     /* the owner's; NULL: it was told that all was taken */
} tls_write;

static cap_stream_tls *
self_of(const cap_stream *s)
{
    return (cap_stream_tls *)s;
}

/* Did ssl say that it needs more of the peer? Then the exception is cleared. */
static bool
wants_more(void)
{
    PyObject *exc = cap_err_take();
    PyObject *type = exc != NULL ? (PyObject *)Py_TYPE(exc) : NULL;
    const char *name = type != NULL ? ((PyTypeObject *)type)->tp_name : "";
    const char *dot = strrchr(name, '.');
    name = dot != NULL ? dot + 1 : name;
    if (strcmp(name, "SSLWantReadError") == 0 || strcmp(name, "SSLWantWriteError") == 0) {
        Py_DECREF(exc);
        return true;
    }
    cap_err_restore(exc);
    return false;
}

/* The connection is told of it otherwise, or nobody is. ssl runs the handlers of signals, and
   what they raise is the loop's. */
static void
forget_error(cap_stream_tls *t)
{
    if (cap_err_is_exit())
        cap_reactor_report(t->reactor, "A signal came while TLS was spoken");
    else
        PyErr_Clear();
}

static const struct cap_strings *
strings(const cap_stream_tls *t)
{
    return &t->reactor->st->str;
}

/* object.name(arg), or without one. New reference, or NULL with an exception. */
static PyObject *
call(PyObject *object, PyObject *name, PyObject *arg)
{
    PyObject *args[2] = {object, arg};
    return PyObject_VectorcallMethod(name, args, arg != NULL ? 2 : 1, NULL);
}

/* object.name(memory) */
static PyObject *
call_with(PyObject *object, PyObject *name, const char *data, size_t len)
{
    PyObject *view = PyMemoryView_FromMemory((char *)data, (Py_ssize_t)len, PyBUF_READ);
    PyObject *rc = view != NULL ? call(object, name, view) : NULL;
    Py_XDECREF(view);
    return rc;
}

/* --- ciphertext out ----------------------------------------------------------------- */

/* What ssl has put into the outgoing BIO; NULL without memory. */
static PyObject *
take_out(cap_stream_tls *t)
{
    PyObject *bytes = call(t->outgoing, strings(t)->read, NULL);
    if (bytes == NULL)
        forget_error(t);
    return bytes;
}

/* Send `bytes`, which are given away, from `from` on. `token`: told `written` when it has
   left, if anything has to wait. 1: all has left, or waits without a token; 0: it
   waits with the token; UV_E... */
static int
send_bytes(cap_stream_tls *t, PyObject *bytes, size_t from, void *token)
{
    size_t len = (size_t)PyBytes_GET_SIZE(bytes) - from, sent = 0;
    uv_buf_t buf = {.base = PyBytes_AS_STRING(bytes) + from, .len = len};
    if (len != 0 && cap_stream_unwritten(t->inner) == 0) {
        ssize_t n = cap_stream_try_write(t->inner, &buf, 1);
        if (n < 0) {
            Py_DECREF(bytes);
            return (int)n;
        }
        sent = (size_t)n;
    }
    if (sent == len) {
        Py_DECREF(bytes);
        return 1;
    }
    tls_write *w = cap_malloc(sizeof *w);
    if (w == NULL) {
        Py_DECREF(bytes);
        return UV_ENOMEM;
    }
    *w = (tls_write){.bytes = bytes, .token = token};
    buf.base += sent;
    buf.len -= sent;
    int rc = cap_stream_write(t->inner, &buf, 1, w);
    if (rc < 0) {
        Py_DECREF(bytes);
        cap_free(w);
        return rc;
    }
    return token == NULL;
}

/* The same of all that ssl has put into the outgoing BIO. */
static int
pump_out(cap_stream_tls *t, void *token)
{
    assert(t->held == NULL);
    PyObject *bytes = take_out(t);
    return bytes != NULL ? send_bytes(t, bytes, 0, token) : UV_ENOMEM;
}

static void
on_inner_written(cap_stream *inner, void *token, int status)
{
    cap_stream_tls *t = inner->owner;
    cap_reactor_enter(t->reactor);
    tls_write *w = token;
    void *theirs = w->token;
    Py_DECREF(w->bytes);
    cap_free(w);
    if (t->shut && (status < 0 || cap_stream_unwritten(inner) == 0)) {
        t->shut = false;
        if (status >= 0)
            (void)cap_stream_shut_write(inner);
    }
    t->base.on->written(&t->base, theirs, status);
}

/* --- ciphertext in -------------------------------------------------------------------- */

static void
on_inner_alloc(cap_stream *inner, uv_buf_t *buf)
{
    cap_stream_tls *t = inner->owner;
    t->base.on->alloc(&t->base, buf);
    t->buffer = buf->base;
    t->buffer_len = buf->len;
}

static void
broken(cap_stream_tls *t, int status)
{
    t->stage = BROKEN;
    t->base.on->read(&t->base, NULL, status);
}

/* The handshake's next step. True when it is done. */
static bool
shake(cap_stream_tls *t)
{
    PyObject *rc = call(t->raw, strings(t)->do_handshake, NULL);
    if (rc != NULL) {
        Py_DECREF(rc);
        t->stage = OPEN; /* session tickets may leave with the first answer */
        return true;
    }
    if (wants_more()) {
        int sent = pump_out(t, NULL);
        if (sent < 0)
            broken(t, sent);
        return false;
    }
    forget_error(t);
    (void)pump_out(t, NULL); /* the alert that says why */
    broken(t, UV_EPROTO);
    return false;
}

/* Session tickets, the answer to a key update. */
static void
pump_answers(cap_stream_tls *t)
{
    if (t->stage != OPEN && t->stage != ENDED)
        return;
    if (t->held != NULL) { /* behind that */
        t->answers = true;
        return;
    }
    int sent = pump_out(t, NULL);
    if (sent < 0)
        broken(t, sent);
}

/* Would reading find nothing? ssl says so with an exception, which takes much longer. */
static bool
all_is_read(cap_stream_tls *t)
{
    if (t->ended)
        return false; /* the end itself is to be read */
    PyObject *n = PyObject_GetAttr(t->incoming, strings(t)->pending);
    if (n != NULL && PyLong_AsLong(n) == 0) {
        Py_DECREF(n);
        n = call(t->raw, strings(t)->pending, NULL);
    }
    bool all = n != NULL && PyLong_AsLong(n) == 0;
    Py_XDECREF(n);
    if (PyErr_Occurred())
        forget_error(t);
    return all;
}

static PyObject *
read_into(cap_stream_tls *t, const uv_buf_t *buf)
{
    PyObject *view = PyMemoryView_FromMemory(buf->base, (Py_ssize_t)buf->len, PyBUF_WRITE);
    PyObject *args[3] = {t->raw, view != NULL ? PyLong_FromSize_t(buf->len) : NULL, view};
    PyObject *n = args[1] != NULL ? PyObject_VectorcallMethod(strings(t)->read, args, 3, NULL) : NULL;
    Py_XDECREF(args[1]);
    Py_XDECREF(view);
    return n;
}

/* Hand the owner all plaintext that there is. `fresh`: ciphertext has just come. The owner may
   close us in between. */
static void
pump_in(cap_stream_tls *t, bool fresh)
{
    t->unread = true;
    for (; t->stage == OPEN && t->reading; fresh = false) {
        if (!fresh && all_is_read(t)) {
            t->unread = false;
            pump_answers(t);
            return;
        }
        uv_buf_t buf = {0};
        t->base.on->alloc(&t->base, &buf);
        if (buf.base == NULL)
            return;
        PyObject *n = read_into(t, &buf);
        if (n == NULL) {
            if (wants_more()) {
                t->unread = false;
                pump_answers(t);
                return;
            }
            PyObject *exc = cap_err_take();
            const char *name = Py_TYPE(exc)->tp_name;
            bool notified = strstr(name, "SSLZeroReturnError") != NULL;
            cap_err_restore(exc);
            forget_error(t);
            if (notified) {
                t->stage = ENDED;
                t->base.on->read(&t->base, NULL, 0);
            } else {
                if (!t->ended) /* else OpenSSL complains to a peer that is likely gone */
                    (void)pump_out(t, NULL);
                broken(t, UV_ECONNABORTED); /* also a TCP end without close_notify */
            }
            return;
        }
        Py_ssize_t got = PyLong_AsSsize_t(n);
        Py_DECREF(n);
        if (got <= 0) {
            t->stage = ENDED;
            t->base.on->read(&t->base, NULL, 0);
            return;
        }
        t->base.on->read(&t->base, buf.base, got);
    }
}

static void
on_inner_read(cap_stream *inner, const char *data, ssize_t n)
{
    cap_stream_tls *t = inner->owner;
    cap_reactor_enter(t->reactor);
    if (t->stage == BROKEN) {
        if (n <= 0) /* our half was ended: the owner waits for this */
            t->base.on->read(&t->base, NULL, n);
        return;
    }
    if (n < 0 || (n == 0 && t->stage != OPEN)) {
        if (n == 0 && t->stage == ENDED)
            return;
        broken(t, n < 0 ? (int)n : UV_ECONNABORTED);
        return;
    }
    /* A method's name, where the type of a record stands (RFC 8446 5.1): no peer that
       speaks TLS begins so. */
    if (!t->begun && data != NULL && data[0] >= 'A' && data[0] <= 'Z') {
        t->plain = true;
        broken(t, UV_EPROTO);
        return;
    }
    t->begun = true;
    t->ended = n == 0;
    PyObject *rc = n == 0 ? call(t->incoming, strings(t)->write_eof, NULL)
                          : call_with(t->incoming, strings(t)->write, data, (size_t)n);
    if (rc == NULL) {
        forget_error(t);
        broken(t, UV_ENOMEM);
        return;
    }
    Py_DECREF(rc);
    bool shakes = t->stage == HANDSHAKE;
    if (shakes && !shake(t))
        return;
    pump_in(t, !shakes);
    if (shakes)
        pump_answers(t);
}

static void
on_inner_closed(cap_stream *inner)
{
    cap_stream_tls *t = inner->owner;
    t->base.on->closed(&t->base);
}

const cap_stream_events cap_tls_inner_events = {
    .alloc = on_inner_alloc,
    .read = on_inner_read,
    .written = on_inner_written,
    .closed = on_inner_closed,
};

/* --- operations -------------------------------------------------------------------------- */

static int
op_read_start(cap_stream *s)
{
    cap_stream_tls *t = self_of(s);
    t->reading = true;
    /* Plaintext that ssl still holds is handed over with the next ciphertext, or, when
       none comes, by the owner's cap_stream_resume. */
    return cap_stream_read_start(t->inner);
}

static void
op_read_stop(cap_stream *s)
{
    cap_stream_tls *t = self_of(s);
    t->reading = false;
    cap_stream_read_stop(t->inner);
}

static void
op_resume(cap_stream *s)
{
    cap_stream_tls *t = self_of(s);
    if (t->stage == OPEN && t->reading && t->unread)
        pump_in(t, false);
}

static int
encrypt(cap_stream_tls *t, const char *data, size_t len)
{
    PyObject *rc = call_with(t->raw, strings(t)->write, data, len);
    /* A memory BIO takes all of it. */
    bool all = rc != NULL && PyLong_AsSize_t(rc) == len;
    Py_XDECREF(rc);
    if (!all && PyErr_Occurred())
        forget_error(t);
    return all ? 0 : UV_ECONNABORTED;
}

/* Encrypt and send slice by slice; `whole`: also when the socket is full, else up to there.
   What is left in the outgoing BIO at the end is the caller's to pump out. Octets taken, or
   UV_E... . */
static ssize_t
send_slices(cap_stream_tls *t, const uv_buf_t *bufs, unsigned n, bool whole)
{
    size_t taken = 0, waits = 0; /* in the BIO */
    for (unsigned i = 0; i < n; i++)
        for (size_t at = 0; at < bufs[i].len;) {
            size_t len = bufs[i].len - at, room = SLICE - waits;
            if (len > room)
                len = room;
            int rc = encrypt(t, bufs[i].base + at, len);
            at += len;
            taken += len;
            waits += len;
            if (rc == 0 && waits == SLICE) {
                rc = pump_out(t, NULL);
                waits = 0;
            }
            if (rc < 0)
                return rc;
            if (waits == 0 && !whole && cap_stream_unwritten(t->inner) != 0)
                return (ssize_t)taken;
        }
    return (ssize_t)taken;
}

static ssize_t
op_try_write(cap_stream *s, const uv_buf_t *bufs, unsigned n)
{
    cap_stream_tls *t = self_of(s);
    if (t->stage == HANDSHAKE || t->stage == BROKEN)
        return UV_ECONNABORTED;
    if (cap_stream_unwritten(t->inner) != 0)
        return 0;
    ssize_t taken = send_slices(t, bufs, n, false);
    int rc = taken < 0 ? (int)taken : pump_out(t, NULL);
    return rc < 0 ? rc : taken;
}

static int
op_write(cap_stream *s, const uv_buf_t *bufs, unsigned n, void *token)
{
    cap_stream_tls *t = self_of(s);
    int rc = UV_ECONNABORTED;
    if (t->stage != HANDSHAKE && t->stage != BROKEN) {
        ssize_t taken = send_slices(t, bufs, n, true);
        rc = taken < 0 ? (int)taken : pump_out(t, token);
    }
    /* `written` has to come from a later turn: when all has left already, an empty write
       behind it brings the token back. */
    if (rc == 1) {
        tls_write *w = cap_malloc(sizeof *w);
        PyObject *none = PyBytes_FromStringAndSize(NULL, 0);
        if (w == NULL || none == NULL) {
            PyErr_Clear();
            cap_free(w);
            Py_XDECREF(none);
            return UV_ENOMEM;
        }
        *w = (tls_write){.bytes = none, .token = token};
        uv_buf_t buf = uv_buf_init(PyBytes_AS_STRING(none), 0);
        rc = cap_stream_write(t->inner, &buf, 1, w);
        if (rc < 0) {
            cap_free(w);
            Py_DECREF(none);
        }
    }
    return rc < 0 ? rc : 0;
}

static size_t
op_unwritten(const cap_stream *s)
{
    const cap_stream_tls *t = self_of(s);
    size_t held = t->held != NULL ? (size_t)PyBytes_GET_SIZE(t->held) : 0;
    return cap_stream_unwritten(t->inner) + held;
}

static int
op_fd(const cap_stream *s)
{
    return cap_stream_fd(self_of(s)->inner);
}

/* close_notify, as far as the socket takes it now (RFC 8446 6.1). */
static void
notify(cap_stream_tls *t)
{
    if (t->stage != OPEN && t->stage != ENDED)
        return;
    PyObject *rc = call(t->raw, t->raw == t->object ? strings(t)->unwrap : strings(t)->shutdown,
                        NULL);
    Py_XDECREF(rc);
    forget_error(t); /* it wants the peer's answer, which we do not wait for */
    (void)pump_out(t, NULL);
}

static int
op_shut_write(cap_stream *s)
{
    cap_stream_tls *t = self_of(s);
    notify(t);
    t->stage = BROKEN; /* what comes now is dropped unread */
    if (cap_stream_unwritten(t->inner) != 0) { /* the socket is full: on_inner_written does it */
        t->shut = true;
        return 0;
    }
    return cap_stream_shut_write(t->inner);
}

static void
op_close(cap_stream *s, unsigned how)
{
    cap_stream_tls *t = self_of(s);
    if ((how & CAP_CLOSE_RESET) == 0)
        notify(t);
    t->stage = BROKEN;
    cap_stream_close(t->inner, how);
}

static const cap_stream_ops tls_ops = {
    .read_start = op_read_start,
    .read_stop = op_read_stop,
    .resume = op_resume,
    .try_write = op_try_write,
    .write = op_write,
    .unwritten = op_unwritten,
    .shut_write = op_shut_write,
    .close = op_close,
    .fd = op_fd,
};

int
cap_stream_tls_open(cap_stream_tls *t, cap_reactor *r, cap_stream *inner, PyObject *context,
                    const cap_stream_events *on, void *owner)
{
    *t = (cap_stream_tls){.base = {.ops = &tls_ops, .on = on, .owner = owner},
                          .inner = inner, .reactor = r};
    PyObject *ssl = PyImport_ImportModule("ssl");
    if (ssl == NULL)
        return -1;
    t->incoming = PyObject_CallMethod(ssl, "MemoryBIO", NULL);
    t->outgoing = t->incoming != NULL ? PyObject_CallMethod(ssl, "MemoryBIO", NULL) : NULL;
    Py_DECREF(ssl);
    if (t->outgoing != NULL)
        t->object = PyObject_CallMethod(context, "wrap_bio", "OOO", t->incoming, t->outgoing, Py_True);
    if (t->object == NULL) {
        cap_stream_tls_free(t);
        return -1;
    }
    t->raw = PyObject_GetAttrString(t->object, "_sslobj");
    if (t->raw == NULL) {
        PyErr_Clear();
        t->raw = Py_NewRef(t->object);
    }
    return 0;
}

void
cap_stream_tls_free(cap_stream_tls *t)
{
    Py_CLEAR(t->raw);
    Py_CLEAR(t->held);
    Py_CLEAR(t->info);
    Py_CLEAR(t->object);
    Py_CLEAR(t->incoming);
    Py_CLEAR(t->outgoing);
}

bool
cap_stream_tls_ready(const cap_stream_tls *t)
{
    return t->stage == OPEN || t->stage == ENDED;
}

int
cap_stream_tls_hold(cap_stream_tls *t, const char *data, size_t len, const char **out,
                    size_t *out_len)
{
    assert(t->held == NULL && cap_stream_unwritten(t->inner) == 0);
    if (t->stage == HANDSHAKE || t->stage == BROKEN)
        return UV_ECONNABORTED;
    int rc = encrypt(t, data, len);
    PyObject *bytes = rc == 0 ? take_out(t) : NULL;
    if (bytes == NULL)
        return rc < 0 ? rc : UV_ENOMEM;
    t->held = bytes;
    *out = PyBytes_AS_STRING(bytes);
    *out_len = (size_t)PyBytes_GET_SIZE(bytes);
    return 0;
}

void
cap_stream_tls_release(cap_stream_tls *t, size_t sent)
{
    PyObject *bytes = t->held;
    t->held = NULL;
    int rc = bytes != NULL ? send_bytes(t, bytes, sent, NULL) : 0;
    if (rc >= 0 && t->answers)
        rc = pump_out(t, NULL);
    t->answers = false;
    if (rc < 0)
        t->stage = BROKEN;
}
