/* Header blocks seen before. A keep-alive client sends the same field lines with
   request after request; when a block equals a remembered one octet for octet, its
   (name, value) tuples are used again and nothing is parsed. Only blocks that say
   nothing of a body or an upgrade are remembered. Of one server, so of one thread. */
#ifndef CAP_ASGI_HEADER_MEMO_H
#define CAP_ASGI_HEADER_MEMO_H

#include "py/compat.h"

#include "http/h1_request.h"

#define CAP_MEMO_ENTRIES 64
#define CAP_MEMO_BLOCK_MAX 1536

typedef struct cap_memo_entry {
    char *block; /* own memory; NULL: empty */
    uint32_t len;
    uint32_t hash;
    uint16_t flags;   /* cap_h1_head.flags */
    uint8_t minor;
    PyObject *fields; /* tuple of (bytes, bytes) */
} cap_memo_entry;

typedef struct cap_header_memo {
    cap_memo_entry entry[CAP_MEMO_ENTRIES];
} cap_header_memo;

void cap_memo_clear(cap_header_memo *m);
int cap_memo_traverse(cap_header_memo *m, visitproc visit, void *arg);

/* Can this head be remembered? */
bool cap_memo_fits(const cap_h1_head *h);
/* The entry for these octets; -1 when they are not known. */
int cap_memo_find(const cap_header_memo *m, const char *block, size_t len, uint8_t minor,
                  uint32_t *hash);
/* Remember `fields` (a list of tuples) for them; the entry, or -1 (no exception). */
int cap_memo_put(cap_header_memo *m, const cap_h1_head *h, const char *block, uint32_t hash,
                 PyObject *fields);
/* Does the input begin with entry `i`'s block? */
static inline bool
cap_memo_begins(const cap_header_memo *m, int i, const char *data, size_t len, uint8_t minor)
{
    const cap_memo_entry *e = &m->entry[i];
    return e->block != NULL && e->len <= len && e->minor == minor &&
           memcmp(e->block, data, e->len) == 0;
}
/* A new list of the entry's tuples; or NULL with an exception. */
PyObject *cap_memo_list(const cap_header_memo *m, int i);

#endif
