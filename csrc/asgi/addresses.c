#include "asgi/addresses.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

#define MAPPED 2u            /* in a packed address: it came as IPv6 */
#define PORT 0xffff0000u

void
cap_addresses_clear(cap_addresses *a)
{
    for (int i = 0; i < CAP_ADDRESS_CLIENTS; i++) {
        a->client[i].packed = 0;
        Py_CLEAR(a->client[i].object);
    }
    a->host.packed = 0;
    Py_CLEAR(a->host.object);
    for (int i = 0; i < CAP_ADDRESS_OWN; i++)
        Py_CLEAR(a->own[i].object);
}

static PyObject *
unix_object(const struct sockaddr_un *un, socklen_t len)
{
    size_t start = offsetof(struct sockaddr_un, sun_path);
    size_t path_len = len > start ? len - start : 0;
    if (path_len > 0 && un->sun_path[0] != '\0')
        path_len = strnlen(un->sun_path, path_len);
    PyObject *path = PyUnicode_DecodeFSDefaultAndSize(un->sun_path, (Py_ssize_t)path_len);
    return path != NULL ? Py_BuildValue("(NO)", path, Py_None) : NULL;
}

PyObject *
cap_address_object(const struct sockaddr_storage *addr, socklen_t len)
{
    char text[INET6_ADDRSTRLEN];
    const void *ip;
    unsigned port;
    if (addr->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
        ip = &in->sin_addr;
        port = ntohs(in->sin_port);
    } else if (addr->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;
        ip = &in6->sin6_addr;
        port = ntohs(in6->sin6_port);
    } else if (addr->ss_family == AF_UNIX) {
        return unix_object((const struct sockaddr_un *)addr, len);
    } else {
        Py_RETURN_NONE;
    }
    if (inet_ntop(addr->ss_family, ip, text, sizeof text) == NULL)
        Py_RETURN_NONE;
    return Py_BuildValue("(sI)", text, port);
}

/* --- clients ------------------------------------------------------------------------- */

cap_packed_address
cap_address_pack(const struct sockaddr_storage *addr)
{
    uint32_t ip;
    uint64_t kind = 1;
    in_port_t port;
    if (addr->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
        ip = in->sin_addr.s_addr;
        port = in->sin_port;
    } else if (addr->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;
        if (!IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
            return 0;
        memcpy(&ip, in6->sin6_addr.s6_addr + 12, sizeof ip);
        port = in6->sin6_port;
        kind |= MAPPED;
    } else {
        return 0;
    }
    return (uint64_t)ip << 32 | (uint32_t)ntohs(port) << 16 | kind;
}

static PyObject *
host_of(cap_addresses *a, cap_packed_address packed)
{
    packed &= ~(uint64_t)PORT;
    if (a->host.packed == packed)
        return Py_NewRef(a->host.object);
    char text[8 + INET_ADDRSTRLEN] = "::ffff:";
    size_t at = (packed & MAPPED) != 0 ? strlen(text) : 0;
    uint32_t ip = (uint32_t)(packed >> 32);
    (void)inet_ntop(AF_INET, &ip, text + at, INET_ADDRSTRLEN); /* there is room */
    PyObject *host = PyUnicode_FromString(text);
    if (host != NULL) {
        a->host.packed = packed;
        Py_XSETREF(a->host.object, Py_NewRef(host));
    }
    return host;
}

PyObject *
cap_addresses_client(cap_addresses *a, cap_packed_address packed)
{
    uint32_t port = (uint32_t)packed >> 16;
    /* Clients on one host have every second port; those with many hosts any. */
    uint32_t i = (port >> 1 ^ port >> 9 ^ (uint32_t)(packed >> 56)) % CAP_ADDRESS_CLIENTS;
    if (a->client[i].packed == packed)
        return Py_NewRef(a->client[i].object);
    PyObject *tuple = PyTuple_New(2);
    if (tuple == NULL)
        return NULL;
    PyObject *host = host_of(a, packed), *number = host != NULL ? PyLong_FromLong((long)port) : NULL;
    if (number == NULL) {
        Py_XDECREF(host);
        Py_DECREF(tuple);
        return NULL;
    }
    PyTuple_SET_ITEM(tuple, 0, host);
    PyTuple_SET_ITEM(tuple, 1, number);
    PyObject_GC_UnTrack(tuple); /* neither can refer back */
    a->client[i].packed = packed;
    Py_XSETREF(a->client[i].object, Py_NewRef(tuple));
    return tuple;
}

/* --- our own ----------------------------------------------------------------------------- */

PyObject *
cap_addresses_own(cap_addresses *a, const struct sockaddr_storage *addr, socklen_t len,
                  uint8_t *place)
{
    *place = 0;
    if (len > sizeof *addr) /* the kernel has cut it */
        len = sizeof *addr;
    for (uint8_t i = 0; i < CAP_ADDRESS_OWN && a->own[i].object != NULL; i++) {
        if (a->own[i].len == len && memcmp(&a->own[i].raw, addr, len) == 0) {
            *place = (uint8_t)(i + 1);
            return Py_NewRef(a->own[i].object);
        }
    }
    PyObject *object = cap_address_object(addr, len);
    if (object == NULL)
        return NULL;
    for (uint8_t i = 0; i < CAP_ADDRESS_OWN; i++) {
        if (a->own[i].object != NULL)
            continue;
        memcpy(&a->own[i].raw, addr, len);
        a->own[i].len = len;
        a->own[i].object = Py_NewRef(object);
        *place = (uint8_t)(i + 1);
        break;
    }
    return object;
}
