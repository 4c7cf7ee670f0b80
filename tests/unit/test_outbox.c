#include "pool/outbox.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

enum { ROUNDS = 3000, LONG = 64 };

static cap_outbox box;
static cap_claims claims;
static _Atomic bool over;

/* What the loop knows of one. */
static struct conn {
    int fd[2]; /* ours and the client's */
    char data[LONG];
    unsigned place;
    bool waits;
    unsigned left; /* times that `leave` was called */
} conns[CAP_OUTBOX_SIZE];
static long sent_by_guard, rested;

static void *
guard(void *arg)
{
    (void)arg;
    while (!atomic_load(&over)) {
        cap_outbox_send(&box);
        sched_yield();
    }
    return NULL;
}

/* Takes it and sends what the guard has not. */
static void
leave(void *owner)
{
    struct conn *c = owner;
    bool rests;
    size_t sent = cap_outbox_take(&box, c->place, &rests);
    REQUIRE(c->waits && (sent == 0 || sent == LONG));
    REQUIRE(rests == (sent == LONG));
    if (sent == 0)
        REQUIRE(send(c->fd[0], c->data, LONG, 0) == LONG);
    sent_by_guard += sent != 0;
    if (rests) {
        rested++;
        REQUIRE(cap_claim_take(cap_claims_find(&claims, (uint32_t)c->fd[0])));
    }
    c->waits = false;
    c->left++;
}

static void
put(struct conn *c)
{
    c->waits = true;
    c->place = cap_outbox_put(&box, c->fd[0], c->data, LONG,
                              cap_claims_get(&claims, c->fd[0]), c);
}

static void
test_each_octet_is_sent_once_by_one_of_the_two(void)
{
    pthread_t thread;
    box.leave = leave;
    for (unsigned i = 0; i < CAP_OUTBOX_SIZE; i++)
        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, conns[i].fd) == 0);
    REQUIRE(pthread_create(&thread, NULL, guard, NULL) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < CAP_OUTBOX_SIZE; i++) {
            memset(conns[i].data, 'a' + (round + (int)i) % 26, LONG);
            put(&conns[i]);
        }
        REQUIRE(cap_outbox_is_full(&box));
        if (round % 3 == 0)
            sched_yield();
        leave(&conns[round % CAP_OUTBOX_SIZE]); /* one is taken out of turn */
        cap_outbox_flush(&box, 0);
        REQUIRE(box.len == 0);
        for (unsigned i = 0; i < CAP_OUTBOX_SIZE; i++) {
            char got[LONG + 1];
            REQUIRE(!conns[i].waits && conns[i].left == (unsigned)round + 1);
            REQUIRE(recv(conns[i].fd[1], got, sizeof got, MSG_DONTWAIT) == LONG);
            REQUIRE(got[0] == 'a' + (round + (int)i) % 26 && memcmp(got, conns[i].data, LONG) == 0);
        }
    }
    atomic_store(&over, true);
    pthread_join(thread, NULL);
    REQUIRE(rested == sent_by_guard);
    for (unsigned i = 0; i < CAP_OUTBOX_SIZE; i++) {
        close(conns[i].fd[0]);
        close(conns[i].fd[1]);
    }
    cap_claims_free(&claims);
}

static void
test_what_the_guard_cannot_send_is_left_to_the_loop(void)
{
    cap_outbox o = {0};
    bool rests;
    int fd[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
    close(fd[1]);
    unsigned place = cap_outbox_put(&o, fd[0], "x", 1, NULL, &o);
    cap_outbox_send(&o);
    REQUIRE(cap_outbox_take(&o, place, &rests) == 0 && !rests);
    cap_outbox_send(&o); /* nothing there */
    close(fd[0]);
}

static void
test_after_one_that_was_held_for_long_the_next_leave_at_once(void)
{
    cap_outbox o = {.since = 1};
    cap_outbox_flush(&o, 1 + CAP_OUTBOX_SLOW);
    REQUIRE(cap_outbox_wants(&o));
    cap_outbox_flush(&o, 2 + CAP_OUTBOX_SLOW);
    for (int i = 0; i < CAP_OUTBOX_IMPATIENCE; i++)
        REQUIRE(!cap_outbox_wants(&o));
    REQUIRE(cap_outbox_wants(&o));
}

int
main(void)
{
    test_each_octet_is_sent_once_by_one_of_the_two();
    test_what_the_guard_cannot_send_is_left_to_the_loop();
    test_after_one_that_was_held_for_long_the_next_leave_at_once();
    return 0;
}
