/* The guard: a native thread beside an event loop. It sees from the loop's beat
   (base/beat.h) when a callback keeps the loop from turning, tells the worker's siblings at
   once (`late` in its slot of the scoreboard), has it reported when it lasts and when it is
   over, and answers health checks (pool/responder.h) whatever the loop does.

   It touches no Python object and no handle of the loop. The reports are made by
   `report`, in a thread that is started for each block and may wait for the GIL there as
   long as it takes: the guard itself never waits for anybody. */
#ifndef CAP_POOL_GUARD_H
#define CAP_POOL_GUARD_H

#include "base/beat.h"
#include "pool/outbox.h"
#include "pool/rescue.h"
#include "pool/responder.h"
#include "pool/scoreboard.h"

#include <pthread.h>
#include <sys/types.h>

/* ms after which a report that has not begun is announced without Python. */
#define CAP_GUARD_PATIENCE 200
/* ms after which a loop is late that is in one step of one request, or in no request's ... */
#define CAP_GUARD_LATE 20
/* ... and a turn that is made of many steps. */
#define CAP_GUARD_LONG_TURN 100
/* ms between two looks that find the loop late soon enough; while it is late; and when there
   is no sibling to tell. */
#define CAP_GUARD_LOOK (CAP_GUARD_LATE / 2)
#define CAP_GUARD_CLOSE_LOOK 5
#define CAP_GUARD_SELDOM 50
/* ms of sleep of the loop after which the guard sleeps too, until the loop wakes it. */
#define CAP_GUARD_DOZE 250

typedef struct cap_guard cap_guard;

/* One block of the loop. */
typedef struct cap_block {
    uint64_t since;    /* ms of CLOCK_MONOTONIC: when it began */
    uint64_t ended;    /* 0: it goes on */
    bool wanted_gil;   /* the loop does nothing but wait for the GIL */
    bool last;         /* the supervisor asked, before it kills the process */
    char request[CAP_BEAT_METHOD + CAP_BEAT_PATH + 2]; /* "GET /path", or "" */
} cap_block;

typedef struct cap_guard_config {
    uint64_t warn;     /* ms; 0: the loop is not watched */
    int fd;            /* for the line that is written without Python; -1: none */
    /* Called in a thread of its own, first while the block goes on, again after its end.
       `seen` (cap_guard_seen) is to be called as soon as it need not wait any more. */
    void (*report)(void *context, cap_guard *g, const cap_block *block);
    void *context;
    cap_worker *worker; /* its part of the scoreboard, where the beat is and blocks are counted;
                           or NULL */
    cap_health health;
    cap_board *board;  /* whose slot says when the loop is late; NULL: there are no siblings */
    uint32_t slot;
    cap_rescue *rescue; /* of the loop's connections; the caller's; NULL: they wait */
    bool gathers;       /* the loop uses `outbox` */
} cap_guard_config;

struct cap_guard {
    cap_beat own_beat;
    cap_beat *beat;        /* the worker's in the scoreboard, or our own */
    cap_guard_config set;
    cap_outbox outbox;     /* sent for the loop when it is late */
    _Atomic bool watching; /* blocks are looked for */
    _Atomic uint64_t blocks;  /* so many there were, */
    _Atomic uint64_t longest; /* and this many ms took the longest */

    pthread_t thread;
    pid_t pid;             /* where the thread runs; 0: it does not */
    int wake[2];           /* a pipe: an octet ends the guard's poll: the loop wakes it from its
                              doze, or it has to look at `ending` */
    _Atomic bool ending;

    /* The reporter; under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t reporter;
    cap_block block;
    bool reporting;        /* there is a thread to join */
    bool reported;         /* ... which has ended */
    bool seen;
    bool asked;            /* the supervisor waits for another report */
    bool stopping;
};

/* Start the thread. `g` is zeroed but for nothing, and stays where it is. 0, or an errno. */
int cap_guard_start(cap_guard *g, const cap_guard_config *config);
/* End it and the reporter, and wait for both: without the GIL, as the reporter may be
   waiting for it. No-op when it does not run, or in a process forked since. */
void cap_guard_stop(cap_guard *g);
/* In `report`: whoever looks at the log will see it soon. */
void cap_guard_seen(cap_guard *g);
/* Does this block still go on? */
static inline bool
cap_guard_goes_on(const cap_guard *g, const cap_block *block)
{
    return atomic_load_explicit(&g->beat->since, memory_order_relaxed) == block->since;
}

#endif
