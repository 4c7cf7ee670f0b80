/* The application's send(): checks each message, writes it to the connection, and
   returns an awaitable: the one that is already done, or, when the client does not
   take what is there, one that waits. Also the server's own short responses. */
#include "asgi/conn.h"
#include "asgi/send_file.h"
#include "asgi/websocket.h"

#include <string.h>

#define NOT_STARTED "Expected ASGI message 'http.response.start', but got '%S'."
#define NOT_BODY "Expected ASGI message 'http.response.body', but got '%S'."
#define NOT_TRAILERS "Expected ASGI message 'http.response.trailers', but got '%S'."
#define AFTER_END "Unexpected ASGI message '%S' sent, after response already completed."

/* --- the head ------------------------------------------------------------------------- */

/* What the fields given by the application mean for framing. */
typedef struct fields_seen {
    uint32_t defaults;  /* bit 0: Date; bit i + 1: default_headers[i] is the app's own */
    bool has_length;
    bool chunked;
    bool close;
    bool upgrade;
    uint64_t length;
} fields_seen;

static int
bad(const char *what)
{
    PyErr_SetString(PyExc_RuntimeError, what);
    return -1;
}

/* The default fields but those in `own`. */
static int
put_defaults(cap_conn *c, uint32_t own)
{
    cap_server *s = c->server;
    size_t len;
    const char *all = cap_server_defaults(s, &len);
    if (own == 0)
        return cap_conn_put(c, all, len);
    if (s->set.date_header && (own & 1) == 0 &&
        cap_conn_put(c, all + s->defaults_date_at - 6, 6 + CAP_HTTP_DATE + 2) < 0)
        return -1;
    Py_ssize_t n = s->default_headers != NULL ? PyTuple_GET_SIZE(s->default_headers) : 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (i + 1 < 32 && (own & (1u << (i + 1))) != 0)
            continue;
        PyObject *pair = PyTuple_GET_ITEM(s->default_headers, i);
        PyObject *name = PyTuple_GET_ITEM(pair, 0), *value = PyTuple_GET_ITEM(pair, 1);
        if (cap_conn_put(c, PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name)) < 0 ||
            cap_conn_put(c, ": ", 2) < 0 ||
            cap_conn_put(c, PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value)) < 0 ||
            cap_conn_put(c, "\r\n", 2) < 0)
            return -1;
    }
    return 0;
}

static uint32_t
default_bit(const cap_server *s, const char *name, size_t len)
{
    if (len == 4 && memcmp(name, "date", 4) == 0)
        return 1;
    Py_ssize_t n = s->default_headers != NULL ? PyTuple_GET_SIZE(s->default_headers) : 0;
    for (Py_ssize_t i = 0; i < n && i + 1 < 32; i++) {
        PyObject *own = PyTuple_GET_ITEM(PyTuple_GET_ITEM(s->default_headers, i), 0);
        if ((size_t)PyBytes_GET_SIZE(own) == len && memcmp(PyBytes_AS_STRING(own), name, len) == 0)
            return 1u << (i + 1);
    }
    return 0;
}

/* One field of the application: checked, written in lower case, or left to the
   framing. `length_too`: Content-Length may be said. */
static int
put_field(cap_conn *c, bool length_too, PyObject *name, PyObject *value, fields_seen *seen)
{
    if (!PyBytes_Check(name) || !PyBytes_Check(value)) {
        PyErr_Format(PyExc_TypeError,
                     "response headers are pairs of bytes (ASGI), not of %.100s and %.100s",
                     Py_TYPE(name)->tp_name, Py_TYPE(value)->tp_name);
        return -1;
    }
    const char *n = PyBytes_AS_STRING(name), *v = PyBytes_AS_STRING(value);
    size_t nlen = (size_t)PyBytes_GET_SIZE(name), vlen = (size_t)PyBytes_GET_SIZE(value);
    if (!cap_h1_name_ok(n, nlen))
        return bad("Invalid HTTP header name.");
    if (!cap_h1_value_ok(v, vlen))
        return bad("Invalid HTTP header value.");
    if (cap_buffer_reserve(&c->work->out, nlen + vlen + 4) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    char *to = c->work->out.data + c->work->out.len;
    cap_h1_lower(to, n, nlen);
    switch (nlen) {
    case 10:
        if (memcmp(to, "connection", 10) == 0) {
            /* Ours to say: whether the connection goes on is known here alone. */
            seen->close |= cap_h1_list_has(v, vlen, "close");
            seen->upgrade |= cap_h1_list_has(v, vlen, "upgrade");
            return 0;
        }
        break;
    case 14:
        if (memcmp(to, "content-length", 14) == 0) {
            uint64_t length;
            if (!cap_h1_parse_length(v, vlen, &length) ||
                (seen->has_length && seen->length != length))
                return bad("Invalid HTTP header value.");
            bool again = seen->has_length;
            seen->has_length = true;
            seen->length = length;
            if (again || !length_too)
                return 0;
        }
        break;
    case 17:
        if (memcmp(to, "transfer-encoding", 17) == 0) {
            if (vlen != 7 || !cap_h1_list_has(v, vlen, "chunked"))
                return bad("Transfer-Encoding is the server's; only 'chunked' can be asked for.");
            seen->chunked = true;
            return 0;
        }
        break;
    }
    seen->defaults |= default_bit(c->server, to, nlen);
    memcpy(to + nlen, ": ", 2);
    memcpy(to + nlen + 2, v, vlen);
    memcpy(to + nlen + 2 + vlen, "\r\n", 2);
    c->work->out.len += nlen + vlen + 4;
    return 0;
}

static bool
is_plain(PyObject *pair)
{
    return PyTuple_CheckExact(pair) || PyList_CheckExact(pair);
}

/* A pair of cap_send_plain_fields. Runs no Python. */
static int
put_pair(cap_conn *c, bool length_too, PyObject *pair, fields_seen *seen)
{
    if (PySequence_Fast_GET_SIZE(pair) == 2)
        return put_field(c, length_too, PySequence_Fast_GET_ITEM(pair, 0),
                         PySequence_Fast_GET_ITEM(pair, 1), seen);
    PyErr_SetString(PyExc_TypeError, "a response header is a pair of bytes (ASGI)");
    return -1;
}

PyObject *
cap_send_plain_fields(PyObject *headers)
{
    PyObject *fields = PySequence_Fast(headers, "headers are an iterable of pairs of bytes (ASGI)");
    if (fields == NULL)
        return NULL;
    Py_ssize_t i = 0, n = PySequence_Fast_GET_SIZE(fields);
    while (i < n && is_plain(PySequence_Fast_GET_ITEM(fields, i)))
        i++;
    if (i == n)
        return fields;
    PyObject *plain = PyList_New(0);
    for (i = 0; plain != NULL && i < PySequence_Fast_GET_SIZE(fields); i++) {
        PyObject *pair = Py_NewRef(PySequence_Fast_GET_ITEM(fields, i));
        PyObject *two = is_plain(pair) ? Py_NewRef(pair) : PySequence_Tuple(pair);
        if (two == NULL || PyList_Append(plain, two) < 0)
            Py_CLEAR(plain);
        Py_XDECREF(two);
        Py_DECREF(pair);
    }
    Py_DECREF(fields);
    return plain;
}

/* Status line and fields, up to the framing. `fields`: of cap_send_plain_fields, or NULL;
   `length_too`: with the Content-Length that is among them. */
static int
put_fields(cap_conn *c, int status, PyObject *fields, uint32_t own, bool length_too,
           fields_seen *seen)
{
    size_t len;
    const char *line = cap_h1_status_line(status, &len);
    *seen = (fields_seen){0};
    if (cap_conn_put(c, line, len) < 0 || put_defaults(c, own) < 0)
        return -1;
    Py_ssize_t n = fields != NULL ? PySequence_Fast_GET_SIZE(fields) : 0;
    for (Py_ssize_t i = 0; i < n && i < PySequence_Fast_GET_SIZE(fields); i++)
        if (put_pair(c, length_too, PySequence_Fast_GET_ITEM(fields, i), seen) < 0)
            return -1;
    return 0;
}

int
cap_send_defaults(cap_conn *c)
{
    return put_defaults(c, 0);
}

int
cap_send_fields(cap_conn *c, PyObject *fields)
{
    fields_seen seen = {0};
    Py_ssize_t n = fields != NULL ? PySequence_Fast_GET_SIZE(fields) : 0;
    for (Py_ssize_t i = 0; i < n && i < PySequence_Fast_GET_SIZE(fields); i++)
        if (put_pair(c, false, PySequence_Fast_GET_ITEM(fields, i), &seen) < 0)
            return -1;
    return 0;
}

/* `upgrade` is what the application says beside its Upgrade field, in a 426 for instance
   (RFC 9110 7.8). */
static const char *
connection_field(bool close, bool old, bool upgrade)
{
    if (close)
        return upgrade ? "connection: upgrade, close\r\n" : "connection: close\r\n";
    if (old) /* 1.0 ends unless told otherwise (RFC 9112 9.3) */
        return upgrade ? "connection: upgrade, keep-alive\r\n" : "connection: keep-alive\r\n";
    return upgrade ? "connection: upgrade\r\n" : "";
}

static int
put_head(cap_request *r, cap_conn *c, int status, PyObject *fields)
{
    fields_seen seen;
    size_t before = c->work->out.len;
    /* A client may take all that follows a CONNECT's 2xx for a tunnel, which has no framing
       (RFC 9110 9.3.6): the end of the connection ends it. */
    bool tunnel = status < 300 && r->method == c->server->objects->connect;
    bool length_too = status != 204 && !tunnel; /* RFC 9110 8.6 */
    if (put_fields(c, status, fields, 0, length_too, &seen) < 0)
        goto fail;
    if (seen.defaults != 0 || (seen.has_length && seen.chunked)) {
        /* The application's own Date or Server takes the default's place (RFC 9110 5.3:
           neither may come twice), and chunked that of a length (RFC 9112 6.2; gateways
           copy the one and their framework adds the other). Rare, so the head is simply
           written again. */
        uint32_t own = seen.defaults;
        c->work->out.len = before;
        length_too &= !seen.chunked;
        if (put_fields(c, status, fields, own, length_too, &seen) < 0)
            goto fail;
        seen.has_length &= !seen.chunked;
    }
    seen.has_length &= !tunnel;
    r->no_body = r->is_head || status == 204 || status == 304;
    r->has_length = seen.has_length;
    r->length_left = seen.length;
    /* RFC 9112 6.1: no transfer coding to a 1.0 client; the end of the connection is the
       end of the content there. */
    r->chunked = !seen.has_length && !r->no_body && !tunnel && r->minor >= 1;
    bool until_close = !seen.has_length && !r->no_body && !r->chunked;
    if (seen.close || until_close || cap_server_wants_close(c->server) ||
        (r->expects && !c->body_ended))
        c->keep_alive = false;
    if (r->chunked && cap_conn_put(c, "transfer-encoding: chunked\r\n", 28) < 0)
        goto fail;
    const char *connection = connection_field(!c->keep_alive, r->minor == 0, seen.upgrade);
    if (cap_conn_put(c, connection, strlen(connection)) < 0)
        goto fail;
    if (cap_conn_put(c, "\r\n", 2) < 0)
        goto fail;
    return 0;

fail:
    c->work->out.len = before;
    return -1;
}

/* --- messages --------------------------------------------------------------------------- */

static bool
is(PyObject *type, PyObject *name)
{
    return type == name || (PyUnicode_Check(type) && PyUnicode_Compare(type, name) == 0);
}

/* message[key] or NULL without an exception when it is not there. Borrowed from the
   message, which the caller holds: only for dicts. */
static PyObject *
item(PyObject *message, PyObject *key)
{
    return PyDict_GetItemWithError(message, key);
}

/* Is message[key] true? 0 when it is not there; -1 with an exception. May run Python, which
   may change the message and send others. */
static int
truth_of(PyObject *message, PyObject *key)
{
    PyObject *value = item(message, key);
    if (value == NULL)
        return PyErr_Occurred() ? -1 : 0;
    if (PyBool_Check(value))
        return value == Py_True;
    Py_INCREF(value);
    int truth = PyObject_IsTrue(value);
    Py_DECREF(value);
    return truth;
}

int
cap_send_start(cap_request *r, PyObject *message)
{
    cap_state *st = r->st;
    cap_conn *c = r->conn;
    PyObject *status = item(message, st->str.status);
    if (status == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_KeyError, "status");
        return -1;
    }
    if (!PyLong_Check(status)) {
        PyErr_Format(PyExc_TypeError, "status is an int (ASGI), not %.100s",
                     Py_TYPE(status)->tp_name);
        return -1;
    }
    long code = PyLong_AsLong(status);
    if (code == -1 && PyErr_Occurred())
        PyErr_Clear();
    if (code < 200 || code > 999) {
        PyErr_Format(PyExc_RuntimeError, "Invalid HTTP status %S: a response has 200 to 999.",
                     status);
        return -1;
    }
    PyObject *headers = item(message, st->str.headers), *fields = NULL;
    if (headers == NULL && PyErr_Occurred())
        return -1;
    if (headers != NULL) {
        fields = cap_send_plain_fields(headers);
        if (fields == NULL)
            return -1;
    }
    int trailers = truth_of(message, st->str.trailers);
    if (trailers < 0) {
        Py_XDECREF(fields);
        return -1;
    }
    /* An iterable of the application's may have run anything. */
    int rc = -1;
    if (r->conn != c)
        rc = 0;
    else if (r->response == CAP_RESPONSE_NOT_STARTED)
        rc = put_head(r, c, (int)code, fields);
    else
        PyErr_Format(PyExc_RuntimeError, NOT_BODY, st->str.http_response_start);
    if (rc == 0 && r->conn == c) {
        r->trailers = trailers && r->ws == NULL;
        r->status = (int)code;
        r->response = CAP_RESPONSE_STARTED;
        if (r->server->access_log != NULL)
            Py_XSETREF(r->response_headers, Py_XNewRef(fields));
        cap_request_log(r, true);
        if (r->conn == c)
            cap_conn_flush_later(c);
    }
    Py_XDECREF(fields);
    return rc;
}

static int
put_content(cap_request *r, cap_conn *c, const Py_buffer *view, bool last)
{
    size_t len = (size_t)view->len;
    if (r->no_body)
        return 0;
    if (r->has_length) {
        if (len > r->length_left)
            return bad("Response content longer than Content-Length");
        r->length_left -= len;
    }
    r->body_octets += len;
    if (!r->chunked)
        return len != 0 ? cap_conn_put_object(c, view, NULL, 0, NULL, 0) : 0;
    static const char tail[] = "\r\n0\r\n\r\n";
    if (len == 0)
        return last ? cap_conn_put(c, tail + 2, 5) : 0;
    char line[CAP_H1_CHUNK_LINE];
    size_t line_len = cap_h1_chunk_line(line, len);
    return cap_conn_put_object(c, view, line, line_len, tail, last ? 7 : 2);
}

static void
complete(cap_request *r)
{
    cap_conn *c = r->conn;
    r->response = CAP_RESPONSE_COMPLETE;
    cap_request_count(r);
    cap_request_log(r, false);
    if (r->conn == c)
        cap_conn_response_done(c);
}

/* The content is whole, its last chunk written. */
static int
end_content(cap_request *r)
{
    if (r->has_length && r->length_left != 0 && !r->no_body)
        return bad("Response content shorter than Content-Length");
    if (r->trailers) {
        r->response = CAP_RESPONSE_TRAILERS;
        cap_conn_flush_later(r->conn);
    } else {
        complete(r);
    }
    return 0;
}

void
cap_send_content_done(cap_request *r, bool last)
{
    cap_conn *c = r->conn;
    bool end = last && r->chunked && !r->trailers;
    int rc = 0;
    if (r->in_file_chunk || end)
        rc = cap_conn_put(c, "\r\n0\r\n\r\n" + (r->in_file_chunk ? 0 : 2),
                          (r->in_file_chunk ? 2 : 0) + (end ? 5 : 0));
    r->in_file_chunk = false;
    if (rc == 0 && last)
        rc = end_content(r);
    else if (rc == 0)
        cap_conn_flush_later(c);
    if (rc < 0) {
        PyErr_WriteUnraisable((PyObject *)r);
        cap_conn_break(c);
    }
    cap_request_drained(r); /* the application's await is over */
}

/* Did the client say `TE: trailers` (RFC 9110 6.5.1)? */
static bool
takes_trailers(const cap_request *r)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(r->headers); i++) {
        PyObject *pair = PyList_GET_ITEM(r->headers, i), *name, *value;
        if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2)
            continue; /* the list is the application's to change */
        name = PyTuple_GET_ITEM(pair, 0);
        value = PyTuple_GET_ITEM(pair, 1);
        if (PyBytes_Check(name) && PyBytes_Check(value) && PyBytes_GET_SIZE(name) == 2 &&
            memcmp(PyBytes_AS_STRING(name), "te", 2) == 0 &&
            cap_h1_list_has(PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value), "trailers"))
            return true;
    }
    return false;
}

/* http.response.trailers: fields behind the last chunk (RFC 9112 7.1.2), for clients
   that take them; else they are dropped. */
static int
on_trailers(cap_request *r, PyObject *message)
{
    cap_state *st = r->st;
    int more = truth_of(message, st->str.more_trailers);
    if (more < 0)
        return -1;
    bool last = !more;
    PyObject *headers = item(message, st->str.headers), *fields = NULL;
    if (headers == NULL && PyErr_Occurred())
        return -1;
    if (headers != NULL && (fields = cap_send_plain_fields(headers)) == NULL)
        return -1;
    cap_conn *c = r->conn;
    int rc = 0;
    if (c != NULL && r->response == CAP_RESPONSE_TRAILERS) {
        size_t before = c->work->out.len;
        if (r->chunked && !r->in_trailers)
            rc = cap_conn_put(c, "0\r\n", 3);
        if (rc == 0 && r->chunked && takes_trailers(r))
            rc = cap_send_fields(c, fields);
        if (rc == 0 && r->chunked && last)
            rc = cap_conn_put(c, "\r\n", 2);
        if (rc < 0)
            c->work->out.len = before;
        else
            r->in_trailers = true;
        if (rc == 0 && last)
            complete(r);
        else if (rc == 0)
            cap_conn_flush_later(c);
    }
    Py_XDECREF(fields);
    return rc;
}

/* http.response.early_hint: 103 (RFC 8297), before the response, to 1.1 clients. */
static int
on_early_hint(cap_request *r, PyObject *message)
{
    PyObject *links = item(message, r->st->str.links);
    if (links == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_KeyError, "links");
        return -1;
    }
    PyObject *all = PySequence_Fast(links, "links are an iterable of bytes (ASGI)");
    if (all == NULL)
        return -1;
    cap_conn *c = r->conn;
    int rc = 0;
    if (c != NULL && r->minor >= 1 && r->response == CAP_RESPONSE_NOT_STARTED) {
        size_t before = c->work->out.len;
        rc = cap_conn_put(c, "HTTP/1.1 103 Early Hints\r\n", 26);
        for (Py_ssize_t i = 0; rc == 0 && i < PySequence_Fast_GET_SIZE(all); i++) {
            PyObject *link = PySequence_Fast_GET_ITEM(all, i);
            if (!PyBytes_Check(link)) {
                PyErr_SetString(PyExc_TypeError, "links are an iterable of bytes (ASGI)");
                rc = -1;
            } else if (!cap_h1_value_ok(PyBytes_AS_STRING(link), (size_t)PyBytes_GET_SIZE(link))) {
                rc = bad("Invalid HTTP header value.");
            } else if (cap_conn_put(c, "link: ", 6) < 0 ||
                       cap_conn_put(c, PyBytes_AS_STRING(link), (size_t)PyBytes_GET_SIZE(link)) < 0 ||
                       cap_conn_put(c, "\r\n", 2) < 0) {
                rc = -1;
            }
        }
        if (rc == 0)
            rc = cap_conn_put(c, "\r\n", 2);
        if (rc < 0)
            c->work->out.len = before;
        else
            cap_conn_flush_later(c);
    }
    Py_DECREF(all);
    return rc;
}

int
cap_send_body(cap_request *r, PyObject *message)
{
    cap_state *st = r->st;
    int more = truth_of(message, st->str.more_body);
    if (more < 0)
        return -1;
    bool last = !more;
    PyObject *body = item(message, st->str.body);
    Py_buffer view = {0};
    if (body == NULL) {
        if (PyErr_Occurred())
            return -1;
    } else if (PyBytes_CheckExact(body)) {
        view.buf = PyBytes_AS_STRING(body);
        view.len = PyBytes_GET_SIZE(body);
        view.obj = Py_NewRef(body); /* the message is the application's to change */
    } else {
        Py_INCREF(body); /* its __buffer__() may change the message */
        int got = PyObject_GetBuffer(body, &view, PyBUF_SIMPLE);
        if (got < 0)
            PyErr_Format(PyExc_TypeError, "body is bytes (ASGI), not %.100s", Py_TYPE(body)->tp_name);
        Py_DECREF(body);
        if (got < 0)
            return -1;
    }
    cap_conn *c = r->conn;
    int rc = -1;
    if (c == NULL || r->response != CAP_RESPONSE_STARTED || r->file != NULL) {
        rc = 0; /* Python ran: the client is gone, or the content was ended or goes on otherwise */
    } else if (put_content(r, c, &view, last && !r->trailers) == 0) {
        rc = 0;
        if (r->conn != c)
            ; /* the client went away meanwhile */
        else if (last)
            rc = end_content(r);
        else
            cap_conn_flush_later(c);
    }
    PyBuffer_Release(&view); /* bytes need none, but it gives the reference back */
    return rc;
}

static int
unexpected(const char *format, PyObject *type)
{
    Py_INCREF(type); /* its str() may be Python */
    PyErr_Format(PyExc_RuntimeError, format, type);
    Py_DECREF(type);
    return -1;
}

/* What is neither the start nor the body where that is due: an extension's message, or
   an error. */
static int
dispatch_extension(cap_request *r, PyObject *type, PyObject *message)
{
    cap_state *st = r->st;
    const char *expected = NOT_BODY;
    switch (r->response) {
    case CAP_RESPONSE_NOT_STARTED:
        if (is(type, st->str.http_response_early_hint))
            return on_early_hint(r, message);
        expected = NOT_STARTED;
        break;
    case CAP_RESPONSE_TRAILERS:
        if (is(type, st->str.http_response_trailers))
            return on_trailers(r, message);
        expected = NOT_TRAILERS;
        break;
    default:
        if (is(type, st->str.http_response_pathsend))
            return cap_send_path(r, message);
        if (is(type, st->str.http_response_zerocopysend))
            return cap_send_part(r, message);
        break;
    }
    return unexpected(expected, type);
}

/* 0, or -1 with an exception that the application gets. */
static int
dispatch(cap_request *r, PyObject *message)
{
    cap_state *st = r->st;
    if (!PyDict_Check(message)) {
        PyErr_Format(PyExc_TypeError, "an ASGI message is a dict, not %.100s",
                     Py_TYPE(message)->tp_name);
        return -1;
    }
    PyObject *type = item(message, st->str.type);
    if (type == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_KeyError, "type");
        return -1;
    }
    /* The literals of an application are interned: mostly the pointers are the same. */
    PyObject *expected = r->response == CAP_RESPONSE_NOT_STARTED ? st->str.http_response_start
                                                                 : st->str.http_response_body;
    bool same = is(type, expected);
    if (r->response == CAP_RESPONSE_COMPLETE)
        return unexpected(AFTER_END, type);
    if (r->file != NULL)
        return bad("A file is still being sent: await the send() before.");
    if (!same || r->response == CAP_RESPONSE_TRAILERS)
        return dispatch_extension(r, type, message);
    return r->response == CAP_RESPONSE_NOT_STARTED ? cap_send_start(r, message)
                                                    : cap_send_body(r, message);
}

/* --- awaitables ---------------------------------------------------------------------------- */

static bool
must_wait(const cap_request *r, size_t limit)
{
    return r->conn != NULL && cap_conn_open(r->conn) &&
           (r->file != NULL || cap_conn_unsent(r->conn) > limit);
}

static PyObject *
send_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    if (PyVectorcall_NARGS(nargsf) + (kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0) != 1 ||
        (kwnames != NULL && PyTuple_GET_SIZE(kwnames) == 1 &&
         PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "message") != 0)) {
        PyErr_SetString(PyExc_TypeError, "send() takes one message");
        return NULL;
    }
    cap_request *r = ((cap_callable *)self)->request;
    cap_state *st = r->st;
    PyObject *done = cap_objects_of(st)->done;
    bool turn = false;
    if (r->ws != NULL) {
        if (cap_websocket_send(r, args[0]) < 0)
            return NULL;
    } else if (r->conn == NULL && r->response != CAP_RESPONSE_COMPLETE) {
        /* ASGI 2.3: after a disconnect, send does nothing. But an endless stream that awaits
           nothing else must not hold the loop for ever. */
        turn = true;
    } else if (dispatch(r, args[0]) < 0) {
        return NULL;
    }
    if (!turn) {
        if (!must_wait(r, CAP_HIGH_WATER))
            return Py_NewRef(done);
        cap_conn *c = (cap_conn *)Py_NewRef((PyObject *)r->conn);
        cap_conn_flush(c);
        Py_DECREF(c);
        if (!must_wait(r, CAP_HIGH_WATER))
            return Py_NewRef(done);
    }
    PyObject *a = cap_awaitable_new(st->type.SendAwaitable, r);
    if (a != NULL)
        ((cap_awaitable *)a)->turn = turn;
    return a;
}

static PySendResult
send_step(PyObject *self, PyObject *value, PyObject **result)
{
    cap_awaitable *a = (cap_awaitable *)self;
    cap_request *r = a->request;
    PySendResult rc;
    if (!cap_awaitable_resume(a, value, result, &rc))
        return rc;
    if (must_wait(r, CAP_LOW_WATER)) {
        *result = cap_waiter_begin(&a->waiter, &r->senders, r->server->loop, r->st);
        return *result != NULL ? PYGEN_NEXT : PYGEN_ERROR;
    }
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

/* The awaitable that is already done. It has no state: one for everybody. */

static PySendResult
done_send(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(value), PyObject **result)
{
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

static PyObject *
done_next(PyObject *Py_UNUSED(self))
{
    return NULL; /* no exception set: StopIteration(None) */
}

static PyObject *
done_send_method(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(value))
{
    PyErr_SetNone(PyExc_StopIteration);
    return NULL;
}

static PyObject *
done_throw(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs)
{
    cap_waiter none = {0};
    return cap_waiter_throw(&none, args, nargs);
}

static PyObject *
done_close(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_NONE;
}

static PyMethodDef done_methods[] = {
    {"send", done_send_method, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))done_throw, METH_FASTCALL, NULL},
    {"close", done_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static void
done_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyType_Slot done_slots[] = {
    {Py_tp_dealloc, done_dealloc},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, done_next},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, done_send},
    {Py_tp_methods, done_methods},
    {0, NULL},
};

static PyType_Spec done_spec = {
    .name = "capicorn._core.Done",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = done_slots,
};

/* --- the callable -------------------------------------------------------------------------- */

PyObject *
cap_send_new(cap_request *r)
{
    return cap_callable_new(r->st->type.Send, send_call, r);
}

/* --- responses of the server's own ------------------------------------------------------------ */

void
cap_send_simple(cap_conn *c, int status, const char *text, bool close)
{
    cap_send_simple_with(c, status, text, close, "");
}

void
cap_send_simple_with(cap_conn *c, int status, const char *text, bool close, const char *more)
{
    size_t line_len, text_len = strlen(text);
    const char *line = cap_h1_status_line(status, &line_len);
    char rest[256];
    cap_tally_status(c->server->tally, status);
    int n = PyOS_snprintf(rest, sizeof rest,
                          "content-type: text/plain; charset=utf-8\r\ncontent-length: %zu\r\n%s%s\r\n",
                          text_len, more, close ? "connection: close\r\n" : "");
    size_t before = c->work->out.len;
    if (cap_conn_put(c, line, line_len) < 0 || put_defaults(c, 0) < 0 ||
        cap_conn_put(c, rest, (size_t)n) < 0 ||
        (!c->head_only && cap_conn_put(c, text, text_len) < 0)) {
        PyErr_Clear(); /* no memory for an error message: the close says it */
        c->work->out.len = before;
    }
}

int
cap_send_type_init(PyObject *module, cap_state *st)
{
    st->type.SendAwaitable = cap_awaitable_type(module, "capicorn._core.SendAwaitable", send_step);
    if (st->type.SendAwaitable == NULL)
        return -1;
    st->type.Send = cap_callable_type(module, "capicorn._core.Send");
    if (st->type.Send == NULL)
        return -1;
    st->type.Done = (PyTypeObject *)PyType_FromModuleAndSpec(module, &done_spec, NULL);
    if (st->type.Done == NULL)
        return -1;
    cap_objects_of(st)->done = PyObject_New(PyObject, st->type.Done);
    return cap_objects_of(st)->done != NULL ? 0 : -1;
}
