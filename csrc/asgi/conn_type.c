/* A connection as others see it: addresses, words for its state, and the Python type
   capicorn._core.Connection. */
#include "asgi/conn.h"

#include <assert.h>
#include <string.h>
#include <sys/socket.h>

#include "base/mem.h"

/* --- addresses --------------------------------------------------------------------------- */

/* What getpeername or getsockname says; 0, or -1: nothing, whatever the reason. */
static int
ask(const cap_conn *c, int (*call)(int, struct sockaddr *, socklen_t *),
    struct sockaddr_storage *addr, socklen_t *len)
{
    *len = sizeof *addr;
    return call(cap_stream_fd(c->io), (struct sockaddr *)addr, len);
}

static PyObject *
client_object(const cap_conn *c)
{
    return (PyObject *)(uintptr_t)c->client;
}

int
cap_conn_set_client(cap_conn *c, const struct sockaddr_storage *addr, socklen_t len)
{
    uint64_t client = cap_address_pack(addr);
    if (client == 0) {
        PyObject *object = cap_address_object(addr, len);
        if (object == NULL)
            return -1;
        client = (uintptr_t)object;
    }
    cap_conn_forget_client(c);
    c->client = client;
    return 0;
}

void
cap_conn_forget_client(cap_conn *c)
{
    uint64_t client = c->client;
    c->client = 0;
    if ((client & 1) == 0)
        Py_XDECREF((PyObject *)(uintptr_t)client);
}

PyObject *
cap_conn_client(cap_conn *c)
{
    if (c->client == 0) {
        struct sockaddr_storage addr;
        socklen_t len;
        if (c->unix_socket || ask(c, getpeername, &addr, &len) < 0)
            c->client = (uintptr_t)Py_NewRef(Py_None);
        else if (cap_conn_set_client(c, &addr, len) < 0)
            return NULL;
    }
    if ((c->client & 1) != 0)
        return cap_addresses_client(&c->server->addresses, c->client);
    return Py_NewRef(client_object(c));
}

PyObject *
cap_conn_server_address(cap_conn *c)
{
    cap_addresses *a = &c->server->addresses;
    struct sockaddr_storage addr;
    socklen_t len;
    if (c->address != 0)
        return Py_NewRef(a->own[c->address - 1].object);
    if (c->origin != NULL) {
        const cap_inet *inet = &c->origin->server;
        len = inet->any.sa_family == AF_INET ? sizeof inet->in : sizeof inet->in6;
        memcpy(&addr, inet, len);
    } else if (ask(c, getsockname, &addr, &len) < 0) {
        Py_RETURN_NONE;
    }
    return cap_addresses_own(a, &addr, len, &c->address);
}

const char *
cap_conn_peer_text(cap_conn *c, char out[64])
{
    PyObject *client = cap_conn_client(c);
    const char *host;
    if (client == NULL || client == Py_None || !PyTuple_Check(client) ||
        (host = PyUnicode_AsUTF8(PyTuple_GET_ITEM(client, 0))) == NULL) {
        PyErr_Clear();
        PyOS_snprintf(out, 64, "unix socket");
    } else {
        PyOS_snprintf(out, 64, "%.46s:%ld", host, PyLong_AsLong(PyTuple_GET_ITEM(client, 1)));
    }
    Py_XDECREF(client);
    return out;
}

/* --- the type ---------------------------------------------------------------------------- */

/* Log lines, Connection.state; the supervisor's side of a shutdown compares them. */
static const char *const phrase[CAP_CONN_STATES] = {
    [CAP_CONN_IDLE] = "idle",
    [CAP_CONN_READING] = "reading request fields",
    [CAP_CONN_RUNNING] = "running a request",
    [CAP_CONN_UPGRADED] = "speaking WebSocket",
    [CAP_CONN_DRAINING] = "dropping unread content",
    [CAP_CONN_FLUSHING] = "sending the last bytes",
    [CAP_CONN_LINGERING] = "waiting for the client's end",
    [CAP_CONN_CLOSING] = "closing",
    [CAP_CONN_CLOSED] = "closed",
};

static void
conn_dealloc(PyObject *self)
{
    cap_conn *c = (cap_conn *)self;
    PyTypeObject *type = Py_TYPE(self);
    assert(c->state == CAP_CONN_CLOSED && c->work == c->server->no_work);
    cap_free(c->origin);
    cap_conn_forget_client(c);
    Py_XDECREF(c->request);
    Py_DECREF(c->server);
    cap_count.connections--;
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *
conn_get_client(PyObject *self, void *Py_UNUSED(closure))
{
    cap_conn *c = (cap_conn *)self;
    return cap_conn_open(c) || c->client != 0 ? cap_conn_client(c) : Py_NewRef(Py_None);
}

static PyObject *
conn_get_state(PyObject *self, void *Py_UNUSED(closure))
{
    cap_conn *c = (cap_conn *)self;
    if (c->state == CAP_CONN_IDLE && cap_conn_unsent(c) != 0)
        return PyUnicode_FromString(phrase[CAP_CONN_FLUSHING]);
    return PyUnicode_FromString(phrase[c->state]);
}

static PyObject *
conn_close_method(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    cap_conn_close((cap_conn *)self, false);
    Py_RETURN_NONE;
}

static PyGetSetDef conn_getset[] = {
    {"client", conn_get_client, NULL, "(host, port), or None on a unix socket.", NULL},
    {"state", conn_get_state, NULL, "What it is doing, in words.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef conn_methods[] = {
    {"close", conn_close_method, METH_NOARGS, "close()\n--\n\nEnd the connection at once."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot conn_slots[] = {
    {Py_tp_dealloc, conn_dealloc},
    {Py_tp_getset, conn_getset},
    {Py_tp_methods, conn_methods},
    {0, NULL},
};

static PyType_Spec conn_spec = {
    .name = "capicorn._core.Connection",
    .basicsize = sizeof(cap_conn),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = conn_slots,
};

int
cap_conn_type_init(PyObject *module, cap_state *st)
{
    st->type.Connection = (PyTypeObject *)PyType_FromModuleAndSpec(module, &conn_spec, NULL);
    if (st->type.Connection == NULL)
        return -1;
    return PyModule_AddType(module, st->type.Connection);
}
