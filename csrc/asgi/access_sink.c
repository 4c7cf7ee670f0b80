#include "asgi/access_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef PIPE_BUF
#define PIPE_BUF 512 /* _POSIX_PIPE_BUF */
#endif

typedef enum sink_kind {
    SINK_FILE,   /* a regular file: write all at once */
    SINK_PACED,  /* a pipe, a terminal: small pieces, and only when there is room */
    SINK_SOCKET, /* never blocks with MSG_DONTWAIT */
} sink_kind;

/* Asked for each drain: dup2 may put another file in the descriptor's place. */
static sink_kind
kind_of(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return SINK_FILE; /* write(2) will say what is wrong */
    if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
        return SINK_FILE;
    return S_ISSOCK(st.st_mode) ? SINK_SOCKET : SINK_PACED;
}

static long long
now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (long long)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* How much to write next. Up to PIPE_BUF octets, ending at the last line's end
   among them; a longer line (or the rest of a torn one) goes in pieces. */
static size_t
piece(const char *data, size_t len, sink_kind kind)
{
    if (kind != SINK_PACED || len <= PIPE_BUF)
        return len;
    for (size_t n = PIPE_BUF; n > 0; n--) {
        if (data[n - 1] == '\n')
            return n;
    }
    return PIPE_BUF;
}

/* True when `fd` takes octets now or within the time until `deadline`. */
static bool
has_room(int fd, long long deadline)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    for (;;) {
        long long left = deadline == 0 ? 0 : deadline - now_ms();
        int rc = poll(&p, 1, left > 0 ? (int)left : 0);
        if (rc > 0)
            return true; /* or POLLERR, POLLNVAL: the write tells */
        if (rc == 0 || errno != EINTR)
            return false;
        if (deadline == 0)
            return false;
    }
}

/* An application may have set SIGPIPE to kill the process. Held back in this
   thread, and taken out again where it was ours, it kills nobody. */
typedef struct pipe_guard {
    sigset_t before;
    bool was_pending;
} pipe_guard;

static void
guard_enter(pipe_guard *g)
{
    sigset_t set;
    sigpending(&set);
    g->was_pending = sigismember(&set, SIGPIPE) == 1;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &set, &g->before);
}

static void
guard_leave(pipe_guard *g, bool broken)
{
    sigset_t set;
    if (broken && !g->was_pending && sigpending(&set) == 0 && sigismember(&set, SIGPIPE) == 1) {
        int sig;
        sigemptyset(&set);
        sigaddset(&set, SIGPIPE);
        (void)sigwait(&set, &sig);
    }
    pthread_sigmask(SIG_SETMASK, &g->before, NULL);
}

bool
cap_sink_take(cap_sink *s)
{
    if (s->out_off < s->out.len)
        return true;
    if (s->pending.len == 0)
        return false;
    cap_buffer empty = s->out;
    empty.len = 0;
    s->out = s->pending;
    s->out_off = 0;
    s->pending = empty;
    return true;
}

cap_sink_result
cap_sink_write(cap_sink *s, int wait_ms, int *error)
{
    sink_kind kind = kind_of(s->fd);
    long long deadline = wait_ms > 0 ? now_ms() + wait_ms : 0;
    cap_sink_result result = CAP_SINK_DONE;
    pipe_guard guard;
    if (kind != SINK_FILE)
        guard_enter(&guard);
    *error = 0;
    while (s->out_off < s->out.len) {
        const char *data = s->out.data + s->out_off;
        size_t n = piece(data, s->out.len - s->out_off, kind);
        if (kind == SINK_PACED && !has_room(s->fd, deadline)) {
            result = CAP_SINK_AGAIN;
            break;
        }
        ssize_t wrote;
        if (kind == SINK_SOCKET)
            wrote = send(s->fd, data, n, MSG_DONTWAIT);
        else
            wrote = write(s->fd, data, n);
        if (wrote > 0) {
            s->out_off += (size_t)wrote;
            s->torn = s->out.data[s->out_off - 1] != '\n';
            continue;
        }
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            /* A pipe says that there is room, and then has none for a piece of
               this size (less than PIPE_BUF free): it would say so for ever. */
            if (kind == SINK_PACED && deadline != 0 && now_ms() < deadline) {
                struct timespec pause = {.tv_nsec = 1000000};
                nanosleep(&pause, NULL);
                continue;
            }
            if (deadline != 0 && has_room(s->fd, deadline))
                continue;
            result = CAP_SINK_AGAIN;
            break;
        }
        *error = wrote < 0 ? errno : EIO;
        result = CAP_SINK_FAILED;
        break;
    }
    if (kind != SINK_FILE)
        guard_leave(&guard, *error == EPIPE);
    if (result == CAP_SINK_DONE) {
        s->out.len = s->out_off = 0;
        if (s->out.cap > 4 * CAP_SINK_DRAIN_AT)
            cap_buffer_free(&s->out); /* a reader was slow; it is over */
    }
    return result;
}

static size_t
count_lines(const char *data, size_t len)
{
    size_t lines = 0;
    const char *end = data + len;
    while (data < end && (data = memchr(data, '\n', (size_t)(end - data))) != NULL) {
        lines++;
        data++;
    }
    return lines;
}

size_t
cap_sink_drop(cap_sink *s, bool all)
{
    size_t left = s->out.len - s->out_off, keep = 0;
    size_t lines = s->pending.len != 0 ? count_lines(s->pending.data, s->pending.len) : 0;
    const char *rest = left != 0 ? s->out.data + s->out_off : NULL;
    if (s->torn && !all && left != 0) {
        const char *end = memchr(rest, '\n', left);
        keep = end != NULL ? (size_t)(end - rest) + 1 : left;
    }
    if (left != 0)
        lines += count_lines(rest + keep, left - keep);
    if (keep != 0)
        memmove(s->out.data, rest, keep);
    else
        s->torn = false;
    s->out.len = keep;
    s->out_off = 0;
    s->pending.len = 0;
    return lines;
}

void
cap_sink_reset(cap_sink *s)
{
    s->pending.len = s->out.len = s->out_off = 0;
    s->torn = false;
}

void
cap_sink_free(cap_sink *s)
{
    cap_buffer_free(&s->pending);
    cap_buffer_free(&s->out);
    s->out_off = 0;
    s->torn = false;
}
