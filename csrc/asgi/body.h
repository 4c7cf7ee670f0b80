/* A request's content on its way to receive(): gathered in the memory of a `bytes` object that
   the application then gets as it is. Large pieces are read from the socket into such memory, the
   server's `room`: it becomes content when enough was read, trimmed to that, and is kept for the
   next read when not, so that no large object stays for little. Loop thread, GIL held. */
#ifndef CAP_ASGI_BODY_H
#define CAP_ASGI_BODY_H

#include <stddef.h>
#include <stdint.h>

#include "py/compat.h"

/* One read(2) of content takes so much, and a little more when it then has all of it: a head in
   front shifts contents of even sizes. */
#define CAP_BODY_READ 131072
#define CAP_BODY_REST 16384
/* Less content than this is not worth it: it is copied out of the read buffer. */
#define CAP_BODY_DIRECT 65536

typedef struct cap_body {
    PyObject *bytes; /* nobody else's; its size is what there is room for. NULL: nothing waits */
    size_t len;      /* octets in it; 0 only with NULL */
} cap_body;

/* Memory to read content into, of which `left` octets are to come; valid until Python runs, or a
   function below. NULL: read it into another place. */
char *cap_body_room(const cap_body *b, PyObject **room, uint64_t left, size_t *len);
/* Content came, perhaps into memory that cap_body_room gave. 0, or -1 without memory (then all
   of it may be lost; no exception). */
int cap_body_add(cap_body *b, PyObject **room, const char *data, size_t len);
/* All that waits; new reference, or NULL with an exception, and then it is lost. */
PyObject *cap_body_take(cap_body *b);
void cap_body_free(cap_body *b);

#endif
