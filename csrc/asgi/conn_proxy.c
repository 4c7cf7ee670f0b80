/* The PROXY protocol in front of a connection: whether it is expected, and what it
   tells. */
#include <string.h>

#include "asgi/conn.h"
#include "base/mem.h"
#include "net/proxy_protocol.h"

bool
cap_conn_proxy_wanted(cap_conn *c)
{
    cap_server *s = c->server;
    Py_INCREF(c);
    PyObject *client = cap_conn_client(c), *answer = NULL;
    if (client != NULL)
        answer = PyObject_CallOneArg(s->proxy_protocol, client);
    Py_XDECREF(client);
    int wanted = answer != NULL ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    if (wanted < 0) {
        PyErr_WriteUnraisable((PyObject *)s);
        cap_conn_close(c, true);
    }
    bool open = cap_conn_open(c);
    Py_DECREF(c);
    return open && wanted > 0;
}

static int
refuse(cap_conn *c, const char *reason)
{
    char peer[64];
    cap_server_log(c->server, CAP_LOG_WARNING, NULL, "Invalid PROXY protocol header. %s. (%s, closed)",
                   reason, cap_conn_peer_text(c, peer));
    cap_buffer_free(&c->work->in);
    cap_conn_close(c, true);
    return -1;
}

static PyObject *
address_of(const cap_inet *inet)
{
    struct sockaddr_storage addr = {0};
    memcpy(&addr, inet, sizeof *inet);
    return cap_address_object(&addr);
}

int
cap_conn_set_origin(cap_conn *c, const cap_origin *origin)
{
    PyObject *client = address_of(&origin->client);
    PyObject *address = client != NULL ? address_of(&origin->server) : NULL;
    cap_origin *kept = address != NULL ? cap_malloc(sizeof *kept) : NULL;
    if (kept == NULL) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        Py_XDECREF(address);
        Py_XDECREF(client);
        return -1;
    }
    *kept = *origin;
    cap_free(c->origin);
    c->origin = kept;
    Py_XSETREF(c->client, client);
    Py_XSETREF(c->address, address);
    return 0;
}

int
cap_conn_proxy_feed(cap_conn *c, const char *data, ssize_t n)
{
    if (n <= 0) {
        if (n == 0 && c->work->in.len != 0) /* a proxy that looks whether we live says nothing at all */
            return refuse(c, "The connection ended in it");
        cap_conn_close(c, false);
        return -1;
    }
    cap_proxy_header h;
    cap_proxy_result result = CAP_PROXY_ERROR;
    if (cap_buffer_append(&c->work->in, data, (size_t)n) < 0) {
        cap_conn_close(c, true);
        return -1;
    }
    result = cap_proxy_parse(c->work->in.data, c->work->in.len, &h);
    if (result == CAP_PROXY_MORE)
        return 0;
    if (result == CAP_PROXY_ERROR)
        return refuse(c, h.reason);
    if (h.known) {
        cap_origin origin;
        memcpy(&origin.client, &h.source, sizeof origin.client);
        memcpy(&origin.server, &h.destination, sizeof origin.server);
        if (cap_conn_set_origin(c, &origin) < 0) {
            PyErr_WriteUnraisable((PyObject *)c->server);
            cap_conn_close(c, true);
            return -1;
        }
    }
    cap_buffer_consume(&c->work->in, h.len);
    if (c->work->in.len == 0)
        cap_buffer_free(&c->work->in);
    return 1;
}
