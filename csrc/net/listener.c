#include "net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- congestion control between programs of one machine ---- */

#ifdef TCP_CONGESTION
static bool
is_loopback(const struct sockaddr_storage *addr)
{
    if (addr->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
        return ntohl(in->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    }
    if (addr->ss_family == AF_INET6) {
        const struct in6_addr *in6 = &((const struct sockaddr_in6 *)addr)->sin6_addr;
        return IN6_IS_ADDR_LOOPBACK(in6) ||
               (IN6_IS_ADDR_V4MAPPED(in6) && in6->s6_addr[12] == IN_LOOPBACKNET);
    }
    return false;
}

static bool
is_any(const struct sockaddr_storage *addr)
{
    if (addr->ss_family == AF_INET)
        return ((const struct sockaddr_in *)addr)->sin_addr.s_addr == htonl(INADDR_ANY);
    return addr->ss_family == AF_INET6 &&
           IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)addr)->sin6_addr);
}

static void
do_not_pace(int fd)
{
    (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4); /* every Linux has it */
}

/* A model of the path, as BBR makes one, only costs where there is no path: pacing puts a
   timer between segments that nothing delays. Measured with bodies of 1 MiB to a client on
   the same machine: half the processor time. Accepted sockets inherit what is set here. */
static void
mind_loopback(cap_listener *l, const struct sockaddr_storage *addr)
{
    char name[16] = "";
    socklen_t len = sizeof name - 1;
    l->asks_peer = false;
    if (getsockopt(l->fd, IPPROTO_TCP, TCP_CONGESTION, name, &len) < 0 ||
        strcmp(name, "cubic") == 0 || strcmp(name, "reno") == 0)
        return;
    if (is_loopback(addr))
        do_not_pace(l->fd);
    else
        l->asks_peer = is_any(addr);
}
#else
static void
mind_loopback(cap_listener *l, const struct sockaddr_storage *addr)
{
    (void)addr;
    l->asks_peer = false;
}
#endif

/* ---- accepting ---- */

static int
accept_one(const cap_listener *l)
{
#ifdef __linux__
    if (!l->asks_peer)
        return accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    int fd = accept4(l->fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0 && is_loopback(&peer))
        do_not_pace(fd);
    return fd;
#else
    int listening = l->fd;
    int fd = accept(listening, NULL, NULL);
    if (fd >= 0 && (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ||
                    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)) {
        int err = errno;
        close(fd);
        errno = err;
        return -1;
    }
    return fd;
#endif
}

/* An error of the connection that would have been the next, not of the socket that
   listens (accept(2), "Error handling"). */
static bool
ends_one_connection(int err)
{
    switch (err) {
    case ECONNABORTED:
    case EPROTO:
    case ENOPROTOOPT:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
        return true;
    default:
        return false;
    }
}

static bool
one_waits(int listening)
{
    struct pollfd p = {.fd = listening, .events = POLLIN};
    return poll(&p, 1, 0) != 0;
}

static void on_readable(uv_poll_t *poll, int status, int events);

static void
on_pause_over(uv_timer_t *timer)
{
    cap_listener *l = timer->data;
    l->on->enter(l);
    if (!l->closing)
        uv_poll_start(&l->poll, UV_READABLE, on_readable);
}

/* Leave what waits to the siblings that share the socket? Then we look again soon. */
static bool
leave_to_siblings(cap_listener *l)
{
    if (l->on->may_accept == NULL || l->on->may_accept(l)) {
        l->held = 0;
        l->patience = CAP_ACCEPT_PATIENCE;
        return false;
    }
    if (l->held >= l->patience) {
        l->held = 0;
        l->patience = l->patience > 1 ? l->patience / 2 : 1;
        return false;
    }
    uv_poll_stop(&l->poll);
    l->held++;
    uv_timer_start(&l->pause, on_pause_over, CAP_ACCEPT_HOLD_MS, 0);
    return true;
}

static void
on_readable(uv_poll_t *poll, int status, int events)
{
    (void)events;
    cap_listener *l = poll->data;
    if (status >= 0 && leave_to_siblings(l))
        return;
    l->on->enter(l);
    if (status < 0) { /* an error waits in the socket, and libuv has stopped looking */
        uv_timer_start(&l->pause, on_pause_over, CAP_ACCEPT_PAUSE_MS, 0);
        return;
    }
    for (int i = 0; i < CAP_ACCEPT_BATCH && !l->closing; i++) {
        if (i > 0 && leave_to_siblings(l))
            return;
        int fd = accept_one(l);
        if (fd >= 0) {
            l->on->accepted(l, fd);
            continue;
        }
        int err = errno;
        if (err == EINTR)
            continue;
        if (err == EMFILE || err == ENFILE || err == ENOBUFS || err == ENOMEM) {
            if (!one_waits(l->fd))
                return; /* Linux takes the descriptor before it looks for a connection */
            if (l->on->exhausted(l, err) || l->closing)
                return; /* level-triggered: the next poll tries again */
            uv_poll_stop(&l->poll);
            uv_timer_start(&l->pause, on_pause_over, CAP_ACCEPT_PAUSE_MS, 0);
        } else if (err != EAGAIN && err != EWOULDBLOCK) {
            if (ends_one_connection(err))
                continue;
            /* Nothing that passes by itself, a socket that was shut down for instance: the
               descriptor stays readable, so look seldom. */
            uv_poll_stop(&l->poll);
            uv_timer_start(&l->pause, on_pause_over, CAP_ACCEPT_PAUSE_MS, 0);
        }
        if (i == 0) { /* EAGAIN: taken by a sibling */
            l->held = 0;
            l->patience = CAP_ACCEPT_PATIENCE;
        }
        return;
    }
}

int
cap_listener_start(cap_listener *l, uv_loop_t *loop, int fd, const cap_listener_events *on,
                   void *owner)
{
    struct sockaddr_storage addr;
    socklen_t len = sizeof addr;
    if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
        return uv_translate_sys_error(errno);
    l->on = on;
    l->owner = owner;
    l->fd = fd;
    l->family = addr.ss_family;
    l->closing = false;
    l->held = 0;
    l->patience = CAP_ACCEPT_PATIENCE;
    l->open_handles = 2;
    if (l->family == AF_INET || l->family == AF_INET6) {
        /* Accepted sockets inherit it: one system call less for each connection. */
        int yes = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    }
    mind_loopback(l, &addr);
    int rc = uv_poll_init(loop, &l->poll, fd);
    if (rc < 0)
        return rc;
    l->poll.data = l;
    uv_timer_init(loop, &l->pause);
    l->pause.data = l;
    /* Fails only for a handle that is closing or events that are unknown. */
    (void)uv_poll_start(&l->poll, UV_READABLE, on_readable);
    return 0;
}

static void
on_handle_closed(uv_handle_t *handle)
{
    cap_listener *l = handle->data;
    if (--l->open_handles == 0) {
        l->on->enter(l);
        l->on->closed(l);
    }
}

void
cap_listener_take_waiting(cap_listener *l)
{
    while (!l->closing) {
        int fd = accept_one(l);
        if (fd >= 0)
            l->on->accepted(l, fd);
        else if (errno != EINTR && errno != ECONNABORTED)
            return;
    }
}

void
cap_listener_close(cap_listener *l)
{
    l->closing = true;
    uv_close((uv_handle_t *)&l->poll, on_handle_closed);
    uv_close((uv_handle_t *)&l->pause, on_handle_closed);
}
