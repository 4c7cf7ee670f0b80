#include "base/mem.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

static atomic_long blocks;

/* Faults that a test asked for. `on` is what every allocation looks at; the rest
   only matters while it is set. */
static atomic_bool on;
static atomic_long until; /* allocations before the next one that fails, minus one */
static atomic_long more;  /* how many fail from there on */

static bool
fails(void)
{
    if (!atomic_load_explicit(&on, memory_order_relaxed))
        return false;
    if (atomic_fetch_sub(&until, 1) > 1)
        return false;
    long left = atomic_fetch_sub(&more, 1);
    if (left <= 1)
        atomic_store(&on, false);
    return left >= 1;
}

void *
(cap_malloc)(size_t size)
{
    void *p = fails() ? NULL : malloc(size);
    if (p != NULL)
        atomic_fetch_add_explicit(&blocks, 1, memory_order_relaxed);
    return p;
}

void *
(cap_calloc)(size_t n, size_t size)
{
    void *p = fails() ? NULL : calloc(n, size);
    if (p != NULL)
        atomic_fetch_add_explicit(&blocks, 1, memory_order_relaxed);
    return p;
}

void *
(cap_realloc)(void *old, size_t size)
{
    void *p = fails() ? NULL : realloc(old, size);
    if (p != NULL && old == NULL)
        atomic_fetch_add_explicit(&blocks, 1, memory_order_relaxed);
    return p;
}

void
cap_mem_expect(size_t size)
{
    static atomic_size_t expected;
    if (size <= atomic_load_explicit(&expected, memory_order_relaxed))
        return;
    atomic_store_explicit(&expected, size, memory_order_relaxed);
    char *p = malloc(size);
    if (p != NULL)
        *(volatile char *)p = 0; /* or the compiler leaves both out */
    free(p);
}

void
cap_free(void *p)
{
    if (p == NULL)
        return;
    atomic_fetch_sub_explicit(&blocks, 1, memory_order_relaxed);
    free(p);
}

long
cap_mem_blocks(void)
{
    return atomic_load_explicit(&blocks, memory_order_relaxed);
}

void
cap_mem_fail(long n, long count)
{
    atomic_store(&on, false);
    atomic_store(&until, n);
    atomic_store(&more, count);
    atomic_store(&on, n > 0 && count > 0);
}
