/* The application's receive(): an awaitable for each call that gives the next
   message when there is one, and waits on a future of the loop when not. A message
   is taken when it is awaited, so that a cancelled `wait_for(receive(), ...)` loses
   nothing. Also the list of waiting awaitables, which send() uses too. */
#include "asgi/conn.h"
#include "asgi/websocket.h"

/* --- waiting ------------------------------------------------------------------- */

static void
waiter_unlink(cap_waiter *w)
{
    if (w->at == NULL)
        return;
    *w->at = w->next;
    if (w->next != NULL)
        w->next->at = w->at;
    w->at = NULL;
    w->next = NULL;
}

static void
waiter_link(cap_waiter *w, cap_waiter **list)
{
    w->next = *list;
    if (w->next != NULL)
        w->next->at = &w->next;
    w->at = list;
    *list = w;
}

PyObject *
cap_waiter_begin(cap_waiter *w, cap_waiter **list, PyObject *loop, cap_state *st)
{
    PyObject *future = PyObject_CallMethodNoArgs(loop, st->str.create_future);
    if (future == NULL)
        return NULL;
    /* Future.__await__: the iterator marks the future as waited for when it yields it. */
    PyAsyncMethods *async = Py_TYPE(future)->tp_as_async;
    PyObject *iter = NULL;
    if (async != NULL && async->am_await != NULL)
        iter = async->am_await(future);
    else
        PyErr_SetString(PyExc_TypeError, "the loop's create_future() gave no awaitable");
    if (iter == NULL) {
        Py_DECREF(future);
        return NULL;
    }
    PyObject *yielded;
    if (PyIter_Send(iter, Py_None, &yielded) != PYGEN_NEXT) {
        Py_DECREF(iter);
        Py_DECREF(future);
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_RuntimeError, "a new future is already done");
        return NULL;
    }
    w->future = future;
    w->iter = iter;
    waiter_link(w, list);
    return yielded;
}

void
cap_waiter_end(cap_waiter *w)
{
    waiter_unlink(w);
    PyObject *future = w->future, *iter = w->iter;
    w->future = w->iter = NULL;
    Py_XDECREF(iter);
    Py_XDECREF(future);
}

/* 0, or -1: it could not be said to the future, which still waits; no exception. */
static int
wake_one(PyObject *future, cap_state *st)
{
    for (int i = 0; i < 2; i++) { /* what is short of memory once may not be the next time */
        PyObject *done = PyObject_CallMethodNoArgs(future, st->str.done);
        bool is_done = done == Py_True;
        PyObject *rc = NULL;
        if (done == Py_False)
            rc = PyObject_CallMethodOneArg(future, st->str.set_result, Py_None);
        Py_XDECREF(done);
        if (rc != NULL || is_done) {
            Py_XDECREF(rc);
            return 0;
        }
        PyErr_WriteUnraisable(future);
    }
    return -1;
}

void
cap_waiters_wake(cap_waiter *list, cap_state *st)
{
    /* set_result runs the loop's call_soon: Python on a foreign loop. Take each out
       first; what ends meanwhile takes itself out of the list that it is in. */
    cap_waiter **at = list != NULL ? list->at : NULL, *head, *failed = NULL;
    while (at != NULL && (head = *at) != NULL) {
        waiter_unlink(head);
        if (head->future == NULL)
            continue;
        waiter_link(head, &failed);
        PyObject *future = Py_NewRef(head->future);
        int rc = wake_one(future, st);
        if (rc == 0 && failed != NULL && failed->future == future)
            waiter_unlink(failed);
        Py_DECREF(future);
    }
    while ((head = failed) != NULL) { /* the next event tries again */
        waiter_unlink(head);
        waiter_link(head, at);
    }
}

PyObject *
cap_waiter_throw(cap_waiter *w, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 3) {
        PyErr_SetString(PyExc_TypeError, "throw() takes one to three arguments");
        return NULL;
    }
    cap_waiter_end(w);
    PyObject *exc = args[0];
    if (PyExceptionInstance_Check(exc)) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    } else if (PyExceptionClass_Check(exc)) {
        PyErr_SetObject(exc, nargs > 1 && args[1] != Py_None ? args[1] : NULL);
    } else {
        PyErr_SetString(PyExc_TypeError, "throw() takes an exception");
    }
    return NULL;
}

/* --- messages -------------------------------------------------------------------- */

static bool
message_ready(const cap_request *r)
{
    if (r->ws != NULL)
        return cap_websocket_ready(r);
    return r->chunk != NULL || r->body.len != 0 || r->disconnected || r->told ||
           r->response == CAP_RESPONSE_COMPLETE || (r->body_ended && !r->body_given);
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
    bool body_waits = r->chunk != NULL || r->body.len != 0 || (r->body_ended && !r->body_given);
    /* uvicorn: after the response nothing but http.disconnect, never the unread body. */
    if (!body_waits || r->disconnected || r->response == CAP_RESPONSE_COMPLETE)
        return cap_dict_like(o->disconnect_message);

    PyObject *body;
    if (r->chunk != NULL) {
        body = r->chunk;
        r->chunk = NULL;
    } else if (r->body.len != 0) {
        body = PyBytes_FromStringAndSize(r->body.data, (Py_ssize_t)r->body.len);
        if (body == NULL)
            return NULL;
        cap_buffer_free(&r->body);
    } else {
        body = Py_NewRef(o->empty_bytes);
    }
    PyObject *message = cap_dict_like(o->request_message);
    if (message == NULL ||
        (PyBytes_GET_SIZE(body) != 0 && PyDict_SetItem(message, st->str.body, body) < 0) ||
        (!r->body_ended && PyDict_SetItem(message, st->str.more_body, Py_True) < 0)) {
        Py_XDECREF(message);
        Py_DECREF(body);
        return NULL;
    }
    Py_DECREF(body);
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

typedef struct receive_awaitable {
    PyObject_HEAD
    cap_request *request; /* owned */
    cap_waiter waiter;
} receive_awaitable;

static PyObject *
awaitable_new(cap_request *r)
{
    receive_awaitable *a = PyObject_New(receive_awaitable, r->st->type.ReceiveAwaitable);
    if (a == NULL)
        return NULL;
    a->request = (cap_request *)Py_NewRef((PyObject *)r);
    a->waiter = (cap_waiter){0};
    return (PyObject *)a;
}

static void
awaitable_dealloc(PyObject *self)
{
    receive_awaitable *a = (receive_awaitable *)self;
    PyTypeObject *type = Py_TYPE(self);
    cap_waiter_end(&a->waiter);
    Py_DECREF((PyObject *)a->request);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PySendResult
awaitable_send(PyObject *self, PyObject *value, PyObject **result)
{
    receive_awaitable *a = (receive_awaitable *)self;
    cap_request *r = a->request;
    if (a->waiter.iter != NULL) {
        PySendResult rc = PyIter_Send(a->waiter.iter, value, result);
        if (rc == PYGEN_NEXT)
            return rc;
        cap_waiter_end(&a->waiter);
        if (rc == PYGEN_ERROR)
            return rc;
        Py_CLEAR(*result);
    }
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

/* The same by the iterator protocol. */
static PyObject *
awaitable_next(PyObject *self)
{
    PyObject *result = NULL;
    PySendResult rc = awaitable_send(self, Py_None, &result);
    if (rc == PYGEN_RETURN) {
        PyErr_SetObject(PyExc_StopIteration, result);
        Py_CLEAR(result);
    }
    return result;
}

static PyObject *
awaitable_send_method(PyObject *self, PyObject *value)
{
    PyObject *result = NULL;
    PySendResult rc = awaitable_send(self, value, &result);
    if (rc == PYGEN_RETURN) {
        PyErr_SetObject(PyExc_StopIteration, result);
        Py_CLEAR(result);
    }
    return result;
}

static PyObject *
awaitable_throw(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return cap_waiter_throw(&((receive_awaitable *)self)->waiter, args, nargs);
}

static PyObject *
awaitable_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    cap_waiter_end(&((receive_awaitable *)self)->waiter);
    Py_RETURN_NONE;
}

/* send, throw, close and __await__ make it a collections.abc.Coroutine, so that
   asyncio.create_task(receive()) works. */
static PyMethodDef awaitable_methods[] = {
    {"send", awaitable_send_method, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))awaitable_throw, METH_FASTCALL, NULL},
    {"close", awaitable_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot awaitable_slots[] = {
    {Py_tp_dealloc, awaitable_dealloc},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, awaitable_next},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, awaitable_send},
    {Py_tp_methods, awaitable_methods},
    {0, NULL},
};

static PyType_Spec awaitable_spec = {
    .name = "capicorn._core.ReceiveAwaitable",
    .basicsize = sizeof(receive_awaitable),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = awaitable_slots,
};

/* --- the callable ---------------------------------------------------------------- */

typedef struct receive_object {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    cap_request *request; /* owned */
} receive_object;

static PyObject *
receive_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    (void)args;
    if (PyVectorcall_NARGS(nargsf) != 0 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) != 0)) {
        PyErr_SetString(PyExc_TypeError, "receive() takes no arguments");
        return NULL;
    }
    return awaitable_new(((receive_object *)self)->request);
}

PyObject *
cap_receive_new(cap_request *r)
{
    receive_object *o = PyObject_New(receive_object, r->st->type.Receive);
    if (o == NULL)
        return NULL;
    o->vectorcall = receive_call;
    o->request = (cap_request *)Py_NewRef((PyObject *)r);
    return (PyObject *)o;
}

static void
receive_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF((PyObject *)((receive_object *)self)->request);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMemberDef receive_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(receive_object, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot receive_slots[] = {
    {Py_tp_dealloc, receive_dealloc},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, receive_members},
    {0, NULL},
};

static PyType_Spec receive_spec = {
    .name = "capicorn._core.Receive",
    .basicsize = sizeof(receive_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = receive_slots,
};

int
cap_receive_type_init(PyObject *module, cap_state *st)
{
    st->type.ReceiveAwaitable =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &awaitable_spec, NULL);
    st->type.Receive = (PyTypeObject *)PyType_FromModuleAndSpec(module, &receive_spec, NULL);
    return st->type.ReceiveAwaitable != NULL && st->type.Receive != NULL ? 0 : -1;
}
