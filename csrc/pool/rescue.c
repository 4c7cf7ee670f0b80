#include "pool/rescue.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
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

void
cap_rescue_listen(cap_rescue *r, int fd)
{
    pthread_mutex_lock(&r->lock);
    if (r->listeners < CAP_RESCUE_LISTENERS)
        r->listening[r->listeners++] = fd;
    pthread_mutex_unlock(&r->lock);
}

void
cap_rescue_unlisten(cap_rescue *r)
{
    pthread_mutex_lock(&r->lock);
    r->listeners = 0;
    pthread_mutex_unlock(&r->lock);
}

size_t
cap_rescue_take(cap_rescue *r, int fds[CAP_RESCUE_HELD])
{
    pthread_mutex_lock(&r->lock);
    size_t n = r->holds;
    memcpy(fds, r->held, n * sizeof *fds);
    r->holds = 0;
    pthread_mutex_unlock(&r->lock);
    return n;
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

static bool
answers(const cap_rescue *r)
{
    return r->health.path[0] != 0;
}

/* A health check that waits on a connection is taken and answered, at once or not at all. */
static bool
answer(const cap_rescue *r, int fd, short events)
{
    char data[CAP_HEALTH_HEAD], out[CAP_HEALTH_ANSWER];
    bool no_content, close;
    if (!answers(r) || !(events & POLLOUT))
        return false;
    ssize_t n = recv(fd, data, sizeof data, MSG_PEEK | MSG_DONTWAIT);
    if (n <= 0)
        return false;
    size_t len = cap_health_find(&r->health, data, (size_t)n, &no_content, &close);
    if (len == 0 || recv(fd, data, len, MSG_DONTWAIT) != (ssize_t)len)
        return false;
    size_t out_len = cap_health_answer(&r->health, no_content, close, out);
    /* A socket that takes something at all takes so little as a whole. */
    if (send(fd, out, out_len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)out_len)
        (void)shutdown(fd, SHUT_RDWR); /* the loop sees its end */
    else if (close)
        (void)shutdown(fd, SHUT_WR);
    return true;
}

/* Something waits on a connection that nobody else touches now: is it gone to a sibling? */
static bool
move(cap_rescue *r, pass *p, int fd, uint32_t flags, const cap_origin *origin)
{
    char octet;
    /* An end, or an error, is the loop's. */
    if (!may_send(r, p) || recv(fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
        return false;
    if (cap_handover_send(r->channel, fd, flags, origin) != 0) {
        p->full = true;
        return false;
    }
    cap_tally_add(&cap_board_worker(r->board, r->slot)->tally.rescued, 1);
    return true;
}

#define WAITS (POLLIN | POLLERR | POLLHUP)

static void
look_at(cap_rescue *r, pass *p, const struct pollfd *poll, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!(poll[i].revents & WAITS))
            continue;
        cap_claim *c = cap_claims_find(&r->claims, (uint32_t)poll[i].fd);
        if (!cap_claim_begin(c))
            continue; /* the loop has it */
        bool moved = !answer(r, poll[i].fd, poll[i].revents) &&
                     move(r, p, poll[i].fd, c->flags, c->origin);
        if (moved) {
            atomic_fetch_sub_explicit(&r->board->slot[r->slot].connections, 1,
                                      memory_order_relaxed);
            p->moved = true;
        }
        cap_claim_end(c, moved);
    }
}

/* All that rest, in pieces. */
static void
look_at_resting(cap_rescue *r, pass *p)
{
    struct pollfd fds[PIECE];
    size_t n = 0;
    uint32_t used = atomic_load_explicit(&r->claims.used, memory_order_acquire);
    for (uint32_t fd = 0; fd < used && (answers(r) || may_send(r, p)); fd++) {
        cap_claim *c = cap_claims_find(&r->claims, fd);
        if (c == NULL) {
            fd |= CAP_CLAIMS_CHUNK - 1; /* to the next chunk */
            continue;
        }
        if (!cap_claim_rests(c))
            continue;
        fds[n++] = (struct pollfd){.fd = (int)fd, .events = POLLIN | POLLOUT};
        if (n == PIECE) {
            if (poll(fds, n, 0) > 0)
                look_at(r, p, fds, n);
            n = 0;
        }
    }
    if (n != 0 && poll(fds, n, 0) > 0)
        look_at(r, p, fds, n);
}

/* ---- connections that the loop has not seen ---- */

/* Those that are kept: their health checks, and whether a sibling is free by now. */
static void
look_at_held(cap_rescue *r, pass *p)
{
    struct pollfd fds[CAP_RESCUE_HELD];
    size_t n = r->holds, left = 0;
    for (size_t i = 0; i < n; i++)
        fds[i] = (struct pollfd){.fd = r->held[i], .events = POLLIN | POLLOUT};
    if (n == 0 || poll(fds, n, 0) <= 0)
        return;
    for (size_t i = 0; i < n; i++) {
        char octet;
        int fd = fds[i].fd;
        if ((fds[i].revents & WAITS) && !answer(r, fd, fds[i].revents) &&
            (recv(fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT) == 0 ||
             move(r, p, fd, CAP_HANDOVER_FRESH, NULL))) {
            close(fd); /* its client has gone, or it is the sibling's */
            continue;
        }
        r->held[left++] = fd;
    }
    r->holds = left;
}

static int
accept_one(int listening)
{
    int fd = accept(listening, NULL, NULL);
    int flags = fd >= 0 ? fcntl(fd, F_GETFL) : -1;
    if (fd < 0 || (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 && flags >= 0 &&
                   fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0))
        return fd;
    close(fd);
    return -1;
}

static void
accept_more(cap_rescue *r)
{
    for (size_t i = 0; i < r->listeners; i++)
        while (r->holds < CAP_RESCUE_HELD) {
            int fd = accept_one(r->listening[i]);
            if (fd < 0)
                break;
            r->held[r->holds++] = fd;
        }
}

uint64_t
cap_rescue_pass(cap_rescue *r, uint64_t now)
{
    pass p = {.now = now};
    look_at_resting(r, &p);
    pthread_mutex_lock(&r->lock);
    if (answers(r) && r->wake != NULL &&
        (r->board == NULL || !cap_board_sibling_free(r->board, r->slot, now)))
        accept_more(r);
    look_at_held(r, &p);
    if (r->wake != NULL && (p.moved || r->holds != 0))
        r->wake(r->waking);
    pthread_mutex_unlock(&r->lock);
    uint64_t took = cap_board_now() - now;
    return took * REST < SOONEST ? SOONEST : took * REST > LATEST ? LATEST : took * REST;
}
