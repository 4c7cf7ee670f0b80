/* Transports: the types and their methods. */
#include "loop/transport.h"

/* ---- methods ---- */

static PyObject *
transport_set_protocol(cap_transport *t, PyObject *protocol)
{
    if (t->loop == NULL) {
        Py_XSETREF(t->protocol, Py_NewRef(protocol));
        Py_RETURN_NONE;
    }
    if (cap_transport_set_protocol(t, t->loop->reactor.st, protocol) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
transport_get_protocol(cap_transport *t, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(t->protocol != NULL ? t->protocol : Py_None);
}

static PyObject *
transport_is_closing(cap_transport *t, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(t->closing);
}

static PyObject *
transport_is_reading(cap_transport *t, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!t->closing && !t->paused);
}

static PyObject *
transport_pause_reading(cap_transport *t, PyObject *Py_UNUSED(ignored))
{
    if (!t->closing)
        t->paused = true;
    Py_RETURN_NONE;
}

static PyObject *
transport_resume_reading(cap_transport *t, PyObject *Py_UNUSED(ignored))
{
    if (t->closing || !t->paused)
        Py_RETURN_NONE;
    t->paused = false;
    if (cap_transport_update(t) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
transport_force_close(cap_transport *t, PyObject *exc)
{
    return cap_transport_force_close(t, exc) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
transport_abort(cap_transport *t, PyObject *Py_UNUSED(ignored))
{
    /* What was written before is on its way already, as far as anybody knows. */
    if (cap_transport_send_gathered(t) < 0 || cap_transport_force_close(t, Py_None) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
transport_lost(cap_transport *t, PyObject *exc)
{
    return cap_transport_lost(t, exc) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
transport_buffer_size(cap_transport *t, PyObject *Py_UNUSED(ignored))
{
    /* What is only gathered does not wait for anybody. */
    return PyLong_FromSsize_t(t->want_write ? t->queued : 0);
}

static PyObject *
transport_can_write_eof(cap_transport *Py_UNUSED(t), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

static PyObject *
transport_send_gathered(cap_transport *t, PyObject *Py_UNUSED(ignored))
{
    return cap_transport_send_gathered(t) < 0 ? NULL : Py_NewRef(Py_None);
}

/* What a handle of a pipe calls when nothing more comes. */
static PyObject *
transport_call_eof(cap_transport *t, PyObject *Py_UNUSED(ignored))
{
    if (t->loop == NULL || t->protocol == NULL)
        Py_RETURN_NONE;
    PyObject *protocol = Py_NewRef(t->protocol);
    t->entered++;
    PyObject *done = PyObject_CallMethodNoArgs(protocol, cap_transport_state(t)->eof_received);
    t->entered--;
    Py_DECREF(protocol);
    if (done == NULL)
        return NULL;
    Py_DECREF(done);
    Py_RETURN_NONE;
}

/* (sock, remote_addr, connected) */
static PyObject *
transport_open_datagrams(cap_transport *t, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3 || t->datagrams != NULL || t->loop == NULL) {
        PyErr_SetString(PyExc_TypeError, "_open_datagrams(sock, remote, connected), once");
        return NULL;
    }
    int connected = PyObject_IsTrue(args[2]);
    if (connected < 0 || cap_datagrams_open(t, args[0], args[1], connected) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
transport_detach(cap_transport *t, PyObject *Py_UNUSED(ignored))
{
    if (t->loop != NULL)
        cap_transport_detach(t);
    Py_RETURN_NONE;
}

static PyObject *
get_loop(cap_transport *t, void *Py_UNUSED(closure))
{
    return Py_NewRef(t->loop != NULL ? (PyObject *)t->loop : Py_None);
}

/* ---- the type ---- */

static PyObject *
new_of_kind(PyTypeObject *type, cap_transport_kind kind)
{
    cap_transport *t = (cap_transport *)type->tp_alloc(type, 0);
    if (t == NULL)
        return NULL;
    t->kind = kind;
    t->fd = -1;
    t->high_water = 64 * 1024;
    t->low_water = 16 * 1024;
    t->gather.run = cap_transport_end_of_turn;
    return (PyObject *)t;
}

#define NEW_OF_KIND(name, kind)                                                \
    static PyObject *name(PyTypeObject *type, PyObject *Py_UNUSED(args),       \
                          PyObject *Py_UNUSED(kwargs))                         \
    {                                                                          \
        return new_of_kind(type, kind);                                        \
    }
NEW_OF_KIND(new_stream, CAP_STREAM)
NEW_OF_KIND(new_read_pipe, CAP_READ_PIPE)
NEW_OF_KIND(new_write_pipe, CAP_WRITE_PIPE)
NEW_OF_KIND(new_datagram, CAP_DATAGRAM)
#undef NEW_OF_KIND

static int
transport_traverse(cap_transport *t, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(t));
    for (int i = 0; i < CAP_TRANSPORT_SLOTS; i++)
        Py_VISIT(t->slot[i]);
    Py_VISIT((PyObject *)t->loop);
    Py_VISIT(t->protocol);
    Py_VISIT(t->context);
    Py_VISIT(t->empty_waiter);
    Py_VISIT((PyObject *)t->watch[0]);
    Py_VISIT((PyObject *)t->watch[1]);
    for (size_t i = 0; i < t->len; i++)
        Py_VISIT(t->chunk[t->head + i].address);
    return cap_datagrams_traverse(t, visit, arg);
}

static int
transport_clear(cap_transport *t)
{
    if (t->loop != NULL)
        cap_transport_detach(t);
    cap_transport_drop_queue(t);
    cap_datagrams_free(t);
    for (int i = 0; i < CAP_TRANSPORT_SLOTS; i++)
        Py_CLEAR(t->slot[i]);
    Py_CLEAR(t->protocol);
    Py_CLEAR(t->context);
    Py_CLEAR(t->empty_waiter);
    Py_CLEAR(t->loop);
    return 0;
}

static void
transport_dealloc(cap_transport *t)
{
    PyTypeObject *type = Py_TYPE(t);
    PyObject_GC_UnTrack((PyObject *)t);
    transport_clear(t);
    type->tp_free((PyObject *)t);
    Py_DECREF(type);
}

#define FAST(f) (PyCFunction)(void (*)(void))f

PyDoc_STRVAR(open_doc, "_open($self, loop, fd, protocol, waiter, /)\n--\n\n"
                       "Serve the non-blocking socket `fd`, which the caller keeps open until\n"
                       "_closed() is called. connection_made() is called at the next turn.");

#define EVERY_KIND                                                             \
    {"set_protocol", (PyCFunction)transport_set_protocol, METH_O,              \
     PyDoc_STR("set_protocol($self, protocol, /)\n--\n\nGive what comes to another protocol.")}, \
    {"get_protocol", (PyCFunction)transport_get_protocol, METH_NOARGS,         \
     PyDoc_STR("get_protocol($self)\n--\n\nThe protocol.")},                   \
    {"is_closing", (PyCFunction)transport_is_closing, METH_NOARGS,             \
     PyDoc_STR("is_closing($self)\n--\n\nWhether it is closed or about to be.")}, \
    {"close", (PyCFunction)cap_transport_close, METH_NOARGS,                   \
     PyDoc_STR("close($self)\n--\n\nClose it when all is sent.")},             \
    {"_open", FAST(cap_transport_open), METH_FASTCALL, open_doc},              \
    {"_start", FAST(cap_transport_start), METH_FASTCALL, NULL},                \
    {"_start_now", (PyCFunction)cap_transport_start_now, METH_O, NULL},        \
    {"_read_ready", (PyCFunction)cap_transport_read_ready, METH_NOARGS, NULL}, \
    {"_force_close", (PyCFunction)transport_force_close, METH_O, NULL},        \
    {"_call_connection_lost", (PyCFunction)transport_lost, METH_O, NULL},      \
    {"_detach", (PyCFunction)transport_detach, METH_NOARGS, NULL}

#define READING                                                                \
    {"is_reading", (PyCFunction)transport_is_reading, METH_NOARGS,             \
     PyDoc_STR("is_reading($self)\n--\n\nWhether it is neither paused nor closing.")}, \
    {"pause_reading", (PyCFunction)transport_pause_reading, METH_NOARGS,       \
     PyDoc_STR("pause_reading($self)\n--\n\nNothing is received until resume_reading().")}, \
    {"resume_reading", (PyCFunction)transport_resume_reading, METH_NOARGS,     \
     PyDoc_STR("resume_reading($self)\n--\n\nThe end of pause_reading().")}

#define WRITING                                                                \
    {"abort", (PyCFunction)transport_abort, METH_NOARGS,                       \
     PyDoc_STR("abort($self)\n--\n\nClose it; what waits is dropped.")},       \
    {"get_write_buffer_size", (PyCFunction)transport_buffer_size, METH_NOARGS, \
     PyDoc_STR("get_write_buffer_size($self)\n--\n\nHow many octets wait to be sent.")}, \
    {"_write_ready", (PyCFunction)cap_transport_write_ready, METH_NOARGS, NULL}

#define WRITING_STREAM                                                         \
    WRITING,                                                                   \
    {"write", (PyCFunction)cap_transport_write, METH_O,                        \
     PyDoc_STR("write($self, data, /)\n--\n\nSend the octets of `data`. Does not wait.")}, \
    {"writelines", (PyCFunction)cap_transport_writelines, METH_O,              \
     PyDoc_STR("writelines($self, list_of_data, /)\n--\n\nSend all of them, one after another.")}, \
    {"write_eof", (PyCFunction)cap_transport_write_eof, METH_NOARGS,           \
     PyDoc_STR("write_eof($self)\n--\n\nEnd this direction when all is sent.")}, \
    {"can_write_eof", (PyCFunction)transport_can_write_eof, METH_NOARGS,       \
     PyDoc_STR("can_write_eof($self)\n--\n\nTrue.")},                          \
    {"_send_gathered", (PyCFunction)transport_send_gathered, METH_NOARGS, NULL}

static PyMethodDef stream_methods[] = {EVERY_KIND, READING, WRITING_STREAM, {NULL}};

static PyMethodDef read_pipe_methods[] = {
    EVERY_KIND,
    READING,
    {"_call_eof", (PyCFunction)transport_call_eof, METH_NOARGS, NULL},
    {NULL},
};

static PyMethodDef write_pipe_methods[] = {EVERY_KIND, WRITING_STREAM, {NULL}};

static PyMethodDef datagram_methods[] = {
    EVERY_KIND,
    READING,
    WRITING,
    {"sendto", FAST(cap_datagrams_sendto), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("sendto($self, data, addr=None)\n--\n\n"
               "Send a datagram, to `addr` or to where the socket is connected. Does not wait.")},
    {"_open_datagrams", FAST(transport_open_datagrams), METH_FASTCALL, NULL},
    {NULL},
};

/* asyncio's set_write_buffer_limits() has compared them; a float serves there as well. */
static int
set_limit(cap_transport *t, PyObject *value, void *offset)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "a limit of the write buffer cannot be deleted");
        return -1;
    }
    PyObject *number = PyNumber_Check(value) ? PyNumber_Long(value) : NULL;
    if (number == NULL) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_TypeError, "a limit of the write buffer is a number, not %R", value);
        return -1;
    }
    Py_ssize_t octets = PyNumber_AsSsize_t(number, NULL); /* NULL: a large one is cut */
    Py_DECREF(number);
    if (octets == -1 && PyErr_Occurred())
        return -1;
    *(Py_ssize_t *)((char *)t + (intptr_t)offset) = octets;
    return 0;
}

static PyObject *
get_limit(cap_transport *t, void *offset)
{
    return PyLong_FromSsize_t(*(Py_ssize_t *)((char *)t + (intptr_t)offset));
}

static PyGetSetDef transport_getset[] = {
    {"_loop", (getter)get_loop, NULL, PyDoc_STR("None once connection_lost() was called."), NULL},
    {"_high_water", (getter)get_limit, (setter)set_limit, NULL,
     (void *)offsetof(cap_transport, high_water)},
    {"_low_water", (getter)get_limit, (setter)set_limit, NULL,
     (void *)offsetof(cap_transport, low_water)},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef transport_members[] = {
    {"_protocol", T_OBJECT, offsetof(cap_transport, protocol), READONLY, NULL},
    {"_empty_waiter", T_OBJECT, offsetof(cap_transport, empty_waiter), 0, NULL},
    {"_context", T_OBJECT, offsetof(cap_transport, context), READONLY, NULL},
    {"_protocol_paused", T_BOOL, offsetof(cap_transport, protocol_paused), 0, NULL},
    {"_conn_lost", T_UINT, offsetof(cap_transport, conn_lost), READONLY, NULL},
    {"_closing", T_BOOL, offsetof(cap_transport, closing), READONLY, NULL},
    {"_paused", T_BOOL, offsetof(cap_transport, paused), READONLY, NULL},
    {"_eof", T_BOOL, offsetof(cap_transport, eof_written), READONLY, NULL},
    {"_polled", T_INT, offsetof(cap_transport, polled), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

#define SLOTS(kind, doc)                                                       \
    static PyType_Slot kind##_slots[] = {                                      \
        {Py_tp_doc, PyDoc_STR(doc)},                                           \
        {Py_tp_new, new_##kind},                                               \
        {Py_tp_dealloc, transport_dealloc},                                    \
        {Py_tp_traverse, transport_traverse},                                  \
        {Py_tp_clear, transport_clear},                                        \
        {Py_tp_methods, kind##_methods},                                       \
        {Py_tp_getset, transport_getset},                                      \
        {Py_tp_members, transport_members},                                    \
        {0, NULL},                                                             \
    }
SLOTS(stream, "The native part of a stream transport; of no use alone.");
SLOTS(read_pipe, "The native part of a transport that reads a pipe; of no use alone.");
SLOTS(write_pipe, "The native part of a transport that writes a pipe; of no use alone.");
SLOTS(datagram, "The native part of a datagram transport; of no use alone.");

static PyObject *
attribute_of(const char *module, const char *name)
{
    PyObject *m = PyImport_ImportModule(module);
    PyObject *value = m != NULL ? PyObject_GetAttrString(m, name) : NULL;
    Py_XDECREF(m);
    return value;
}

static int
make_names(cap_loop_state *ls)
{
    const struct {
        PyObject **at;
        const char *text;
    } names[] = {
        {&ls->data_received, "data_received"},
        {&ls->eof_received, "eof_received"},
        {&ls->get_buffer, "get_buffer"},
        {&ls->buffer_updated, "buffer_updated"},
        {&ls->connection_made, "connection_made"},
        {&ls->connection_lost, "connection_lost"},
        {&ls->maybe_pause, "_maybe_pause_protocol"},
        {&ls->maybe_resume, "_maybe_resume_protocol"},
        {&ls->closed_name, "_closed"},
        {&ls->close_name, "close"},
        {&ls->datagram_received, "datagram_received"},
        {&ls->error_received, "error_received"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if ((*names[i].at = PyUnicode_InternFromString(names[i].text)) == NULL)
            return -1;
    }
    return (ls->minus_one = PyLong_FromLong(-1)) != NULL ? 0 : -1;
}

static const struct {
    const char *name;
    const char *base; /* asyncio's */
    PyType_Slot *slots;
} kinds[CAP_TRANSPORT_KINDS] = {
    [CAP_STREAM] = {"capicorn._core.StreamTransport", "_FlowControlMixin", stream_slots},
    [CAP_READ_PIPE] = {"capicorn._core.ReadPipeTransport", "ReadTransport", read_pipe_slots},
    [CAP_WRITE_PIPE] = {"capicorn._core.WritePipeTransport", "_FlowControlMixin",
                        write_pipe_slots},
    [CAP_DATAGRAM] = {"capicorn._core.DatagramTransport", "_FlowControlMixin", datagram_slots},
};

static const char *const callbacks[CAP_TRANSPORT_CALLBACKS] = {
    [CAP_ON_START] = "_start",
    [CAP_ON_READ] = "_read_ready",
    [CAP_ON_WRITE] = "_write_ready",
    [CAP_ON_LOST] = "_call_connection_lost",
    [CAP_ON_EOF] = "_call_eof",
};

/* The methods that handles call, of those that a kind has. */
static int
take_callbacks(cap_loop_state *ls, PyObject *type, int kind)
{
    for (int i = 0; i < CAP_TRANSPORT_CALLBACKS; i++) {
        PyObject *method = PyObject_GetAttrString(type, callbacks[i]);
        if (method == NULL && !PyErr_ExceptionMatches(PyExc_AttributeError))
            return -1;
        PyErr_Clear();
        ls->transport_method[kind][i] = method;
    }
    return 0;
}

static int
make_type(PyObject *module, cap_loop_state *ls, int kind)
{
    PyObject *base = attribute_of("asyncio.transports", kinds[kind].base), *type = NULL;
    if (base == NULL)
        return -1;
    /* _FlowControlMixin has all the slots, ReadTransport the first. */
    size_t size = kind == CAP_READ_PIPE ? offsetof(cap_transport, slot[1])
                                        : offsetof(cap_transport, kind);
    PyType_Spec spec = {
        .name = kinds[kind].name,
        .basicsize = sizeof(cap_transport),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
        .slots = kinds[kind].slots,
    };
    int rc = -1;
    if (((PyTypeObject *)base)->tp_basicsize != (Py_ssize_t)size)
        PyErr_Format(PyExc_ImportError,
                     "asyncio.transports.%s is not what capicorn knows: "
                     "this version of Python is too new for it",
                     kinds[kind].base);
    else if ((type = PyType_FromModuleAndSpec(module, &spec, base)) != NULL &&
             PyModule_AddType(module, (PyTypeObject *)type) == 0)
        rc = take_callbacks(ls, type, kind);
    Py_XDECREF(type);
    Py_DECREF(base);
    return rc;
}

int
cap_transport_type_init(PyObject *module, cap_state *st)
{
    cap_loop_state *ls = cap_loop_state_of(st);
    if ((ls->buffered_protocol = attribute_of("asyncio", "BufferedProtocol")) == NULL ||
        (ls->protocol = attribute_of("asyncio", "Protocol")) == NULL || make_names(ls) < 0)
        return -1;
    for (int kind = 0; kind < CAP_TRANSPORT_KINDS; kind++) {
        if (make_type(module, ls, kind) < 0)
            return -1;
    }
    return 0;
}
