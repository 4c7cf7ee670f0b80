/* What scope["client"] and scope["server"] say, shared between connections: a tuple with
   its strings and numbers is 160 octets, and of thousands of idle connections nobody
   asks. Clients that ask often find theirs in a small table; the server has few addresses of
   its own. Of one server, so of one thread; GIL held. Nothing here runs Python but where
   making a tuple wakes the collector. */
#ifndef CAP_ASGI_ADDRESSES_H
#define CAP_ASGI_ADDRESSES_H

#include "py/compat.h"

#include <stdint.h>
#include <sys/socket.h>

/* An IPv4 address and port in one word, also when it came as ::ffff:a.b.c.d; always odd,
   so that it cannot be taken for a pointer. 0: it is another address. */
typedef uint64_t cap_packed_address;

#define CAP_ADDRESS_CLIENTS 256
#define CAP_ADDRESS_OWN 8

typedef struct cap_addresses {
    struct {
        cap_packed_address packed; /* 0: empty */
        PyObject *object;
    } client[CAP_ADDRESS_CLIENTS], host; /* host: the string of the last one made */
    struct {
        struct sockaddr_storage raw;
        socklen_t len;
        PyObject *object; /* NULL: empty */
    } own[CAP_ADDRESS_OWN];
} cap_addresses;

void cap_addresses_clear(cap_addresses *a);

/* (host, port) of an AF_INET or AF_INET6 address, (path, None) of a unix socket, None of
   another; new reference, or NULL with an exception. */
PyObject *cap_address_object(const struct sockaddr_storage *addr, socklen_t len);

cap_packed_address cap_address_pack(const struct sockaddr_storage *addr);
/* (host, port) of it. New reference, or NULL with an exception. */
PyObject *cap_addresses_client(cap_addresses *a, cap_packed_address packed);

/* The object of one of our own addresses, and in *place where it is found again without
   asking for the address: from 1 on; 0 when there is no room for it. New reference, or NULL
   with an exception. */
PyObject *cap_addresses_own(cap_addresses *a, const struct sockaddr_storage *addr, socklen_t len,
                            uint8_t *place);

#endif
