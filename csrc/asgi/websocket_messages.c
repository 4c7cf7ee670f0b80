/* The ASGI messages of a WebSocket, both ways (ASGI, WebSocket message format 2.4),
   with uvicorn's error texts. */
#include "asgi/websocket.h"

#include <string.h>

/* --- receive --------------------------------------------------------------------------- */

bool
cap_websocket_ready(const cap_request *r)
{
    const cap_websocket *ws = r->ws;
    return !ws->connect_given || ws->count != 0 || ws->code != 0 || r->conn == NULL || r->told;
}

static PyObject *
connect_message(cap_state *st)
{
    PyObject *m = PyDict_New();
    if (m != NULL && PyDict_SetItem(m, st->str.type, st->str.websocket_connect) < 0)
        Py_CLEAR(m);
    return m;
}

static PyObject *
disconnect_message(cap_request *r)
{
    cap_websocket *ws = r->ws;
    PyObject *m = PyDict_New(), *code = NULL;
    /* Told while the connection still stands: either we shut down, or the client ended its side. */
    bool restart = r->told && r->server->shutting_down && r->conn != NULL && !r->conn->eof;
    if (m == NULL || PyDict_SetItem(m, r->st->str.type, r->st->str.websocket_disconnect) < 0 ||
        (code = PyLong_FromLong(ws->code != 0 ? ws->code : restart ? 1012 : 1006)) == NULL ||
        PyDict_SetItem(m, r->st->str.code, code) < 0 ||
        PyDict_SetItem(m, r->st->str.reason,
                       ws->reason != NULL ? ws->reason : cap_objects_of(r->st)->empty_str) < 0)
        Py_CLEAR(m);
    Py_XDECREF(code);
    return m;
}

PyObject *
cap_websocket_take(cap_request *r)
{
    cap_state *st = r->st;
    cap_websocket *ws = r->ws;
    if (!ws->connect_given) {
        ws->connect_given = true;
        return connect_message(st);
    }
    if (ws->count == 0)
        return disconnect_message(r);
    PyObject *data = ws->queue[ws->first];
    ws->first = (ws->first + 1) % ws->cap;
    bool was_full = ws->count-- >= r->server->set.ws_max_queue;
    PyObject *m = PyDict_New();
    if (m == NULL || PyDict_SetItem(m, st->str.type, st->str.websocket_receive) < 0 ||
        PyDict_SetItem(m, PyUnicode_Check(data) ? st->str.text : st->str.bytes, data) < 0)
        Py_CLEAR(m);
    Py_DECREF(data);
    /* Frames that waited for room in the queue are read at the turn's end. */
    if (was_full && r->conn != NULL)
        cap_conn_flush_later(r->conn);
    return m;
}

/* --- send -------------------------------------------------------------------------------- */

/* Borrowed; None counts as not there. NULL, perhaps with an exception. */
static PyObject *
given(PyObject *message, PyObject *key)
{
    PyObject *value = PyDict_GetItemWithError(message, key);
    return value == Py_None ? NULL : value;
}

static int
bad_value(const char *what)
{
    PyErr_SetString(PyExc_RuntimeError, what);
    return -1;
}

/* uvicorn's line: the client after proxy headers, nothing for a unix socket's; path and query as
   they came. */
static void
log_accept(cap_request *r, const char *verdict)
{
    const char *query = PyBytes_AS_STRING(r->query);
    PyObject *client = NULL, *target = NULL;
    if (r->client != NULL && PyTuple_Check(r->client) && PyTuple_GET_SIZE(r->client) == 2)
        client = PyUnicode_FromFormat("%S:%S", PyTuple_GET_ITEM(r->client, 0),
                                      PyTuple_GET_ITEM(r->client, 1));
    else
        client = PyUnicode_FromString("");
    target = PyUnicode_FromFormat("%s%s%s", PyBytes_AS_STRING(r->raw_path), *query != 0 ? "?" : "",
                                  query);
    if (client != NULL && target != NULL)
        cap_server_log(r->server, CAP_LOG_INFO, NULL, "%U - \"WebSocket %U\" %s", client, target,
                       verdict);
    PyErr_Clear();
    Py_XDECREF(client);
    Py_XDECREF(target);
}

static int
put_text(cap_conn *c, const char *text)
{
    return cap_conn_put(c, text, strlen(text));
}

/* The 101 response (RFC 6455 4.2.2). */
static int
put_accept(cap_request *r, cap_conn *c, const char *protocol, Py_ssize_t protocol_len, PyObject *fields)
{
    cap_websocket *ws = r->ws;
    size_t before = c->work->out.len;
    if (put_text(c, "HTTP/1.1 101 Switching Protocols\r\n") < 0 || cap_send_defaults(c) < 0 ||
        put_text(c, "upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ") < 0 ||
        cap_conn_put(c, ws->handshake.accept, CAP_WS_ACCEPT_LEN) < 0 || put_text(c, "\r\n") < 0)
        goto fail;
    if (protocol != NULL &&
        (put_text(c, "sec-websocket-protocol: ") < 0 ||
         cap_conn_put(c, protocol, (size_t)protocol_len) < 0 || put_text(c, "\r\n") < 0))
        goto fail;
    if (ws->deflate != NULL) {
        char value[CAP_WS_DEFLATE_RESPONSE];
        size_t len = cap_ws_deflate_response(&ws->handshake.params, value);
        if (put_text(c, "sec-websocket-extensions: ") < 0 || cap_conn_put(c, value, len) < 0 ||
            put_text(c, "\r\n") < 0)
            goto fail;
    }
    if (cap_send_fields(c, fields) < 0 || put_text(c, "\r\n") < 0)
        goto fail;
    return 0;

fail:
    c->work->out.len = before;
    return -1;
}

static int
on_accept(cap_request *r, PyObject *message)
{
    cap_state *st = r->st;
    cap_websocket *ws = r->ws;
    cap_conn *c = r->conn;
    PyObject *protocol = given(message, st->str.subprotocol);
    PyObject *headers = protocol != NULL || !PyErr_Occurred() ? given(message, st->str.headers) : NULL;
    PyObject *fields = NULL;
    const char *text = NULL;
    Py_ssize_t len = 0;
    if (PyErr_Occurred())
        return -1;
    if (protocol != NULL) {
        if (!PyUnicode_Check(protocol)) {
            PyErr_Format(PyExc_TypeError, "subprotocol is a str (ASGI), not %.100s",
                         Py_TYPE(protocol)->tp_name);
            return -1;
        }
        text = PyUnicode_AsUTF8AndSize(protocol, &len);
        if (text == NULL)
            return -1;
        if (!cap_h1_name_ok(text, (size_t)len)) /* a token, as a field name is */
            return bad_value("Invalid WebSocket subprotocol.");
    }
    int rc = -1;
    Py_XINCREF(protocol); /* an iterable of the application's may change the message */
    if (headers != NULL && (fields = cap_send_plain_fields(headers)) == NULL)
        goto done;
    if (r->conn != c || ws->state != CAP_WS_CONNECTING) { /* an iterable of the application's ran */
        rc = bad_value("The WebSocket ended while it was being accepted.");
        goto done;
    }
    if (ws->handshake.deflate && ws->deflate == NULL) {
        ws->deflate = cap_ws_deflate_new(r->server->ws_pool, &r->server->set.ws_deflate,
                                         &ws->handshake.params);
        if (ws->deflate == NULL) {
            PyErr_NoMemory();
            goto done;
        }
    }
    if (put_accept(r, c, text, len, fields) < 0)
        goto done;
    cap_ws_init(&ws->parser, r->server->set.ws_max_size, ws->deflate);
    ws->parsing = true;
    ws->state = CAP_WS_OPEN;
    rc = 0;
    cap_tally_status(r->server->tally, 101);
    cap_tally_add(&r->server->tally->websockets, 1);
    log_accept(r, "[accepted]");
    if (r->conn == c)
        cap_server_log(r->server, CAP_LOG_INFO, NULL, "connection open");
    if (r->conn == c)
        cap_conn_upgrade(c);
done:
    Py_XDECREF(fields);
    Py_XDECREF(protocol);
    return rc;
}

static int
on_close_message(cap_request *r, PyObject *message)
{
    cap_state *st = r->st;
    cap_websocket *ws = r->ws;
    PyObject *code = given(message, st->str.code);
    PyObject *reason = code != NULL || !PyErr_Occurred() ? given(message, st->str.reason) : NULL;
    if (PyErr_Occurred())
        return -1;
    if (ws->state == CAP_WS_CONNECTING) { /* ASGI: closing before accepting is a 403 */
        cap_conn *c = r->conn;
        ws->state = CAP_WS_CLOSED;
        ws->closed_by_app = true;
        ws->code = 1006;
        r->status = 403;
        log_accept(r, "403");
        if (r->conn != c)
            return 0;
        c->keep_alive = false;
        cap_send_simple(c, 403, "", true);
        r->response = CAP_RESPONSE_COMPLETE;
        cap_conn_response_done(c);
        return 0;
    }
    long value = CAP_WS_NORMAL;
    const char *text = "";
    Py_ssize_t len = 0;
    int rc = -1;
    Py_XINCREF(reason); /* the code's __index__() may change the message */
    if (code != NULL && ((value = PyLong_AsLong(code)) == -1 && PyErr_Occurred()))
        goto done;
    if (!cap_ws_close_code_ok((int)value) || value != (int)value) {
        PyErr_Format(PyExc_RuntimeError, "Invalid WebSocket close code %ld.", value);
        goto done;
    }
    if (reason != NULL && (text = PyUnicode_AsUTF8AndSize(reason, &len)) == NULL)
        goto done;
    rc = 0;
    ws->closed_by_app = true;
    cap_websocket_close(r, (int)value, text, (size_t)len);
    if (ws->code == 0) { /* what receive() says from now on (uvicorn) */
        ws->code = (int)value;
        Py_XSETREF(ws->reason, Py_XNewRef(reason));
        cap_waiters_wake(r->receivers, st);
    }
done:
    Py_XDECREF(reason);
    return rc;
}

static int
put_message(cap_request *r, int opcode, const Py_buffer *view)
{
    cap_websocket *ws = r->ws;
    cap_conn *c = r->conn;
    char head[CAP_WS_HEADER_MAX];
    size_t len = (size_t)view->len;
    r->body_octets += len;
    if (ws->deflate != NULL) {
        cap_buffer packed = {0};
        int how = cap_ws_compress(ws->deflate, view->buf, len, &packed);
        if (how < 0) {
            PyErr_NoMemory();
            return -1;
        }
        if (how > 0) {
            size_t n = cap_ws_header(head, CAP_WS_FIN | CAP_WS_RSV1 | opcode, packed.len);
            int rc = cap_buffer_reserve(&c->work->out, n + packed.len);
            if (rc == 0) {
                (void)cap_conn_put(c, head, n); /* there is room for both, or neither is sent */
                (void)cap_conn_put(c, packed.data, packed.len);
                cap_conn_flush_later(c);
            }
            cap_buffer_free(&packed);
            if (rc < 0) { /* the compressor's window is ahead of the client's */
                cap_conn_close(c, true);
                PyErr_NoMemory();
            }
            return rc;
        }
    }
    size_t n = cap_ws_header(head, CAP_WS_FIN | opcode, len);
    if (cap_conn_put_object(c, view, head, n, NULL, 0) < 0)
        return -1;
    if (r->conn == c && cap_conn_open(c))
        cap_conn_flush_later(c);
    return 0;
}

static int
on_send(cap_request *r, PyObject *message)
{
    cap_state *st = r->st;
    PyObject *bytes = given(message, st->str.bytes);
    PyObject *text = bytes == NULL && !PyErr_Occurred() ? given(message, st->str.text) : NULL;
    if (PyErr_Occurred())
        return -1;
    Py_buffer view = {0};
    if (bytes != NULL) {
        if (PyBytes_CheckExact(bytes)) {
            view.buf = PyBytes_AS_STRING(bytes);
            view.len = PyBytes_GET_SIZE(bytes);
            view.obj = bytes;
            return put_message(r, CAP_WS_OP_BINARY, &view);
        }
        if (PyObject_GetBuffer(bytes, &view, PyBUF_SIMPLE) < 0)
            return -1;
        /* A type's own buffer may be Python, which may have ended the session. */
        int rc = r->conn != NULL && r->ws->state == CAP_WS_OPEN
                     ? put_message(r, CAP_WS_OP_BINARY, &view) : 0;
        PyBuffer_Release(&view);
        return rc;
    }
    if (text == NULL)
        return bad_value("websocket.send needs 'bytes' or 'text' (ASGI).");
    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "text is a str (ASGI), not %.100s", Py_TYPE(text)->tp_name);
        return -1;
    }
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &view.len);
    if (utf8 == NULL)
        return -1;
    view.buf = (void *)utf8; /* no obj: it is copied */
    return put_message(r, CAP_WS_OP_TEXT, &view);
}

static bool
is(PyObject *type, PyObject *name)
{
    return type == name || (PyUnicode_Check(type) && PyUnicode_Compare(type, name) == 0);
}

static int
client_disconnected(void)
{
    PyObject *m = PyImport_ImportModule("capicorn.protocols.utils");
    PyObject *type = m != NULL ? PyObject_GetAttrString(m, "ClientDisconnected") : NULL;
    if (type != NULL)
        PyErr_SetNone(type);
    Py_XDECREF(type);
    Py_XDECREF(m);
    return -1;
}

int
cap_websocket_send(cap_request *r, PyObject *message)
{
    cap_state *st = r->st;
    cap_websocket *ws = r->ws;
    if (!PyDict_Check(message)) {
        PyErr_Format(PyExc_TypeError, "an ASGI message is a dict, not %.100s",
                     Py_TYPE(message)->tp_name);
        return -1;
    }
    PyObject *type = PyDict_GetItemWithError(message, st->str.type);
    if (type == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_KeyError, "type");
        return -1;
    }
    switch (ws->state) {
    case CAP_WS_CONNECTING:
        if (is(type, st->str.websocket_accept))
            return on_accept(r, message);
        if (is(type, st->str.websocket_close))
            return on_close_message(r, message);
        if (is(type, st->str.websocket_http_response_start)) {
            if (cap_send_start(r, message) < 0)
                return -1;
            ws->state = CAP_WS_DENYING;
            char status[16];
            PyOS_snprintf(status, sizeof status, "%d", r->status);
            log_accept(r, status);
            return 0;
        }
        PyErr_Format(PyExc_RuntimeError,
                     "Expected ASGI message 'websocket.accept', 'websocket.close' or "
                     "'websocket.http.response.start' but got '%S'.", type);
        return -1;
    case CAP_WS_DENYING:
        if (is(type, st->str.websocket_http_response_body)) {
            int rc = cap_send_body(r, message);
            if (rc == 0 && r->response == CAP_RESPONSE_COMPLETE) {
                ws->state = CAP_WS_CLOSED;
                ws->code = 1006;
            }
            return rc;
        }
        PyErr_Format(PyExc_RuntimeError,
                     "Expected ASGI message 'websocket.http.response.body' but got '%S'.", type);
        return -1;
    case CAP_WS_OPEN:
        if (is(type, st->str.websocket_send))
            return on_send(r, message);
        if (is(type, st->str.websocket_close))
            return on_close_message(r, message);
        PyErr_Format(PyExc_RuntimeError,
                     "Expected ASGI message 'websocket.send' or 'websocket.close', but got '%S'.",
                     type);
        return -1;
    default:
        break;
    }
    if (ws->closed_by_app) {
        PyErr_Format(PyExc_RuntimeError,
                     "Unexpected ASGI message '%S', after sending 'websocket.close'.", type);
        return -1;
    }
    if (is(type, st->str.websocket_close))
        return 0; /* the client was quicker: nothing is left to close */
    return client_disconnected();
}
