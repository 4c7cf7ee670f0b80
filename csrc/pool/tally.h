/* What a worker counts: one writer for each field, so that a count is a plain load, add
   and store; any number of readers, in this process or another, who take no lock and may
   see two fields from different moments. */
#ifndef CAP_POOL_TALLY_H
#define CAP_POOL_TALLY_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define CAP_TALLY_CLASSES 5 /* of status codes: 1xx to 5xx */
/* Upper bounds of the histogram of durations, in microseconds; above the last is +Inf. */
#define CAP_TALLY_BOUNDS                                                                    \
    1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000,        \
        5000000, 10000000
#define CAP_TALLY_BUCKETS 14

typedef struct cap_tally {
    /* The loop's thread. */
    _Atomic uint64_t requests;               /* begun */
    _Atomic uint64_t status[CAP_TALLY_CLASSES]; /* responses */
    _Atomic uint64_t nanos;                  /* from the request's head to its response's end */
    _Atomic uint64_t bucket[CAP_TALLY_BUCKETS];
    _Atomic uint64_t octets_in;              /* inside of TLS */
    _Atomic uint64_t octets_out;
    _Atomic uint64_t connections;            /* accepted */
    _Atomic uint64_t errors;                 /* exceptions of the application */
    _Atomic uint64_t aborted;                /* clients that left before their response */
    _Atomic uint64_t websockets;             /* accepted */
    /* The guard's thread. */
    _Atomic uint64_t rescued;                /* connections that went to a sibling */
    _Atomic uint64_t blocks;                 /* of the loop, that are over or go on, */
    _Atomic uint64_t blocked_ms;             /* ... how long those took that are over, */
    _Atomic uint64_t longest_ms;             /* ... and the longest of them */
} cap_tally;

/* All fields are of this type, and but for the last one they are sums. */
#define CAP_TALLY_FIELDS (offsetof(cap_tally, longest_ms) / sizeof(uint64_t))

static inline void
cap_tally_add(_Atomic uint64_t *count, uint64_t n)
{
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static inline void
cap_tally_status(cap_tally *t, int status)
{
    unsigned kind = (unsigned)status / 100 - 1;
    if (kind < CAP_TALLY_CLASSES)
        cap_tally_add(&t->status[kind], 1);
}

static inline void
cap_tally_duration(cap_tally *t, uint64_t nanos)
{
    static const uint32_t bounds[] = {CAP_TALLY_BOUNDS};
    unsigned i = 0;
    while (i < CAP_TALLY_BUCKETS - 1 && nanos > (uint64_t)bounds[i] * 1000)
        i++;
    cap_tally_add(&t->bucket[i], 1);
    cap_tally_add(&t->nanos, nanos);
}

/* Add what another one counted; the caller sees to it that nobody else writes `to`. */
static inline void
cap_tally_merge(cap_tally *to, const cap_tally *from)
{
    _Atomic uint64_t *a = (_Atomic uint64_t *)to;
    const _Atomic uint64_t *b = (const _Atomic uint64_t *)from;
    for (size_t i = 0; i < CAP_TALLY_FIELDS; i++)
        cap_tally_add(&a[i], atomic_load_explicit(&b[i], memory_order_relaxed));
    uint64_t longest = atomic_load_explicit(&from->longest_ms, memory_order_relaxed);
    if (longest > atomic_load_explicit(&to->longest_ms, memory_order_relaxed))
        atomic_store_explicit(&to->longest_ms, longest, memory_order_relaxed);
}

static inline void
cap_tally_clear(cap_tally *t)
{
    _Atomic uint64_t *a = (_Atomic uint64_t *)t;
    for (size_t i = 0; i <= CAP_TALLY_FIELDS; i++)
        atomic_store_explicit(&a[i], 0, memory_order_relaxed);
}

#endif
