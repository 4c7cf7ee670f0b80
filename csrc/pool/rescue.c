#include "pool/rescue.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "base/mem.h"

/* Descriptors in one call of poll(2). */
#define PIECE 256
/* A pass takes at most a part of the guard's time, or rather of a processor's. */
#define REST 10
#define SOONEST 5
#define LATEST 50

cap_rescue *
cap_rescue_new(void)
{
    cap_rescue *r = cap_calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    if (pthread_mutex_init(&r->lock, NULL) != 0) {
        cap_free(r);
        return NULL;
    }
    r->channel = -1;
    atomic_store(&r->users, 1);
    return r;
}

void
cap_rescue_ref(cap_rescue *r)
{
    atomic_fetch_add(&r->users, 1);
}

void
cap_rescue_unref(cap_rescue *r)
{
    if (atomic_fetch_sub(&r->users, 1) != 1)
        return;
    pthread_mutex_destroy(&r->lock);
    cap_claims_free(&r->claims);
    cap_free(r);
}

void
cap_rescue_on_wake(cap_rescue *r, void (*wake)(void *), void *waking)
{
    pthread_mutex_lock(&r->lock);
    r->wake = wake;
    r->waking = waking;
    pthread_mutex_unlock(&r->lock);
}

static void
wake_loop(cap_rescue *r)
{
    pthread_mutex_lock(&r->lock);
    if (r->wake != NULL)
        r->wake(r->waking);
    pthread_mutex_unlock(&r->lock);
}

/* ---- one pass ---- */

typedef struct pass {
    uint64_t now;
    bool moved; /* at least one; the loop has to know */
    bool full;  /* no more can be sent now */
} pass;

static bool
may_send(const cap_rescue *r, const pass *p)
{
    return !p->full && r->channel >= 0 && r->board != NULL &&
           cap_board_sibling_free(r->board, r->slot, p->now);
}

/* Something waits on a connection that is ours now. Was it moved? */
static bool
move(cap_rescue *r, pass *p, int fd, const cap_claim *c)
{
    char octet;
    /* An end, or an error, is the loop's. */
    if (!may_send(r, p) || recv(fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
        return false;
    if (cap_handover_send(r->channel, fd, c->flags, c->origin) != 0) {
        p->full = true;
        return false;
    }
    cap_slot *slot = &r->board->slot[r->slot];
    atomic_fetch_sub_explicit(&slot->connections, 1, memory_order_relaxed);
    cap_tally_add(&cap_board_worker(r->board, r->slot)->tally.rescued, 1);
    return true;
}

static void
look_at(cap_rescue *r, pass *p, const struct pollfd *poll, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (poll[i].revents == 0)
            continue;
        cap_claim *c = cap_claims_find(&r->claims, (uint32_t)poll[i].fd);
        if (!cap_claim_begin(c))
            continue; /* the loop has it */
        bool moved = move(r, p, poll[i].fd, c);
        p->moved |= moved;
        cap_claim_end(c, moved);
    }
}

static bool
is_worth_while(const cap_rescue *r, const pass *p)
{
    return may_send(r, p);
}

/* All that rest, in pieces. */
static void
look_at_resting(cap_rescue *r, pass *p)
{
    struct pollfd fds[PIECE];
    size_t n = 0;
    uint32_t used = atomic_load_explicit(&r->claims.used, memory_order_acquire);
    for (uint32_t fd = 0; fd < used && is_worth_while(r, p); fd++) {
        cap_claim *c = cap_claims_find(&r->claims, fd);
        if (c == NULL) {
            fd |= CAP_CLAIMS_CHUNK - 1; /* to the next chunk */
            continue;
        }
        if (!cap_claim_rests(c))
            continue;
        fds[n++] = (struct pollfd){.fd = (int)fd, .events = POLLIN};
        if (n == PIECE) {
            if (poll(fds, n, 0) > 0)
                look_at(r, p, fds, n);
            n = 0;
        }
    }
    if (n != 0 && poll(fds, n, 0) > 0)
        look_at(r, p, fds, n);
}

uint64_t
cap_rescue_pass(cap_rescue *r, uint64_t now)
{
    pass p = {.now = now};
    look_at_resting(r, &p);
    if (p.moved)
        wake_loop(r);
    uint64_t took = cap_board_now() - now;
    return took * REST < SOONEST ? SOONEST : took * REST > LATEST ? LATEST : took * REST;
}
