/* The shared objects of csrc/asgi, and its part of the module's initialisation. */
#include "asgi/objects.h"

#include <string.h>

#include "asgi/access_log.h"
#include "base/mem.h"

/* Every PyObject * of cap_objects but the header names, for clear and traverse. */
#define OBJECTS(X)                                                             \
    X(get)                                                                     \
    X(head)                                                                    \
    X(post)                                                                    \
    X(put)                                                                     \
    X(delete_)                                                                 \
    X(options)                                                                 \
    X(patch)                                                                   \
    X(connect)                                                                 \
    X(http_1_0)                                                                \
    X(http_1_1)                                                                \
    X(empty_bytes)                                                             \
    X(empty_str)                                                               \
    X(request_message)                                                         \
    X(disconnect_message)                                                      \
    X(done)

static int
make_objects(cap_state *st, cap_objects *o)
{
    for (int id = CAP_HDR_OTHER + 1; id < CAP_HDR_COUNT; id++) {
        size_t len;
        const char *name = cap_header_name((cap_header)id, &len);
        o->header_name[id] = PyBytes_FromStringAndSize(name, (Py_ssize_t)len);
        if (o->header_name[id] == NULL)
            return -1;
    }
#define STR(field, text)                                                       \
    if ((o->field = PyUnicode_InternFromString(text)) == NULL)                 \
        return -1
    STR(get, "GET");
    STR(head, "HEAD");
    STR(post, "POST");
    STR(put, "PUT");
    STR(delete_, "DELETE");
    STR(options, "OPTIONS");
    STR(patch, "PATCH");
    STR(connect, "CONNECT");
    STR(http_1_0, "1.0");
    STR(http_1_1, "1.1");
    STR(empty_str, "");
#undef STR
    if ((o->empty_bytes = PyBytes_FromStringAndSize(NULL, 0)) == NULL)
        return -1;
    o->request_message = PyDict_New();
    o->disconnect_message = PyDict_New();
    if (o->request_message == NULL || o->disconnect_message == NULL)
        return -1;
    if (PyDict_SetItem(o->request_message, st->str.type, st->str.http_request) < 0 ||
        PyDict_SetItem(o->request_message, st->str.body, o->empty_bytes) < 0 ||
        PyDict_SetItem(o->request_message, st->str.more_body, Py_False) < 0 ||
        PyDict_SetItem(o->disconnect_message, st->str.type, st->str.http_disconnect) < 0)
        return -1;
    return 0;
}

int
cap_asgi_init(PyObject *module, cap_state *st)
{
    cap_objects *o = cap_calloc(1, sizeof *o);
    if (o == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    st->asgi = o; /* cap_asgi_clear releases what was made, however far we come */
    if (make_objects(st, o) < 0)
        return -1;
    if (cap_access_log_init(module, st) < 0 || cap_server_type_init(module, st) < 0 ||
        cap_conn_type_init(module, st) < 0 || cap_request_type_init(module, st) < 0 ||
        cap_receive_type_init(module, st) < 0 || cap_send_type_init(module, st) < 0)
        return -1;
    return 0;
}

void
cap_asgi_clear(cap_state *st)
{
    cap_objects *o = st->asgi;
    if (o == NULL)
        return;
    st->asgi = NULL;
    for (int id = 0; id < CAP_HDR_COUNT; id++)
        Py_XDECREF(o->header_name[id]);
#define X(field) Py_XDECREF(o->field);
    OBJECTS(X)
#undef X
    cap_free(o);
}

int
cap_asgi_traverse(cap_state *st, visitproc visit, void *arg)
{
    cap_objects *o = st->asgi;
    if (o == NULL)
        return 0;
    Py_VISIT(o->request_message);
    Py_VISIT(o->disconnect_message);
    Py_VISIT(o->done);
    return 0;
}

PyObject *
cap_method_object(const cap_objects *o, const char *method, size_t len)
{
    PyObject *known = NULL;
    switch (len) {
    case 3:
        known = memcmp(method, "GET", 3) == 0 ? o->get
                : memcmp(method, "PUT", 3) == 0 ? o->put : NULL;
        break;
    case 4:
        known = memcmp(method, "POST", 4) == 0 ? o->post
                : memcmp(method, "HEAD", 4) == 0 ? o->head : NULL;
        break;
    case 5:
        known = memcmp(method, "PATCH", 5) == 0 ? o->patch : NULL;
        break;
    case 6:
        known = memcmp(method, "DELETE", 6) == 0 ? o->delete_ : NULL;
        break;
    case 7:
        known = memcmp(method, "OPTIONS", 7) == 0 ? o->options
                : memcmp(method, "CONNECT", 7) == 0 ? o->connect : NULL;
        break;
    }
    if (known != NULL)
        return Py_NewRef(known);
    /* ASGI: uppercased. Methods are case-sensitive (RFC 9110 9.1), but uvicorn's apps
       get upper case, and none of them tells "get" from "GET". */
    PyObject *str = PyUnicode_New((Py_ssize_t)len, 127);
    if (str == NULL)
        return NULL;
    Py_UCS1 *to = PyUnicode_1BYTE_DATA(str);
    for (size_t i = 0; i < len; i++)
        to[i] = (Py_UCS1)(method[i] >= 'a' && method[i] <= 'z' ? method[i] - 32 : method[i]);
    return str;
}
