/* Who may touch a connection: its loop, or a thread beside it (pool/rescue.h) that finds the
   loop blocked. One atomic word for each descriptor, in memory that never moves.

   A connection that rests has nothing half read and nothing unsent. The loop says so, and has
   to take it back before it reads from it, writes to it, times it out or closes it. The other
   side claims it for as long as a few system calls that do not wait, and either gives it back
   or has moved it to another process: then the loop only closes its descriptor. So nobody's
   descriptor is closed, or given to another file, while somebody works on it. */
#ifndef CAP_POOL_CLAIMS_H
#define CAP_POOL_CLAIMS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CAP_CLAIMS_CHUNK 512u
#define CAP_CLAIMS_CHUNKS 2048u /* descriptors from a million on cannot be claimed */

typedef enum cap_claim_word {
    CAP_CLAIM_LOOP, /* the loop's: hands off */
    CAP_CLAIM_IDLE,
    CAP_CLAIM_CLAIMED,
    CAP_CLAIM_MOVED,
} cap_claim_word;

struct cap_origin;

typedef struct cap_claim {
    _Atomic uint32_t word;
    /* Written by the loop before the connection rests, read by who has claimed it. */
    uint32_t flags;                  /* CAP_HANDOVER_... */
    const struct cap_origin *origin; /* the connection's; or NULL */
} cap_claim;

typedef struct cap_claims {
    _Atomic uint32_t used; /* one more than the highest descriptor that ever had a word */
    cap_claim *_Atomic chunk[CAP_CLAIMS_CHUNKS];
} cap_claims;

/* The word of a descriptor, as long as `t` lives. NULL when there is no memory, or the number
   is too high. Loop's thread. */
cap_claim *cap_claims_get(cap_claims *t, int fd);
/* The same, if it has one. Any thread. */
static inline cap_claim *
cap_claims_find(const cap_claims *t, uint32_t fd)
{
    cap_claim *chunk =
        atomic_load_explicit(&t->chunk[fd / CAP_CLAIMS_CHUNK], memory_order_acquire);
    return chunk != NULL ? chunk + fd % CAP_CLAIMS_CHUNK : NULL;
}
/* Gives the memory of the words back, not that of `t`. */
void cap_claims_free(cap_claims *t);

/* --- the loop -------------------------------------------------------------------- */

static inline void
cap_claim_rest(cap_claim *c)
{
    atomic_store_explicit(&c->word, CAP_CLAIM_IDLE, memory_order_release);
}
bool cap_claim_wait(cap_claim *c);
/* Take back what rests. False: it was moved. Waits while it is claimed: microseconds. */
static inline bool
cap_claim_take(cap_claim *c)
{
    uint32_t idle = CAP_CLAIM_IDLE;
    return atomic_compare_exchange_strong_explicit(&c->word, &idle, CAP_CLAIM_LOOP,
                                                   memory_order_acquire, memory_order_relaxed) ||
           cap_claim_wait(c);
}
/* The descriptor is going to be closed. */
static inline void
cap_claim_drop(cap_claim *c)
{
    atomic_store_explicit(&c->word, CAP_CLAIM_LOOP, memory_order_relaxed);
}
static inline bool
cap_claim_moved(const cap_claim *c)
{
    return atomic_load_explicit(&c->word, memory_order_acquire) == CAP_CLAIM_MOVED;
}

/* --- the other thread --------------------------------------------------------------- */

static inline bool
cap_claim_rests(const cap_claim *c)
{
    return atomic_load_explicit(&c->word, memory_order_relaxed) == CAP_CLAIM_IDLE;
}
static inline bool
cap_claim_begin(cap_claim *c)
{
    uint32_t idle = CAP_CLAIM_IDLE;
    return atomic_compare_exchange_strong_explicit(&c->word, &idle, CAP_CLAIM_CLAIMED,
                                                   memory_order_acquire, memory_order_relaxed);
}
static inline void
cap_claim_end(cap_claim *c, bool moved)
{
    atomic_store_explicit(&c->word, moved ? CAP_CLAIM_MOVED : CAP_CLAIM_IDLE,
                          memory_order_release);
}

#endif
