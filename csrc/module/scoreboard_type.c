/* The type capicorn._core.Scoreboard: Python's view of pool/scoreboard.h. */
#include "module/scoreboard_type.h"

#include "asgi/server.h"
#include "pool/lifeline.h"
#include "pool/scoreboard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct board_object {
    PyObject_HEAD
    cap_board *board;
    uint32_t slots; /* as they were when it was opened: what is in there now need not be true */
    bool writable;
    int fd;         /* ours */
} board_object;

static const char *const state_names[CAP_SLOT_STATES] = {"free", "starting", "serving", "retiring"};

static PyObject *
board_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"slots", "fd", "readonly", NULL};
    unsigned int slots = 256;
    int fd = -1, readonly = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|I$ip:Scoreboard", names, &slots, &fd, &readonly))
        return NULL;
    board_object *self = (board_object *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->fd = -1;
    if (fd < 0)
        self->board = cap_board_new(slots, &self->fd);
    else if ((self->board = cap_board_open(fd, !readonly)) != NULL)
        self->fd = fd;
    if (self->board == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    self->slots = self->board->slots;
    self->writable = fd < 0 || !readonly;
    if (!self->writable) { /* who looks for the board's processes shall not find us */
        close(self->fd);
        self->fd = -1;
    }
    return (PyObject *)self;
}

static void
board_dealloc(PyObject *op)
{
    board_object *self = (board_object *)op;
    PyTypeObject *type = Py_TYPE(op);
    if (self->board != NULL)
        cap_board_close(self->board, self->slots);
    if (self->fd >= 0)
        close(self->fd);
    type->tp_free(op);
    Py_DECREF(type);
}

/* Is it what it was? Some process may have gone mad. */
static int
check_board(board_object *self, bool write)
{
    if (write && !self->writable) {
        errno = EBADF;
    } else if (self->board->slots != self->slots || self->board->magic != CAP_BOARD_MAGIC) {
        errno = EINVAL;
    } else {
        return 0;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static int
slot_index(PyObject *op, PyObject *arg, bool write, uint32_t *index)
{
    board_object *self = (board_object *)op;
    unsigned long n = PyLong_AsUnsignedLong(arg);
    if (n == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    if (n >= self->slots) {
        PyErr_Format(PyExc_IndexError, "slot %lu of %lu", n, (unsigned long)self->slots);
        return -1;
    }
    *index = (uint32_t)n;
    return check_board(self, write);
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
    if (slot_index(op, arg, true, &i) < 0)
        return NULL;
    cap_board_take(((board_object *)op)->board, i, CAP_SLOT_STARTING);
    Py_RETURN_NONE;
}

static PyObject *
board_free(PyObject *op, PyObject *arg)
{
    uint32_t i;
    if (slot_index(op, arg, true, &i) < 0)
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
    if (!PyArg_ParseTuple(args, "Os:set_state", &index, &name) || slot_index(op, index, true, &i) < 0)
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
cap_scoreboard_of(cap_state *st, PyObject *board, uint32_t slot)
{
    board_object *self = (board_object *)board;
    if (!Py_IS_TYPE(board, st->type.Scoreboard)) {
        PyErr_SetString(PyExc_TypeError, "a Scoreboard is needed");
        return NULL;
    }
    if (slot >= self->slots) {
        PyErr_Format(PyExc_IndexError, "slot %u of %u", (unsigned)slot, (unsigned)self->slots);
        return NULL;
    }
    return check_board(self, true) == 0 ? self->board : NULL;
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
    if (!PyArg_ParseTuple(args, "OO:attach", &index, &server) || slot_index(op, index, true, &i) < 0)
        return NULL;
    cap_server *s = server_of(Py_TYPE(op), server);
    if (s == NULL)
        return NULL;
    if (s->closed) {
        PyErr_SetString(PyExc_RuntimeError, "the HTTP server is closed");
        return NULL;
    }
    PyObject *before = s->board_owner;
    s->board_owner = Py_NewRef(op);
    cap_server_show(s, ((board_object *)op)->board, i);
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

/* Of this process; 0 where the system does not tell. */
static uint32_t
resident_kib(void)
{
    char text[128];
    long pages = 0, size = sysconf(_SC_PAGESIZE);
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = 0;
    char *second = strchr(text, ' ');
    if (second != NULL)
        pages = strtol(second, NULL, 10);
    return (uint32_t)((uint64_t)pages * (uint64_t)size / 1024);
}

/* beat(index, lag=0.0, threads=0, busy=0, queued=0) */
static PyObject *
board_beat(PyObject *op, PyObject *args)
{
    uint32_t i;
    PyObject *index;
    double lag = 0;
    unsigned int threads = 0, busy = 0, queued = 0;
    if (!PyArg_ParseTuple(args, "O|dIII:beat", &index, &lag, &threads, &busy, &queued) ||
        slot_index(op, index, true, &i) < 0)
        return NULL;
    cap_slot *slot = &((board_object *)op)->board->slot[i];
    atomic_store(&slot->lag, lag > 0 ? (uint32_t)(lag < 1e6 ? lag * 1000 : 1e9) : 0);
    atomic_store(&slot->threads, threads);
    atomic_store(&slot->threads_busy, busy);
    atomic_store(&slot->threads_queued, queued);
    atomic_store(&slot->resident, resident_kib());
    atomic_store(&slot->beat, cap_board_now());
    Py_RETURN_NONE;
}

/* ---- reading ---- */

static double
seconds_since(uint64_t then, uint64_t now)
{
    return then != 0 && now > then ? (double)(now - then) / 1000 : 0.0;
}

static PyObject *
board_read(PyObject *op, PyObject *arg)
{
    uint32_t i;
    if (slot_index(op, arg, false, &i) < 0)
        return NULL;
    cap_board *b = ((board_object *)op)->board;
    cap_slot *s = &b->slot[i];
    cap_worker *w = cap_board_worker(b, i);
    uint64_t now = cap_board_now();
    uint64_t beat = atomic_load(&s->beat);
    uint32_t state = atomic_load(&s->state);
    if (state == CAP_SLOT_FREE || state >= CAP_SLOT_STATES)
        w = NULL; /* nothing there: leave its pages alone */
    PyObject *since = beat == 0 ? Py_NewRef(Py_None) : PyFloat_FromDouble(seconds_since(beat, now));
    return Py_BuildValue(
        "{sI sI ss sN sd sI sI sK sK sI sI sI sd sK sd sO}", "pid", (unsigned)atomic_load(&s->pid),
        "generation", (unsigned)atomic_load(&s->generation), "state",
        state < CAP_SLOT_STATES ? state_names[state] : "unknown", "beat_age", since, "age",
        seconds_since(atomic_load(&s->started), now), "connections",
        (unsigned)atomic_load(&s->connections), "requests", (unsigned)atomic_load(&s->requests),
        "total_requests",
        (unsigned long long)(w != NULL ? atomic_load(&w->tally.requests) : 0),
        "total_connections",
        (unsigned long long)(w != NULL ? atomic_load(&w->tally.connections) : 0), "threads",
        (unsigned)atomic_load(&s->threads), "threads_busy", (unsigned)atomic_load(&s->threads_busy),
        "threads_queued", (unsigned)atomic_load(&s->threads_queued), "lag",
        (double)atomic_load(&s->lag) / 1000, "resident",
        (unsigned long long)atomic_load(&s->resident) * 1024, "awake",
        w != NULL ? seconds_since(atomic_load(&w->beat.since), now) : 0.0, "late",
        atomic_load(&s->late) != 0 ? Py_True : Py_False);
}

static int
put(PyObject *dict, const char *name, PyObject *value)
{
    int rc = value != NULL ? PyDict_SetItemString(dict, name, value) : -1;
    Py_XDECREF(value);
    return rc;
}

static PyObject *
number(const _Atomic uint64_t *n)
{
    return PyLong_FromUnsignedLongLong(atomic_load_explicit(n, memory_order_relaxed));
}

static PyObject *
numbers(const _Atomic uint64_t *n, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *one = number(&n[i]);
        if (one == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, i, one);
    }
    return tuple;
}

static PyObject *
seconds(double s)
{
    return PyFloat_FromDouble(s);
}

/* A tally as a dict. */
static PyObject *
tally_object(const cap_tally *t)
{
    PyObject *d = PyDict_New();
    if (d == NULL)
        return NULL;
    if (put(d, "requests", number(&t->requests)) < 0 ||
        put(d, "connections", number(&t->connections)) < 0 ||
        put(d, "websockets", number(&t->websockets)) < 0 ||
        put(d, "status", numbers(t->status, CAP_TALLY_CLASSES)) < 0 ||
        put(d, "errors", number(&t->errors)) < 0 || put(d, "aborted", number(&t->aborted)) < 0 ||
        put(d, "octets_in", number(&t->octets_in)) < 0 ||
        put(d, "octets_out", number(&t->octets_out)) < 0 ||
        put(d, "buckets", numbers(t->bucket, CAP_TALLY_BUCKETS)) < 0 ||
        put(d, "seconds", seconds((double)atomic_load(&t->nanos) / 1e9)) < 0 ||
        put(d, "rescued", number(&t->rescued)) < 0 ||
        put(d, "blocks", number(&t->blocks)) < 0 ||
        put(d, "blocked", seconds((double)atomic_load(&t->blocked_ms) / 1e3)) < 0 ||
        put(d, "longest_block", seconds((double)atomic_load(&t->longest_ms) / 1e3)) < 0)
        Py_CLEAR(d);
    return d;
}

static PyObject *
text_object(const char *text, size_t len)
{
    return PyUnicode_DecodeASCII(text, (Py_ssize_t)len, "backslashreplace");
}

static int
by_age(const void *a, const void *b)
{
    uint64_t x = ((const cap_seen_request *)a)->began, y = ((const cap_seen_request *)b)->began;
    return x < y ? -1 : x > y;
}

static PyObject *
requests_object(const cap_worker *w, uint64_t now)
{
    cap_seen_request seen[CAP_BOARD_REQUESTS];
    size_t n = cap_worker_requests(w, seen);
    qsort(seen, n, sizeof *seen, by_age);
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < n; i++) {
        const cap_seen_request *r = &seen[i];
        PyObject *one = Py_BuildValue(
            "{sN sN sd sO}", "method", text_object(r->text, r->method_len), "path",
            text_object(r->text + CAP_BOARD_METHOD, r->path_len), "age",
            seconds_since(r->began, now), "websocket", r->websocket ? Py_True : Py_False);
        if (one == NULL || PyList_Append(list, one) < 0)
            Py_CLEAR(list);
        Py_XDECREF(one);
    }
    return list;
}

/* The request whose step runs, and since when; place: if that is known. */
static int
put_running(PyObject *d, const cap_worker *w, uint64_t now)
{
    char request[CAP_BEAT_METHOD + CAP_BEAT_PATH + 2];
    cap_seen_place place;
    uint64_t since = atomic_load(&w->beat.since);
    cap_beat_read(&w->beat, request);
    size_t len = strlen(request);
    const char *running = request;
    bool known = since != 0 && cap_worker_place(w, &place) && place.since == since;
    if (known && len == 0) {
        running = place.request;
        len = place.request_len;
    }
    if (put(d, "awake", seconds(seconds_since(since, now))) < 0 ||
        put(d, "wants_gil", PyBool_FromLong((long)atomic_load(&w->beat.wants_gil))) < 0 ||
        put(d, "running", text_object(running, since != 0 ? len : 0)) < 0 ||
        put(d, "place",
            known ? PyUnicode_DecodeUTF8(place.place, place.place_len, "replace")
                  : PyUnicode_FromString("")) < 0)
        return -1;
    return 0;
}

static PyObject *
board_inspect(PyObject *op, PyObject *arg)
{
    uint32_t i;
    if (slot_index(op, arg, false, &i) < 0)
        return NULL;
    cap_board *b = ((board_object *)op)->board;
    for (int tries = 0;; tries++) {
        uint32_t generation = atomic_load(&b->slot[i].generation);
        PyObject *d = board_read(op, arg);
        if (d == NULL)
            return NULL;
        uint32_t state = atomic_load(&b->slot[i].state);
        if (state != CAP_SLOT_FREE && state < CAP_SLOT_STATES) {
            const cap_worker *w = cap_board_worker(b, i);
            uint64_t now = cap_board_now();
            if (put(d, "tally", tally_object(&w->tally)) < 0 || put_running(d, w, now) < 0 ||
                put(d, "listed", requests_object(w, now)) < 0) {
                Py_DECREF(d);
                return NULL;
            }
        }
        /* Meanwhile it may have become another worker's. */
        if (atomic_load(&b->slot[i].generation) == generation || tries == 3)
            return d;
        Py_DECREF(d);
    }
}

static PyObject *
board_total(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    cap_tally total;
    uint64_t starts;
    if (check_board((board_object *)op, false) < 0)
        return NULL;
    if (!cap_board_total(((board_object *)op)->board, &total, &starts)) {
        PyErr_SetString(PyExc_BlockingIOError, "its writer died while it wrote");
        return NULL;
    }
    PyObject *d = tally_object(&total);
    if (d != NULL && put(d, "starts", PyLong_FromUnsignedLongLong(starts)) < 0)
        Py_CLEAR(d);
    return d;
}

static PyObject *
board_set_info(PyObject *op, PyObject *arg)
{
    if (check_board((board_object *)op, true) < 0)
        return NULL;
    char *text;
    Py_ssize_t len;
    if (PyBytes_AsStringAndSize(arg, &text, &len) < 0)
        return NULL;
    if (cap_board_set_info(((board_object *)op)->board, text, (size_t)len) < 0) {
        PyErr_Format(PyExc_ValueError, "more than %d octets", CAP_BOARD_INFO);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
board_info(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    char text[CAP_BOARD_INFO];
    if (check_board((board_object *)op, false) < 0)
        return NULL;
    return PyBytes_FromStringAndSize(
        text, (Py_ssize_t)cap_board_info(((board_object *)op)->board, text));
}

/* ---- where a worker is blocked ---- */

static PyObject *
board_set_place(PyObject *op, PyObject *args)
{
    uint32_t i;
    PyObject *index;
    const char *request, *place;
    Py_ssize_t request_len, place_len;
    if (!PyArg_ParseTuple(args, "Os#s#:set_place", &index, &request, &request_len, &place,
                          &place_len) ||
        slot_index(op, index, true, &i) < 0)
        return NULL;
    cap_worker *w = cap_board_worker(((board_object *)op)->board, i);
    cap_worker_set_place(w, atomic_load(&w->beat.since), request, (size_t)request_len, place,
                         (size_t)place_len);
    Py_RETURN_NONE;
}

static PyObject *
board_ask(PyObject *op, PyObject *arg)
{
    uint32_t i;
    if (slot_index(op, arg, true, &i) < 0)
        return NULL;
    atomic_fetch_add(&cap_board_worker(((board_object *)op)->board, i)->asked, 1);
    Py_RETURN_NONE;
}

static PyObject *
board_answer(PyObject *op, PyObject *arg)
{
    static const char *const names[] = {"none", "place", "gil", "over"};
    uint32_t i;
    if (slot_index(op, arg, false, &i) < 0)
        return NULL;
    const cap_worker *w = cap_board_worker(((board_object *)op)->board, i);
    if (atomic_load(&w->answered) != atomic_load(&w->asked))
        Py_RETURN_NONE;
    uint32_t answer = atomic_load(&w->answer);
    return PyUnicode_FromString(names[answer <= CAP_ANSWER_OVER ? answer : CAP_ANSWER_NONE]);
}

static PyObject *
board_may_accept(PyObject *op, PyObject *arg)
{
    uint32_t i;
    if (slot_index(op, arg, false, &i) < 0)
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
    return PyLong_FromUnsignedLong(((board_object *)op)->slots);
}

static PyObject *
board_get_used(PyObject *op, void *Py_UNUSED(closure))
{
    const board_object *self = (board_object *)op;
    uint32_t used = atomic_load(&self->board->used);
    return PyLong_FromUnsignedLong(used < self->slots ? used : self->slots);
}

static PyObject *
board_get_pid(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(atomic_load(&((board_object *)op)->board->pid));
}

static PyObject *
board_get_age(PyObject *op, void *Py_UNUSED(closure))
{
    uint64_t started = atomic_load(&((board_object *)op)->board->started);
    return PyFloat_FromDouble(seconds_since(started, cap_board_now()));
}

static PyGetSetDef board_getset[] = {
    {"slots", board_get_slots, NULL, "How many there are.", NULL},
    {"used", board_get_used, NULL, "One more than the highest that was ever taken.", NULL},
    {"pid", board_get_pid, NULL, "Of the process that made it.", NULL},
    {"age", board_get_age, NULL, "Seconds since then.", NULL},
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
     "beat(index, lag=0.0, threads=0, busy=0, queued=0, /)\n--\n\nThe loop runs; its numbers."},
    {"read", board_read, METH_O, "read(index, /)\n--\n\nWhat the slot says, as a dict."},
    {"inspect", board_inspect, METH_O,
     "inspect(index, /)\n--\n\nread(), and what its worker counts and does now."},
    {"total", board_total, METH_NOARGS,
     "total()\n--\n\nWhat all workers counted, those that are gone as well."},
    {"set_info", board_set_info, METH_O,
     "set_info(text, /)\n--\n\nWhat people are told of the server: octets."},
    {"info", board_info, METH_NOARGS, "info()\n--\n\nWhat set_info() was given."},
    {"set_place", board_set_place, METH_VARARGS,
     "set_place(index, request, place, /)\n--\n\nWhat blocks this process's loop now."},
    {"ask", board_ask, METH_O, "ask(index, /)\n--\n\nAsk the worker's guard what blocks its loop."},
    {"answer", board_answer, METH_O,
     "answer(index, /)\n--\n\nplace, gil, over, none; None: there is no answer yet."},
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
