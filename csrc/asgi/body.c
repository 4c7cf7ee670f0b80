#include "asgi/body.h"

#include <string.h>

#include "base/mem.h"

#define USUAL (4 << 20) /* octets: what several connections gather at a time */

static size_t
capacity(const cap_body *b)
{
    return b->bytes != NULL ? (size_t)PyBytes_GET_SIZE(b->bytes) : 0;
}

/* As _PyBytes_Resize, which frees it when it fails; no exception. */
static int
resize(cap_body *b, size_t size)
{
    if (_PyBytes_Resize(&b->bytes, (Py_ssize_t)size) == 0)
        return 0;
    PyErr_Clear();
    b->len = 0;
    return -1;
}

static int
fit(cap_body *b)
{
    return b->len == capacity(b) ? 0 : resize(b, b->len);
}

char *
cap_body_room(const cap_body *b, PyObject **room, uint64_t left, size_t *len)
{
    if (left < CAP_BODY_DIRECT || b->bytes != NULL)
        return NULL;
    if (*room == NULL) {
        cap_mem_expect(USUAL);
        *room = PyBytes_FromStringAndSize(NULL, CAP_BODY_READ + CAP_BODY_REST);
        if (*room == NULL) {
            PyErr_Clear();
            return NULL;
        }
    }
    *len = left <= CAP_BODY_READ + CAP_BODY_REST ? (size_t)left : CAP_BODY_READ;
    return PyBytes_AS_STRING(*room);
}

/* Room for `more` octets; grows at least by half, so that adding is linear. */
static int
reserve(cap_body *b, size_t more)
{
    size_t size = capacity(b);
    if (more <= size - b->len)
        return 0;
    if (more > (size_t)PY_SSIZE_T_MAX / 4)
        return -1;
    size_t need = b->len + more;
    if (b->bytes != NULL)
        return resize(b, need > size + size / 2 ? need : size + size / 2);
    /* Without data: of one octet there is only one object, everybody's. */
    b->bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)need);
    if (b->bytes == NULL)
        PyErr_Clear();
    return b->bytes != NULL ? 0 : -1;
}

int
cap_body_add(cap_body *b, PyObject **room, const char *data, size_t len)
{
    if (b->bytes == NULL && len >= CAP_BODY_DIRECT && *room != NULL &&
        data == PyBytes_AS_STRING(*room)) {
        b->bytes = *room;
        b->len = len;
        *room = NULL;
        return fit(b);
    }
    if (reserve(b, len) < 0)
        return -1;
    memcpy(PyBytes_AS_STRING(b->bytes) + b->len, data, len);
    b->len += len;
    return 0;
}

PyObject *
cap_body_take(cap_body *b)
{
    if (fit(b) < 0) {
        PyErr_NoMemory();
        return NULL;
    }
    PyObject *bytes = b->bytes;
    *b = (cap_body){0};
    return bytes;
}

void
cap_body_free(cap_body *b)
{
    Py_CLEAR(b->bytes);
    b->len = 0;
}
