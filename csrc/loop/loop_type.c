/* The type capicorn._core.Loop: its life as an object, and what BaseEventLoop keeps in
   Python. */
#include "loop/loop.h"
#include "loop/resolver.h"
#include "loop/thread_pool.h"
#include "loop/transport.h"

#include "base/mem.h"

#include <pthread.h>

unsigned cap_forks;
_Atomic bool cap_has_forked;

/* ---- life ---- */

/* Everything that is queued, given back. Runs Python. */
static void
drop_queues(cap_loop *self)
{
    while (self->ready.len != 0)
        cap_handle_end_queued(cap_ready_pop(&self->ready));
    while (self->io.len != 0)
        cap_handle_end_queued(cap_ready_pop(&self->io));
    cap_timer *timer;
    while ((timer = cap_timer_heap_first(&self->timers)) != NULL) {
        cap_timer_heap_remove(&self->timers, timer);
        Py_DECREF((PyObject *)timer);
    }
}

static PyObject *
loop_dispose(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    if (self->has_thread) {
        PyErr_SetString(PyExc_RuntimeError, "Cannot close a running event loop");
        return NULL;
    }
    self->closed = true;
    drop_queues(self);
    cap_transports_drop(self);
    cap_resolver_close(self);
    int left = cap_loop_close_uv(self);
    cap_watcher_close(self);
    cap_handle_drop_spares(self);
    if (left && PyErr_ResourceWarning((PyObject *)self, 1,
                                      "event loop %R was closed while something in C still used it",
                                      self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static cap_state *
state_for(PyTypeObject *type)
{
    /* The type is a Python subclass; the module is that of the base made here. */
    for (; type != NULL; type = type->tp_base) {
        if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE))
            continue;
        void *state = PyType_GetModuleState(type);
        if (state != NULL)
            return state;
        PyErr_Clear();
    }
    PyErr_SetString(PyExc_TypeError, "capicorn._core.Loop is not among the bases");
    return NULL;
}

static PyObject *
loop_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    cap_state *st = state_for(type);
    cap_loop *self = st != NULL ? (cap_loop *)type->tp_alloc(type, 0) : NULL;
    if (self == NULL)
        return NULL;
    cap_all_tasks_speed_up();
    self->reactor.st = st;
    self->reactor.loop = (PyObject *)self;
    self->watcher.fd = -1;
    self->forks = cap_forks;
    if (cap_loop_open_uv(self) < 0) {
        self->closed = true;
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
loop_traverse(cap_loop *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    int rc = cap_ready_traverse(&self->ready, visit, arg);
    if (rc == 0)
        rc = cap_ready_traverse(&self->io, visit, arg);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < self->timers.len; i++)
        Py_VISIT((PyObject *)self->timers.item[i]);
    Py_VISIT((PyObject *)self->captured);
    Py_VISIT(self->current_handle);
    Py_VISIT(self->task_factory);
    Py_VISIT(self->reactor.fatal);
    rc = cap_transports_traverse(self, visit, arg);
    if (rc == 0)
        rc = cap_resolver_traverse(self, visit, arg);
    return rc != 0 ? rc : cap_watcher_traverse(self, visit, arg);
}

static int
loop_clear(cap_loop *self)
{
    drop_queues(self);
    cap_transports_drop(self);
    cap_resolver_close(self);
    for (size_t i = 0; i < self->watcher.len; i++) {
        Py_CLEAR(self->watcher.item[i].reader);
        Py_CLEAR(self->watcher.item[i].writer);
    }
    Py_CLEAR(self->captured);
    Py_CLEAR(self->current_handle);
    Py_CLEAR(self->task_factory);
    Py_CLEAR(self->reactor.fatal);
    return 0;
}

static void
loop_dealloc(cap_loop *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack((PyObject *)self);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    self->closed = true; /* handles that die now are freed, not kept */
    loop_clear(self);
    (void)cap_loop_close_uv(self);
    cap_watcher_close(self);
    cap_handle_drop_spares(self);
    cap_free(self->ready.slot);
    cap_free(self->io.slot);
    cap_free(self->timers.item);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* ---- small methods ---- */

static PyObject *
loop_stop(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    self->stopping = true;
    Py_RETURN_NONE;
}

static PyObject *
loop_is_running(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->has_thread);
}

static PyObject *
loop_is_closed(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->closed);
}

static PyObject *
loop_get_debug(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->debug);
}

static PyObject *
loop_create_future(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    cap_state *st = self->reactor.st;
    PyObject *stack[2] = {NULL, (PyObject *)self};
    return PyObject_Vectorcall(st->imp.asyncio_Future, stack + 1,
                               PY_VECTORCALL_ARGUMENTS_OFFSET,
                               cap_loop_state_of(st)->future_kwnames);
}

static PyObject *
loop_write_to_self(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    cap_loop_wake(self);
    Py_RETURN_NONE;
}

static PyObject *
loop_timer_handle_cancelled(cap_loop *Py_UNUSED(self), PyObject *Py_UNUSED(handle))
{
    Py_RETURN_NONE; /* a cancelled timer has left the heap already */
}

/* ---- attributes that BaseEventLoop keeps in Python ---- */

#define FLAG(name)                                                             \
    static PyObject *get_##name(cap_loop *self, void *Py_UNUSED(closure))      \
    {                                                                          \
        return PyBool_FromLong(self->name);                                    \
    }                                                                          \
    static int set_##name(cap_loop *self, PyObject *value, void *Py_UNUSED(closure)) \
    {                                                                          \
        int on = value != NULL ? PyObject_IsTrue(value) : 0;                   \
        if (on < 0)                                                            \
            return -1;                                                         \
        self->name = on;                                                       \
        return 0;                                                              \
    }
FLAG(stopping)
FLAG(debug)
FLAG(closed)
#undef FLAG

static PyObject *
get_thread_id(cap_loop *self, void *Py_UNUSED(closure))
{
    if (!self->has_thread)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLong(self->thread_id);
}

static int
set_thread_id(cap_loop *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL || value == Py_None) {
        self->has_thread = false;
        return 0;
    }
    unsigned long id = PyLong_AsUnsignedLong(value);
    if (id == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    self->thread_id = id;
    self->has_thread = true;
    return 0;
}

static PyObject *
get_ready(cap_loop *self, void *Py_UNUSED(closure))
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < self->ready.len; i++) {
        if (PyList_Append(list, (PyObject *)self->ready.slot[(self->ready.head + i) &
                                                             self->ready.mask]) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *
get_scheduled(cap_loop *self, void *Py_UNUSED(closure))
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < self->timers.len; i++) {
        if (PyList_Append(list, (PyObject *)self->timers.item[i]) < 0)
            Py_CLEAR(list);
    }
    if (list != NULL && PyList_Sort(list) < 0)
        Py_CLEAR(list);
    return list;
}

/* BaseEventLoop.__init__ gives them empty containers: nothing to do. */
static int
set_snapshot(cap_loop *Py_UNUSED(self), PyObject *Py_UNUSED(value), void *Py_UNUSED(closure))
{
    return 0;
}

#define OBJECT(name)                                                           \
    static PyObject *get_##name(cap_loop *self, void *Py_UNUSED(closure))      \
    {                                                                          \
        return Py_NewRef(self->name != NULL ? self->name : Py_None);           \
    }                                                                          \
    static int set_##name(cap_loop *self, PyObject *value, void *Py_UNUSED(closure)) \
    {                                                                          \
        Py_XSETREF(self->name, value != Py_None ? Py_XNewRef(value) : NULL);   \
        return 0;                                                              \
    }
OBJECT(current_handle)
OBJECT(task_factory)
#undef OBJECT

static PyGetSetDef loop_getset[] = {
    {"_stopping", (getter)get_stopping, (setter)set_stopping, NULL, NULL},
    {"_debug", (getter)get_debug, (setter)set_debug, NULL, NULL},
    {"_closed", (getter)get_closed, (setter)set_closed, NULL, NULL},
    {"_thread_id", (getter)get_thread_id, (setter)set_thread_id, NULL, NULL},
    {"_ready", (getter)get_ready, (setter)set_snapshot,
     PyDoc_STR("What is ready to run, in order: a list, new each time."), NULL},
    {"_scheduled", (getter)get_scheduled, (setter)set_snapshot,
     PyDoc_STR("The timers, in order: a list, new each time."), NULL},
    {"_current_handle", (getter)get_current_handle, (setter)set_current_handle, NULL, NULL},
    {"_task_factory", (getter)get_task_factory, (setter)set_task_factory, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* ---- the tables ---- */

PyDoc_STRVAR(run_doc, "_run()\n--\n\nTurn after turn until stop(); at least one.");
PyDoc_STRVAR(call_soon_doc,
             "call_soon($self, callback, *args, context=None)\n--\n\n"
             "Call callback(*args) at the next turn, in the order of the calls of this.\n"
             "Returns a Handle.");
PyDoc_STRVAR(call_soon_threadsafe_doc,
             "call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"
             "As call_soon(), from any thread, or a signal handler.");
PyDoc_STRVAR(call_later_doc,
             "call_later($self, delay, callback, *args, context=None)\n--\n\n"
             "Call callback(*args) in `delay` seconds. Returns a TimerHandle.");
PyDoc_STRVAR(call_at_doc,
             "call_at($self, when, callback, *args, context=None)\n--\n\n"
             "Call callback(*args) when time() is `when`. Returns a TimerHandle.");
PyDoc_STRVAR(dispose_doc, "_dispose()\n--\n\nThe native part of close(). Idempotent.");

#define FAST(f) (PyCFunction)(void (*)(void))f

static PyMethodDef loop_methods[] = {
    {"call_soon", FAST(cap_loop_call_soon), METH_FASTCALL | METH_KEYWORDS, call_soon_doc},
    {"call_soon_threadsafe", FAST(cap_loop_call_soon_threadsafe), METH_FASTCALL | METH_KEYWORDS,
     call_soon_threadsafe_doc},
    {"call_later", FAST(cap_loop_call_later), METH_FASTCALL | METH_KEYWORDS, call_later_doc},
    {"call_at", FAST(cap_loop_call_at), METH_FASTCALL | METH_KEYWORDS, call_at_doc},
    {"time", (PyCFunction)cap_loop_time, METH_NOARGS,
     PyDoc_STR("time($self)\n--\n\nThe loop's clock, time.monotonic(), in seconds.")},
    {"stop", (PyCFunction)loop_stop, METH_NOARGS,
     PyDoc_STR("stop($self)\n--\n\nrun_forever() returns at the end of this turn.")},
    {"is_running", (PyCFunction)loop_is_running, METH_NOARGS,
     PyDoc_STR("is_running($self)\n--\n\nWhether run_forever() is being executed.")},
    {"is_closed", (PyCFunction)loop_is_closed, METH_NOARGS,
     PyDoc_STR("is_closed($self)\n--\n\nWhether close() was called.")},
    {"get_debug", (PyCFunction)loop_get_debug, METH_NOARGS,
     PyDoc_STR("get_debug($self)\n--\n\nWhether debug mode is on.")},
    {"create_future", (PyCFunction)loop_create_future, METH_NOARGS,
     PyDoc_STR("create_future($self)\n--\n\nA new asyncio.Future of this loop.")},
    {"create_task", FAST(cap_loop_create_task), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("create_task($self, coro, /, **kwargs)\n--\n\n"
               "Schedule a coroutine. Returns its asyncio.Task.")},
    {"_add_reader", FAST(cap_loop_add_reader), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_add_writer", FAST(cap_loop_add_writer), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_remove_reader", (PyCFunction)cap_loop_remove_reader, METH_O, NULL},
    {"_remove_writer", (PyCFunction)cap_loop_remove_writer, METH_O, NULL},
    {"_accept", FAST(cap_loop_accept), METH_FASTCALL, NULL},
    {"_look_up", FAST(cap_resolver_look_up), METH_FASTCALL, NULL},
    {"_forget_lookup", (PyCFunction)cap_resolver_forget, METH_O, NULL},
    {"_watch_of", (PyCFunction)cap_loop_watch_of, METH_O, NULL},
    {"_watched_fds", (PyCFunction)cap_loop_watched_fds, METH_NOARGS, NULL},
    {"_write_to_self", (PyCFunction)loop_write_to_self, METH_NOARGS, NULL},
    {"_timer_handle_cancelled", (PyCFunction)loop_timer_handle_cancelled, METH_O, NULL},
    {"_run", (PyCFunction)cap_loop_run, METH_NOARGS, run_doc},
    {"_run_once", (PyCFunction)cap_loop_run_once, METH_NOARGS, NULL},
    {"_dispose", (PyCFunction)loop_dispose, METH_NOARGS, dispose_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef loop_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(cap_loop, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, PyDoc_STR("The native part of capicorn.Loop; of no use alone.")},
    {Py_tp_new, loop_new},
    {Py_tp_dealloc, loop_dealloc},
    {Py_tp_traverse, loop_traverse},
    {Py_tp_clear, loop_clear},
    {Py_tp_methods, loop_methods},
    {Py_tp_getset, loop_getset},
    {Py_tp_members, loop_members},
    {0, NULL},
};

static PyType_Spec loop_spec = {
    .name = "capicorn._core.Loop",
    .basicsize = sizeof(cap_loop),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = loop_slots,
};

static void
after_fork_in_parent(void)
{
    atomic_store(&cap_has_forked, true);
}

static void
after_fork_in_child(void)
{
    cap_forks++;
    atomic_store(&cap_has_forked, false);
}

bool
cap_loop_check(cap_state *st, PyObject *obj)
{
    return PyObject_TypeCheck(obj, st->type.Loop);
}

int
cap_loop_type_init(PyObject *module, cap_state *st)
{
    static bool counting; /* once for the process: it cannot be taken back */
    if (!counting && pthread_atfork(NULL, after_fork_in_parent, after_fork_in_child) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    counting = true;
    st->type.Loop = (PyTypeObject *)PyType_FromModuleAndSpec(module, &loop_spec, NULL);
    return st->type.Loop != NULL ? PyModule_AddType(module, st->type.Loop) : -1;
}
