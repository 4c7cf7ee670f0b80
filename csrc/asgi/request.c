/* The running request: the coroutine that its Task drives. */
#include "asgi/request.h"

#include <string.h>

#include "asgi/conn.h"
#include "asgi/send_file.h"
#include "asgi/websocket.h"

/* --- the server's list of running applications ------------------------------------- */

static void
list_running(cap_request *r)
{
    cap_server *s = r->server;
    r->running = true;
    r->prev = s->last_request;
    r->next = NULL;
    if (s->last_request != NULL)
        s->last_request->next = r;
    else
        s->first_request = r;
    s->last_request = r;
    s->request_count++;
    cap_server_tell_requests(s);
    Py_INCREF(r); /* the list's */
}

static void
unlist_running(cap_request *r)
{
    cap_server *s = r->server;
    if (!r->running)
        return;
    r->running = false;
    if (r->prev != NULL)
        r->prev->next = r->next;
    else
        s->first_request = r->next;
    if (r->next != NULL)
        r->next->prev = r->prev;
    else
        s->last_request = r->prev;
    r->next = r->prev = NULL;
    s->request_count--;
    cap_server_tell_requests(s);
    if (r->listed >= 0) {
        cap_worker_unlist(s->worker, r->listed);
        r->listed = -1;
    }
    Py_DECREF(r);
}

/* It goes on after its first step: show it in the scoreboard. Most requests never come here. */
static void
show(cap_request *r)
{
    cap_server *s = r->server;
    if (s->worker == NULL || !r->running || r->listed >= 0 || !PyUnicode_IS_ASCII(r->method))
        return;
    r->listed = (int8_t)cap_worker_list(
        s->worker, PyUnicode_DATA(r->method), (size_t)PyUnicode_GET_LENGTH(r->method),
        PyBytes_AS_STRING(r->raw_path), (size_t)PyBytes_GET_SIZE(r->raw_path),
        r->begun_ns / 1000000, r->ws != NULL);
}

void
cap_request_count(cap_request *r)
{
    cap_tally *t = r->server->tally;
    cap_tally_status(t, r->status);
    cap_tally_duration(t, uv_hrtime() - r->begun_ns);
}

/* --- content -------------------------------------------------------------------------- */

static void
wake(cap_request *r, cap_waiter *list)
{
    if (list == NULL)
        return;
    Py_INCREF(r); /* the list is in it, and what wakes may be Python */
    cap_waiters_wake(list, r->st);
    Py_DECREF(r);
}

int
cap_request_feed(cap_request *r, const char *data, size_t len)
{
    if (cap_body_add(&r->body, &r->server->body_room, data, len) < 0)
        return -1;
    wake(r, r->receivers);
    return 0;
}

void
cap_request_feed_end(cap_request *r)
{
    r->body_ended = true;
    r->expects = false;
    wake(r, r->receivers);
}

void
cap_request_detach(cap_request *r, bool disconnected)
{
    cap_conn *c = r->conn;
    r->conn = NULL;
    if (disconnected) {
        r->disconnected = true;
        if (r->response != CAP_RESPONSE_COMPLETE && r->ws == NULL)
            cap_tally_add(&r->server->tally->aborted, 1);
    }
    if (r->file != NULL) {
        cap_file_free(r->file);
        r->file = NULL;
    }
    if (r->ws != NULL)
        cap_websocket_detached(r);
    Py_INCREF(r);
    cap_waiters_wake(r->receivers, r->st);
    cap_waiters_wake(r->senders, r->st);
    Py_DECREF(r);
    Py_XDECREF(c);
}

void
cap_request_tell_disconnect(cap_request *r)
{
    r->told = true;
    wake(r, r->receivers);
}

void
cap_request_drained(cap_request *r)
{
    if (r->file != NULL)
        cap_file_pump(r);
    if (r->file == NULL)
        wake(r, r->senders);
}

/* --- words ------------------------------------------------------------------------------ */

PyObject *
cap_request_name(const cap_request *r)
{
    PyObject *path = PyUnicode_DecodeASCII(PyBytes_AS_STRING(r->raw_path),
                                           PyBytes_GET_SIZE(r->raw_path), "backslashreplace");
    if (path == NULL)
        return NULL;
    PyObject *name = PyUnicode_FromFormat("%U %U", r->method, path);
    Py_DECREF(path);
    return name;
}

void
cap_request_log(cap_request *r, bool at_start)
{
    PyObject *log = r->server->access_log;
    if (log == NULL || cap_access_log_at_start((cap_access_log *)log) != at_start)
        return;
    char small[512];
    size_t path = (size_t)PyBytes_GET_SIZE(r->raw_path), query = (size_t)PyBytes_GET_SIZE(r->query);
    size_t len = path + (query != 0 ? query + 1 : 0);
    char *target = PyBytes_AS_STRING(r->raw_path), *joined = NULL;
    if (query != 0) {
        target = len <= sizeof small ? small : (joined = PyMem_Malloc(len));
        if (target == NULL) {
            target = PyBytes_AS_STRING(r->raw_path);
            len = path;
        } else {
            memcpy(target, PyBytes_AS_STRING(r->raw_path), path);
            target[path] = '?';
            memcpy(target + path + 1, PyBytes_AS_STRING(r->query), query);
        }
    }
    cap_access_record record = {
        .client = r->client,
        .method = r->method,
        .target = target,
        .target_len = len,
        .root_path = "",
        .minor = r->minor,
        .status = r->status,
        .body_octets = r->body_octets,
        .duration_ns = at_start ? 0 : uv_hrtime() - r->begun_ns,
        .request_headers = r->headers,
        .response_headers = r->response_headers,
    };
    Py_INCREF(log);
    cap_access_log_write((cap_access_log *)log, &record);
    Py_DECREF(log);
    PyMem_Free(joined);
}

/* --- the application's end --------------------------------------------------------------- */

static void
log_exception(cap_request *r, PyObject *exc)
{
    cap_tally_add(&r->server->tally->errors, 1);
    cap_server_log(r->server, CAP_LOG_ERROR, exc, "Exception in ASGI application\n");
}

/* The application left no whole response: what the client gets. */
static void
end_response(cap_request *r)
{
    cap_conn *c = r->conn;
    if (c == NULL || c->state != CAP_CONN_RUNNING)
        return;
    Py_INCREF(c);
    if (r->response == CAP_RESPONSE_NOT_STARTED && r->told && c->eof) {
        cap_conn_close(c, false); /* nobody is there to be answered */
    } else if (r->response == CAP_RESPONSE_NOT_STARTED) {
        bool quiet = r->cancelled || r->told;
        c->keep_alive = false;
        r->status = quiet ? 503 : 500;
        cap_request_log(r, true);
        if (r->conn == c)
            cap_send_simple(c, r->status, quiet ? "Service Unavailable" : "Internal Server Error",
                            true);
        if (r->conn == c) {
            r->response = CAP_RESPONSE_COMPLETE;
            cap_tally_duration(r->server->tally, uv_hrtime() - r->begun_ns);
            cap_request_log(r, false);
        }
        if (r->conn == c && c->request == r)
            cap_conn_response_done(c);
    } else if (r->response != CAP_RESPONSE_COMPLETE) {
        cap_request_count(r);
        cap_request_log(r, false);
        cap_conn_break(c);
    }
    Py_DECREF(c);
}

/* The application returned `value` or raised (value NULL, exception set). What the
   Task gets to see: PYGEN_RETURN with None, or PYGEN_ERROR for what is not ours to
   swallow. Steals value. */
static PySendResult
finish(cap_request *r, PyObject *value, PyObject **result)
{
    cap_state *st = r->st;
    PyObject *exc = value == NULL ? cap_err_take() : NULL;
    PyObject *iter = r->iter, *task = r->task;
    r->iter = r->task = NULL;
    Py_INCREF(r);
    unlist_running(r);
    Py_XDECREF(iter);
    Py_XDECREF(task);

    bool cancelled = exc != NULL && PyErr_GivenExceptionMatches(exc, st->imp.asyncio_CancelledError);
    bool reraise = exc != NULL && (cancelled || PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt));
    if (exc != NULL) {
        if (!(cancelled && r->cancelled))
            log_exception(r, exc);
    } else if (value != Py_None) {
        cap_server_log(r->server, CAP_LOG_ERROR, NULL,
                       "ASGI callable should return None, but returned '%S'.", value);
        if (r->conn != NULL && r->response == CAP_RESPONSE_COMPLETE)
            cap_conn_break(r->conn);
    } else if (r->conn != NULL && r->conn->state == CAP_CONN_UPGRADED) {
        ; /* a WebSocket may end so */
    } else if (r->told) {
        ; /* it was told that the client is gone, and believed it */
    } else if (r->conn != NULL && r->response == CAP_RESPONSE_NOT_STARTED) {
        cap_server_log(r->server, CAP_LOG_ERROR, NULL,
                       "ASGI callable returned without starting response.");
    } else if (r->conn != NULL && r->response != CAP_RESPONSE_COMPLETE) {
        cap_server_log(r->server, CAP_LOG_ERROR, NULL,
                       "ASGI callable returned without completing response.");
    }
    if (r->ws != NULL)
        cap_websocket_app_done(r, exc != NULL);
    end_response(r);
    Py_XDECREF(value);
    Py_DECREF(r);
    if (reraise) {
        cap_err_restore(exc);
        return PYGEN_ERROR;
    }
    Py_XDECREF(exc);
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

/* --- the coroutine ----------------------------------------------------------------------- */

/* What `await x` iterates over. New reference. */
static PyObject *
awaitable_iter(PyObject *x)
{
    if (PyCoro_CheckExact(x))
        return Py_NewRef(x);
    PyAsyncMethods *async = Py_TYPE(x)->tp_as_async;
    if (async != NULL && async->am_await != NULL)
        return async->am_await(x);
    if (PyGen_CheckExact(x)) /* types.coroutine: a generator that may be awaited */
        return Py_NewRef(x);
    PyErr_Format(PyExc_TypeError, "object %.100s can't be used in 'await' expression",
                 Py_TYPE(x)->tp_name);
    return NULL;
}

/* app(scope, receive, send): inside the Task, so that also a plain function sees
   current_task and its own context. */
static int
call_application(cap_request *r)
{
    PyObject *args[3] = {r->scope, cap_receive_new(r), cap_send_new(r)};
    r->scope = NULL;
    PyObject *awaitable = NULL;
    if (args[1] != NULL && args[2] != NULL) {
        PyObject *app = Py_NewRef(r->server->app);
        awaitable = PyObject_Vectorcall(app, args, 3, NULL);
        Py_DECREF(app);
    }
    Py_DECREF(args[0]);
    Py_XDECREF(args[1]);
    Py_XDECREF(args[2]);
    if (awaitable == NULL)
        return -1;
    r->iter = awaitable_iter(awaitable);
    Py_DECREF(awaitable);
    return r->iter != NULL ? 0 : -1;
}

/* Around each step: a guard that finds the loop blocked names the request. Returns what
   step_end needs: the request inside whose step this one runs, or NULL. */
static cap_request *
step_begin(const cap_request *r)
{
    cap_reactor *reactor = r->server->reactor;
    cap_beat *beat = reactor->beat;
    if (beat == NULL)
        return NULL;
    cap_request *outer = reactor->stepping;
    reactor->stepping = (void *)r;
    if (PyUnicode_IS_ASCII(r->method))
        cap_beat_enter(beat, PyUnicode_DATA(r->method), (size_t)PyUnicode_GET_LENGTH(r->method),
                       PyBytes_AS_STRING(r->raw_path), (size_t)PyBytes_GET_SIZE(r->raw_path));
    return outer;
}

static void
step_end(const cap_request *r, cap_request *outer)
{
    cap_reactor *reactor = r->server->reactor;
    reactor->stepping = NULL; /* also when the beat is gone meanwhile */
    if (reactor->beat == NULL)
        return;
    cap_beat_leave(reactor->beat);
    if (outer != NULL)
        (void)step_begin(outer); /* alive: its step is below us on the stack */
}

static PySendResult
run_step(cap_request *r, PyObject *value, PyObject **result)
{
    *result = NULL;
    if (r->iter == NULL) {
        if (r->scope == NULL) {
            PyErr_SetString(PyExc_RuntimeError, "the request has already been run");
            return PYGEN_ERROR;
        }
        if (call_application(r) < 0)
            return finish(r, NULL, result);
    }
    PyObject *iter = Py_NewRef(r->iter);
    PySendResult rc = PyIter_Send(iter, value, result);
    Py_DECREF(iter);
    if (rc == PYGEN_NEXT)
        return rc;
    return finish(r, *result, result);
}

static PySendResult
request_send(PyObject *self, PyObject *value, PyObject **result)
{
    cap_request *r = (cap_request *)self;
    cap_request *outer = step_begin(r);
    PySendResult rc = run_step(r, value, result);
    step_end(r, outer);
    return rc;
}

static PyObject *
as_iterator(PySendResult rc, PyObject *result)
{
    if (rc == PYGEN_RETURN) {
        Py_DECREF(result); /* None: the value of a plain StopIteration */
        PyErr_SetNone(PyExc_StopIteration);
        return NULL;
    }
    return result;
}

static PyObject *
request_next(PyObject *self)
{
    PyObject *result;
    PySendResult rc = request_send(self, Py_None, &result);
    return as_iterator(rc, result);
}

static PyObject *
request_send_method(PyObject *self, PyObject *value)
{
    PyObject *result;
    PySendResult rc = request_send(self, value, &result);
    return as_iterator(rc, result);
}

static PyObject *
request_throw(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    cap_request *r = (cap_request *)self;
    PyObject *result = NULL;
    if (nargs < 1) {
        PyErr_SetString(PyExc_TypeError, "throw() needs an exception");
        return NULL;
    }
    if (r->iter == NULL) { /* cancelled before its first step */
        if (PyExceptionInstance_Check(args[0]))
            PyErr_SetObject((PyObject *)Py_TYPE(args[0]), args[0]);
        else
            PyErr_SetObject(args[0], nargs > 1 && args[1] != Py_None ? args[1] : NULL);
        Py_CLEAR(r->scope);
        PySendResult rc = finish(r, NULL, &result);
        return as_iterator(rc, result);
    }
    PyObject *iter = Py_NewRef(r->iter);
    PyObject *throw_method = PyObject_GetAttr(iter, r->st->str.throw_);
    PyObject *yielded = NULL;
    if (throw_method != NULL) {
        cap_request *outer = step_begin(r);
        yielded = PyObject_Vectorcall(throw_method, args, (size_t)nargs, NULL);
        step_end(r, outer);
        Py_DECREF(throw_method);
    }
    Py_DECREF(iter);
    if (yielded != NULL)
        return yielded;
    PyObject *value = NULL;
    if (PyErr_ExceptionMatches(PyExc_StopIteration)) {
        PyObject *stop = cap_err_take();
        value = PyObject_GetAttrString(stop, "value");
        Py_DECREF(stop);
    }
    PySendResult rc = finish(r, value, &result);
    return as_iterator(rc, result);
}

static PyObject *
request_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    cap_request *r = (cap_request *)self;
    PyObject *iter = r->iter;
    r->iter = NULL;
    Py_CLEAR(r->scope);
    if (iter != NULL) {
        PyObject *rc = PyObject_CallMethodNoArgs(iter, r->st->str.close);
        Py_DECREF(iter);
        if (rc == NULL)
            return NULL;
        Py_DECREF(rc);
    }
    Py_INCREF(r);
    unlist_running(r);
    Py_DECREF(r);
    Py_RETURN_NONE;
}

/* Introspection (asyncio's stacks, debuggers): what the application's coroutine says. */
static PyObject *
inner_attribute(PyObject *self, void *name)
{
    cap_request *r = (cap_request *)self;
    PyObject *value = NULL;
    if (r->iter != NULL) {
        PyObject *iter = Py_NewRef(r->iter);
        value = PyObject_GetAttrString(iter, name);
        Py_DECREF(iter);
        if (value == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_AttributeError))
                return NULL;
            PyErr_Clear();
        }
    }
    return value != NULL ? value : Py_NewRef(Py_None);
}

static PyObject *
request_name(PyObject *self, void *Py_UNUSED(closure))
{
    return cap_request_name((cap_request *)self);
}

static PyObject *
request_repr(PyObject *self)
{
    PyObject *name = cap_request_name((cap_request *)self);
    if (name == NULL)
        return NULL;
    PyObject *repr = PyUnicode_FromFormat("<capicorn request %U>", name);
    Py_DECREF(name);
    return repr;
}

/* --- making and starting -------------------------------------------------------------------- */

cap_request *
cap_request_new(cap_conn *c)
{
    cap_request *r = PyObject_GC_New(cap_request, c->server->st->type.Request);
    if (r == NULL)
        return NULL;
    memset((char *)r + offsetof(cap_request, st), 0, sizeof *r - offsetof(cap_request, st));
    cap_count.requests++;
    r->st = c->server->st;
    r->server = (cap_server *)Py_NewRef((PyObject *)c->server);
    r->conn = (cap_conn *)Py_NewRef((PyObject *)c);
    r->begun_ns = uv_hrtime();
    r->listed = -1;
    PyObject_GC_Track(r);
    return r;
}

void
cap_request_start(cap_request *r)
{
    cap_server *s = r->server;
    PyObject *context = s->set.reset_contextvars ? PyContext_New() : PyContext_Copy(s->context);
    PyObject *task = NULL;
    list_running(r);
    if (context != NULL) {
        task = cap_task_start(s->reactor, (PyObject *)r, context);
        Py_DECREF(context);
    }
    if (task != NULL) {
        if (r->running && r->task == NULL)
            r->task = task;
        else
            Py_DECREF(task);
        show(r);
        return;
    }
    if (cap_err_is_exit()) {
        /* An eager first step raises what is the loop's out of the constructor. */
        cap_reactor_report(s->reactor, "The task of a request could not be started");
    } else {
        PyObject *exc = cap_err_take();
        cap_server_log(s, CAP_LOG_ERROR, exc, "The task of a request could not be started");
        Py_XDECREF(exc);
    }
    Py_CLEAR(r->scope);
    Py_CLEAR(r->iter);
    unlist_running(r);
    end_response(r);
}

void
cap_request_cancel(cap_request *r)
{
    PyObject *task = Py_XNewRef(r->task);
    if (task == NULL)
        return;
    r->cancelled = true;
    PyObject *rc = PyObject_CallMethodNoArgs(task, r->st->str.cancel);
    if (rc == NULL)
        PyErr_WriteUnraisable(task);
    Py_XDECREF(rc);
    Py_DECREF(task);
}

/* --- the type ----------------------------------------------------------------------------- */

static int
request_traverse(PyObject *self, visitproc visit, void *arg)
{
    cap_request *r = (cap_request *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(r->server);
    Py_VISIT(r->conn);
    Py_VISIT(r->scope);
    Py_VISIT(r->iter);
    Py_VISIT(r->task);
    Py_VISIT(r->headers);
    Py_VISIT(r->client);
    Py_VISIT(r->response_headers);
    return 0;
}

static int
request_clear(PyObject *self)
{
    cap_request *r = (cap_request *)self;
    Py_CLEAR(r->scope);
    Py_CLEAR(r->iter);
    Py_CLEAR(r->task);
    Py_CLEAR(r->response_headers);
    return 0;
}

static void
request_dealloc(PyObject *self)
{
    cap_request *r = (cap_request *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    request_clear(self);
    Py_XDECREF((PyObject *)r->conn);
    Py_XDECREF(r->client);
    Py_XDECREF(r->method);
    Py_XDECREF(r->raw_path);
    Py_XDECREF(r->query);
    Py_XDECREF(r->headers);
    if (r->file != NULL)
        cap_file_free(r->file);
    if (r->ws != NULL)
        cap_websocket_free(r->ws);
    cap_body_free(&r->body);
    Py_DECREF((PyObject *)r->server);
    cap_count.requests--;
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyGetSetDef request_getset[] = {
    {"cr_frame", inner_attribute, NULL, NULL, "cr_frame"},
    {"cr_code", inner_attribute, NULL, NULL, "cr_code"},
    {"cr_running", inner_attribute, NULL, NULL, "cr_running"},
    {"cr_await", inner_attribute, NULL, NULL, "cr_await"},
    {"__name__", request_name, NULL, NULL, NULL},
    {"__qualname__", request_name, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef request_methods[] = {
    {"send", request_send_method, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))request_throw, METH_FASTCALL, NULL},
    {"close", request_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot request_slots[] = {
    {Py_tp_dealloc, request_dealloc},
    {Py_tp_traverse, request_traverse},
    {Py_tp_clear, request_clear},
    {Py_tp_repr, request_repr},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, request_next},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, request_send},
    {Py_tp_methods, request_methods},
    {Py_tp_getset, request_getset},
    {0, NULL},
};

static PyType_Spec request_spec = {
    .name = "capicorn._core.Request",
    .basicsize = sizeof(cap_request),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = request_slots,
};

int
cap_request_type_init(PyObject *module, cap_state *st)
{
    st->type.Request = (PyTypeObject *)PyType_FromModuleAndSpec(module, &request_spec, NULL);
    return st->type.Request != NULL ? 0 : -1;
}
