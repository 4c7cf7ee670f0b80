/* The beat of one event loop: what its thread tells, with a few stores, to a thread that
   watches it (pool/guard.h), and to other processes when it lies in a scoreboard
   (pool/scoreboard.h). The loop writes when a turn begins and when it is going to
   sleep; csrc/asgi writes whose request runs. One writer, the loop's thread; readers take
   no lock and need no GIL. */
#ifndef CAP_BASE_BEAT_H
#define CAP_BASE_BEAT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define CAP_BEAT_METHOD 24 /* octets that are kept; the rest is cut */
#define CAP_BEAT_PATH 232
#define CAP_BEAT_WORDS ((CAP_BEAT_METHOD + CAP_BEAT_PATH) / 8)

typedef struct cap_beat {
    /* ms of CLOCK_MONOTONIC at which what runs now began; 0: the loop sleeps. */
    _Alignas(64) _Atomic uint64_t since;
    _Atomic uint32_t wants_gil; /* woken, and waits for the GIL since then */
    /* The watcher sleeps too, until the next turn writes an octet to `rouse`. */
    _Atomic uint32_t dozing;
    int rouse;                  /* set once, before anything beats */
    /* The request whose step runs. Even: whole; odd: it is being written. */
    _Atomic uint32_t seq;
    _Atomic uint32_t lengths;   /* of the method, and << 16 of the path; 0: there is none */
    _Atomic uint64_t text[CAP_BEAT_WORDS];
} cap_beat;

static inline void
cap_beat_awake(cap_beat *b, uint64_t ms)
{
    atomic_store_explicit(&b->since, ms, memory_order_relaxed);
    /* No fence in between: who dozes looks at `since` once more, a while after it said so. */
    if (atomic_load_explicit(&b->dozing, memory_order_relaxed) != 0 &&
        atomic_exchange(&b->dozing, 0) != 0)
        (void)!write(b->rouse, "", 1);
}

static inline void
cap_beat_asleep(cap_beat *b)
{
    atomic_store_explicit(&b->since, 0, memory_order_relaxed);
}

static inline void
cap_beat_gil(cap_beat *b, bool wanted)
{
    atomic_store_explicit(&b->wants_gil, wanted, memory_order_relaxed);
}

static inline void
cap_beat_put(_Atomic uint64_t *to, const char *from, size_t len)
{
    uint64_t word;
    for (; len >= 8; from += 8, len -= 8) {
        memcpy(&word, from, 8);
        atomic_store_explicit(to++, word, memory_order_relaxed);
    }
    if (len == 0)
        return;
    unsigned char *at = (unsigned char *)&word;
    word = 0;
    if (len >= 4) { /* pieces that overlap: quicker than a call of memcpy */
        memcpy(at, from, 4);
        memcpy(at + len - 4, from + len - 4, 4);
    } else {
        at[0] = (unsigned char)from[0];
        at[len / 2] = (unsigned char)from[len / 2];
        at[len - 1] = (unsigned char)from[len - 1];
    }
    atomic_store_explicit(to, word, memory_order_relaxed);
}

/* A step of this request begins. A copy, since the reader may come when it is gone. */
static inline void
cap_beat_enter(cap_beat *b, const char *method, size_t method_len, const char *path,
               size_t path_len)
{
    if (method_len > CAP_BEAT_METHOD)
        method_len = CAP_BEAT_METHOD;
    if (path_len > CAP_BEAT_PATH)
        path_len = CAP_BEAT_PATH;
    uint32_t seq = atomic_load_explicit(&b->seq, memory_order_relaxed);
    atomic_store_explicit(&b->seq, seq + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&b->lengths, (uint32_t)(method_len | path_len << 16),
                          memory_order_relaxed);
    cap_beat_put(b->text, method, method_len);
    cap_beat_put(b->text + CAP_BEAT_METHOD / 8, path, path_len);
    atomic_store_explicit(&b->seq, seq + 2, memory_order_release);
}

static inline void
cap_beat_leave(cap_beat *b)
{
    atomic_store_explicit(&b->lengths, 0, memory_order_relaxed);
}

/* "GET /path" of the request that runs, with a NUL at its end; "" when none does, or when
   they change too quickly to be read. Any thread. */
static inline void
cap_beat_read(const cap_beat *b, char out[CAP_BEAT_METHOD + CAP_BEAT_PATH + 2])
{
    for (int tries = 0; tries < 8; tries++) {
        uint64_t text[CAP_BEAT_WORDS];
        uint32_t seq = atomic_load_explicit(&b->seq, memory_order_acquire);
        uint32_t lengths = atomic_load_explicit(&b->lengths, memory_order_relaxed);
        for (size_t i = 0; i < CAP_BEAT_WORDS; i++)
            text[i] = atomic_load_explicit(&b->text[i], memory_order_relaxed);
        atomic_thread_fence(memory_order_acquire);
        if ((seq & 1) || atomic_load_explicit(&b->seq, memory_order_relaxed) != seq)
            continue;
        size_t method = lengths & 0xffff, path = lengths >> 16;
        if (method == 0 || method > CAP_BEAT_METHOD || path > CAP_BEAT_PATH)
            break;
        memcpy(out, text, method);
        out[method] = ' ';
        memcpy(out + method + 1, text + CAP_BEAT_METHOD / 8, path);
        out[method + 1 + path] = 0;
        return;
    }
    out[0] = 0;
}

#endif
