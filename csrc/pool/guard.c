#include "pool/guard.h"

#include "pool/scoreboard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define STACK (256 * 1024)
#define FOREVER UINT64_MAX

/* pthread_create with all signals blocked: those of CPython's handlers have to wake the
   main thread's poll. */
static int
start_thread(pthread_t *thread, size_t stack, void *(*run)(void *), void *arg)
{
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);
    if (rc != 0)
        return rc;
    if (stack != 0)
        (void)pthread_attr_setstacksize(&attr, stack);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(thread, &attr, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return rc;
}

/* ---- the reporter ---- */

/* To the supervisor's question, which is not answered twice. */
static void
answer(cap_guard *g, cap_answer what)
{
    pthread_mutex_lock(&g->lock);
    cap_worker *w = g->set.worker;
    uint32_t asked = atomic_load(&w->asked);
    if (atomic_load(&w->answered) != asked) {
        atomic_store(&w->answer, what);
        atomic_store(&w->answered, asked);
    }
    pthread_mutex_unlock(&g->lock);
}

static void *
report(void *arg)
{
    cap_guard *g = arg;
    pthread_mutex_lock(&g->lock);
    cap_block block = g->block;
    pthread_mutex_unlock(&g->lock);
    block.ended = 0;
    g->set.report(g->set.context, g, &block);

    pthread_mutex_lock(&g->lock);
    while (g->block.ended == 0 && !g->stopping) {
        if (g->asked) { /* the worker is about to be killed: once more, where it is now */
            g->asked = false;
            block.last = true;
            pthread_mutex_unlock(&g->lock);
            g->set.report(g->set.context, g, &block);
            block.last = false;
            if (cap_guard_goes_on(g, &block))
                answer(g, CAP_ANSWER_PLACE);
            pthread_mutex_lock(&g->lock);
            continue;
        }
        pthread_cond_wait(&g->changed, &g->lock);
    }
    block.ended = g->block.ended;
    pthread_mutex_unlock(&g->lock);
    if (block.ended != 0)
        g->set.report(g->set.context, g, &block);

    pthread_mutex_lock(&g->lock);
    g->reported = true;
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

void
cap_guard_seen(cap_guard *g)
{
    pthread_mutex_lock(&g->lock);
    g->seen = true;
    pthread_mutex_unlock(&g->lock);
}

/* ---- the guard ---- */

/* What the thread itself remembers. */
typedef struct watch {
    uint64_t due;       /* when to look again */
    uint64_t blocked;   /* the `since` of the block that is reported; 0: there is none */
    uint64_t announce;  /* when to say it without Python; FOREVER: done */
    uint32_t asked;     /* the supervisor's last question that was passed on */
    uint64_t patience;  /* for its answer, until then */
    bool doubted;       /* we were late ourselves, and look twice */

    uint64_t late_due;  /* when to look again whether the loop is late; FOREVER: never */
    uint64_t late;      /* the `since` of the turn that is; 0: none is */
    uint64_t same_since, same_seq; /* of the beat when it was last seen to change, */
    uint64_t same_at;   /* ... which was then */
    uint64_t busy_at;   /* when the loop was last seen awake */
    bool dozing;        /* the beat says so; next we sleep */
} watch;

/* The logger's default shape, in one write(2) that cannot wait: a pipe that is ready
   takes so few octets whole. */
static void
announce(cap_guard *g, const cap_block *block, uint64_t now)
{
    struct pollfd p = {.fd = g->set.fd, .events = POLLOUT};
    if (p.fd < 0 || poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT))
        return;
    char request[sizeof block->request], out[512];
    size_t i = 0;
    for (; block->request[i] != 0; i++)
        request[i] = block->request[i] > 31 && block->request[i] < 127 ? block->request[i] : '?';
    request[i] = 0;
    uint64_t ms = now - block->since;
    const char *where = block->wanted_gil ? " in another thread" : "";
    int len = snprintf(out, sizeof out,
                       "WARNING:  Event loop blocked for %u.%u s%s%s: a C call%s holds the GIL; "
                       "the stack follows when it lets go.\n",
                       (unsigned)(ms / 1000), (unsigned)(ms % 1000 / 100),
                       request[0] != 0 ? " in " : "", request, where);
    if (len > 0 && (size_t)len < sizeof out)
        (void)!write(g->set.fd, out, (size_t)len);
}

/* Join a reporter that is done. Is there none any more? */
static bool
reporter_is_free(cap_guard *g)
{
    pthread_mutex_lock(&g->lock);
    bool busy = g->reporting && !g->reported, join = g->reporting && g->reported;
    pthread_mutex_unlock(&g->lock);
    if (join) {
        pthread_join(g->reporter, NULL);
        g->reporting = false;
    }
    return !busy;
}

static void
begin_block(cap_guard *g, watch *w, uint64_t since, uint64_t now)
{
    cap_block block = {.since = since};
    block.wanted_gil = atomic_load_explicit(&g->beat->wants_gil, memory_order_relaxed) != 0;
    cap_beat_read(g->beat, block.request);
    if (atomic_load(&g->beat->since) != since)
        return; /* it ended just now, and what was read may be of the next turn */
    pthread_mutex_lock(&g->lock);
    g->block = block;
    g->seen = g->reported = g->asked = false;
    pthread_mutex_unlock(&g->lock);
    g->reporting = start_thread(&g->reporter, 0, report, g) == 0;
    w->blocked = since;
    /* Without a thread nobody else will say it. */
    w->announce = g->reporting ? now + CAP_GUARD_PATIENCE : now;
    atomic_fetch_add(&g->blocks, 1);
    if (g->set.worker != NULL)
        cap_tally_add(&g->set.worker->tally.blocks, 1);
}

static void
end_block(cap_guard *g, watch *w, uint64_t ended)
{
    uint64_t ms = ended - w->blocked;
    if (ms > atomic_load(&g->longest))
        atomic_store(&g->longest, ms);
    if (g->set.worker != NULL) {
        cap_tally *t = &g->set.worker->tally;
        cap_tally_add(&t->blocked_ms, ms);
        if (ms > atomic_load(&t->longest_ms))
            atomic_store(&t->longest_ms, ms);
    }
    w->blocked = 0;
    pthread_mutex_lock(&g->lock);
    g->block.ended = ended;
    pthread_cond_signal(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

/* Does the supervisor ask? While the loop is blocked; `on`: it still is. */
static void
listen_to_supervisor(cap_guard *g, watch *w, uint64_t now, bool on)
{
    cap_worker *worker = g->set.worker;
    if (worker == NULL)
        return;
    uint32_t asked = atomic_load(&worker->asked);
    if (asked == atomic_load(&worker->answered))
        return;
    if (!on) {
        answer(g, CAP_ANSWER_OVER);
    } else if (w->asked != asked) {
        w->asked = asked;
        w->patience = now + CAP_GUARD_PATIENCE;
        pthread_mutex_lock(&g->lock);
        g->asked = true;
        pthread_cond_signal(&g->changed);
        pthread_mutex_unlock(&g->lock);
    } else if (now >= w->patience) {
        answer(g, g->reporting ? CAP_ANSWER_GIL : CAP_ANSWER_NONE);
    }
}

static void
look(cap_guard *g, watch *w, uint64_t now)
{
    uint64_t since = atomic_load_explicit(&g->beat->since, memory_order_relaxed);
    if (w->blocked != 0 && since == w->blocked) {
        if (now >= w->announce) {
            pthread_mutex_lock(&g->lock);
            bool seen = g->seen;
            cap_block block = g->block;
            pthread_mutex_unlock(&g->lock);
            if (!seen)
                announce(g, &block, now);
            w->announce = FOREVER;
        }
        listen_to_supervisor(g, w, now, true);
        w->due = now + CAP_GUARD_CLOSE_LOOK;
        return;
    }
    listen_to_supervisor(g, w, now, false);
    if (w->blocked != 0)
        end_block(g, w, since > w->blocked && since < now ? since : now);
    uint64_t warn = g->set.warn;
    if (!atomic_load_explicit(&g->watching, memory_order_relaxed))
        since = 0;
    if (since == 0 || since > now)
        since = now;
    if (now - since < warn) {
        w->doubted = false;
        w->due = since + warn;
        return;
    }
    /* Was this process stopped, or had no processor? Then so was the loop: it has a moment,
       a longer one when we are late ourselves. */
    if (!w->doubted) {
        w->doubted = true;
        w->due = now + (now > w->due + warn / 2 ? warn / 4 : warn / 20) + 1;
        return;
    }
    w->doubted = false;
    w->due = now + CAP_GUARD_CLOSE_LOOK;
    if (reporter_is_free(g))
        begin_block(g, w, since, now);
}

/* ---- lateness ---- */

static void
tell_late(cap_guard *g, watch *w, uint64_t since)
{
    if (g->set.board != NULL && (w->late != 0) != (since != 0))
        atomic_store(&g->set.board->slot[g->set.slot].late, since != 0);
    w->late = since;
}

/* A turn that goes from request to request is not late before long; one that stays in a step
   is soon. `seq` of the beat changes with each step. */
static bool
is_late(watch *w, uint64_t since, uint64_t seq, uint64_t now)
{
    if (since != w->same_since || seq != w->same_seq) {
        w->same_since = since;
        w->same_seq = seq;
        w->same_at = now;
    }
    if (since == 0 || since > now)
        return false;
    return now - since >= CAP_GUARD_LONG_TURN || since == w->late ||
           (now - since >= CAP_GUARD_LATE && now - w->same_at >= CAP_GUARD_LOOK - 1);
}

/* Is there anybody for whom something could be done? */
static bool
wants_lateness(const cap_guard *g)
{
    return g->set.gathers || (g->set.board != NULL && cap_board_has_siblings(g->set.board, g->set.slot)) ||
           (g->set.rescue != NULL && g->set.rescue->health.path[0] != 0);
}

static void
look_late(cap_guard *g, watch *w, uint64_t now)
{
    uint64_t since = atomic_load_explicit(&g->beat->since, memory_order_relaxed);
    uint64_t seq = atomic_load_explicit(&g->beat->seq, memory_order_relaxed);
    bool watching = atomic_load_explicit(&g->watching, memory_order_relaxed);
    if (since != 0)
        w->busy_at = now;
    bool late = is_late(w, watching ? since : 0, seq, now);
    tell_late(g, w, late ? since : 0);
    if (late) {
        if (g->set.gathers)
            cap_outbox_send(&g->outbox); /* first: then these connections may be rescued */
        uint64_t wait = g->set.rescue != NULL ? cap_rescue_pass(g->set.rescue, now) : 0;
        w->late_due = cap_board_now() +
                      (wait > CAP_GUARD_CLOSE_LOOK ? wait : CAP_GUARD_CLOSE_LOOK);
        return;
    }
    if (w->dozing) { /* said a look ago; since then the loop has not run */
        w->late_due = FOREVER;
        w->due = FOREVER;
        return;
    }
    if (since == 0 && now - w->busy_at >= CAP_GUARD_DOZE && w->blocked == 0) {
        w->dozing = true;
        atomic_store(&g->beat->dozing, 1);
        w->late_due = now + CAP_GUARD_LOOK;
        return;
    }
    if (!watching || !wants_lateness(g)) {
        w->late_due = now + CAP_GUARD_SELDOM;
        return;
    }
    w->late_due = now + CAP_GUARD_LOOK;
    if (since != 0 && since + CAP_GUARD_LATE > now && since + CAP_GUARD_LATE < w->late_due)
        w->late_due = since + CAP_GUARD_LATE;
}

/* The loop woke us, or nobody did: is our doze over? */
static void
end_doze(cap_guard *g, watch *w, uint64_t now)
{
    if (!w->dozing || (atomic_load(&g->beat->dozing) != 0 && atomic_load(&g->beat->since) == 0))
        return;
    atomic_store(&g->beat->dozing, 0);
    w->dozing = false;
    w->busy_at = now;
    w->late_due = now;
    w->due = g->set.warn != 0 ? now + g->set.warn : FOREVER;
}

/* Read what woke us. */
static void
drain(int fd)
{
    char octets[64];
    (void)!read(fd, octets, sizeof octets);
}

static void *
guard(void *arg)
{
    cap_guard *g = arg;
    cap_responder responder; /* 70 KiB of our stack */
    struct pollfd p[CAP_HEALTH_CONNECTIONS + 2];
    uint64_t now = cap_board_now();
    watch w = {.due = g->set.warn != 0 ? now + g->set.warn : FOREVER,
               .late_due = g->set.board != NULL || g->set.rescue != NULL || g->set.gathers ? now : FOREVER,
               .busy_at = now};
    cap_responder_init(&responder, &g->set.health);
    for (;;) {
        uint64_t due = w.due < w.late_due ? w.due : w.late_due;
        p[0] = (struct pollfd){.fd = g->wake[0], .events = POLLIN};
        size_t n = cap_responder_poll(&responder, p + 1, &due);
        now = cap_board_now();
        int wait = due == FOREVER ? -1 : due <= now ? 0 : due - now > 60000 ? 60000 : (int)(due - now);
        if (poll(p, n + 1, wait) < 0)
            for (size_t i = 0; i <= n; i++)
                p[i].revents = 0;
        if (p[0].revents != 0)
            drain(g->wake[0]);
        if (atomic_load(&g->ending))
            break;
        now = cap_board_now();
        cap_responder_serve(&responder, p + 1, n, now);
        end_doze(g, &w, now);
        if (now >= w.late_due)
            look_late(g, &w, now);
        if (now >= w.due)
            look(g, &w, now);
    }
    atomic_store(&g->beat->dozing, 0);
    tell_late(g, &w, 0);
    cap_responder_close(&responder);
    pthread_mutex_lock(&g->lock);
    g->stopping = true;
    pthread_cond_signal(&g->changed);
    pthread_mutex_unlock(&g->lock);
    if (g->reporting)
        pthread_join(g->reporter, NULL);
    g->reporting = false;
    return NULL;
}

/* ---- start and stop ---- */

static int
open_pipe(int fd[2])
{
    if (pipe(fd) < 0)
        return errno;
    for (int i = 0; i < 2; i++) {
        (void)fcntl(fd[i], F_SETFD, FD_CLOEXEC);
        (void)fcntl(fd[i], F_SETFL, O_NONBLOCK);
    }
    return 0;
}

int
cap_guard_start(cap_guard *g, const cap_guard_config *config)
{
    g->set = *config;
    g->stopping = g->reporting = false;
    atomic_store(&g->ending, false);
    g->beat = config->worker != NULL ? &config->worker->beat : &g->own_beat;
    int rc = pthread_mutex_init(&g->lock, NULL);
    if (rc != 0)
        return rc;
    if ((rc = pthread_cond_init(&g->changed, NULL)) != 0)
        goto no_cond;
    if ((rc = open_pipe(g->wake)) != 0)
        goto no_pipe;
    g->beat->rouse = g->wake[1];
    if ((rc = start_thread(&g->thread, STACK, guard, g)) != 0)
        goto no_thread;
    g->pid = getpid();
    return 0;
no_thread:
    close(g->wake[0]);
    close(g->wake[1]);
no_pipe:
    pthread_cond_destroy(&g->changed);
no_cond:
    pthread_mutex_destroy(&g->lock);
    return rc;
}

void
cap_guard_stop(cap_guard *g)
{
    if (g->pid == 0)
        return;
    bool ours = g->pid == getpid();
    g->pid = 0;
    if (ours) {
        /* Not by closing our end: a process that the application forked may hold it open. */
        atomic_store(&g->ending, true);
        (void)!write(g->wake[1], "", 1);
        pthread_join(g->thread, NULL);
        pthread_cond_destroy(&g->changed);
        pthread_mutex_destroy(&g->lock);
    }
    close(g->wake[0]);
    close(g->wake[1]);
}
