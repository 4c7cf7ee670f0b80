/* Responses that a loop has gathered, to let them leave together: the client, asleep on another
   processor, is woken once and not for each of them (measured with 64 clients that ask again at
   once: a fifth of the processor time of a request of Starlette, a quarter of one of FastAPI).

   The loop puts them in, and writes them when the callbacks of its poll have run, at the turn's
   end, or when it is full. If something blocks the loop before that, its guard (pool/guard.h)
   sends them: nobody waits for longer than the guard takes to notice. One atomic word for each
   says whose it is, as in pool/claims.h.

   Lives in the guard; the loop's reactor knows it as long as that guard watches. */
#ifndef CAP_POOL_OUTBOX_H
#define CAP_POOL_OUTBOX_H

#include "pool/claims.h"

#define CAP_OUTBOX_SIZE 32
/* ns after which the loop begins nothing else before they have left. */
#define CAP_OUTBOX_HOLD 500000
/* ns: when they were held for so long, something slow ran meanwhile. It is likely to run again,
   so the next CAP_OUTBOX_IMPATIENCE responses are not gathered. */
#define CAP_OUTBOX_SLOW 2000000
#define CAP_OUTBOX_IMPATIENCE 256

typedef enum cap_outbox_word {
    CAP_OUTBOX_NONE,    /* nothing there, or it is the loop's */
    CAP_OUTBOX_WAITS,
    CAP_OUTBOX_SENDING, /* the guard is at it */
    CAP_OUTBOX_SENT,    /* it was; the loop has not looked since */
} cap_outbox_word;

typedef struct cap_outbox_item {
    _Atomic uint32_t word;
    int fd;
    /* Written by the loop before it waits; neither moves nor changes until it is taken. */
    const char *data;
    size_t len;
    cap_claim *claim; /* when all was sent the connection rests; or NULL: it does not */
    void *owner;      /* the loop's; NULL: it was taken */
    /* Written by the guard before it is sent. */
    size_t sent;
    bool rests;
} cap_outbox_item;

typedef struct cap_outbox {
    /* The loop's thread. */
    unsigned len;                /* items, with those that were taken among them */
    unsigned impatience;
    bool leaving;                /* in cap_outbox_flush */
    uint64_t since;              /* ns of a monotonic clock: when the first was put in */
    void (*leave)(void *owner);  /* take it and write it; may run Python and put others in */
    cap_outbox_item item[CAP_OUTBOX_SIZE];
} cap_outbox;

/* --- the loop -------------------------------------------------------------------- */

/* Is this response to be gathered? Asked once for each. */
static inline bool
cap_outbox_wants(cap_outbox *o)
{
    if (o->impatience == 0)
        return true;
    o->impatience--;
    return false;
}
static inline bool
cap_outbox_is_full(const cap_outbox *o)
{
    return o->len == CAP_OUTBOX_SIZE;
}
/* Its place. There has to be room. */
unsigned cap_outbox_put(cap_outbox *o, int fd, const char *data, size_t len, cap_claim *claim,
                        void *owner);
/* Take it back: the octets of it that the guard has sent. *rests: the claim says so since. Waits
   while the guard is sending: microseconds. */
size_t cap_outbox_take(cap_outbox *o, unsigned place, bool *rests);
/* `leave` for each, first come first; it is `now` (ns) when it begins. No-op inside of itself. */
void cap_outbox_flush(cap_outbox *o, uint64_t now);

/* --- the guard --------------------------------------------------------------------- */

/* Send what waits, as far as the sockets take it at once. */
void cap_outbox_send(cap_outbox *o);

#endif
