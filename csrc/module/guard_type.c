/* The type capicorn._core.Guard: pool/guard.h for one event loop, and the thread that
   reports in Python. */
#include "asgi/server_rescue.h"
#include "loop/reactor.h"
#include "module/scoreboard_type.h"
#include "pool/guard.h"

#include <errno.h>
#include <stdlib.h>

typedef struct guard_object {
    PyObject_HEAD
    cap_guard *guard;      /* of its own cache lines */
    cap_reactor *reactor;  /* counted while it is watched; NULL: never or no more */
    bool attached;         /* its beat is ours */
    bool running;          /* the thread, which has a reference */
    PyObject *report;      /* callable */
    PyObject *board;       /* Scoreboard, which has the beat, or NULL */
    cap_rescue *rescue;    /* counted; NULL: connections wait for the loop */
    _Atomic uint32_t ready;
} guard_object;

/* In the reporter's thread, without the GIL, which it takes however long that lasts. */
static void
report(void *context, cap_guard *g, const cap_block *block)
{
    guard_object *self = context;
    PyGILState_STATE gil = PyGILState_Ensure();
    cap_guard_seen(g);
    uint64_t end = block->ended != 0 ? block->ended : cap_board_now();
    bool live = block->ended == 0 && cap_guard_goes_on(g, block);
    PyObject *report = Py_XNewRef(self->report);
    PyObject *done = NULL;
    if (report != NULL) {
        PyObject *request = PyUnicode_DecodeASCII(
            block->request, (Py_ssize_t)strlen(block->request), "backslashreplace");
        if (request != NULL)
            done = PyObject_CallFunction(
                report, "sNdOO",
                block->ended != 0 ? "end" : block->last ? "last" : "begin", request,
                (double)(end - block->since) / 1000, live ? Py_True : Py_False,
                block->wanted_gil ? Py_True : Py_False);
        if (done == NULL)
            PyErr_WriteUnraisable(report);
    }
    Py_XDECREF(done);
    Py_XDECREF(report);
    PyGILState_Release(gil);
}

static PyObject *
guard_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"loop",      "report",      "warn",  "fd",
                            "health_fd", "health_path", "board", "slot",
                            "late",      "channel",     "own_path", NULL};
    PyObject *loop, *callable, *board = Py_None;
    double warn = 1.0;
    int fd = -1, health_fd = -1, slot = -1, late = 1, channel = -1;
    const char *path = "", *own_path = "";
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$diisOipis:Guard", names, &loop, &callable,
                                     &warn, &fd, &health_fd, &path, &board, &slot, &late,
                                     &channel, &own_path))
        return NULL;
    cap_state *st = PyType_GetModuleState(type);
    cap_guard_config set = {
        .warn = warn > 0 ? (uint64_t)(warn * 1000 < 1 ? 1 : warn * 1000) : 0,
        .fd = fd,
        .report = report,
        .health = {.fd = health_fd},
    };
    if (strlen(path) >= sizeof set.health.path || strlen(own_path) >= sizeof set.health.path) {
        PyErr_SetString(PyExc_ValueError, "the path is too long");
        return NULL;
    }
    strcpy(set.health.path, path);
    if (board != Py_None) {
        cap_board *memory = cap_scoreboard_of(st, board, slot > 0 ? (uint32_t)slot : 0);
        if (memory == NULL)
            return NULL;
        set.health.board = memory;
        if (slot >= 0)
            set.worker = cap_board_worker(memory, (uint32_t)slot);
        if (slot >= 0 && late) {
            set.board = memory;
            set.slot = (uint32_t)slot;
        }
    }
    guard_object *self = (guard_object *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->report = Py_NewRef(callable);
    self->board = board != Py_None ? Py_NewRef(board) : NULL;
    set.context = self;
    if ((set.board != NULL && channel >= 0) || own_path[0] != 0) {
        if ((self->rescue = cap_rescue_new()) == NULL) {
            PyErr_NoMemory();
            goto fail;
        }
        self->rescue->board = set.board;
        self->rescue->slot = set.slot;
        self->rescue->channel = set.board != NULL ? channel : -1;
        self->rescue->health.fd = -1;
        self->rescue->health.board = set.health.board;
        self->rescue->health.ready = &self->rescue->ready;
        strcpy(self->rescue->health.path, own_path);
        set.rescue = self->rescue;
    }
    set.health.ready = &self->ready;
    void *memory = NULL;
    if (posix_memalign(&memory, _Alignof(cap_guard), sizeof(cap_guard)) != 0) {
        PyErr_NoMemory();
        goto fail;
    }
    self->guard = memory;
    memset(self->guard, 0, sizeof *self->guard);
    if ((self->reactor = cap_reactor_acquire(st, loop)) == NULL)
        goto fail;
    /* Another server in the same loop has its own guard. */
    if ((set.warn != 0 || set.board != NULL || set.rescue != NULL) && self->reactor->beat == NULL) {
        self->attached = true;
        set.gathers = !self->reactor->foreign;
    }
    int rc = cap_guard_start(self->guard, &set);
    if (rc != 0) {
        errno = rc;
        PyErr_SetFromErrno(PyExc_OSError);
        goto fail;
    }
    self->running = true;
    if (self->attached)
        self->reactor->beat = self->guard->beat;
    Py_INCREF(self);
    return (PyObject *)self;
fail:;
    PyObject *exc = cap_err_take();
    if (self->reactor != NULL)
        cap_reactor_release(self->reactor);
    self->reactor = NULL;
    Py_DECREF(self);
    cap_err_restore(exc);
    return NULL;
}

static void
flush_outbox(cap_outbox *o)
{
    cap_outbox_flush(o, uv_hrtime());
}

/* From now on the loop may gather responses, as there is somebody who sends them when it is late. */
static void
lend_outbox(guard_object *self)
{
    if (!self->running || !self->attached || self->reactor == NULL || self->reactor->foreign)
        return;
    self->reactor->outbox = &self->guard->outbox;
    self->reactor->flush_outbox = flush_outbox;
}

static void
take_outbox_back(guard_object *self)
{
    if (self->reactor == NULL || self->reactor->outbox != &self->guard->outbox)
        return;
    cap_reactor_flush(self->reactor);
    self->reactor->outbox = NULL;
}

/* End the threads. May let other Python threads run. */
static void
stop_threads(guard_object *self)
{
    if (!self->running)
        return;
    self->running = false;
    take_outbox_back(self);
    Py_BEGIN_ALLOW_THREADS /* the reporter may be waiting for the GIL */
    cap_guard_stop(self->guard);
    Py_END_ALLOW_THREADS
    Py_DECREF(self);
}

static PyObject *
guard_stop(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    stop_threads((guard_object *)op);
    Py_RETURN_NONE;
}

static PyObject *
guard_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    guard_object *self = (guard_object *)op;
    take_outbox_back(self); /* runs Python */
    cap_reactor *r = self->reactor;
    self->reactor = NULL;
    if (r != NULL) {
        if (self->attached)
            r->beat = NULL;
        cap_reactor_release(r);
    }
    stop_threads(self);
    Py_CLEAR(self->report);
    Py_RETURN_NONE;
}

static PyObject *
guard_watch(PyObject *op, PyObject *arg)
{
    guard_object *self = (guard_object *)op;
    int on = PyObject_IsTrue(arg);
    if (on < 0)
        return NULL;
    atomic_store(&self->guard->watching, on != 0);
    if (on)
        lend_outbox(self);
    else
        take_outbox_back(self);
    Py_RETURN_NONE;
}

static PyObject *
guard_set_ready(PyObject *op, PyObject *arg)
{
    guard_object *self = (guard_object *)op;
    int on = PyObject_IsTrue(arg);
    if (on < 0)
        return NULL;
    atomic_store(&self->ready, on != 0);
    if (self->rescue != NULL)
        atomic_store(&self->rescue->ready, on != 0);
    Py_RETURN_NONE;
}

static PyObject *
guard_expect(PyObject *op, PyObject *arg)
{
    guard_object *self = (guard_object *)op;
    double seconds = PyFloat_AsDouble(arg);
    if (seconds == -1.0 && PyErr_Occurred())
        return NULL;
    if (self->attached && self->reactor != NULL)
        cap_beat_awake(self->guard->beat, cap_board_now() + (uint64_t)(seconds * 1000));
    Py_RETURN_NONE;
}

static PyObject *
guard_join(PyObject *op, PyObject *args)
{
    guard_object *self = (guard_object *)op;
    cap_state *st = PyType_GetModuleState(Py_TYPE(op));
    PyObject *server;
    int channel = -1;
    if (!PyArg_ParseTuple(args, "O!|i:join", st->type.HTTPServer, &server, &channel) ||
        (self->rescue != NULL && cap_server_join((cap_server *)server, self->rescue, channel) < 0))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
guard_get_foreign(PyObject *op, void *Py_UNUSED(closure))
{
    guard_object *self = (guard_object *)op;
    return PyBool_FromLong(self->reactor != NULL && self->reactor->foreign);
}

static PyObject *
guard_get_blocks(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(atomic_load(&((guard_object *)op)->guard->blocks));
}

static PyObject *
guard_get_longest(PyObject *op, void *Py_UNUSED(closure))
{
    return PyFloat_FromDouble((double)atomic_load(&((guard_object *)op)->guard->longest) / 1000);
}

static int
guard_traverse(PyObject *op, visitproc visit, void *arg)
{
    guard_object *self = (guard_object *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->report);
    Py_VISIT(self->board);
    return 0;
}

static int
guard_clear(PyObject *op)
{
    guard_object *self = (guard_object *)op;
    Py_CLEAR(self->report);
    return 0;
}

static void
guard_dealloc(PyObject *op)
{
    guard_object *self = (guard_object *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    /* No thread: it has a reference. Nor a reactor, unless stop() was the last call: at the
       end of the process, when the loop's thread may still write its beat. */
    if (self->reactor == NULL) {
        free(self->guard);
        Py_CLEAR(self->board);
    }
    if (self->rescue != NULL)
        cap_rescue_unref(self->rescue);
    Py_CLEAR(self->report);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyGetSetDef guard_getset[] = {
    {"foreign", guard_get_foreign, NULL, "The loop is not ours: expect() is its beat.", NULL},
    {"blocks", guard_get_blocks, NULL, "How often the loop was blocked.", NULL},
    {"longest", guard_get_longest, NULL, "Seconds of the longest block that is over.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef guard_methods[] = {
    {"watch", guard_watch, METH_O, "watch(on, /)\n--\n\nLook for blocks, or no more."},
    {"set_ready", guard_set_ready, METH_O, "set_ready(ready, /)\n--\n\nWhat health checks say."},
    {"expect", guard_expect, METH_O,
     "expect(seconds, /)\n--\n\nA loop that is not ours runs, and will again before that."},
    {"join", guard_join, METH_VARARGS,
     "join(server, channel=-1, /)\n--\n\nThe connections of this HTTPServer are looked after while the loop is\n"
     "blocked; those of its siblings come in through the channel."},
    {"stop", guard_stop, METH_NOARGS, "stop()\n--\n\nEnd its threads; any thread. Idempotent."},
    {"close", guard_close, METH_NOARGS,
     "close()\n--\n\nstop(), and forget the loop; in the loop's thread. Idempotent."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot guard_slots[] = {
    {Py_tp_new, guard_new},
    {Py_tp_dealloc, guard_dealloc},
    {Py_tp_traverse, guard_traverse},
    {Py_tp_clear, guard_clear},
    {Py_tp_getset, guard_getset},
    {Py_tp_methods, guard_methods},
    {Py_tp_doc, "A native thread that watches an event loop and answers health checks."},
    {0, NULL},
};

static PyType_Spec guard_spec = {
    .name = "capicorn._core.Guard",
    .basicsize = sizeof(guard_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = guard_slots,
};

int
cap_guard_type_init(PyObject *module, cap_state *st)
{
    st->type.Guard = (PyTypeObject *)PyType_FromModuleAndSpec(module, &guard_spec, NULL);
    if (st->type.Guard == NULL)
        return -1;
    return PyModule_AddType(module, st->type.Guard);
}
