/* Memory of our own, counted, so that a test can see that what was allocated was
   freed, and can make the n-th allocation fail. Any thread. */
#ifndef CAP_BASE_MEM_H
#define CAP_BASE_MEM_H

#include <stddef.h>

/* As malloc, calloc, realloc and free; size 0 is not asked for. */
void *cap_malloc(size_t size);
void *cap_calloc(size_t n, size_t size);
void *cap_realloc(void *p, size_t size);
void cap_free(void *p);

/* Blocks of that size will come and go. glibc gives the heap's end back to the kernel when 128 KiB of
   it are free, and gets it again cleared, with a page fault for each 4 KiB: a fifth of what an upload
   costs, a quarter of an echo of 100 KiB. When a block that had a mapping of its own was freed it takes
   that size for usual and lets twice as much lie (mallopt(3), M_MMAP_THRESHOLD), which this makes it do.
   Other allocators do not mind. */
void cap_mem_expect(size_t size);

/* Blocks allocated and not yet freed. */
long cap_mem_blocks(void);
/* The n-th allocation from now on fails (1: the next), and every one after it
   for `count` times; n = 0 turns it off. Only tests call it. */
void cap_mem_fail(long n, long count);

#ifdef CAP_FAULTS
#include "base/fault.h"
#define cap_malloc(size) (CAP_FAULT() ? NULL : (cap_malloc)(size))
#define cap_calloc(n, size) (CAP_FAULT() ? NULL : (cap_calloc)(n, size))
#define cap_realloc(p, size) (CAP_FAULT() ? NULL : (cap_realloc)(p, size))
#endif

#endif
