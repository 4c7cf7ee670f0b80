/* Handle and TimerHandle: a callback, its context and a few arguments without a
   tuple. To the eye they are asyncio.Handle and asyncio.TimerHandle: the same
   attributes, representation and comparisons, and `__class__` says so, which is
   what isinstance() asks when the type itself is no subclass. */
#include "loop/loop.h"

#include "base/mem.h"

#define SPARE_MAX 1024

static inline cap_loop_state *
state_of(const cap_handle *h)
{
    return cap_loop_state_of(h->loop->reactor.st);
}

static inline bool
is_timer(const cap_handle *h)
{
    return (h->flags & CAP_HANDLE_TIMER) != 0;
}

/* ---- making and freeing ---- */

static cap_handle *
take_memory(cap_loop *loop, PyTypeObject *type, cap_handle **spare, uint32_t *nspare)
{
#ifndef CAP_NO_FREELISTS
    cap_handle *h = *spare;
    if (h != NULL) {
        *spare = (cap_handle *)h->rest;
        --*nspare;
        h->rest = NULL;
        PyObject_Init((PyObject *)h, type);
        return h;
    }
#endif
    cap_handle *fresh = PyObject_GC_New(cap_handle, type);
    if (fresh == NULL)
        return NULL;
    memset((char *)fresh + offsetof(cap_handle, loop), 0,
           (size_t)type->tp_basicsize - offsetof(cap_handle, loop));
    return fresh;
}

/* Fills what every kind has. The memory's fields are all zero before. */
static int
fill(cap_handle *h, cap_loop *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
     PyObject *context)
{
    cap_count.handles++;
    h->loop = (cap_loop *)Py_NewRef((PyObject *)loop);
    h->nargs = 0;
    if (context == NULL || context == Py_None)
        h->context = PyContext_CopyCurrent();
    else
        h->context = Py_NewRef(context);
    if (h->context == NULL)
        return -1;
    h->callback = Py_NewRef(callback);
    if (nargs <= CAP_HANDLE_INLINE) {
        for (Py_ssize_t i = 0; i < nargs; i++)
            h->arg[i] = Py_NewRef(args[i]);
    }
    else {
        PyObject *rest = PyTuple_New(nargs);
        if (rest == NULL)
            return -1;
        for (Py_ssize_t i = 0; i < nargs; i++)
            PyTuple_SET_ITEM(rest, i, Py_NewRef(args[i]));
        h->rest = rest;
    }
    h->nargs = (uint32_t)nargs;
    if (loop->debug) {
        PyObject *frame = (PyObject *)PyEval_GetFrame();
        PyObject *stack = PyObject_CallOneArg(cap_loop_state_of(loop->reactor.st)->extract_stack,
                                              frame != NULL ? frame : Py_None);
        if (stack == NULL)
            return -1;
        h->source_traceback = stack;
    }
    return 0;
}

static int
handle_traverse(cap_handle *h, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(h));
    Py_VISIT((PyObject *)h->loop);
    Py_VISIT(h->callback);
    Py_VISIT(h->context);
    Py_VISIT(h->rest);
    for (int i = 0; i < CAP_HANDLE_INLINE; i++)
        Py_VISIT(h->arg[i]);
    Py_VISIT(h->source_traceback);
    return 0;
}

static void
track(cap_handle *h)
{
    PyObject_GC_Track((PyObject *)h);
    h->flags |= CAP_HANDLE_TRACKED;
}

static cap_handle *
new_untracked(cap_loop *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
              PyObject *context)
{
    cap_handle *h =
        take_memory(loop, loop->reactor.st->type.Handle, &loop->spare, &loop->nspare);
    if (h == NULL)
        return NULL;
    h->flags = 0;
    if (fill(h, loop, callback, args, nargs, context) < 0)
        Py_CLEAR(h);
    return h;
}

cap_handle *
cap_handle_new(cap_loop *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
               PyObject *context)
{
    cap_handle *h = new_untracked(loop, callback, args, nargs, context);
    if (h != NULL)
        track(h);
    return h;
}

cap_handle *
cap_handle_queue(cap_loop *loop, cap_ready *q, PyObject *callback, PyObject *const *args,
                 Py_ssize_t nargs, PyObject *context)
{
    cap_handle *h = new_untracked(loop, callback, args, nargs, context);
    /* Making it ran Python, so the loop may be closed. */
    if (h != NULL && (cap_loop_check_closed(loop) < 0 || cap_ready_push(q, h) < 0))
        Py_CLEAR(h);
    return h;
}

/* Contexts end as ones that the garbage collector knows. */
static void
show_context(cap_handle *h)
{
    if (h->flags & CAP_HANDLE_HIDES_CONTEXT) {
        h->flags &= ~(uint32_t)CAP_HANDLE_HIDES_CONTEXT;
        PyObject_GC_Track(h->context);
    }
}

void
cap_handle_hide_context(cap_handle *h)
{
    if (Py_REFCNT(h->context) == 1 && !(h->flags & CAP_HANDLE_HIDES_CONTEXT)) {
        PyObject_GC_UnTrack(h->context);
        h->flags |= CAP_HANDLE_HIDES_CONTEXT;
    }
}

void
cap_handle_end_queued(cap_handle *h)
{
    if (Py_REFCNT((PyObject *)h) > 1 && !(h->flags & CAP_HANDLE_TRACKED)) {
        show_context(h);
        track(h);
    }
    Py_DECREF((PyObject *)h);
}

/* What it holds, as if the queue did. */
static int
traverse_queued(cap_handle *h, visitproc visit, void *arg)
{
    int rc = handle_traverse(h, visit, arg);
    if (rc == 0 && (h->flags & CAP_HANDLE_HIDES_CONTEXT) && Py_REFCNT(h->context) == 1)
        rc = Py_TYPE(h->context)->tp_traverse(h->context, visit, arg);
    return rc;
}

int
cap_ready_traverse(const cap_ready *q, visitproc visit, void *arg)
{
    for (size_t i = 0; i < q->len; i++) {
        cap_handle *h = q->slot[(q->head + i) & q->mask];
        if ((h->flags & CAP_HANDLE_TRACKED) || Py_REFCNT((PyObject *)h) > 1)
            Py_VISIT((PyObject *)h);
        else {
            int rc = traverse_queued(h, visit, arg);
            if (rc != 0)
                return rc;
        }
    }
    return 0;
}

cap_timer *
cap_timer_new(cap_loop *loop, double when, PyObject *callback, PyObject *const *args,
              Py_ssize_t nargs, PyObject *context)
{
    cap_handle *h = take_memory(loop, loop->reactor.st->type.TimerHandle, &loop->spare_timer,
                                &loop->nspare_timer);
    if (h == NULL)
        return NULL;
    cap_timer *timer = (cap_timer *)h;
    h->flags = CAP_HANDLE_TIMER;
    timer->when = when;
    timer->pos = -1;
    if (fill(h, loop, callback, args, nargs, context) < 0)
        Py_CLEAR(timer);
    else
        track(h);
    return timer;
}

static void
drop_call(cap_handle *h)
{
    /* Out of the fields first: any of these may run Python. */
    PyObject *callback = h->callback, *rest = h->rest, *arg[CAP_HANDLE_INLINE];
    memcpy(arg, h->arg, sizeof arg);
    h->callback = NULL;
    h->rest = NULL;
    memset(h->arg, 0, sizeof h->arg);
    h->nargs = 0;
    Py_XDECREF(callback);
    Py_XDECREF(rest);
    for (int i = 0; i < CAP_HANDLE_INLINE; i++)
        Py_XDECREF(arg[i]);
}

static int
handle_clear(cap_handle *h)
{
    drop_call(h);
    show_context(h);
    Py_CLEAR(h->context);
    Py_CLEAR(h->source_traceback);
    Py_CLEAR(h->repr);
    return 0;
}

static void
dealloc(cap_handle *h, bool timer)
{
    PyTypeObject *type = Py_TYPE(h);
    if (h->flags & CAP_HANDLE_TRACKED)
        PyObject_GC_UnTrack((PyObject *)h);
    if (h->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)h);
    handle_clear(h);
    cap_count.handles--;
    cap_loop *loop = h->loop; /* after clear: running Python may still have looked at it */
    h->loop = NULL;
    h->flags = 0;
#ifndef CAP_NO_FREELISTS
    if (loop != NULL && !loop->closed) {
        cap_handle **spare = timer ? &loop->spare_timer : &loop->spare;
        uint32_t *nspare = timer ? &loop->nspare_timer : &loop->nspare;
        if (*nspare < SPARE_MAX) {
            h->rest = (PyObject *)*spare;
            *spare = h;
            ++*nspare;
            h = NULL;
        }
    }
#endif
    if (h != NULL)
        PyObject_GC_Del(h);
    Py_XDECREF((PyObject *)loop);
    Py_DECREF(type);
}

static void
handle_dealloc(PyObject *self)
{
    dealloc((cap_handle *)self, false);
}

static void
timer_dealloc(PyObject *self)
{
    assert(((cap_timer *)self)->pos < 0);
    dealloc((cap_handle *)self, true);
}

static void
free_list(cap_handle *h)
{
    while (h != NULL) {
        cap_handle *next = (cap_handle *)h->rest;
        PyObject_GC_Del(h);
        h = next;
    }
}

void
cap_handle_drop_spares(cap_loop *loop)
{
    cap_handle *plain = loop->spare, *timers = loop->spare_timer;
    loop->spare = loop->spare_timer = NULL;
    loop->nspare = loop->nspare_timer = 0;
    free_list(plain);
    free_list(timers);
}

/* ---- running and cancelling ---- */

static PyObject *
args_tuple(const cap_handle *h)
{
    if (h->rest != NULL)
        return Py_NewRef(h->rest);
    PyObject *args = PyTuple_New(h->nargs);
    for (uint32_t i = 0; args != NULL && i < h->nargs; i++)
        PyTuple_SET_ITEM(args, i, Py_NewRef(h->arg[i]));
    return args;
}

static void
end_cancel_waits(cap_handle *h)
{
    for (cap_cancel_wait **at = &h->loop->waits; *at != NULL;) {
        cap_cancel_wait *w = *at;
        if (w->handle == h) {
            *at = w->next;
            PyThread_release_lock(w->lock);
        }
        else
            at = &w->next;
    }
}

/* The callback raised what is set now. 0 when the loop's handler has it, or had no memory
   to take it: the other callbacks must not suffer for that. */
static int
failed(cap_handle *h)
{
    if (cap_err_is_exit())
        return -1;
    PyObject *exc = cap_err_take();
    PyObject *done = PyObject_CallMethod((PyObject *)h->loop, "_callback_failed", "OO", h, exc);
    if (done == NULL && PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_WriteUnraisable(NULL); /* the second error */
        cap_err_restore(exc);
        PyErr_WriteUnraisable(NULL);
        return 0;
    }
    Py_DECREF(exc);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

int
cap_handle_run(cap_handle *h)
{
    /* cancel() empties the fields, and the callback may call it. */
    PyObject *stack[CAP_HANDLE_INLINE + 1];
    PyObject *callback = h->callback, *context = h->context, *rest = h->rest, *res = NULL;
    uint32_t nargs = h->nargs;
    bool threadsafe = (h->flags & CAP_HANDLE_THREADSAFE) != 0;
    if (callback == NULL)
        return 0; /* cancelled by somebody who was quicker */
    Py_INCREF(callback);
    Py_INCREF(context);
    Py_INCREF((PyObject *)h);
    if (rest != NULL)
        Py_INCREF(rest);
    else
        for (uint32_t i = 0; i < nargs; i++)
            stack[i + 1] = Py_NewRef(h->arg[i]);
    if (threadsafe)
        h->flags |= CAP_HANDLE_RUNNING;

    if (PyContext_Enter(context) == 0) {
        /* In parentheses: no fault points. Only the callback itself fails here. */
        if (rest != NULL)
            res = (PyObject_Call)(callback, rest, NULL);
        else
            res = (PyObject_Vectorcall)(callback, stack + 1,
                                        nargs | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        if (PyContext_Exit(context) < 0)
            Py_CLEAR(res);
    }
    int rc = res != NULL ? 0 : failed(h);
    Py_XDECREF(res);

    if (threadsafe) {
        h->flags &= ~(uint32_t)CAP_HANDLE_RUNNING;
        if (h->loop->waits != NULL)
            end_cancel_waits(h);
    }
    Py_DECREF(callback);
    Py_DECREF(context);
    if (rest != NULL)
        Py_DECREF(rest);
    else
        for (uint32_t i = 0; i < nargs; i++)
            Py_DECREF(stack[i + 1]);
    Py_DECREF((PyObject *)h);
    return rc;
}

/* Since CPython 3.14 cancel() and cancelled() of a call_soon_threadsafe handle, from
   another thread, return when the callback does not run any more. */
static int
wait_for_end(cap_handle *h)
{
    cap_loop *loop = h->loop;
    if (!(h->flags & CAP_HANDLE_RUNNING) || state_of(h)->threadsafe_class == NULL ||
        (loop->has_thread && loop->thread_id == PyThread_get_thread_ident()))
        return 0;
    PyThread_type_lock lock = PyThread_allocate_lock();
    if (lock == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyThread_acquire_lock(lock, WAIT_LOCK);
    cap_cancel_wait w = {.next = loop->waits, .handle = h, .lock = lock};
    loop->waits = &w;
    Py_BEGIN_ALLOW_THREADS
    PyThread_acquire_lock(lock, WAIT_LOCK);
    Py_END_ALLOW_THREADS
    PyThread_release_lock(lock);
    PyThread_free_lock(lock);
    return 0;
}

int
cap_handle_cancel(cap_handle *h)
{
    if (wait_for_end(h) < 0)
        return -1;
    if (h->flags & CAP_HANDLE_CANCELLED)
        return 0;
    if (h->loop->debug && h->repr == NULL) {
        /* as it reads now: a warning about it may come after cancel() */
        h->flags |= CAP_HANDLE_CANCELLED;
        PyObject *repr = PyObject_Repr((PyObject *)h);
        if (repr == NULL) {
            h->flags &= ~(uint32_t)CAP_HANDLE_CANCELLED;
            return -1;
        }
        Py_XSETREF(h->repr, repr);
    }
    h->flags |= CAP_HANDLE_CANCELLED;
    cap_timer *scheduled = NULL;
    if (is_timer(h) && ((cap_timer *)h)->pos >= 0) {
        scheduled = (cap_timer *)h;
        cap_timer_heap_remove(&h->loop->timers, scheduled);
    }
    drop_call(h);
    Py_XDECREF((PyObject *)scheduled);
    return 0;
}

/* ---- methods ---- */

static PyObject *
handle_cancel(cap_handle *h, PyObject *Py_UNUSED(ignored))
{
    Py_INCREF((PyObject *)h);
    int rc = cap_handle_cancel(h);
    Py_DECREF((PyObject *)h);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
handle_cancelled(cap_handle *h, PyObject *Py_UNUSED(ignored))
{
    if (wait_for_end(h) < 0)
        return NULL;
    return PyBool_FromLong(h->flags & CAP_HANDLE_CANCELLED);
}

static PyObject *
handle_get_context(cap_handle *h, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(h->context != NULL ? h->context : Py_None);
}

static PyObject *
handle_run(cap_handle *h, PyObject *Py_UNUSED(ignored))
{
    if (cap_handle_run(h) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
handle_repr_info(cap_handle *h, PyObject *Py_UNUSED(ignored))
{
    cap_loop_state *ls = state_of(h);
    return PyObject_CallOneArg(is_timer(h) ? ls->timer_repr_info : ls->handle_repr_info,
                               (PyObject *)h);
}

static PyObject *
handle_repr(PyObject *self)
{
    return PyObject_CallOneArg(state_of((cap_handle *)self)->handle_repr, self);
}

static PyObject *
timer_when(cap_timer *t, PyObject *Py_UNUSED(ignored))
{
    return PyFloat_FromDouble(t->when);
}

static PyMethodDef handle_methods[] = {
    {"cancel", (PyCFunction)handle_cancel, METH_NOARGS,
     PyDoc_STR("cancel()\n--\n\nThe callback will not be called.")},
    {"cancelled", (PyCFunction)handle_cancelled, METH_NOARGS,
     PyDoc_STR("cancelled()\n--\n\nWhether cancel() was called.")},
    {"get_context", (PyCFunction)handle_get_context, METH_NOARGS,
     PyDoc_STR("get_context()\n--\n\nThe contextvars.Context that the callback runs in.")},
    {"_run", (PyCFunction)handle_run, METH_NOARGS, NULL},
    {"_repr_info", (PyCFunction)handle_repr_info, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef timer_methods[] = {
    {"when", (PyCFunction)timer_when, METH_NOARGS,
     PyDoc_STR("when()\n--\n\nThe time at which it is due, in seconds of the loop's clock.")},
    {NULL, NULL, 0, NULL},
};

static PyObject *
get_callback(cap_handle *h, void *Py_UNUSED(closure))
{
    return Py_NewRef(h->callback != NULL ? h->callback : Py_None);
}

static PyObject *
get_args(cap_handle *h, void *Py_UNUSED(closure))
{
    if (h->callback == NULL)
        Py_RETURN_NONE;
    return args_tuple(h);
}

static PyObject *
get_cancelled(cap_handle *h, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(h->flags & CAP_HANDLE_CANCELLED);
}

static PyObject *
get_context(cap_handle *h, void *Py_UNUSED(closure))
{
    return handle_get_context(h, NULL);
}

static PyObject *
get_loop(cap_handle *h, void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)h->loop);
}

static PyObject *
get_source_traceback(cap_handle *h, void *Py_UNUSED(closure))
{
    return Py_NewRef(h->source_traceback != NULL ? h->source_traceback : Py_None);
}

static PyObject *
get_repr(cap_handle *h, void *Py_UNUSED(closure))
{
    return Py_NewRef(h->repr != NULL ? h->repr : Py_None);
}

static PyObject *
get_class(cap_handle *h, void *Py_UNUSED(closure))
{
    cap_loop_state *ls = state_of(h);
    PyObject *cls = ls->handle_class;
    if (is_timer(h))
        cls = ls->timer_class;
    else if ((h->flags & CAP_HANDLE_THREADSAFE) && ls->threadsafe_class != NULL)
        cls = ls->threadsafe_class;
    return Py_NewRef(cls);
}

static PyObject *
get_when(cap_timer *t, void *Py_UNUSED(closure))
{
    return PyFloat_FromDouble(t->when);
}

static PyObject *
get_scheduled(cap_timer *t, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(t->pos >= 0);
}

static PyGetSetDef handle_getset[] = {
    {"_callback", (getter)get_callback, NULL, NULL, NULL},
    {"_args", (getter)get_args, NULL, NULL, NULL},
    {"_cancelled", (getter)get_cancelled, NULL, NULL, NULL},
    {"_context", (getter)get_context, NULL, NULL, NULL},
    {"_loop", (getter)get_loop, NULL, NULL, NULL},
    {"_source_traceback", (getter)get_source_traceback, NULL, NULL, NULL},
    {"_repr", (getter)get_repr, NULL, NULL, NULL},
    {"__class__", (getter)get_class, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyGetSetDef timer_getset[] = {
    {"_when", (getter)get_when, NULL, NULL, NULL},
    {"_scheduled", (getter)get_scheduled, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef handle_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(cap_handle, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* asyncio.TimerHandle: equal are the same time, callback, arguments and state. */
static int
timers_equal(cap_timer *a, cap_timer *b)
{
    const uint32_t cancelled = CAP_HANDLE_CANCELLED;
    if (a->when != b->when || ((a->base.flags ^ b->base.flags) & cancelled))
        return 0;
    PyObject *ca = get_callback(&a->base, NULL), *cb = get_callback(&b->base, NULL);
    int equal = PyObject_RichCompareBool(ca, cb, Py_EQ);
    Py_DECREF(ca);
    Py_DECREF(cb);
    if (equal <= 0)
        return equal;
    PyObject *aa = get_args(&a->base, NULL), *ab = aa != NULL ? get_args(&b->base, NULL) : NULL;
    equal = ab != NULL ? PyObject_RichCompareBool(aa, ab, Py_EQ) : -1;
    Py_XDECREF(aa);
    Py_XDECREF(ab);
    return equal;
}

static PyObject *
timer_richcompare(PyObject *self, PyObject *other, int op)
{
    cap_timer *a = (cap_timer *)self, *b = (cap_timer *)other;
    if (!PyObject_TypeCheck(other, a->base.loop->reactor.st->type.TimerHandle))
        Py_RETURN_NOTIMPLEMENTED;
    switch (op) {
    case Py_LT:
        return PyBool_FromLong(a->when < b->when);
    case Py_GT:
        return PyBool_FromLong(a->when > b->when);
    case Py_LE:
        if (a->when < b->when)
            Py_RETURN_TRUE;
        break;
    case Py_GE:
        if (a->when > b->when)
            Py_RETURN_TRUE;
        break;
    default:
        break;
    }
    int equal = timers_equal(a, b);
    if (equal < 0)
        return NULL;
    return PyBool_FromLong(op == Py_NE ? !equal : equal);
}

static Py_hash_t
timer_hash(PyObject *self)
{
    PyObject *when = PyFloat_FromDouble(((cap_timer *)self)->when);
    if (when == NULL)
        return -1;
    Py_hash_t hash = PyObject_Hash(when);
    Py_DECREF(when);
    return hash;
}

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, PyDoc_STR("What call_soon() returns: asyncio.Handle in C.")},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_repr, handle_repr},
    {Py_tp_methods, handle_methods},
    {Py_tp_getset, handle_getset},
    {Py_tp_members, handle_members},
    {0, NULL},
};

static PyType_Spec handle_spec = {
    .name = "capicorn._core.Handle",
    .basicsize = sizeof(cap_handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = handle_slots,
};

static PyType_Slot timer_slots[] = {
    {Py_tp_doc, PyDoc_STR("What call_later() and call_at() return: asyncio.TimerHandle in C.")},
    {Py_tp_dealloc, timer_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_methods, timer_methods},
    {Py_tp_getset, timer_getset},
    {Py_tp_richcompare, timer_richcompare},
    {Py_tp_hash, timer_hash},
    {0, NULL},
};

static PyType_Spec timer_spec = {
    .name = "capicorn._core.TimerHandle",
    .basicsize = sizeof(cap_timer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = timer_slots,
};

static int
borrow_from_asyncio(cap_loop_state *ls)
{
    PyObject *events = PyImport_ImportModule("asyncio.events");
    PyObject *helpers = PyImport_ImportModule("asyncio.format_helpers");
    int rc = -1;
    if (events == NULL || helpers == NULL)
        goto done;
    if ((ls->handle_class = PyObject_GetAttrString(events, "Handle")) == NULL ||
        (ls->timer_class = PyObject_GetAttrString(events, "TimerHandle")) == NULL ||
        (ls->handle_repr = PyObject_GetAttrString(ls->handle_class, "__repr__")) == NULL ||
        (ls->handle_repr_info = PyObject_GetAttrString(ls->handle_class, "_repr_info")) == NULL ||
        (ls->timer_repr_info = PyObject_GetAttrString(ls->timer_class, "_repr_info")) == NULL ||
        (ls->extract_stack = PyObject_GetAttrString(helpers, "extract_stack")) == NULL)
        goto done;
    ls->threadsafe_class = PyObject_GetAttrString(events, "_ThreadSafeHandle");
    if (ls->threadsafe_class == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            goto done;
        PyErr_Clear();
    }
    rc = 0;
done:
    Py_XDECREF(events);
    Py_XDECREF(helpers);
    return rc;
}

int
cap_handle_types_init(PyObject *module, cap_state *st)
{
    if (borrow_from_asyncio(cap_loop_state_of(st)) < 0)
        return -1;
    st->type.Handle = (PyTypeObject *)PyType_FromModuleAndSpec(module, &handle_spec, NULL);
    if (st->type.Handle == NULL || PyModule_AddType(module, st->type.Handle) < 0)
        return -1;
    st->type.TimerHandle = (PyTypeObject *)PyType_FromModuleAndSpec(
        module, &timer_spec, (PyObject *)st->type.Handle);
    if (st->type.TimerHandle == NULL || PyModule_AddType(module, st->type.TimerHandle) < 0)
        return -1;
    return 0;
}
