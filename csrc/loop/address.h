/* Socket addresses: what Python's socket module says in tuples and strings, as the
   kernel's structures and back. Of the families that matter for speed: IPv4, IPv6 and
   unix; of others, and of host names, the caller asks the socket module.

   GIL held. No function runs Python code. */
#ifndef CAP_LOOP_ADDRESS_H
#define CAP_LOOP_ADDRESS_H

#include "py/compat.h"

#include <sys/socket.h>

typedef struct cap_address {
    struct sockaddr_storage raw;
    socklen_t len;
} cap_address;

bool cap_address_knows(int family);
/* As recvfrom() gives it. New reference, or NULL with an exception. */
PyObject *cap_address_to_python(const cap_address *from);
/* Whether it could be said: false for names, other families and whatever the socket
   module has an error for. Never an exception. */
bool cap_address_from_python(cap_address *to, int family, PyObject *address);

#endif
