/* How a connection begins: accepted by us or by another process, with a PROXY header in front
   of it or TLS below. */
#include "asgi/conn.h"

#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"

/* TLS between the socket and us. */
static int
begin_tls(cap_conn *c)
{
    cap_server *s = c->server;
    cap_stream_tls *t = cap_malloc(sizeof *t);
    if (t == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyObject *context = Py_NewRef(s->ssl_context);
    int rc = cap_stream_tls_open(t, s->reactor, &c->stream.base, context, &cap_conn_stream_events, c);
    Py_DECREF(context);
    if (rc < 0) {
        cap_free(t);
        return -1;
    }
    c->stream.base.on = &cap_tls_inner_events;
    c->stream.base.owner = t;
    c->io = &t->base;
    return 0;
}

void
cap_conn_refuse_plain(cap_conn *c)
{
    if (cap_conn_work_take(c) < 0) {
        cap_conn_close(c, true);
        return;
    }
    c->work->tls = cap_conn_tls(c); /* it is what called us */
    c->stream.base.on = &cap_conn_stream_events;
    c->stream.base.owner = c;
    c->io = &c->stream.base;
    cap_conn_refuse(c, 400, "This port speaks TLS, and the request was sent without it");
}

/* In front of TLS and HTTP: what a trusted proxy says of its client. */
static void
on_proxy_read(cap_stream *stream, const char *data, ssize_t n)
{
    cap_conn *c = stream->owner;
    cap_reactor_enter(c->server->reactor);
    if (!cap_conn_open(c))
        return;
    Py_INCREF(c);
    if (cap_server_loop_gone(c->server) || cap_conn_work_take(c) < 0) {
        cap_conn_close(c, false);
    } else if (c->state == CAP_CONN_IDLE && cap_conn_proxy_feed(c, data, n) > 0) {
        cap_buffer rest = c->work->in;
        c->work->in = (cap_buffer){0};
        stream->on = &cap_conn_stream_events;
        if (c->server->ssl_context != NULL && begin_tls(c) < 0) {
            cap_server_lost(c->server, (PyObject *)c->server);
            cap_conn_close(c, true);
        } else {
            if (cap_conn_tls(c) != NULL && cap_stream_read_start(c->io) < 0)
                cap_conn_close(c, true);
            if (rest.len != 0 && cap_conn_open(c))
                stream->on->read(stream, rest.data, (ssize_t)rest.len);
        }
        cap_buffer_free(&rest);
    } else if (n <= 0) {
        cap_conn_close(c, false);
    }
    cap_conn_rest(c);
    Py_DECREF(c);
}

static const cap_stream_events proxy_events = {
    .alloc = cap_conn_on_alloc,
    .read = on_proxy_read,
    .written = cap_conn_on_written,
    .closed = cap_conn_on_closed,
};

/* What another process knows of it. */
static void
adopt(cap_conn *c, const cap_handover *h)
{
    c->adopted = true;
    c->used = (h->flags & CAP_HANDOVER_USED) != 0;
    if ((h->flags & CAP_HANDOVER_PROXIED) != 0 && cap_conn_set_origin(c, &h->origin) < 0) {
        cap_server_lost(c->server, (PyObject *)c->server);
        cap_conn_close(c, true);
    }
}

/* `h` for one that comes from another process, or NULL. */
static void
begin(cap_server *s, int fd, bool unix_socket, const cap_handover *h)
{
    cap_conn *c = PyObject_New(cap_conn, s->st->type.Connection);
    if (c == NULL) {
        close(fd);
        cap_server_lost(s, (PyObject *)s);
        return;
    }
    memset((char *)c + sizeof(PyObject), 0, sizeof *c - sizeof(PyObject));
    cap_count.connections++;
    c->server = (cap_server *)Py_NewRef((PyObject *)s);
    c->memo = -1;
    c->state = CAP_CONN_IDLE;
    c->body_ended = true;
    c->unix_socket = unix_socket;
    c->work = s->no_work;
    if (s->closed || cap_server_loop_gone(s) || cap_conn_work_take(c) < 0) {
        c->state = CAP_CONN_CLOSED;
        close(fd);
        Py_DECREF(c);
        return;
    }
    cap_conn_list_last(c);

    /* From here the handle exists, and its close callback gives the reference back. */
    c->io = &c->stream.base;
    int rc = cap_stream_uv_open(&c->stream, s->reactor->uv, fd, &cap_conn_stream_events, c);
    cap_count.uv_handles++;
    if (rc < 0) {
        close(fd);
        cap_conn_close(c, false);
        return;
    }
    if (s->rescue != NULL)
        c->claim = cap_claims_get(&s->rescue->claims, fd);
    if (h != NULL && (h->flags & CAP_HANDOVER_FRESH) == 0) {
        adopt(c, h);
    } else if (s->proxy_protocol != NULL && cap_conn_proxy_wanted(c)) {
        c->stream.base.on = &proxy_events;
    } else if (s->ssl_context != NULL && cap_conn_open(c) && begin_tls(c) < 0) {
        cap_server_lost(s, (PyObject *)s);
        cap_conn_close(c, true);
    }
    if (!cap_conn_open(c)) /* asking ran Python */
        return;
    cap_conn_due_in(c, &c->due_read, c->used ? s->set.timeout_keep_alive : s->set.timeout_first_byte);
    cap_conn_update_reading(c);
    cap_conn_rest(c);
}

void
cap_conn_accept(cap_server *s, int fd, cap_server_listener *l)
{
    begin(s, fd, l->listener.family == AF_UNIX, NULL);
}

void
cap_conn_adopt(cap_server *s, int fd, const cap_handover *h)
{
    struct sockaddr_storage addr;
    socklen_t len = sizeof addr;
    bool named = getsockname(fd, (struct sockaddr *)&addr, &len) == 0;
    begin(s, fd, named && addr.ss_family == AF_UNIX, h);
}
