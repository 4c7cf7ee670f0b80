#include "base/timer_wheel.h"

#include <stddef.h>
#include <string.h>

#include "check.h"

static cap_wheel w; /* 12 KiB: not for the stack of a sanitized build */

static void
test_never_early_and_at_most_a_tick_late(void)
{
    for (uint64_t start = 0; start < 200; start += 13) {
        for (uint64_t wait = 0; wait < 300; wait++) {
            cap_wheel_node n = {0};
            cap_wheel_init(&w, start);
            cap_wheel_arm(&w, &n, start + wait);
            REQUIRE(cap_wheel_armed(&n) && w.armed == 1);
            uint64_t now = start;
            while (cap_wheel_expire(&w, now) == NULL) {
                REQUIRE(cap_wheel_armed(&n));
                now++;
            }
            REQUIRE(now >= start + wait && now <= start + wait + CAP_WHEEL_TICK_MS);
            REQUIRE(!cap_wheel_armed(&n) && w.armed == 0);
            REQUIRE(cap_wheel_expire(&w, now + 1000) == NULL);
        }
    }
}

static void
test_next_says_when_to_come_back(void)
{
    static const uint64_t waits[] = {0, 1, 49, 50, 51, 1000, 25599, 25600, 25601, 60000, 3600000};
    cap_wheel_init(&w, 1234);
    REQUIRE(cap_wheel_next(&w, 1234) == UINT64_MAX);
    for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
        cap_wheel_node n = {0};
        uint64_t now = 1234, due = now + waits[i];
        cap_wheel_init(&w, now);
        cap_wheel_arm(&w, &n, due);
        int calls = 0;
        while (cap_wheel_expire(&w, now) == NULL) {
            uint64_t wait = cap_wheel_next(&w, now);
            REQUIRE(wait > 0 && now + wait <= due + CAP_WHEEL_TICK_MS);
            now += wait;
            calls++;
        }
        REQUIRE(now >= due);
        REQUIRE(calls <= (int)(waits[i] / (CAP_WHEEL_SLOTS * CAP_WHEEL_TICK_MS)) + 2);
        REQUIRE(cap_wheel_next(&w, now) == UINT64_MAX);
    }
}

static void
test_cancel_and_rearm(void)
{
    cap_wheel_node a = {0}, b = {0}, c = {0};
    cap_wheel_init(&w, 0);
    cap_wheel_cancel(&w, &a);
    REQUIRE(w.armed == 0);
    cap_wheel_arm(&w, &a, 100);
    cap_wheel_arm(&w, &b, 100);
    cap_wheel_arm(&w, &c, 100);
    cap_wheel_cancel(&w, &b);
    REQUIRE(!cap_wheel_armed(&b) && w.armed == 2);
    cap_wheel_arm(&w, &a, 500);
    REQUIRE(w.armed == 2);
    REQUIRE(cap_wheel_expire(&w, 100) == &c && cap_wheel_expire(&w, 100) == NULL);
    REQUIRE(cap_wheel_expire(&w, 499) == NULL && cap_wheel_expire(&w, 500) == &a);

    /* between two calls: what is due but not yet returned is cancelled, put off */
    cap_wheel_arm(&w, &a, 600);
    cap_wheel_arm(&w, &b, 600);
    cap_wheel_arm(&w, &c, 600);
    REQUIRE(cap_wheel_expire(&w, 600) == &a && cap_wheel_next(&w, 600) == 0);
    cap_wheel_cancel(&w, &b);
    cap_wheel_arm(&w, &c, 2000);
    cap_wheel_arm(&w, &a, 0); /* long past: not in this round, but in the next tick */
    REQUIRE(cap_wheel_expire(&w, 600) == NULL && w.armed == 2);
    REQUIRE(cap_wheel_next(&w, 600) == 50);
    REQUIRE(cap_wheel_expire(&w, 650) == &a && cap_wheel_expire(&w, 650) == NULL);
    REQUIRE(cap_wheel_expire(&w, 2000) == &c && w.armed == 0);
}

static void
test_a_long_sleep(void)
{
    static cap_wheel_node n[1000];
    memset(n, 0, sizeof(n));
    cap_wheel_init(&w, 7);
    for (size_t i = 0; i < 1000; i++)
        cap_wheel_arm(&w, &n[i], 7 + i * 100); /* four rounds */
    size_t fired = 0;
    while (cap_wheel_expire(&w, 1000000) != NULL)
        fired++;
    REQUIRE(fired == 1000 && w.armed == 0);
    /* nobody asked for a long time: what is armed then is right all the same */
    cap_wheel_arm(&w, &n[0], 90000000 + 120);
    REQUIRE(cap_wheel_expire(&w, 90000000) == NULL);
    REQUIRE(cap_wheel_next(&w, 90000000) == 150);
    REQUIRE(cap_wheel_expire(&w, 90000149) == NULL && cap_wheel_expire(&w, 90000150) == &n[0]);
}

static void
test_against_a_plain_list(void)
{
    enum { N = 200 };
    static cap_wheel_node n[N];
    memset(n, 0, sizeof(n));
    uint64_t due[N] = {0}; /* 0: not armed */
    uint32_t seed = 1;
    uint64_t now = 5000;
    cap_wheel_init(&w, now);
    for (int step = 0; step < 200000; step++) {
        seed = seed * 1664525U + 1013904223U;
        size_t i = (seed >> 8) % N;
        switch (seed >> 28) {
        case 0:
        case 1:
            cap_wheel_cancel(&w, &n[i]);
            due[i] = 0;
            break;
        case 2:
        case 3: {
            now += (seed >> 16) % (seed >> 31 ? 3000 : 60);
            cap_wheel_node *e;
            while ((e = cap_wheel_expire(&w, now)) != NULL) {
                size_t k = (size_t)(e - n);
                REQUIRE(due[k] != 0 && due[k] <= now);
                due[k] = 0;
            }
            for (size_t k = 0; k < N; k++)
                REQUIRE(due[k] == 0 || due[k] + CAP_WHEEL_TICK_MS > now);
            break;
        }
        default:
            due[i] = now + 1 + (seed >> 12) % 40000;
            cap_wheel_arm(&w, &n[i], due[i]);
        }
        uint32_t armed = 0;
        for (size_t k = 0; k < N; k++) {
            armed += due[k] != 0;
            REQUIRE(cap_wheel_armed(&n[k]) == (due[k] != 0));
        }
        REQUIRE(w.armed == armed);
    }
}

int
main(void)
{
    test_never_early_and_at_most_a_tick_late();
    test_next_says_when_to_come_back();
    test_cancel_and_rearm();
    test_a_long_sleep();
    test_against_a_plain_list();
    return 0;
}
