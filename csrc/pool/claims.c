#include "pool/claims.h"

#include <sched.h>

#include "base/mem.h"

cap_claim *
cap_claims_get(cap_claims *t, int fd)
{
    if (fd < 0 || (uint32_t)fd >= CAP_CLAIMS_CHUNK * CAP_CLAIMS_CHUNKS)
        return NULL;
    cap_claim *_Atomic *at = &t->chunk[(uint32_t)fd / CAP_CLAIMS_CHUNK];
    if (atomic_load_explicit(at, memory_order_relaxed) == NULL) {
        cap_claim *chunk = cap_calloc(CAP_CLAIMS_CHUNK, sizeof *chunk);
        if (chunk == NULL)
            return NULL;
        atomic_store_explicit(at, chunk, memory_order_release);
    }
    if ((uint32_t)fd >= atomic_load_explicit(&t->used, memory_order_relaxed))
        atomic_store_explicit(&t->used, (uint32_t)fd + 1, memory_order_release);
    return cap_claims_find(t, (uint32_t)fd);
}

void
cap_claims_free(cap_claims *t)
{
    for (uint32_t i = 0; i < CAP_CLAIMS_CHUNKS; i++) {
        cap_free(atomic_load_explicit(&t->chunk[i], memory_order_relaxed));
        atomic_store_explicit(&t->chunk[i], NULL, memory_order_relaxed);
    }
}

bool
cap_claim_wait(cap_claim *c)
{
    for (;;) {
        uint32_t word = atomic_load_explicit(&c->word, memory_order_acquire);
        if (word == CAP_CLAIM_LOOP)
            return true;
        if (word == CAP_CLAIM_MOVED)
            return false;
        if (word == CAP_CLAIM_IDLE &&
            atomic_compare_exchange_strong(&c->word, &word, CAP_CLAIM_LOOP))
            return true;
        sched_yield();
    }
}
