/* Socket addresses, from and to Python. */
#include "loop/address.h"

#include <arpa/inet.h>
#include <limits.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

bool
cap_address_knows(int family)
{
    return family == AF_INET || family == AF_INET6 || family == AF_UNIX;
}

/* ---- to Python ---- */

static PyObject *
unix_to_python(const cap_address *from)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&from->raw;
    size_t start = offsetof(struct sockaddr_un, sun_path);
    size_t n = from->len > start ? from->len - start : 0;
    if (from->len == 0)
        Py_RETURN_NONE; /* a socket without a name */
    if (n != 0 && un->sun_path[0] == '\0') /* an abstract one */
        return PyBytes_FromStringAndSize(un->sun_path, (Py_ssize_t)n);
    return PyUnicode_DecodeFSDefaultAndSize(un->sun_path,
                                            (Py_ssize_t)strnlen(un->sun_path, n));
}

PyObject *
cap_address_to_python(const cap_address *from)
{
    char text[INET6_ADDRSTRLEN];
    if (from->raw.ss_family == AF_INET && from->len >= sizeof(struct sockaddr_in)) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&from->raw;
        inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
        return Py_BuildValue("si", text, (int)ntohs(in->sin_port));
    }
    if (from->raw.ss_family == AF_INET6 && from->len >= sizeof(struct sockaddr_in6)) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)&from->raw;
        inet_ntop(AF_INET6, &in->sin6_addr, text, sizeof text);
        return Py_BuildValue("siII", text, (int)ntohs(in->sin6_port),
                             (unsigned)ntohl(in->sin6_flowinfo), (unsigned)in->sin6_scope_id);
    }
    if (from->raw.ss_family == AF_UNIX || from->len == 0)
        return unix_to_python(from);
    Py_RETURN_NONE;
}

/* ---- from Python ---- */

static bool
number(PyObject *obj, unsigned long max, unsigned long *to)
{
    if (!PyLong_CheckExact(obj))
        return false;
    int overflow;
    long long n = PyLong_AsLongLongAndOverflow(obj, &overflow);
    if (overflow != 0 || n < 0 || (unsigned long long)n > max)
        return false;
    *to = (unsigned long)n;
    return true;
}

static bool
ip_from_python(cap_address *to, int family, PyObject *address)
{
    if (!PyTuple_CheckExact(address))
        return false;
    Py_ssize_t n = PyTuple_GET_SIZE(address);
    unsigned long port, flowinfo = 0, scope = 0;
    if (n < 2 || n > (family == AF_INET ? 2 : 4))
        return false;
    PyObject *host = PyTuple_GET_ITEM(address, 0);
    if (!PyUnicode_CheckExact(host) || !PyUnicode_IS_COMPACT_ASCII(host) ||
        strlen((const char *)PyUnicode_1BYTE_DATA(host)) != (size_t)PyUnicode_GET_LENGTH(host) ||
        !number(PyTuple_GET_ITEM(address, 1), 65535, &port) ||
        (n > 2 && !number(PyTuple_GET_ITEM(address, 2), 0xfffff, &flowinfo)) ||
        (n > 3 && !number(PyTuple_GET_ITEM(address, 3), UINT32_MAX, &scope)))
        return false;
    const char *text = (const char *)PyUnicode_1BYTE_DATA(host);
    memset(&to->raw, 0, sizeof to->raw);
    if (family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)&to->raw;
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)port);
        to->len = sizeof *in;
        return inet_pton(AF_INET, text, &in->sin_addr) == 1;
    }
    struct sockaddr_in6 *in = (struct sockaddr_in6 *)&to->raw;
    in->sin6_family = AF_INET6;
    in->sin6_port = htons((uint16_t)port);
    in->sin6_flowinfo = htonl((uint32_t)flowinfo);
    in->sin6_scope_id = (uint32_t)scope;
    to->len = sizeof *in;
    return inet_pton(AF_INET6, text, &in->sin6_addr) == 1;
}

static bool
unix_from_python(cap_address *to, PyObject *address)
{
    PyObject *path = NULL;
    if (PyBytes_CheckExact(address))
        path = Py_NewRef(address);
    else if (PyUnicode_CheckExact(address))
        path = PyUnicode_EncodeFSDefault(address);
    if (path == NULL) {
        PyErr_Clear();
        return false;
    }
    struct sockaddr_un *un = (struct sockaddr_un *)&to->raw;
    size_t n = (size_t)PyBytes_GET_SIZE(path), start = offsetof(struct sockaddr_un, sun_path);
    const char *text = PyBytes_AS_STRING(path);
    bool abstract = n == 0 || text[0] == '\0';
    bool fits = n < sizeof un->sun_path && (abstract || strlen(text) == n);
    if (fits) {
        memset(&to->raw, 0, sizeof to->raw);
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, text, n);
        to->len = (socklen_t)(start + n + (abstract ? 0 : 1));
    }
    Py_DECREF(path);
    return fits;
}

bool
cap_address_from_python(cap_address *to, int family, PyObject *address)
{
    if (family == AF_UNIX)
        return unix_from_python(to, address);
    return (family == AF_INET || family == AF_INET6) && ip_from_python(to, family, address);
}
