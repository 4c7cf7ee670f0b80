#include "pool/outbox.h"

#include <assert.h>
#include <sched.h>
#include <sys/socket.h>

unsigned
cap_outbox_put(cap_outbox *o, int fd, const char *data, size_t len, cap_claim *claim, void *owner)
{
    assert(o->len < CAP_OUTBOX_SIZE);
    unsigned place = o->len++;
    cap_outbox_item *it = &o->item[place];
    it->fd = fd;
    it->data = data;
    it->len = len;
    it->claim = claim;
    it->owner = owner;
    atomic_store_explicit(&it->word, CAP_OUTBOX_WAITS, memory_order_release);
    return place;
}

size_t
cap_outbox_take(cap_outbox *o, unsigned place, bool *rests)
{
    cap_outbox_item *it = &o->item[place];
    uint32_t word = CAP_OUTBOX_WAITS;
    it->owner = NULL;
    *rests = false;
    if (atomic_compare_exchange_strong_explicit(&it->word, &word, CAP_OUTBOX_NONE,
                                                memory_order_acquire, memory_order_acquire))
        return 0;
    while (word != CAP_OUTBOX_SENT) {
        sched_yield();
        word = atomic_load_explicit(&it->word, memory_order_acquire);
    }
    size_t sent = it->sent;
    *rests = it->rests;
    atomic_store_explicit(&it->word, CAP_OUTBOX_NONE, memory_order_relaxed);
    return sent;
}

void
cap_outbox_flush(cap_outbox *o, uint64_t now)
{
    if (o->leaving)
        return;
    if (now - o->since > CAP_OUTBOX_SLOW)
        o->impatience = CAP_OUTBOX_IMPATIENCE;
    o->leaving = true;
    for (unsigned i = 0; i < o->len; i++) { /* what comes meanwhile leaves, too */
        void *owner = o->item[i].owner;
        if (owner != NULL)
            o->leave(owner);
    }
    o->len = 0;
    o->leaving = false;
}

void
cap_outbox_send(cap_outbox *o)
{
    for (unsigned i = 0; i < CAP_OUTBOX_SIZE; i++) {
        cap_outbox_item *it = &o->item[i];
        uint32_t waits = CAP_OUTBOX_WAITS;
        if (!atomic_compare_exchange_strong_explicit(&it->word, &waits, CAP_OUTBOX_SENDING,
                                                     memory_order_acquire, memory_order_relaxed))
            continue;
        ssize_t n = send(it->fd, it->data, it->len, MSG_DONTWAIT | MSG_NOSIGNAL);
        it->sent = n > 0 ? (size_t)n : 0; /* of an error the loop hears when it tries */
        it->rests = it->claim != NULL && it->sent == it->len;
        if (it->rests)
            cap_claim_rest(it->claim);
        atomic_store_explicit(&it->word, CAP_OUTBOX_SENT, memory_order_release);
    }
}
