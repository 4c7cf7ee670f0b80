#include "pool/responder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void
cap_responder_init(cap_responder *r, const cap_health *set)
{
    r->set = set;
    r->accept_at = 0;
    for (size_t i = 0; i < CAP_HEALTH_CONNECTIONS; i++)
        r->conn[i].fd = -1;
}

static void
drop(cap_health_conn *c)
{
    close(c->fd);
    c->fd = -1;
}

void
cap_responder_close(cap_responder *r)
{
    for (size_t i = 0; i < CAP_HEALTH_CONNECTIONS; i++)
        if (r->conn[i].fd >= 0)
            drop(&r->conn[i]);
}

/* ---- one connection ---- */

static int
decide(const cap_health *h, const char *head, size_t len, bool *no_content)
{
    const char *end = memchr(head, '\n', len);
    const char *method_end = memchr(head, ' ', (size_t)(end - head));
    if (method_end == NULL)
        return 400;
    const char *target = method_end + 1;
    const char *target_end = memchr(target, ' ', (size_t)(end - target));
    if (target_end == NULL || end - target_end < 9 || memcmp(target_end, " HTTP/1.", 8) != 0)
        return 400;
    size_t method = (size_t)(method_end - head);
    *no_content = method == 4 && memcmp(head, "HEAD", 4) == 0;
    if (!*no_content && !(method == 3 && memcmp(head, "GET", 3) == 0))
        return 405;
    if (!cap_health_is_path(h, target, (size_t)(target_end - target)))
        return 404;
    return cap_health_ready(h) ? 200 : 503;
}

static void
answer(cap_responder *r, cap_health_conn *c, int status, bool no_content, uint64_t now)
{
    const char *phrase = "OK", *text = "ok\n", *more = "";
    switch (status) {
    case 400: phrase = text = "Bad Request"; break;
    case 404: phrase = text = "Not Found"; break;
    case 405: phrase = text = "Method Not Allowed"; more = "allow: GET, HEAD\r\n"; break;
    case 431: phrase = text = "Request Header Fields Too Large"; break;
    case 503: phrase = "Service Unavailable"; text = "not ready\n"; break;
    }
    char out[512];
    int len = snprintf(out, sizeof out,
                       "HTTP/1.1 %d %s\r\ncontent-type: text/plain; charset=utf-8\r\n"
                       "cache-control: no-store\r\n%scontent-length: %zu\r\n"
                       "connection: close\r\n\r\n%s",
                       status, phrase, more, strlen(text), no_content ? "" : text);
    /* The socket's buffer is empty: it takes so few octets as a whole. */
    if (send(c->fd, out, (size_t)len, MSG_NOSIGNAL) != len) {
        drop(c);
        return;
    }
    /* Closing with unread octets would reset the connection and may take the answer back
       (RFC 9112, section 9.6). */
    shutdown(c->fd, SHUT_WR);
    c->answered = true;
    c->deadline = now + CAP_HEALTH_LINGER;
}

/* An empty line ends the fields. */
static bool
is_whole(const char *head, size_t len)
{
    return memmem(head, len, "\r\n\r\n", 4) != NULL || memmem(head, len, "\n\n", 2) != NULL;
}

static void
on_readable(cap_responder *r, cap_health_conn *c, uint64_t now)
{
    if (c->answered) {
        char rest[1024];
        ssize_t n = recv(c->fd, rest, sizeof rest, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            drop(c);
        return;
    }
    ssize_t n = recv(c->fd, c->head + c->len, sizeof c->head - c->len, 0);
    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            drop(c);
        return;
    }
    c->len += (size_t)n;
    if (is_whole(c->head, c->len)) {
        bool no_content = false;
        int status = decide(r->set, c->head, c->len, &no_content);
        answer(r, c, status, no_content, now);
    }
    else if (c->len == sizeof c->head)
        answer(r, c, 431, false, now);
}

/* A place for a new connection; when all are taken, that of the one which ends first. */
static cap_health_conn *
place(cap_responder *r)
{
    cap_health_conn *found = &r->conn[0];
    for (size_t i = 0; i < CAP_HEALTH_CONNECTIONS; i++) {
        if (r->conn[i].fd < 0)
            return &r->conn[i];
        if (r->conn[i].deadline < found->deadline)
            found = &r->conn[i];
    }
    drop(found);
    return found;
}

static void
on_connections(cap_responder *r, uint64_t now)
{
    for (int i = 0; i < CAP_HEALTH_CONNECTIONS; i++) {
        int fd = accept(r->set->fd, NULL, NULL);
        if (fd < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR && errno != ECONNABORTED)
                r->accept_at = now + 100; /* descriptors ran out, say; it stays readable: do not spin */
            return;
        }
        int flags = fcntl(fd, F_GETFL);
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || flags < 0 ||
            fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
            close(fd);
            continue;
        }
        cap_health_conn *c = place(r);
        c->fd = fd;
        c->len = 0;
        c->answered = false;
        c->deadline = now + CAP_HEALTH_TIMEOUT;
        on_readable(r, c, now); /* mostly the request is there already */
    }
}

/* ---- polling ---- */

size_t
cap_responder_poll(const cap_responder *r, struct pollfd *p, uint64_t *due)
{
    if (r->set->fd < 0)
        return 0;
    size_t n = 0;
    bool later = r->accept_at != 0;
    p[n++] = (struct pollfd){.fd = later ? -1 : r->set->fd, .events = POLLIN};
    if (later && r->accept_at < *due)
        *due = r->accept_at;
    for (size_t i = 0; i < CAP_HEALTH_CONNECTIONS; i++) {
        const cap_health_conn *c = &r->conn[i];
        if (c->fd < 0)
            continue;
        p[n++] = (struct pollfd){.fd = c->fd, .events = POLLIN};
        if (c->deadline < *due)
            *due = c->deadline;
    }
    return n;
}

void
cap_responder_serve(cap_responder *r, const struct pollfd *p, size_t n, uint64_t now)
{
    for (size_t at = 1; at < n; at++) {
        if (p[at].revents == 0)
            continue;
        for (size_t i = 0; i < CAP_HEALTH_CONNECTIONS; i++)
            if (r->conn[i].fd == p[at].fd) {
                on_readable(r, &r->conn[i], now);
                break;
            }
    }
    for (size_t i = 0; i < CAP_HEALTH_CONNECTIONS; i++)
        if (r->conn[i].fd >= 0 && r->conn[i].deadline <= now)
            drop(&r->conn[i]);
    if (r->accept_at <= now)
        r->accept_at = 0;
    if (n != 0 && p[0].revents != 0)
        on_connections(r, now);
}
