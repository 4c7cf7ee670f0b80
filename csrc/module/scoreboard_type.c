/* The type capicorn._core.Scoreboard: Python's view of pool/scoreboard.h. */
#include "module/scoreboard_type.h"

#include "asgi/server.h"
#include "pool/lifeline.h"
#include "pool/scoreboard.h"

#include <errno.h>
#include <unistd.h>

typedef struct board_object {
    PyObject_HEAD
    cap_board *board;
    int fd; /* ours */
} board_object;

static const char *const state_names[CAP_SLOT_STATES] = {"free", "starting", "serving", "retiring"};

static PyObject *
board_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"slots", "fd", NULL};
    unsigned int slots = 256;
    int fd = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|I$i:Scoreboard", names, &slots, &fd))
        return NULL;
    board_object *self = (board_object *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->fd = -1;
    if (fd < 0)
        self->board = cap_board_new(slots, &self->fd);
    else if ((self->board = cap_board_open(fd)) != NULL)
        self->fd = fd;
    if (self->board == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
board_dealloc(PyObject *op)
{
    board_object *self = (board_object *)op;
    PyTypeObject *type = Py_TYPE(op);
    if (self->board != NULL)
        cap_board_close(self->board);
    if (self->fd >= 0)
        close(self->fd);
    type->tp_free(op);
    Py_DECREF(type);
}

static int
slot_index(PyObject *op, PyObject *arg, uint32_t *index)
{
    cap_board *b = ((board_object *)op)->board;
    unsigned long n = PyLong_AsUnsignedLong(arg);
    if (n == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    if (n >= b->slots) {
        PyErr_Format(PyExc_IndexError, "slot %lu of %lu", n, (unsigned long)b->slots);
        return -1;
    }
    *index = (uint32_t)n;
    return 0;
}

static PyObject *
board_fileno(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(((board_object *)op)->fd);
}

static PyObject *
board_take(PyObject *op, PyObject *arg)
{
    uint32_t i;
    if (slot_index(op, arg, &i) < 0)
        return NULL;
    cap_board_take(((board_object *)op)->board, i, CAP_SLOT_STARTING);
    Py_RETURN_NONE;
}

static PyObject *
board_free(PyObject *op, PyObject *arg)
{
    uint32_t i;
    if (slot_index(op, arg, &i) < 0)
        return NULL;
    cap_board_take(((board_object *)op)->board, i, CAP_SLOT_FREE);
    Py_RETURN_NONE;
}

static PyObject *
board_set_state(PyObject *op, PyObject *args)
{
    uint32_t i;
    PyObject *index;
    const char *name;
    if (!PyArg_ParseTuple(args, "Os:set_state", &index, &name) || slot_index(op, index, &i) < 0)
        return NULL;
    for (uint32_t s = CAP_SLOT_STARTING; s < CAP_SLOT_STATES; s++)
        if (strcmp(name, state_names[s]) == 0) {
            cap_slot *slot = &((board_object *)op)->board->slot[i];
            atomic_store(&slot->pid, (uint32_t)getpid());
            atomic_store(&slot->state, s);
            Py_RETURN_NONE;
        }
    PyErr_Format(PyExc_ValueError, "%s is no state of a worker", name);
    return NULL;
}

cap_board *
cap_scoreboard_of(cap_state *st, PyObject *board)
{
    if (Py_IS_TYPE(board, st->type.Scoreboard))
        return ((board_object *)board)->board;
    PyErr_SetString(PyExc_TypeError, "a Scoreboard is needed");
    return NULL;
}

static cap_server *
server_of(PyTypeObject *type, PyObject *arg)
{
    cap_state *st = PyType_GetModuleState(type);
    if (Py_IS_TYPE(arg, st->type.HTTPServer))
        return (cap_server *)arg;
    PyErr_SetString(PyExc_TypeError, "an HTTPServer is needed");
    return NULL;
}

static PyObject *
board_attach(PyObject *op, PyObject *args)
{
    uint32_t i;
    PyObject *index, *server;
    if (!PyArg_ParseTuple(args, "OO:attach", &index, &server) || slot_index(op, index, &i) < 0)
        return NULL;
    cap_server *s = server_of(Py_TYPE(op), server);
    if (s == NULL)
        return NULL;
    PyObject *before = s->board_owner;
    s->board_owner = Py_NewRef(op);
    s->board = ((board_object *)op)->board;
    s->slot = i;
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

/* beat(index, server=None, threads=0, busy=0, queued=0) */
static PyObject *
board_beat(PyObject *op, PyObject *args)
{
    uint32_t i;
    PyObject *index, *server = Py_None;
    unsigned int threads = 0, busy = 0, queued = 0;
    if (!PyArg_ParseTuple(args, "O|OIII:beat", &index, &server, &threads, &busy, &queued) ||
        slot_index(op, index, &i) < 0)
        return NULL;
    cap_slot *slot = &((board_object *)op)->board->slot[i];
    if (server != Py_None) {
        cap_server *s = server_of(Py_TYPE(op), server);
        if (s == NULL)
            return NULL;
        atomic_store(&slot->connections, (uint32_t)s->connection_count);
        atomic_store(&slot->requests, (uint32_t)s->request_count);
        atomic_store(&slot->total_requests, s->total_requests);
    }
    atomic_store(&slot->threads, threads);
    atomic_store(&slot->threads_busy, busy);
    atomic_store(&slot->threads_queued, queued);
    atomic_store(&slot->beat, cap_board_now());
    Py_RETURN_NONE;
}

static PyObject *
board_read(PyObject *op, PyObject *arg)
{
    uint32_t i;
    if (slot_index(op, arg, &i) < 0)
        return NULL;
    cap_slot *s = &((board_object *)op)->board->slot[i];
    uint64_t now = cap_board_now();
    uint64_t beat = atomic_load(&s->beat), started = atomic_load(&s->started);
    uint32_t state = atomic_load(&s->state);
    PyObject *since = beat == 0 ? Py_NewRef(Py_None)
                                : PyFloat_FromDouble(now > beat ? (double)(now - beat) / 1000 : 0.0);
    return Py_BuildValue(
        "{sI ss sN sd sI sI sK sK sI sI sI sO}", "pid", (unsigned)atomic_load(&s->pid), "state",
        state < CAP_SLOT_STATES ? state_names[state] : "unknown", "beat_age", since, "age",
        started != 0 && now > started ? (double)(now - started) / 1000 : 0.0, "connections",
        (unsigned)atomic_load(&s->connections), "requests", (unsigned)atomic_load(&s->requests),
        "total_requests", (unsigned long long)atomic_load(&s->total_requests), "total_connections",
        (unsigned long long)atomic_load(&s->total_connections), "threads",
        (unsigned)atomic_load(&s->threads), "threads_busy", (unsigned)atomic_load(&s->threads_busy),
        "threads_queued", (unsigned)atomic_load(&s->threads_queued), "late",
        atomic_load(&s->late) != 0 ? Py_True : Py_False);
}

static PyObject *
board_may_accept(PyObject *op, PyObject *arg)
{
    uint32_t i;
    if (slot_index(op, arg, &i) < 0)
        return NULL;
    return PyBool_FromLong(
        cap_board_may_accept(((board_object *)op)->board, i, cap_board_now()));
}

static PyObject *
board_end_with_parent(PyObject *Py_UNUSED(op), PyObject *args)
{
    int fd;
    unsigned int seconds;
    if (!PyArg_ParseTuple(args, "iI:end_with_parent", &fd, &seconds))
        return NULL;
    int rc = cap_lifeline_start(fd, seconds);
    if (rc == 0)
        Py_RETURN_NONE;
    errno = rc;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *
board_get_slots(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(((board_object *)op)->board->slots);
}

static PyGetSetDef board_getset[] = {
    {"slots", board_get_slots, NULL, "How many there are.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef board_methods[] = {
    {"fileno", board_fileno, METH_NOARGS,
     "fileno()\n--\n\nDescriptor of the shared memory; the board's own."},
    {"take", board_take, METH_O, "take(index, /)\n--\n\nEmpty a slot for a worker that starts."},
    {"free", board_free, METH_O, "free(index, /)\n--\n\nThe slot's worker is gone."},
    {"set_state", board_set_state, METH_VARARGS,
     "set_state(index, state, /)\n--\n\nThis process is starting, serving or retiring."},
    {"attach", board_attach, METH_VARARGS,
     "attach(index, server, /)\n--\n\nThe HTTPServer keeps the slot's number of connections and\n"
     "takes new ones in balance with the other slots."},
    {"beat", board_beat, METH_VARARGS,
     "beat(index, server=None, threads=0, busy=0, queued=0, /)\n--\n\nThe loop runs; its numbers."},
    {"read", board_read, METH_O, "read(index, /)\n--\n\nWhat the slot says, as a dict."},
    {"end_with_parent", board_end_with_parent, METH_VARARGS,
     "end_with_parent(fd, seconds, /)\n--\n\nKill this process so many seconds after the other end of a\n"
     "socket pair was closed, if it still lives then."},
    {"may_accept", board_may_accept, METH_O,
     "may_accept(index, /)\n--\n\nMay that worker take a connection now?"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot board_slots[] = {
    {Py_tp_new, board_new},
    {Py_tp_dealloc, board_dealloc},
    {Py_tp_getset, board_getset},
    {Py_tp_methods, board_methods},
    {Py_tp_doc, "Facts about each worker in memory that all processes share. Any thread."},
    {0, NULL},
};

static PyType_Spec board_spec = {
    .name = "capicorn._core.Scoreboard",
    .basicsize = sizeof(board_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = board_slots,
};

int
cap_scoreboard_type_init(PyObject *module, cap_state *st)
{
    st->type.Scoreboard = (PyTypeObject *)PyType_FromModuleAndSpec(module, &board_spec, NULL);
    if (st->type.Scoreboard == NULL)
        return -1;
    return PyModule_AddType(module, st->type.Scoreboard);
}
