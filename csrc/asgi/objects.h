/* Python objects that are made once per module and used by every request: header
   names, common methods, prepared messages. Hangs on cap_state.asgi. */
#ifndef CAP_ASGI_OBJECTS_H
#define CAP_ASGI_OBJECTS_H

#include "base/header_table.h"
#include "py/state.h"

typedef struct cap_objects {
    PyObject *header_name[CAP_HDR_COUNT]; /* bytes, lower-case; [CAP_HDR_OTHER] is NULL */
    PyObject *get, *head, *post, *put, *delete_, *options, *patch, *connect; /* str */
    PyObject *http_1_0, *http_1_1;        /* "1.0", "1.1" */
    PyObject *empty_bytes;
    PyObject *empty_str;
    PyObject *request_message; /* {"type": "http.request", "body": b"", "more_body": False}; copied */
    PyObject *disconnect_message; /* {"type": "http.disconnect"}; copied */
    PyObject *done;            /* the awaitable that is already done: what send() returns */
} cap_objects;

static inline cap_objects *
cap_objects_of(const cap_state *st)
{
    return st->asgi;
}

/* The str of a method token. New reference. */
PyObject *cap_method_object(const cap_objects *o, const char *method, size_t len);

/* A dict like `proto`, new. */
static inline PyObject *
cap_dict_like(PyObject *proto)
{
    return PyDict_Copy(proto);
}

/* Types of the folder, each added by its own file. 0, or -1 with an exception. */
int cap_server_type_init(PyObject *module, cap_state *st);
int cap_conn_type_init(PyObject *module, cap_state *st);
int cap_request_type_init(PyObject *module, cap_state *st);
int cap_receive_type_init(PyObject *module, cap_state *st);
int cap_send_type_init(PyObject *module, cap_state *st);

#endif
