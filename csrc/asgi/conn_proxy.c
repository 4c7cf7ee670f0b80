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
        cap_server_lost(s, (PyObject *)s);
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

int
cap_conn_set_origin(cap_conn *c, const cap_origin *origin)
{
    struct sockaddr_storage client = {0};
    memcpy(&client, &origin->client, sizeof origin->client);
    cap_origin *kept = cap_malloc(sizeof *kept);
    if (kept == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (cap_conn_set_client(c, &client, sizeof origin->client) < 0) {
        cap_free(kept);
        return -1;
    }
    *kept = *origin;
    cap_free(c->origin);
    c->origin = kept;
    c->address = 0;
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
            cap_server_lost(c->server, (PyObject *)c->server);
            cap_conn_close(c, true);
            return -1;
        }
    }
    cap_buffer_consume(&c->work->in, h.len);
    if (c->work->in.len == 0)
        cap_buffer_free(&c->work->in);
    return 1;
}
