/* Where access-log lines go: a buffer of whole lines in front of a descriptor.
   Knows no Python and takes no lock: the owner (access_log.c) sees to it that
   one thread appends and one at a time drains.

   What a reader finds are whole lines in order. On a pipe with several writers
   too: there lines are written in pieces of at most PIPE_BUF octets that end at
   a line's end, which POSIX makes atomic (write(2)), and only when poll(2) says
   that there is room, so that a reader that sleeps does not put us to sleep. */
#ifndef CAP_ASGI_ACCESS_SINK_H
#define CAP_ASGI_ACCESS_SINK_H

#include "base/buffer.h"

#include <stdbool.h>
#include <stddef.h>

#define CAP_SINK_DRAIN_AT (32 * 1024)   /* octets buffered at which to write */
#define CAP_SINK_LIMIT (1024 * 1024)    /* octets buffered, at most */

typedef struct cap_sink {
    int fd;              /* borrowed */
    cap_buffer pending;  /* whole lines, appended by the owner */
    cap_buffer out;      /* taken from `pending`, being written */
    size_t out_off;      /* of `out`: what has been written */
    bool torn;           /* out_off is inside a line whose beginning is written */
} cap_sink;

typedef enum cap_sink_result {
    CAP_SINK_DONE,   /* `out` is written */
    CAP_SINK_AGAIN,  /* the descriptor takes no more now; the rest is kept */
    CAP_SINK_FAILED, /* the descriptor refuses: *error has errno */
} cap_sink_result;

/* Octets not yet written. */
static inline size_t
cap_sink_waiting(const cap_sink *s)
{
    return s->pending.len + (s->out.len - s->out_off);
}

/* Make what is pending the next to be written. False when there is nothing to
   write. What is left of an earlier write goes first. */
bool cap_sink_take(cap_sink *s);

/* Write `out`. Waits at most `wait_ms` for room (0: not at all). Needs no GIL;
   touches nothing but `out`. Raises no SIGPIPE, whatever its handler is. */
cap_sink_result cap_sink_write(cap_sink *s, int wait_ms, int *error);

/* Give up all that waits, after an error: how many lines that were. The rest of
   a line whose beginning is out stays, so that a disk that has room again gets
   no half line; with `all` it goes too (the reader is gone). */
size_t cap_sink_drop(cap_sink *s, bool all);

/* Forget all, without counting: the buffer belongs to the parent of this process. */
void cap_sink_reset(cap_sink *s);

/* Gives the memory back. */
void cap_sink_free(cap_sink *s);

#endif
