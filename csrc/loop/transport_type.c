/* Stream transports: the type and its methods. */
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
transport_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    cap_transport *t = (cap_transport *)type->tp_alloc(type, 0);
    if (t == NULL)
        return NULL;
    t->fd = -1;
    t->high_water = 64 * 1024;
    t->low_water = 16 * 1024;
    t->gather.run = cap_transport_end_of_turn;
    return (PyObject *)t;
}

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
    return 0;
}

static int
transport_clear(cap_transport *t)
{
    if (t->loop != NULL)
        cap_transport_detach(t);
    cap_transport_drop_queue(t);
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

static PyMethodDef transport_methods[] = {
    {"write", (PyCFunction)cap_transport_write, METH_O,
     PyDoc_STR("write($self, data, /)\n--\n\nSend the octets of `data`. Does not wait.")},
    {"writelines", (PyCFunction)cap_transport_writelines, METH_O,
     PyDoc_STR("writelines($self, list_of_data, /)\n--\n\nSend all of them, one after another.")},
    {"write_eof", (PyCFunction)cap_transport_write_eof, METH_NOARGS,
     PyDoc_STR("write_eof($self)\n--\n\nEnd this direction when all is sent.")},
    {"can_write_eof", (PyCFunction)transport_can_write_eof, METH_NOARGS,
     PyDoc_STR("can_write_eof($self)\n--\n\nTrue.")},
    {"set_protocol", (PyCFunction)transport_set_protocol, METH_O,
     PyDoc_STR("set_protocol($self, protocol, /)\n--\n\nGive what comes to another protocol.")},
    {"get_protocol", (PyCFunction)transport_get_protocol, METH_NOARGS,
     PyDoc_STR("get_protocol($self)\n--\n\nThe protocol.")},
    {"is_closing", (PyCFunction)transport_is_closing, METH_NOARGS,
     PyDoc_STR("is_closing($self)\n--\n\nWhether it is closed or about to be.")},
    {"is_reading", (PyCFunction)transport_is_reading, METH_NOARGS,
     PyDoc_STR("is_reading($self)\n--\n\nWhether it is neither paused nor closing.")},
    {"pause_reading", (PyCFunction)transport_pause_reading, METH_NOARGS,
     PyDoc_STR("pause_reading($self)\n--\n\nNo data_received() until resume_reading().")},
    {"resume_reading", (PyCFunction)transport_resume_reading, METH_NOARGS,
     PyDoc_STR("resume_reading($self)\n--\n\nThe end of pause_reading().")},
    {"close", (PyCFunction)cap_transport_close, METH_NOARGS,
     PyDoc_STR("close($self)\n--\n\nClose it when all is sent.")},
    {"abort", (PyCFunction)transport_abort, METH_NOARGS,
     PyDoc_STR("abort($self)\n--\n\nClose it; what waits is dropped.")},
    {"get_write_buffer_size", (PyCFunction)transport_buffer_size, METH_NOARGS,
     PyDoc_STR("get_write_buffer_size($self)\n--\n\nHow many octets wait to be sent.")},
    {"_open", FAST(cap_transport_open), METH_FASTCALL, open_doc},
    {"_start", FAST(cap_transport_start), METH_FASTCALL, NULL},
    {"_read_ready", (PyCFunction)cap_transport_read_ready, METH_NOARGS, NULL},
    {"_write_ready", (PyCFunction)cap_transport_write_ready, METH_NOARGS, NULL},
    {"_send_gathered", (PyCFunction)transport_send_gathered, METH_NOARGS, NULL},
    {"_force_close", (PyCFunction)transport_force_close, METH_O, NULL},
    {"_call_connection_lost", (PyCFunction)transport_lost, METH_O, NULL},
    {"_detach", (PyCFunction)transport_detach, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef transport_getset[] = {
    {"_loop", (getter)get_loop, NULL, PyDoc_STR("None once connection_lost() was called."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef transport_members[] = {
    {"_protocol", T_OBJECT, offsetof(cap_transport, protocol), READONLY, NULL},
    {"_empty_waiter", T_OBJECT, offsetof(cap_transport, empty_waiter), 0, NULL},
    {"_context", T_OBJECT, offsetof(cap_transport, context), READONLY, NULL},
    {"_protocol_paused", T_BOOL, offsetof(cap_transport, protocol_paused), 0, NULL},
    {"_high_water", T_PYSSIZET, offsetof(cap_transport, high_water), 0, NULL},
    {"_low_water", T_PYSSIZET, offsetof(cap_transport, low_water), 0, NULL},
    {"_conn_lost", T_UINT, offsetof(cap_transport, conn_lost), READONLY, NULL},
    {"_closing", T_BOOL, offsetof(cap_transport, closing), READONLY, NULL},
    {"_paused", T_BOOL, offsetof(cap_transport, paused), READONLY, NULL},
    {"_eof", T_BOOL, offsetof(cap_transport, eof_written), READONLY, NULL},
    {"_polled", T_INT, offsetof(cap_transport, polled), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot transport_slots[] = {
    {Py_tp_doc, PyDoc_STR("The native part of a stream transport; of no use alone.")},
    {Py_tp_new, transport_new},
    {Py_tp_dealloc, transport_dealloc},
    {Py_tp_traverse, transport_traverse},
    {Py_tp_clear, transport_clear},
    {Py_tp_methods, transport_methods},
    {Py_tp_getset, transport_getset},
    {Py_tp_members, transport_members},
    {0, NULL},
};

static PyType_Spec transport_spec = {
    .name = "capicorn._core.StreamTransport",
    .basicsize = sizeof(cap_transport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = transport_slots,
};

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
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if ((*names[i].at = PyUnicode_InternFromString(names[i].text)) == NULL)
            return -1;
    }
    return (ls->minus_one = PyLong_FromLong(-1)) != NULL ? 0 : -1;
}

int
cap_transport_type_init(PyObject *module, cap_state *st)
{
    cap_loop_state *ls = cap_loop_state_of(st);
    PyObject *base = attribute_of("asyncio.transports", "_FlowControlMixin"), *type = NULL;
    if (base == NULL ||
        (ls->buffered_protocol = attribute_of("asyncio", "BufferedProtocol")) == NULL ||
        (ls->protocol = attribute_of("asyncio", "Protocol")) == NULL || make_names(ls) < 0)
        goto fail;
    if (((PyTypeObject *)base)->tp_basicsize != (Py_ssize_t)offsetof(cap_transport, loop)) {
        PyErr_SetString(PyExc_ImportError,
                        "asyncio.transports._FlowControlMixin is not what capicorn knows: "
                        "this version of Python is too new for it");
        goto fail;
    }
    type = PyType_FromModuleAndSpec(module, &transport_spec, base);
    if (type == NULL || PyModule_AddType(module, (PyTypeObject *)type) < 0 ||
        (ls->transport_start = PyObject_GetAttrString(type, "_start")) == NULL ||
        (ls->transport_read_ready = PyObject_GetAttrString(type, "_read_ready")) == NULL ||
        (ls->transport_write_ready = PyObject_GetAttrString(type, "_write_ready")) == NULL ||
        (ls->transport_lost = PyObject_GetAttrString(type, "_call_connection_lost")) == NULL)
        goto fail;
    Py_DECREF(type);
    Py_DECREF(base);
    return 0;
fail:
    Py_XDECREF(type);
    Py_XDECREF(base);
    return -1;
}
