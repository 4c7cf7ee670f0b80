/* The application's receive(): an awaitable for each call that gives the next
   message when there is one, and waits on a future of the loop when not. A message
   is taken when it is awaited, so that a cancelled `wait_for(receive(), ...)` loses
   nothing. */
#include "asgi/conn.h"
#include "asgi/websocket.h"

/* --- messages -------------------------------------------------------------------- */

static bool
message_ready(const cap_request *r)
{
    if (r->ws != NULL)
        return cap_websocket_ready(r);
    return r->body.len != 0 || r->disconnected || r->told ||
           r->response == CAP_RESPONSE_COMPLETE || (r->body_ended && !r->body_given);
}

/* What waits becomes the message's. */
static int
put_body(cap_request *r, PyObject *message)
{
    PyObject *body = cap_body_take(&r->body);
    if (body != NULL && PyDict_SetItem(message, r->st->str.body, body) == 0) {
        Py_DECREF(body);
        return 0;
    }
    Py_XDECREF(body);
    r->disconnected = true; /* without this piece there must be no next one */
    return -1;
}

/* The next message; new reference, or NULL with an exception. May run Python (reading
   goes on). */
static PyObject *
take_message(cap_request *r)
{
    cap_state *st = r->st;
    cap_objects *o = cap_objects_of(st);
    if (r->ws != NULL)
        return cap_websocket_take(r);
    bool body_waits = r->body.len != 0 || (r->body_ended && !r->body_given);
    /* uvicorn: after the response nothing but http.disconnect, never the unread body. */
    if (!body_waits || r->disconnected || r->response == CAP_RESPONSE_COMPLETE)
        return cap_dict_like(o->disconnect_message);

    PyObject *message = cap_dict_like(o->request_message);
    if (message == NULL ||
        (!r->body_ended && PyDict_SetItem(message, st->str.more_body, Py_True) < 0) ||
        (r->body.len != 0 && put_body(r, message) < 0)) {
        Py_XDECREF(message);
        return NULL;
    }
    if (r->body_ended)
        r->body_given = true;
    else if (r->conn != NULL)
        cap_conn_update_reading(r->conn);
    return message;
}

/* RFC 9110 10.1.1: the client waits for this before it sends the content. */
static int
send_continue(cap_request *r)
{
    static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
    cap_conn *c = r->conn;
    r->expects = false;
    if (c == NULL || r->response != CAP_RESPONSE_NOT_STARTED)
        return 0;
    if (cap_conn_put(c, line, sizeof line - 1) < 0)
        return -1;
    if (c->due_read != 0) { /* the client's time begins now */
        c->due_read = cap_server_now(c->server) + c->server->set.timeout_request_body;
        cap_conn_rearm(c);
    }
    Py_INCREF(c);
    cap_conn_flush(c);
    Py_DECREF(c);
    return 0;
}

/* --- the awaitable ----------------------------------------------------------------- */

static PySendResult
receive_step(PyObject *self, PyObject *value, PyObject **result)
{
    cap_awaitable *a = (cap_awaitable *)self;
    cap_request *r = a->request;
    PySendResult rc;
    if (!cap_awaitable_resume(a, value, result, &rc))
        return rc;
    if (!message_ready(r)) {
        if (r->expects && send_continue(r) < 0)
            return PYGEN_ERROR;
        if (!message_ready(r)) { /* the flush may have found the client gone */
            *result = cap_waiter_begin(&a->waiter, &r->receivers, r->server->loop, r->st);
            return *result != NULL ? PYGEN_NEXT : PYGEN_ERROR;
        }
    }
    *result = take_message(r);
    return *result != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

/* --- the callable ---------------------------------------------------------------- */

static PyObject *
receive_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    (void)args;
    if (PyVectorcall_NARGS(nargsf) != 0 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) != 0)) {
        PyErr_SetString(PyExc_TypeError, "receive() takes no arguments");
        return NULL;
    }
    cap_request *r = ((cap_callable *)self)->request;
    return cap_awaitable_new(r->st->type.ReceiveAwaitable, r);
}

PyObject *
cap_receive_new(cap_request *r)
{
    return cap_callable_new(r->st->type.Receive, receive_call, r);
}

int
cap_receive_type_init(PyObject *module, cap_state *st)
{
    st->type.ReceiveAwaitable =
        cap_awaitable_type(module, "capicorn._core.ReceiveAwaitable", receive_step);
    if (st->type.ReceiveAwaitable == NULL)
        return -1;
    st->type.Receive = cap_callable_type(module, "capicorn._core.Receive");
    return st->type.Receive != NULL ? 0 : -1;
}
