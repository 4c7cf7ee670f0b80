#include "base/buffer.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"

#define FIRST_CAP 256

int
cap_buffer_reserve(cap_buffer *b, size_t more)
{
    if (more <= b->cap - b->len)
        return 0;
    if (more > (size_t)PTRDIFF_MAX - b->len)
        return -1;
    size_t need = b->len + more;
    size_t cap = b->cap + b->cap / 2; /* cap <= PTRDIFF_MAX: no overflow */
    if (cap < need)
        cap = need;
    if (cap < FIRST_CAP)
        cap = FIRST_CAP;
    char *data = cap_realloc(b->data, cap);
    if (data == NULL)
        return -1;
    b->data = data;
    b->cap = cap;
    return 0;
}

int
cap_buffer_append(cap_buffer *b, const void *data, size_t len)
{
    if (len == 0) /* memcpy wants pointers, even for nothing */
        return 0;
    if (cap_buffer_reserve(b, len) < 0)
        return -1;
    memcpy(b->data + b->len, data, len);
    b->len += len;
    return 0;
}

void
cap_buffer_consume(cap_buffer *b, size_t n)
{
    if (n == 0)
        return;
    b->len -= n;
    if (b->len > 0)
        memmove(b->data, b->data + n, b->len);
}

void
cap_buffer_free(cap_buffer *b)
{
    cap_free(b->data);
    *b = (cap_buffer){0};
}
