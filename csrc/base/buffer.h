/* A growable run of bytes. Plain memory: no Python, no thread of its own. The
   owner of the struct owns `data`. */
#ifndef CAP_BASE_BUFFER_H
#define CAP_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct cap_buffer {
    char *data;  /* NULL while cap == 0 */
    size_t len;  /* bytes in use */
    size_t cap;
} cap_buffer;

/* Room for `more` bytes behind len. 0, or -1 (no memory; nothing changed).
   Grows at least by half, so that appending is linear. */
int cap_buffer_reserve(cap_buffer *b, size_t more);
/* 0, or -1 (no memory; nothing changed). `data` may not point into b. */
int cap_buffer_append(cap_buffer *b, const void *data, size_t len);
/* Drop the first n (<= len) bytes; what follows moves to the front. */
void cap_buffer_consume(cap_buffer *b, size_t n);
/* Gives the memory back; b is empty and usable again. */
void cap_buffer_free(cap_buffer *b);

#endif
