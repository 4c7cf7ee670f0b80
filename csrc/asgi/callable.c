#include "asgi/callable.h"

#include "asgi/request.h"

/* --- the callable ---------------------------------------------------------------- */

PyObject *
cap_callable_new(PyTypeObject *type, vectorcallfunc call, cap_request *r)
{
    cap_callable *o = PyObject_New(cap_callable, type);
    if (o == NULL)
        return NULL;
    o->vectorcall = call;
    o->request = (cap_request *)Py_NewRef((PyObject *)r);
    return (PyObject *)o;
}

static void
callable_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF((PyObject *)((cap_callable *)self)->request);
    PyObject_Free(self);
    Py_DECREF(type);
}

PyTypeObject *
cap_callable_type(PyObject *module, const char *name)
{
    static PyMemberDef members[] = {
        {"__vectorcalloffset__", T_PYSSIZET, offsetof(cap_callable, vectorcall), READONLY, NULL},
        {NULL, 0, 0, 0, NULL},
    };
    PyType_Slot slots[] = {
        {Py_tp_dealloc, callable_dealloc},
        {Py_tp_call, PyVectorcall_Call},
        {Py_tp_members, members},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = name,
        .basicsize = sizeof(cap_callable),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE |
                 Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = slots,
    };
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
}

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

/* --- the awaitable ---------------------------------------------------------------- */

PyObject *
cap_awaitable_new(PyTypeObject *type, cap_request *r)
{
    cap_awaitable *a = PyObject_New(cap_awaitable, type);
    if (a == NULL)
        return NULL;
    a->request = (cap_request *)Py_NewRef((PyObject *)r);
    a->waiter = (cap_waiter){0};
    a->turn = false;
    return (PyObject *)a;
}

static void
awaitable_dealloc(PyObject *self)
{
    cap_awaitable *a = (cap_awaitable *)self;
    PyTypeObject *type = Py_TYPE(self);
    cap_waiter_end(&a->waiter);
    Py_DECREF((PyObject *)a->request);
    PyObject_Free(self);
    Py_DECREF(type);
}

bool
cap_awaitable_resume(cap_awaitable *a, PyObject *value, PyObject **result, PySendResult *rc)
{
    if (a->turn) {
        a->turn = false;
        *result = Py_NewRef(Py_None);
        *rc = PYGEN_NEXT;
        return false;
    }
    if (a->waiter.iter == NULL)
        return true;
    *rc = PyIter_Send(a->waiter.iter, value, result);
    if (*rc == PYGEN_NEXT)
        return false;
    cap_waiter_end(&a->waiter);
    if (*rc == PYGEN_ERROR)
        return false;
    Py_CLEAR(*result);
    return true;
}

/* The same steps by the iterator protocol, and by the method of coroutines. */
static PyObject *
step(PyObject *self, PyObject *value)
{
    PyObject *result = NULL;
    if (PyIter_Send(self, value, &result) == PYGEN_RETURN) {
        if (result == Py_None)
            PyErr_SetNone(PyExc_StopIteration);
        else
            PyErr_SetObject(PyExc_StopIteration, result);
        Py_CLEAR(result);
    }
    return result;
}

static PyObject *
awaitable_next(PyObject *self)
{
    return step(self, Py_None);
}

static PyObject *
awaitable_throw(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return cap_waiter_throw(&((cap_awaitable *)self)->waiter, args, nargs);
}

static PyObject *
awaitable_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    cap_waiter_end(&((cap_awaitable *)self)->waiter);
    Py_RETURN_NONE;
}

PyTypeObject *
cap_awaitable_type(PyObject *module, const char *name, sendfunc am_send)
{
    static PyMethodDef methods[] = {
        {"send", step, METH_O, NULL},
        {"throw", (PyCFunction)(void (*)(void))awaitable_throw, METH_FASTCALL, NULL},
        {"close", awaitable_close, METH_NOARGS, NULL},
        {NULL, NULL, 0, NULL},
    };
    PyType_Slot slots[] = {
        {Py_tp_dealloc, awaitable_dealloc},
        {Py_tp_iter, PyObject_SelfIter},
        {Py_tp_iternext, awaitable_next},
        {Py_am_await, PyObject_SelfIter},
        {Py_am_send, am_send},
        {Py_tp_methods, methods},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = name,
        .basicsize = sizeof(cap_awaitable),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = slots,
    };
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
}
