/* The scoreboard: facts about each worker process, in memory that the supervisor and all
   its workers share. The supervisor reads it to find a worker whose loop stands still, a
   worker reads it to decide whether to take a connection, people read it (`capicorn
   status`, `capicorn top`, --metrics), also when none of those processes answers any
   more. A server without a supervisor has one of its own.

   Each field has one writer: the supervisor while there is no process for its slot, then
   that process. All are atomics, written and read without a lock: a reader may see two of
   them from different moments, and what has to be seen whole (a text) has a sequence
   number. A reader believes nothing: numbers are bounded before they are used, so that
   nothing a process wrote, or left half-written when it died, harms another one. No
   Python object, no handle of a loop in here. */
#ifndef CAP_POOL_SCOREBOARD_H
#define CAP_POOL_SCOREBOARD_H

#include "base/beat.h"
#include "pool/tally.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CAP_BOARD_MAGIC 0x43415042u /* "CAPB" */
#define CAP_BOARD_VERSION 2u
#define CAP_BOARD_SLOTS_MAX 4096u
#define CAP_BOARD_INFO 2048     /* octets */
#define CAP_BOARD_REQUESTS 64   /* that are listed of a worker, the oldest ones */
#define CAP_BOARD_METHOD 24     /* octets that are kept of each; the rest is cut */
#define CAP_BOARD_PATH 200
#define CAP_BOARD_PLACE 232

typedef enum cap_slot_state {
    CAP_SLOT_FREE,
    CAP_SLOT_STARTING, /* importing, or the application's start-up runs */
    CAP_SLOT_SERVING,
    CAP_SLOT_RETIRING, /* accepts no more, ends what it has */
    CAP_SLOT_STATES
} cap_slot_state;

/* What siblings look at for each connection. Two cache lines: processors fetch them in
   pairs. */
#define CAP_SLOT_SIZE 128

typedef struct cap_slot {
    _Alignas(CAP_SLOT_SIZE) _Atomic uint32_t pid;
    _Atomic uint32_t state;
    _Atomic uint64_t beat;       /* ms of CLOCK_MONOTONIC: when its loop last ran; 0: never */
    _Atomic uint64_t started;    /* the same clock: when the process was made */
    _Atomic uint32_t connections;
    _Atomic uint32_t requests;   /* in flight */
    _Atomic uint32_t threads;    /* for synchronous work: how many there may be, */
    _Atomic uint32_t threads_busy;
    _Atomic uint32_t threads_queued;
    _Atomic uint32_t late;       /* its loop's turn lasts too long: its guard says so */
    _Atomic uint32_t generation; /* how often the slot was taken */
    _Atomic uint32_t lag;        /* ms by which the loop's last timer was late */
    _Atomic uint32_t resident;   /* KiB of memory */
} cap_slot;

/* A request in flight. */
typedef struct cap_request_slot {
    /* Even: whole; odd: it is being written. */
    _Alignas(64) _Atomic uint32_t seq;
    _Atomic uint32_t lengths;  /* of the method, and << 16 of the path */
    _Atomic uint64_t began;    /* ms of CLOCK_MONOTONIC */
    _Atomic uint32_t websocket;
    _Atomic uint64_t text[(CAP_BOARD_METHOD + CAP_BOARD_PATH) / 8];
} cap_request_slot;

/* What the supervisor gets when it asks where a worker is blocked. */
typedef enum cap_answer {
    CAP_ANSWER_NONE,
    CAP_ANSWER_PLACE, /* `place` says it, and the stack is in the log */
    CAP_ANSWER_GIL,   /* a C call holds the GIL: nobody can look */
    CAP_ANSWER_OVER   /* the loop went on */
} cap_answer;

/* Everything else about a worker. */
typedef struct cap_worker {
    cap_beat beat;
    _Alignas(64) cap_tally tally;
    /* By the supervisor. */
    _Alignas(64) _Atomic uint32_t asked; /* so often */
    /* By the guard. */
    _Atomic uint32_t answered;  /* so often; */
    _Atomic uint32_t answer;    /* the last one: cap_answer */
    /* By the guard's reporter: which request blocks the loop, and where. */
    _Atomic uint32_t place_seq;
    _Atomic uint32_t place_lengths; /* of the request, and << 16 of the place */
    _Atomic uint64_t place_since;   /* the block's, as in the beat */
    _Atomic uint64_t place[2 * CAP_BOARD_PLACE / 8];
    /* By the loop's thread: a bit for each of `request` that is used. */
    _Alignas(64) _Atomic uint64_t listed;
    cap_request_slot request[CAP_BOARD_REQUESTS];
} cap_worker;

typedef struct cap_board {
    uint32_t magic;
    uint32_t version;
    uint32_t slots;
    _Atomic uint32_t used;       /* one more than the highest slot that was ever taken */
    _Atomic uint32_t pid;        /* who made it */
    _Atomic uint64_t started;    /* ms of CLOCK_MONOTONIC */
    /* By the supervisor: the sums of those that are gone, and how many began. */
    _Atomic uint32_t gone_seq;
    _Atomic uint64_t starts;
    _Alignas(64) cap_tally gone;
    /* By whoever made it: what people are told of the server, as JSON. */
    _Atomic uint32_t info_seq;
    _Atomic uint32_t info_len;
    _Atomic uint64_t info[CAP_BOARD_INFO / 8];
    cap_slot slot[];             /* `slots` of them, then as many cap_worker */
} cap_board;

/* Milliseconds of CLOCK_MONOTONIC. */
uint64_t cap_board_now(void);

/* A new board, every slot free, and the descriptor of its memory (close-on-exec; the
   caller's), by which a process that was not forked opens it. NULL with errno. */
cap_board *cap_board_new(uint32_t slots, int *fd);
/* One that exists; `writable`: as one of its processes. NULL with errno; EINVAL: that is
   no board of this version. */
cap_board *cap_board_open(int fd, bool writable);
/* Unmaps it; other processes keep theirs. `slots`: as they were when it was opened. */
void cap_board_close(cap_board *b, uint32_t slots);

static inline cap_worker *
cap_board_worker(cap_board *b, uint32_t index)
{
    return (cap_worker *)(void *)&b->slot[b->slots] + index;
}

/* Empty a slot and put it into `state`; what its worker counted goes to `gone`. For the
   supervisor, while the slot has no process. */
void cap_board_take(cap_board *b, uint32_t index, cap_slot_state state);

/* How many connections more than the mean a worker may hold before it leaves new ones
   to its siblings. */
#define CAP_BOARD_SLACK(mean) ((mean) / 8 + 2)
/* A worker whose loop has not run for so long takes no connection: it does not count. */
#define CAP_BOARD_ABSENT_MS 3000

/* Does another worker than that of slot `index` serve, and can take what comes? One whose
   loop is late, or has not run for CAP_BOARD_ABSENT_MS, cannot. */
bool cap_board_sibling_free(const cap_board *b, uint32_t index, uint64_t now);
/* Does another one serve at all? */
bool cap_board_has_siblings(const cap_board *b, uint32_t index);

/* May the worker of slot `index` take one more connection now, or have its siblings
   fewer, or is its own loop late and theirs are not? True when it serves alone. */
bool cap_board_may_accept(const cap_board *b, uint32_t index, uint64_t now);

/* ---- requests in flight ---- */

/* List a request that goes on after its first step; began: ms. Its number, or -1 when all
   are taken (a WebSocket, which may stay for days, gets one of half of them). Loop's thread. */
int cap_worker_list(cap_worker *w, const char *method, size_t method_len, const char *path,
                    size_t path_len, uint64_t began, bool websocket);
/* It is over. */
void cap_worker_unlist(cap_worker *w, int number);

typedef struct cap_seen_request {
    uint64_t began;
    bool websocket;
    uint32_t method_len, path_len;
    char text[CAP_BOARD_METHOD + CAP_BOARD_PATH]; /* the path begins at CAP_BOARD_METHOD */
} cap_seen_request;

/* Those that are listed now, in no order; how many. Any process. */
size_t cap_worker_requests(const cap_worker *w, cap_seen_request out[CAP_BOARD_REQUESTS]);

/* ---- texts ---- */

/* Where the loop has been blocked since `since`. By the guard's reporter; texts are cut. */
void cap_worker_set_place(cap_worker *w, uint64_t since, const char *request, size_t request_len,
                          const char *place, size_t place_len);
typedef struct cap_seen_place {
    uint64_t since;
    uint32_t request_len, place_len;
    char request[CAP_BOARD_PLACE], place[CAP_BOARD_PLACE];
} cap_seen_place;
/* False when it cannot be read whole. */
bool cap_worker_place(const cap_worker *w, cap_seen_place *out);

/* -1 when it is too long. */
int cap_board_set_info(cap_board *b, const char *text, size_t len);
/* Its length; 0 when there is none or it cannot be read whole. */
size_t cap_board_info(const cap_board *b, char out[CAP_BOARD_INFO]);

/* What all workers counted, those that are gone as well, and how many there were. False when
   it cannot be read whole: a worker's end falls between its count and the sum of those that
   are gone, but never into both or neither. */
bool cap_board_total(cap_board *b, cap_tally *out, uint64_t *starts);

#endif
