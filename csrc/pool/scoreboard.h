/* The scoreboard: one page of facts about each worker process, in memory that the
   supervisor and all its workers share. The supervisor reads it to find a worker whose
   loop stands still, a worker reads it to decide whether to take a connection, people
   read it.

   Each slot has one writer: the supervisor while there is no process for it, then
   that process. All fields are atomics, read without a lock: a reader may see two of
   them from different moments. No Python object, no handle of a loop in here. */
#ifndef CAP_POOL_SCOREBOARD_H
#define CAP_POOL_SCOREBOARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CAP_BOARD_MAGIC 0x43415042u /* "CAPB" */
#define CAP_BOARD_VERSION 1u
#define CAP_BOARD_SLOTS_MAX 4096u

typedef enum cap_slot_state {
    CAP_SLOT_FREE,
    CAP_SLOT_STARTING, /* importing, or the application's start-up runs */
    CAP_SLOT_SERVING,
    CAP_SLOT_RETIRING, /* accepts no more, ends what it has */
    CAP_SLOT_STATES
} cap_slot_state;

/* Two cache lines: processors fetch them in pairs. */
#define CAP_SLOT_SIZE 128

typedef struct cap_slot {
    _Alignas(CAP_SLOT_SIZE) _Atomic uint32_t pid;
    _Atomic uint32_t state;
    _Atomic uint64_t beat;       /* ms of CLOCK_MONOTONIC: when its loop last ran; 0: never */
    _Atomic uint64_t started;    /* the same clock: when the process was made */
    _Atomic uint32_t connections;
    _Atomic uint32_t requests;   /* in flight */
    _Atomic uint64_t total_requests;
    _Atomic uint64_t total_connections;
    _Atomic uint32_t threads;    /* for synchronous work: how many there may be, */
    _Atomic uint32_t threads_busy;
    _Atomic uint32_t threads_queued;
    _Atomic uint32_t late;       /* its loop's turn lasts too long: its guard says so */
} cap_slot;

typedef struct cap_board {
    uint32_t magic;
    uint32_t version;
    uint32_t slots;
    _Atomic uint32_t used;       /* one more than the highest slot that was ever taken */
    cap_slot slot[];
} cap_board;

/* Milliseconds of CLOCK_MONOTONIC. */
uint64_t cap_board_now(void);

/* A new board, every slot free, and the descriptor of its memory (close-on-exec; the
   caller's), by which a process that was not forked opens it. NULL with errno. */
cap_board *cap_board_new(uint32_t slots, int *fd);
/* One that exists. NULL with errno; EINVAL: that is no board of this version. */
cap_board *cap_board_open(int fd);
/* Unmaps it; other processes keep theirs. */
void cap_board_close(cap_board *b);

/* Empty a slot and put it into `state`. For the supervisor, while the slot has no
   process. */
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

#endif
