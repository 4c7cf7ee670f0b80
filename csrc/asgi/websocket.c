/* A WebSocket session's life: handshake, input, pings, the closing handshake. */
#include "asgi/websocket.h"

#include <string.h>

#include "base/mem.h"

bool
cap_websocket_wanted(const cap_server *s, const cap_h1_head *h)
{
    /* With content it would be unclear where the frames begin. */
    return s->set.ws && (h->flags & CAP_H1_UPGRADE_WEBSOCKET) != 0 &&
           (h->flags & CAP_H1_CHUNKED) == 0 &&
           ((h->flags & CAP_H1_HAS_LENGTH) == 0 || h->content_length == 0);
}

/* --- handshake ------------------------------------------------------------------------ */

static void
refuse_handshake(cap_conn *c, const cap_ws_handshake *hs)
{
    char peer[64], text[256];
    cap_server_log(c->server, CAP_LOG_WARNING, NULL,
                   "Invalid WebSocket handshake. %s. (%s, answered %d)", hs->reason,
                   cap_conn_peer_text(c, peer), hs->status);
    if (c->state != CAP_CONN_RUNNING)
        return;
    PyOS_snprintf(text, sizeof text, "Invalid WebSocket handshake.\n%s.\n", hs->reason);
    c->keep_alive = false;
    /* RFC 6455 4.4; and an Upgrade field is named in Connection (RFC 9110 7.8). */
    bool version = hs->status == 426;
    cap_send_simple_with(c, hs->status, text, !version,
                         version ? "upgrade: websocket\r\nsec-websocket-version: 13\r\n"
                                   "connection: upgrade, close\r\n"
                                 : "");
}

int
cap_websocket_begin(cap_request *r, cap_conn *c, const cap_h1_head *h, const char *base)
{
    cap_server *s = c->server;
    cap_state *st = r->st;
    cap_ws_handshake hs;
    if (cap_ws_handshake_check(h, base, s->set.ws_deflate.enabled ? &s->set.ws_deflate : NULL,
                               &hs) != 101) {
        refuse_handshake(c, &hs);
        return -1;
    }
    cap_websocket *ws = cap_calloc(1, sizeof *ws);
    if (ws == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    ws->handshake = hs;
    r->ws = ws; /* freed with r */

    /* The scope of an HTTP request, turned into a websocket's (ASGI, WebSocket
       connection scope; the keys and types are uvicorn's). */
    PyObject *scope = r->scope, *protocols = PyList_New(0), *asgi = NULL, *extensions = NULL;
    PyObject *scheme = NULL; /* borrowed */
    if (protocols == NULL)
        return -1;
    cap_ws_protocol_cursor cursor = {0};
    const char *name;
    size_t len;
    while (cap_ws_protocol_next(h, base, &cursor, &name, &len)) {
        PyObject *str = PyUnicode_DecodeLatin1(name, (Py_ssize_t)len, NULL);
        if (str == NULL || PyList_Append(protocols, str) < 0) {
            Py_XDECREF(str);
            goto fail;
        }
        Py_DECREF(str);
    }
    if ((asgi = cap_dict_like(s->asgi_proto)) == NULL ||
        (extensions = Py_BuildValue("{s:{}}", "websocket.http.response")) == NULL)
        goto fail;
    PyObject *http = PyDict_GetItemWithError(scope, st->str.extensions), *tls = NULL; /* borrowed */
    if (http != NULL && PyDict_Check(http))
        tls = PyDict_GetItemWithError(http, st->str.tls);
    if ((tls != NULL && PyDict_SetItem(extensions, st->str.tls, tls) < 0) || PyErr_Occurred() ||
        (scheme = PyDict_GetItemWithError(scope, st->str.scheme)) == NULL)
        goto fail;
    bool secure = PyUnicode_Check(scheme) && (PyUnicode_CompareWithASCIIString(scheme, "https") == 0 ||
                                              PyUnicode_CompareWithASCIIString(scheme, "wss") == 0);
    if (PyDict_SetItem(asgi, st->str.spec_version, st->str.ws_spec_version) < 0 ||
        PyDict_SetItem(scope, st->str.asgi, asgi) < 0 ||
        PyDict_SetItem(scope, st->str.type, st->str.websocket) < 0 ||
        PyDict_SetItem(scope, st->str.scheme, secure ? st->str.wss : st->str.ws) < 0 ||
        PyDict_SetItem(scope, st->str.subprotocols, protocols) < 0 ||
        PyDict_SetItem(scope, st->str.extensions, extensions) < 0 ||
        PyDict_DelItem(scope, st->str.method) < 0)
        goto fail;
    Py_DECREF(protocols);
    Py_DECREF(asgi);
    Py_DECREF(extensions);
    return 0;

fail:
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_RuntimeError, "the scope has no scheme");
    Py_DECREF(protocols);
    Py_XDECREF(asgi);
    Py_XDECREF(extensions);
    return -1;
}

static void
drop_queue(cap_websocket *ws)
{
    PyObject **queue = ws->queue;
    unsigned first = ws->first, count = ws->count, cap = ws->cap;
    ws->queue = NULL;
    ws->first = ws->count = ws->cap = 0;
    for (unsigned i = 0; i < count; i++)
        Py_DECREF(queue[(first + i) % cap]);
    cap_free(queue);
}

void
cap_websocket_free(cap_websocket *ws)
{
    drop_queue(ws);
    if (ws->parsing)
        cap_ws_free(&ws->parser);
    cap_ws_deflate_free(ws->deflate);
    Py_XDECREF(ws->reason);
    cap_free(ws);
}

/* --- input ---------------------------------------------------------------------------- */

/* Steals the message. */
static int
enqueue(cap_websocket *ws, PyObject *message)
{
    if (message == NULL)
        return -1;
    if (ws->count == ws->cap) {
        unsigned cap = ws->cap != 0 ? ws->cap * 2 : 2;
        PyObject **queue = cap_malloc(cap * sizeof *queue);
        if (queue == NULL) {
            Py_DECREF(message);
            PyErr_NoMemory();
            return -1;
        }
        for (unsigned i = 0; i < ws->count; i++)
            queue[i] = ws->queue[(ws->first + i) % ws->cap];
        cap_free(ws->queue);
        ws->queue = queue;
        ws->first = 0;
        ws->cap = cap;
    }
    ws->queue[(ws->first + ws->count++) % ws->cap] = message;
    return 0;
}

bool
cap_websocket_wants_input(const cap_request *r)
{
    /* Also when the client takes nothing of what we say: our Pongs would pile up. */
    if (r->conn != NULL && cap_conn_unsent(r->conn) > CAP_HIGH_WATER)
        return false;
    return r->ws->count < r->server->set.ws_max_queue || r->ws->state == CAP_WS_CLOSING;
}

static void
next_ping(cap_conn *c)
{
    uint64_t interval = c->server->set.ws_ping_interval;
    c->due_read = interval != 0 ? cap_server_now(c->server) + interval : 0;
    cap_conn_rearm(c);
}

static void
set_disconnect(cap_websocket *ws, int code, PyObject *reason)
{
    if (ws->code != 0)
        return;
    ws->code = code;
    Py_XSETREF(ws->reason, Py_XNewRef(reason));
}

static int
put_control(cap_conn *c, int opcode, const char *data, size_t len)
{
    char frame[CAP_WS_CONTROL_FRAME];
    return cap_conn_put(c, frame, cap_ws_control(frame, opcode, data, len));
}

/* Our Close frame, or the answer to the client's; then the TCP connection ends. */
static void
put_close(cap_conn *c, int code, const char *reason, size_t len)
{
    char frame[CAP_WS_CONTROL_FRAME];
    if (cap_conn_put(c, frame, cap_ws_close(frame, code, reason, len)) < 0)
        PyErr_Clear(); /* the end of the connection says it too */
}

void
cap_websocket_close(cap_request *r, int code, const char *reason, size_t len)
{
    cap_conn *c = r->conn;
    cap_websocket *ws = r->ws;
    if (c == NULL || ws->state != CAP_WS_OPEN || !cap_conn_open(c))
        return;
    ws->state = CAP_WS_CLOSING;
    drop_queue(ws); /* RFC 6455 1.4: nothing that comes now is for the application */
    put_close(c, code, reason, len);
    c->due_read = cap_server_now(c->server) +
                  (c->server->shutting_down ? CAP_WS_GOODBYE_MS : CAP_WS_CLOSE_MS);
    cap_conn_rearm(c);
    cap_conn_flush_later(c);
    cap_conn_update_reading(c);
}

/* The closing handshake is over, or failed: the connection ends. */
static void
session_over(cap_conn *c)
{
    cap_request *r = c->request;
    if (r->ws->state == CAP_WS_CLOSED)
        return;
    r->ws->state = CAP_WS_CLOSED;
    r->response = CAP_RESPONSE_COMPLETE;
    cap_server_log(c->server, CAP_LOG_INFO, NULL, "connection closed");
    if (c->request == r)
        cap_conn_session_over(c);
}

/* What the peer did makes it impossible to go on (RFC 6455 7.1.7). */
static void
fail_session(cap_conn *c, int code, const char *reason)
{
    cap_request *r = c->request;
    cap_websocket *ws = r->ws;
    bool open = ws->state == CAP_WS_OPEN;
    PyObject *text = PyUnicode_FromString(reason);
    PyErr_Clear();
    set_disconnect(ws, code, text);
    Py_XDECREF(text);
    if (open)
        put_close(c, code, reason, strlen(reason));
    session_over(c);
}

/* The client's Close frame. */
static void
on_close(cap_conn *c, const cap_ws_out *out)
{
    cap_websocket *ws = c->request->ws;
    PyObject *reason = PyUnicode_DecodeUTF8(out->data, (Py_ssize_t)out->len, "replace");
    PyErr_Clear();
    set_disconnect(ws, out->code, reason);
    Py_XDECREF(reason);
    if (ws->state == CAP_WS_OPEN) /* 5.5.1: the answer has the same code */
        put_close(c, out->code, out->data, out->len);
    session_over(c);
}

/* One event; false when the session takes no more. */
static bool
on_event(cap_conn *c, cap_ws_event ev, const cap_ws_out *out)
{
    cap_request *r = c->request;
    cap_websocket *ws = r->ws;
    PyObject *message = NULL;
    switch (ev) {
    case CAP_WS_TEXT:
        if (ws->state != CAP_WS_OPEN)
            return true;
        if (out->ascii) {
            message = PyUnicode_New((Py_ssize_t)out->len, 127);
            if (message != NULL && out->len != 0)
                memcpy(PyUnicode_1BYTE_DATA(message), out->data, out->len);
        } else {
            message = PyUnicode_DecodeUTF8(out->data, (Py_ssize_t)out->len, NULL);
        }
        break;
    case CAP_WS_BINARY:
        if (ws->state != CAP_WS_OPEN)
            return true;
        message = PyBytes_FromStringAndSize(out->data, (Py_ssize_t)out->len);
        break;
    case CAP_WS_PING:
        if (ws->state == CAP_WS_OPEN && put_control(c, CAP_WS_OP_PONG, out->data, out->len) < 0)
            PyErr_Clear();
        return true;
    case CAP_WS_PONG:
        if (ws->awaits_pong && ws->state == CAP_WS_OPEN) {
            ws->awaits_pong = false;
            next_ping(c);
        }
        return true;
    case CAP_WS_CLOSE:
        on_close(c, out);
        return false;
    case CAP_WS_ERROR:
        fail_session(c, out->code, out->reason);
        return false;
    case CAP_WS_MORE:
        return false;
    }
    if (enqueue(ws, message) < 0) {
        PyErr_Clear();
        fail_session(c, CAP_WS_INTERNAL_ERROR, "out of memory");
        return false;
    }
    Py_INCREF(r);
    cap_waiters_wake(r->receivers, r->st); /* runs Python */
    Py_DECREF(r);
    return true;
}

void
cap_websocket_feed(cap_conn *c, char *data, size_t len)
{
    bool own = c->work->in.len != 0;
    if (own) {
        if (len != 0 && cap_buffer_append(&c->work->in, data, len) < 0) {
            cap_conn_close(c, true);
            return;
        }
        data = c->work->in.data;
        len = c->work->in.len;
    }
    size_t at = 0, used;
    c->feeding = true;
    /* Until MORE, also without input: then the parser lets go of the last message. */
    while (c->state == CAP_CONN_UPGRADED && c->request != NULL &&
           cap_websocket_wants_input(c->request)) {
        cap_ws_out out;
        cap_ws_event ev = cap_ws_next(&c->request->ws->parser, data + at, len - at, &used, &out);
        at += used;
        if (!on_event(c, ev, &out))
            break;
    }
    c->feeding = false;
    if (!cap_conn_open(c) || c->state != CAP_CONN_UPGRADED) {
        if (cap_conn_open(c))
            cap_buffer_free(&c->work->in);
        return;
    }
    if (own) {
        cap_buffer_consume(&c->work->in, at);
        if (c->work->in.len == 0)
            cap_buffer_free(&c->work->in);
    } else if (at < len && cap_buffer_append(&c->work->in, data + at, len - at) < 0) {
        cap_conn_close(c, true);
        return;
    }
    cap_conn_flush(c);
    if (c->state == CAP_CONN_UPGRADED && c->work->in.len != 0 && c->request != NULL &&
        cap_websocket_wants_input(c->request))
        cap_conn_flush_later(c); /* what our own output kept waiting, and it has left at once */
    cap_conn_update_reading(c);
}

void
cap_websocket_eof(cap_conn *c)
{
    /* A WebSocket has no half-closed state: without a Close frame the session is lost. */
    set_disconnect(c->request->ws, CAP_WS_NO_CODE, NULL);
    session_over(c);
}

/* --- time, and the end -------------------------------------------------------------------- */

void
cap_websocket_on_timer(cap_conn *c)
{
    cap_server *s = c->server;
    cap_websocket *ws = c->request->ws;
    if (ws->state == CAP_WS_CLOSING) {
        session_over(c); /* the client did not answer our Close */
        return;
    }
    if (ws->state != CAP_WS_OPEN)
        return;
    if (ws->awaits_pong) {
        fail_session(c, CAP_WS_INTERNAL_ERROR, "keepalive ping timeout");
        return;
    }
    if (put_control(c, CAP_WS_OP_PING, NULL, 0) < 0)
        PyErr_Clear();
    if (ws->deflate != NULL)
        cap_ws_deflate_idle(ws->deflate);
    if (s->set.ws_ping_timeout != 0) {
        ws->awaits_pong = true;
        c->due_read = cap_server_now(s) + s->set.ws_ping_timeout;
        cap_conn_rearm(c);
    } else {
        next_ping(c);
    }
    cap_conn_flush(c);
}

void
cap_websocket_shutdown(cap_conn *c)
{
    cap_request *r = c->request;
    if (r == NULL)
        return; /* the session is over just now: that ran Python, and we are in it */
    cap_websocket *ws = r->ws;
    if (ws->state == CAP_WS_CLOSING) {
        uint64_t due = cap_server_now(c->server) + CAP_WS_GOODBYE_MS;
        if (c->due_read > due) {
            c->due_read = due;
            cap_conn_rearm(c);
        }
        return;
    }
    if (ws->state != CAP_WS_OPEN)
        return;
    PyObject *reason = PyUnicode_FromString("Service Restart");
    PyErr_Clear();
    Py_INCREF(r); /* the connection may end in between */
    cap_websocket_close(r, 1012, "Service Restart", 15);
    set_disconnect(ws, 1012, reason);
    Py_XDECREF(reason);
    cap_waiters_wake(r->receivers, r->st);
    Py_DECREF(r);
}

void
cap_websocket_detached(cap_request *r)
{
    cap_websocket *ws = r->ws;
    set_disconnect(ws, ws->state == CAP_WS_OPEN || ws->state == CAP_WS_CLOSING ? CAP_WS_NO_CODE
                                                                               : 1006, NULL);
    if (ws->state != CAP_WS_CLOSED)
        ws->state = CAP_WS_CLOSED;
}

void
cap_websocket_app_done(cap_request *r, bool failed)
{
    cap_websocket *ws = r->ws;
    if (r->conn == NULL)
        return;
    if (ws->state == CAP_WS_OPEN) {
        int code = failed ? CAP_WS_INTERNAL_ERROR : CAP_WS_NORMAL;
        cap_websocket_close(r, code, "", 0);
        set_disconnect(ws, code, NULL);
    }
}
