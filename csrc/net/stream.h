/* A stream of bytes between us and one peer: what HTTP and WebSocket code needs
   of a connection, whatever carries it (TCP or unix socket here; TLS can stand
   behind the same operations). Knows libuv, not Python.

   The owner embeds the stream, gives it its callbacks, and keeps the memory until
   `on->closed` was called. Every callback comes from inside uv_run, on the loop's
   thread; none is called from inside one of the functions below but cap_stream_resume. */
#ifndef CAP_NET_STREAM_H
#define CAP_NET_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <uv.h>

typedef struct cap_stream cap_stream;

typedef struct cap_stream_events {
    /* Where the next bytes are to be put. NULL in buf->base: leave them in the
       socket. The memory has to last until `read` is called. */
    void (*alloc)(cap_stream *s, uv_buf_t *buf);
    /* n > 0: that many bytes at `data`. n == 0: the peer sends no more (it may
       still read). n < 0: the connection is broken, a UV_E... code. */
    void (*read)(cap_stream *s, const char *data, ssize_t n);
    /* alloc gave memory, and there was nothing to read after all. NULL: nobody minds. */
    void (*unread)(cap_stream *s);
    /* The memory that cap_stream_write got is the caller's again (token NULL: it is about
       what cap_stream_try_write took and could not send at once). status 0, or UV_E...
       when it was not sent. */
    void (*written)(cap_stream *s, void *token, int status);
    /* The last callback: the stream's memory is the owner's again. */
    void (*closed)(cap_stream *s);
} cap_stream_events;

typedef struct cap_stream_ops {
    int (*read_start)(cap_stream *s);
    void (*read_stop)(cap_stream *s);
    void (*resume)(cap_stream *s); /* NULL: nothing is ever held back */
    ssize_t (*try_write)(cap_stream *s, const uv_buf_t *bufs, unsigned n);
    int (*write)(cap_stream *s, const uv_buf_t *bufs, unsigned n, void *token);
    size_t (*unwritten)(const cap_stream *s);
    int (*shut_write)(cap_stream *s);
    void (*close)(cap_stream *s, unsigned how);
    int (*fd)(const cap_stream *s);
} cap_stream_ops;

struct cap_stream {
    const cap_stream_ops *ops;
    const cap_stream_events *on;
    void *owner; /* the owner's, set by it */
};

/* 0 or UV_E... . Starting twice and stopping twice is fine. */
static inline int
cap_stream_read_start(cap_stream *s)
{
    return s->ops->read_start(s);
}
static inline void
cap_stream_read_stop(cap_stream *s)
{
    s->ops->read_stop(s);
}
/* After reading was stopped and started again: hand over what the stream itself still
   holds (deciphered, not yet read). `read` is called from inside. */
static inline void
cap_stream_resume(cap_stream *s)
{
    if (s->ops->resume != NULL)
        s->ops->resume(s);
}
/* Write what goes out at once: the octets taken, 0 when none (also when earlier
   bytes still wait), or UV_E... . Keeps nothing. */
static inline ssize_t
cap_stream_try_write(cap_stream *s, const uv_buf_t *bufs, unsigned n)
{
    return s->ops->try_write(s, bufs, n);
}
/* Queue behind what waits. The octets (not the array) have to last until
   `written` is called with `token`. 0, or UV_E... (then `written` is not called). */
static inline int
cap_stream_write(cap_stream *s, const uv_buf_t *bufs, unsigned n, void *token)
{
    return s->ops->write(s, bufs, n, token);
}
/* Octets queued and not yet taken by the kernel. */
static inline size_t
cap_stream_unwritten(const cap_stream *s)
{
    return s->ops->unwritten(s);
}
/* Tell the peer that nothing more will come; reading goes on. Only when nothing is
   queued. 0 or UV_E... . */
static inline int
cap_stream_shut_write(cap_stream *s)
{
    return s->ops->shut_write(s);
}
/* Once. What is queued is dropped (its `written` is called with UV_ECANCELED
   before `closed`). `how` is a sum of these. */
#define CAP_CLOSE_RESET 1 /* the peer gets an RST where there is such a thing */
#define CAP_CLOSE_SHARED 2 /* other processes may have it open: the connection ends for them, too */
static inline void
cap_stream_close(cap_stream *s, unsigned how)
{
    s->ops->close(s, how);
}
/* The descriptor, -1 when there is none. Still the stream's. */
static inline int
cap_stream_fd(const cap_stream *s)
{
    return s->ops->fd(s);
}

/* --- TCP and unix sockets (stream_uv.c) -------------------------------------- */

typedef struct cap_stream_uv {
    cap_stream base;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
    } h;
} cap_stream_uv;

/* Take over the connected socket `fd` (non-blocking). 0: it is the stream's. UV_E...:
   fd is still the caller's; a handle exists all the same and has to be closed by
   cap_stream_close. */
int cap_stream_uv_open(cap_stream_uv *s, uv_loop_t *loop, int fd, const cap_stream_events *on,
                       void *owner);

#endif
