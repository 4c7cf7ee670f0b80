/* A connection's output. Small pieces are gathered in c->work->out and leave with one
   system call, at a response's end or the turn's end; large ones go out at once,
   and what the kernel does not take waits in libuv, by reference. */
#include "asgi/conn.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#ifdef __linux__
#include <linux/sockios.h>
#endif

#include "base/mem.h"
#include "pool/outbox.h"

/* Up to here a copy is cheaper than one more iovec and a reference. */
#define COPY_MAX 8192

/* What libuv holds of ours until `written`. */
typedef struct out_block {
    cap_buffer buf;  /* the copied bytes */
    PyObject *bytes; /* owned; or NULL */
} out_block;

static cap_conn *
conn_of(cap_stream *s)
{
    return s->owner;
}

size_t
cap_conn_unsent(const cap_conn *c)
{
    return c->work->out.len + cap_stream_unwritten(c->io);
}

int
cap_conn_unacknowledged(const cap_conn *c)
{
    int octets = 0;
#ifdef SIOCOUTQ
    if (ioctl(cap_stream_fd(c->io), SIOCOUTQ, &octets) < 0)
        octets = 0;
#endif
    return octets;
}

int
cap_conn_put(cap_conn *c, const void *data, size_t len)
{
    if (cap_buffer_append(&c->work->out, data, len) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static void
block_free(out_block *b)
{
    cap_count.write_requests--;
    cap_buffer_free(&b->buf);
    Py_XDECREF(b->bytes);
    cap_free(b);
}

/* The peer is gone, or we are out of memory with half a message out: either way
   nothing more can be said on this connection. */
static void
write_failed(cap_conn *c)
{
    c->work->out.len = 0;
    cap_conn_close(c, true);
}

/* The time for the peer to take something begins, or goes on. */
static void
watch_progress(cap_conn *c)
{
    size_t unsent = cap_conn_unsent(c);
    if (unsent == 0) {
        c->work->due_send = 0;
        return;
    }
    uint64_t timeout = c->server->set.timeout_send;
    if (timeout == 0 || c->work->due_send != 0)
        return;
    c->work->send_mark = unsent;
    c->work->send_mark_kernel = cap_conn_unacknowledged(c);
    c->work->due_send = cap_server_now(c->server) + timeout;
    cap_conn_rearm(c);
}

/* Not uv_buf_init, whose length is an unsigned int. */
static uv_buf_t
buf_of(char *data, size_t len)
{
    return (uv_buf_t){.base = data, .len = len};
}

/* Queue c->work->out from `skip` on, and `bytes` from `bytes_skip` on, in libuv. Takes
   c->work->out's memory. */
static int
queue_rest(cap_conn *c, size_t skip, PyObject *bytes, size_t bytes_skip, uv_buf_t tail)
{
    out_block *b = cap_malloc(sizeof *b);
    if (b == NULL)
        return -1;
    cap_count.write_requests++;
    b->buf = c->work->out;
    b->bytes = Py_XNewRef(bytes);
    c->work->out = (cap_buffer){0};
    uv_buf_t bufs[3];
    unsigned n = 0;
    if (b->buf.len > skip)
        bufs[n++] = buf_of(b->buf.data + skip, b->buf.len - skip);
    if (bytes != NULL && (size_t)PyBytes_GET_SIZE(bytes) > bytes_skip)
        bufs[n++] = (uv_buf_t){.base = PyBytes_AS_STRING(bytes) + bytes_skip,
                               .len = (size_t)PyBytes_GET_SIZE(bytes) - bytes_skip};
    if (tail.len != 0)
        bufs[n++] = tail;
    if (cap_stream_write(c->io, bufs, n, b) < 0) {
        block_free(b);
        return -1;
    }
    return 0;
}

void
cap_conn_flush(cap_conn *c)
{
    if (c->work->out.len == 0 || !cap_conn_open(c))
        return;
    cap_tally_add(&c->server->tally->octets_out, c->work->out.len);
    ssize_t n = 0;
    if (cap_stream_unwritten(c->io) == 0) {
        uv_buf_t buf = buf_of(c->work->out.data, c->work->out.len);
        n = cap_stream_try_write(c->io, &buf, 1);
        if (n < 0) {
            write_failed(c);
            return;
        }
    }
    if ((size_t)n == c->work->out.len) {
        c->work->out.len = 0;
        if (c->work->out.cap > CAP_LOW_WATER)
            cap_buffer_free(&c->work->out);
        c->work->due_send = 0;
        watch_progress(c); /* TLS takes all, and may still have to send it */
        if (c->state == CAP_CONN_FLUSHING && cap_conn_unsent(c) == 0)
            cap_conn_sent_all(c);
        else if (c->state == CAP_CONN_IDLE && c->work->in.len != 0 && !c->feeding)
            cap_conn_flush_later(c); /* pipelined requests waited for this */
        return;
    }
    if (queue_rest(c, (size_t)n, NULL, 0, buf_of(NULL, 0)) < 0) {
        write_failed(c);
        return;
    }
    watch_progress(c);
}

/* ---- together with others ---- */

void
cap_conn_take_output(cap_conn *c)
{
    bool rests;
    size_t sent = cap_outbox_take(c->server->reactor->outbox, c->gathered - 1u, &rests);
    c->gathered = 0;
    cap_stream_tls *t = cap_conn_tls(c);
    if (t != NULL) { /* it leaves now: others only know of plaintext that waits */
        cap_stream_tls_release(t, sent);
        watch_progress(c);
        return;
    }
    if (sent != 0) {
        cap_tally_add(&c->server->tally->octets_out, sent);
        cap_buffer_consume(&c->work->out, sent);
        if (c->work->out.len == 0)
            cap_buffer_free(&c->work->out);
    }
    c->rests = rests;
}

static void
leave(void *owner)
{
    cap_conn *c = owner;
    Py_INCREF(c);
    if (cap_conn_take(c)) {
        cap_conn_flush(c);
        cap_conn_rest(c);
    } else {
        cap_conn_close(c, false);
    }
    Py_DECREF(c);
}

void
cap_conn_hurry(cap_reactor *r, uint64_t now)
{
    if (r->gathered && now > r->outbox->since + CAP_OUTBOX_HOLD)
        cap_reactor_flush(r);
}

/* The ciphertext of the output, which is held back. False: there is none, and the connection ends. */
static bool
seal(cap_conn *c, cap_stream_tls *t, const char **data, size_t *len)
{
    size_t plain = *len;
    Py_INCREF(c);
    int rc = cap_stream_tls_hold(t, *data, plain, data, len);
    bool open = cap_conn_open(c);
    if (open && rc < 0) {
        write_failed(c);
    } else if (open) {
        cap_tally_add(&c->server->tally->octets_out, plain);
        c->work->out.len = 0;
        c->work->due_send = 0;
    }
    Py_DECREF(c);
    return open && rc == 0;
}

void
cap_conn_flush_together(cap_conn *c)
{
    cap_reactor *r = c->server->reactor;
    cap_outbox *o = r->outbox;
    const cap_conn_work *w = c->work;
    if (o == NULL || c->state != CAP_CONN_IDLE || w->out.len == 0 || w->out.len > CAP_LOW_WATER ||
        w->in.len != 0 || cap_stream_unwritten(c->io) != 0 ||
        !cap_outbox_wants(o)) {
        cap_conn_flush(c);
        return;
    }
    if (cap_outbox_is_full(o)) {
        Py_INCREF(c);
        cap_reactor_flush(r);
        bool same = r->outbox == o && c->state == CAP_CONN_IDLE && !cap_outbox_is_full(o);
        if (!same)
            cap_conn_flush(c);
        Py_DECREF(c);
        if (!same)
            return;
    }
    const char *data = c->work->out.data;
    size_t len = c->work->out.len;
    cap_stream_tls *t = cap_conn_tls(c);
    if (t != NULL) {
        if (!seal(c, t, &data, &len)) /* may run Python */
            return;
        if (r->outbox != o || cap_outbox_is_full(o)) {
            cap_stream_tls_release(t, 0);
            watch_progress(c);
            return;
        }
    }
    if (!r->gathered) {
        o->since = uv_hrtime();
        o->leave = leave;
        r->gathered = true;
    }
    unsigned place = cap_outbox_put(o, cap_stream_fd(c->io), data, len, cap_conn_prepare_rest(c), c);
    c->gathered = (uint8_t)(place + 1);
}

void
cap_conn_flush_later(cap_conn *c)
{
    if (c->work->deferred.queued)
        return;
    assert(c->work != c->server->no_work);
    Py_INCREF(c); /* the queue's */
    cap_reactor_defer(c->server->reactor, &c->work->deferred);
}

int
cap_conn_put_object(cap_conn *c, const Py_buffer *view, const char *head, size_t head_len,
                    const char *tail, size_t tail_len)
{
    size_t len = (size_t)view->len;
    bool by_reference = len > COPY_MAX && view->obj != NULL && PyBytes_CheckExact(view->obj) &&
                        view->buf == PyBytes_AS_STRING(view->obj);
    /* Whatever else it is may be changed by the application after send(). */
    size_t copied = head_len + (by_reference ? 0 : len + tail_len);
    if (cap_buffer_reserve(&c->work->out, copied) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    char *to = c->work->out.data + c->work->out.len;
    if (head_len != 0)
        memcpy(to, head, head_len);
    c->work->out.len += copied;
    if (!by_reference) {
        if (len != 0)
            memcpy(to + head_len, view->buf, len);
        if (tail_len != 0)
            memcpy(to + head_len + len, tail, tail_len);
        if (cap_conn_unsent(c) > CAP_HIGH_WATER)
            cap_conn_flush(c);
        return 0;
    }

    size_t taken = 0;
    if (cap_stream_unwritten(c->io) == 0) {
        uv_buf_t bufs[3] = {buf_of(c->work->out.data, c->work->out.len), buf_of(view->buf, len),
                            buf_of((char *)tail, tail_len)};
        /* An empty first or last one is fine with writev. */
        ssize_t n = cap_stream_try_write(c->io, bufs, tail_len != 0 ? 3 : 2);
        if (n < 0) {
            write_failed(c);
            return 0; /* a client that is gone is no error of the application's */
        }
        taken = (size_t)n;
    }
    size_t out = c->work->out.len;
    cap_tally_add(&c->server->tally->octets_out, out + len + tail_len);
    if (taken == out + len + tail_len) {
        c->work->out.len = 0;
        c->work->due_send = 0;
        return 0;
    }
    size_t in_out = taken < out ? taken : out;
    size_t in_view = taken - in_out < len ? taken - in_out : len;
    size_t in_tail = taken - in_out - in_view;
    if (queue_rest(c, in_out, view->obj, in_view,
                   buf_of((char *)tail + in_tail, tail_len - in_tail)) < 0) {
        write_failed(c);
        return 0;
    }
    watch_progress(c);
    return 0;
}

void
cap_conn_on_written(cap_stream *stream, void *token, int status)
{
    cap_conn *c = conn_of(stream);
    cap_reactor_enter(c->server->reactor);
    if (token != NULL)
        block_free(token);
    if (!cap_conn_open(c))
        return;
    Py_INCREF(c);
    if (status < 0) {
        write_failed(c);
        Py_DECREF(c);
        return;
    }
    size_t unsent = cap_conn_unsent(c);
    c->work->due_send = 0;
    watch_progress(c);
    if (unsent == 0 && c->state == CAP_CONN_IDLE && c->due_read != 0 && !c->server->shutting_down) {
        /* Not before now is it idle. */
        c->due_read = cap_server_now(c->server) + c->server->set.timeout_keep_alive;
        cap_conn_rearm(c);
    }
    if (unsent <= CAP_LOW_WATER) {
        if (c->work->out.len != 0)
            cap_conn_flush(c);
        if (cap_conn_open(c) && c->request != NULL)
            cap_request_drained(c->request);
        if (c->state == CAP_CONN_FLUSHING && cap_conn_unsent(c) == 0)
            cap_conn_sent_all(c);
        else if (c->state == CAP_CONN_IDLE && c->work->in.len != 0)
            cap_conn_flush_later(c); /* the next pipelined request waited for this */
        else if (c->state == CAP_CONN_UPGRADED)
            cap_conn_flush_later(c); /* input that waited, and reading */
    }
    cap_conn_rest(c);
    Py_DECREF(c);
}
