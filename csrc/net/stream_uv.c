/* TCP and unix streams on libuv. */
#include "net/stream.h"

#include <assert.h>
#include <errno.h>
#include <sys/socket.h>

#include "base/mem.h"

typedef struct write_req {
    uv_write_t req;
    cap_stream_uv *owner;
    void *token;
} write_req;

static cap_stream_uv *
self_of(const cap_stream *s)
{
    return (cap_stream_uv *)s;
}

static void
on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    cap_stream_uv *s = handle->data;
    buf->base = NULL;
    buf->len = 0;
    s->base.on->alloc(&s->base, buf);
}

static void
on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    cap_stream_uv *s = stream->data;
    if (n == 0 && s->base.on->unread != NULL)
        s->base.on->unread(&s->base);
    if (n == 0 || n == UV_ENOBUFS)
        return; /* EAGAIN, or alloc left the bytes where they are */
    s->base.on->read(&s->base, buf->base, n == UV_EOF ? 0 : n);
}

static int
op_read_start(cap_stream *s)
{
    int rc = uv_read_start(&self_of(s)->h.stream, on_alloc, on_read);
    return rc == UV_EALREADY ? 0 : rc;
}

static void
op_read_stop(cap_stream *s)
{
    uv_read_stop(&self_of(s)->h.stream);
}

static ssize_t
op_try_write(cap_stream *s, const uv_buf_t *bufs, unsigned n)
{
    int rc = uv_try_write(&self_of(s)->h.stream, bufs, n);
    return rc == UV_EAGAIN ? 0 : rc;
}

static void
on_write(uv_write_t *req, int status)
{
    write_req *w = (write_req *)req;
    cap_stream_uv *s = w->owner;
    void *token = w->token;
    cap_free(w);
    s->base.on->written(&s->base, token, status);
}

static int
op_write(cap_stream *s, const uv_buf_t *bufs, unsigned n, void *token)
{
    write_req *w = cap_malloc(sizeof *w);
    if (w == NULL)
        return UV_ENOMEM;
    w->owner = self_of(s);
    w->token = token;
    int rc = uv_write(&w->req, &self_of(s)->h.stream, bufs, n, on_write);
    if (rc < 0)
        cap_free(w);
    return rc;
}

static size_t
op_unwritten(const cap_stream *s)
{
    return uv_stream_get_write_queue_size(&self_of(s)->h.stream);
}

static int
op_fd(const cap_stream *s)
{
    uv_os_fd_t fd;
    return uv_fileno(&self_of(s)->h.handle, &fd) == 0 ? fd : -1;
}

static int
op_shut_write(cap_stream *s)
{
    /* Nothing is queued, so the system call says all that uv_shutdown would, without
       a request that has to outlive this call. */
    int fd = op_fd(s);
    if (fd < 0)
        return UV_EBADF;
    return shutdown(fd, SHUT_WR) == 0 ? 0 : uv_translate_sys_error(errno);
}

static void
on_close(uv_handle_t *handle)
{
    cap_stream_uv *s = handle->data;
    s->base.on->closed(&s->base);
}

static void
op_close(cap_stream *s, unsigned how)
{
    uv_handle_t *handle = &self_of(s)->h.handle;
    assert(!uv_is_closing(handle));
    int fd = how != 0 ? op_fd(s) : -1;
    bool reset = (how & CAP_CLOSE_RESET) != 0;
    if (fd >= 0 && reset) { /* means nothing to a unix socket */
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    if (fd >= 0 && (how & CAP_CLOSE_SHARED) != 0) {
        struct sockaddr none = {.sa_family = AF_UNSPEC};
        /* Linux sends an RST then; a unix socket says EINVAL */
        if (!reset || connect(fd, &none, sizeof none) < 0)
            (void)shutdown(fd, SHUT_RDWR);
    }
    uv_close(handle, on_close);
}

static const cap_stream_ops uv_ops = {
    .read_start = op_read_start,
    .read_stop = op_read_stop,
    .try_write = op_try_write,
    .write = op_write,
    .unwritten = op_unwritten,
    .shut_write = op_shut_write,
    .close = op_close,
    .fd = op_fd,
};

int
cap_stream_uv_open(cap_stream_uv *s, uv_loop_t *loop, int fd, const cap_stream_events *on,
                   void *owner)
{
    s->base.ops = &uv_ops;
    s->base.on = on;
    s->base.owner = owner;
    /* Unix sockets, too: open, they are the same to libuv, and a uv_pipe_t is larger. Cannot
       fail without flags to look at (libuv 1.52, unix/tcp.c). */
    (void)uv_tcp_init(loop, &s->h.tcp);
    s->h.handle.data = s;
    return uv_tcp_open(&s->h.tcp, fd);
}
