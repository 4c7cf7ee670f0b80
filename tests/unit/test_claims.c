#include "pool/claims.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "check.h"

enum { FDS = 64, ROUNDS = 4000 };

static cap_claims t;
static int owned[FDS]; /* plain memory: a race would be seen by a sanitizer, or in the sums */
static _Atomic bool over;
static long claimed, moved;

/* What the guard does: claims what rests, gives most of it back and moves some. */
static void *
other_side(void *arg)
{
    (void)arg;
    for (unsigned n = 0; !atomic_load(&over); n++) {
        cap_claim *c = cap_claims_find(&t, n % FDS);
        if (c == NULL || !cap_claim_rests(c) || !cap_claim_begin(c))
            continue;
        REQUIRE(owned[n % FDS]++ == 0);
        claimed++;
        bool move = claimed % 97 == 0;
        moved += move;
        REQUIRE(--owned[n % FDS] == 0);
        cap_claim_end(c, move);
        sched_yield();
    }
    return NULL;
}

static void
test_one_of_the_two_has_it_at_any_moment(void)
{
    cap_claim *claims[FDS];
    for (int i = 0; i < FDS; i++) {
        REQUIRE((claims[i] = cap_claims_get(&t, i)) != NULL);
        REQUIRE(cap_claims_find(&t, (uint32_t)i) == claims[i]);
    }
    pthread_t thread;
    long lost = 0;
    REQUIRE(pthread_create(&thread, NULL, other_side, NULL) == 0);
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < FDS; i++) {
            cap_claim_rest(claims[i]);
            if (round % 8 == 0)
                sched_yield();
            if (cap_claim_take(claims[i])) {
                REQUIRE(owned[i]++ == 0);
                REQUIRE(--owned[i] == 0);
            } else {
                REQUIRE(cap_claim_moved(claims[i]));
                lost++;
                cap_claim_drop(claims[i]); /* closed, and the number used again */
            }
        }
    atomic_store(&over, true);
    pthread_join(thread, NULL);
    REQUIRE(lost == moved);
    cap_claims_free(&t);
    REQUIRE(cap_claims_find(&t, 0) == NULL);
}

static void
test_numbers_that_are_too_high_have_no_word(void)
{
    REQUIRE(cap_claims_get(&t, -1) == NULL);
    REQUIRE(cap_claims_get(&t, (int)(CAP_CLAIMS_CHUNK * CAP_CLAIMS_CHUNKS)) == NULL);
    cap_claim *last = cap_claims_get(&t, (int)(CAP_CLAIMS_CHUNK * CAP_CLAIMS_CHUNKS) - 1);
    REQUIRE(last != NULL && cap_claims_get(&t, 3) != last);
    cap_claims_free(&t);
}

int
main(void)
{
    test_one_of_the_two_has_it_at_any_moment();
    test_numbers_that_are_too_high_have_no_word();
    return 0;
}
