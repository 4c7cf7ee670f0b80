/* The load of the benchmarks: HTTP/1.1, WebSocket and plain TCP clients on epoll, each response compared.

   load http  -p PORT -q REQUEST -b BODY [-s STATUS] [-c CONNS] [-P DEPTH] [-C] [-r RATE]
   load ws    -p PORT -m OCTETS [-k IN_FLIGHT] [-B] [-c CONNS]
   load echo  -p PORT -m OCTETS [-c CONNS]
   load sink  -p PORT -m OCTETS [-c CONNS]
   load hold  -p PORT -q REQUEST -b BODY [-s STATUS] [-c CONNS]
   for all: [-d SECONDS] [-t THREADS] [-T]

   -q  file with the octets of one request        -b  file with the body that each response must have
   -P  requests written at once, the next ones when all are answered
   -C  a connection for each request              -r  requests a second, whatever the server does ("open loop"):
   -k  messages in flight on a WebSocket              latency then counts from when a request was due
   -B  binary messages, not text                  -T  TLS, the certificate is not looked at (built with -DWITH_TLS)
   sink: sends one octet, reads that many octets and the end of the stream. hold: one request for each connection,
   which then stays open.

   Talks with its driver in lines: writes "ready" when all connections are made, waits for a line, writes "end" when
   the seconds are over, then waits for what is in flight (5 s at most; what is missing is an error) and writes one
   JSON object. hold writes the object when each connection has its answer, waits for a line and writes another.

   Linux only. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

enum { HTTP, WS, ECHO, SINK, HOLD };

static struct {
    int mode, port, conns, depth, inflight, threads, status;
    bool close, binary, tls;
    double seconds, rate;
    size_t octets;
    char *out;        /* what is written: `copies` requests or messages one after the other */
    size_t unit;      /* octets of one of them */
    size_t copies;
    char *want;       /* body or payload of each answer */
    size_t want_len;
} opt = {.conns = 64, .depth = 1, .inflight = 1, .threads = 1, .status = 200, .seconds = 1};

#ifdef WITH_TLS
static SSL_CTX *tls_context;
#endif

/* ---- histogram: 64 steps for each power of two, so 1.6 % ---- */

#define SUB 64
#define BUCKETS (SUB * 40)

typedef struct {
    uint64_t count[BUCKETS];
    uint64_t n, max;
    double sum;
} histogram;

static unsigned
bucket_of(uint64_t ns)
{
    if (ns < SUB)
        return (unsigned)ns;
    unsigned shift = 63 - (unsigned)__builtin_clzll(ns) - 6;
    unsigned index = (shift + 1) * SUB + (unsigned)((ns >> shift) - SUB);
    return index < BUCKETS ? index : BUCKETS - 1;
}

static uint64_t
bucket_value(unsigned index)
{
    if (index < SUB)
        return index;
    unsigned shift = index / SUB - 1;
    return ((uint64_t)(index % SUB + SUB) << shift) + ((1ull << shift) >> 1);
}

static void
record(histogram *h, uint64_t ns)
{
    h->count[bucket_of(ns)]++;
    h->n++;
    h->sum += (double)ns;
    if (ns > h->max)
        h->max = ns;
}

static double
percentile(const histogram *h, double p)
{
    uint64_t rank = (uint64_t)(p / 100 * (double)h->n + 0.5), seen = 0;
    if (rank < 1)
        rank = 1;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += h->count[i];
        if (seen >= rank)
            return (double)(bucket_value(i) < h->max ? bucket_value(i) : h->max);
    }
    return (double)h->max;
}

/* ---- connections ---- */

typedef enum {
    S_NONE,      /* no socket */
    S_CONNECT,   /* connect() or the TLS handshake is under way */
    S_UPGRADE,   /* the answer to the WebSocket handshake is awaited */
    S_OPEN
} conn_state;

typedef enum { B_HEAD, B_LENGTH, B_SIZE, B_CHUNK, B_CHUNK_END, B_TRAILER, B_CLOSE, B_PAYLOAD } read_state;

typedef struct {
    int fd;
    conn_state state;
    read_state reading;
    bool writable_wanted, close_after, fin;
    size_t to_write;       /* octets still to be written */
    size_t written;        /* position in opt.out */
    unsigned waiting;      /* answers that have to come */
    uint64_t *since;       /* ring: when each of them was asked for */
    unsigned first;
    uint64_t left;         /* octets of this body, chunk or frame still to come */
    size_t got;            /* octets of this answer's body so far */
    char *rest;            /* start of a head, line or frame that is not complete */
    size_t rest_len;
#ifdef WITH_TLS
    SSL *ssl;
#endif
} conn;

#define READ_SIZE (256 * 1024)
#define REST_SIZE (32 * 1024)

typedef struct {
    pthread_t id;
    int epoll, timer;
    conn *conns;
    int n;
    char *buffer;               /* REST_SIZE + READ_SIZE */
    char memo[4096];            /* the last head, and what it meant */
    size_t memo_len;
    int64_t memo_length;        /* -1 chunked, -2 until the end of the connection */
    bool memo_close;
    histogram latency;
    uint64_t done, bytes, errors, reconnects, late_done;
    char first_error[256];
    bool counting, draining;
    int busy;                   /* connections with an answer outstanding */
    int opening;
    uint64_t sent;              /* at a fixed rate: requests begun */
    uint64_t start, end;
    int *idle, idle_n;          /* at a fixed rate: connections without a request */
} worker;

static uint64_t
now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void
die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void *
get(size_t size)
{
    void *p = calloc(1, size ? size : 1);
    if (p == NULL)
        die("memory");
    return p;
}

static void conn_begin(worker *w, conn *c);
static void conn_write(worker *w, conn *c);

__attribute__((format(printf, 2, 3))) static void
error(worker *w, const char *format, ...)
{
    if (w->errors++ == 0) {
        va_list list;
        va_start(list, format);
        vsnprintf(w->first_error, sizeof w->first_error, format, list);
        va_end(list);
    }
}

static void
conn_drop(worker *w, conn *c)
{
    if (c->state == S_NONE)
        return;
#ifdef WITH_TLS
    if (c->ssl != NULL) {
        SSL_free(c->ssl);
        c->ssl = NULL;
    }
#endif
    close(c->fd);
    if (c->state != S_OPEN)
        w->opening--;
    if (c->waiting > 0)
        w->busy--;
    c->state = S_NONE;
    c->waiting = 0;
    c->first = 0;
    c->rest_len = 0;
    c->to_write = 0;
    c->reading = B_HEAD;
}

static void
conn_fail(worker *w, conn *c)
{
    conn_drop(w, c);
    if (opt.rate > 0 && opt.close)
        w->idle[w->idle_n++] = (int)(c - w->conns);
    if (opt.rate > 0 || w->draining || !w->counting)
        return;
    if (w->errors < 1000)
        conn_begin(w, c);
}

static void
watch(worker *w, conn *c, uint32_t events, int how)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(w->epoll, how, c->fd, &event) < 0)
        die("epoll_ctl");
}

static void
want_writable(worker *w, conn *c, bool on)
{
    if (c->writable_wanted != on) {
        c->writable_wanted = on;
        watch(w, c, EPOLLIN | (on ? EPOLLOUT : 0), EPOLL_CTL_MOD);
    }
}

/* Like read(2); -1 with EAGAIN when nothing is there. */
static ssize_t
conn_read_some(conn *c, char *to, size_t size)
{
#ifdef WITH_TLS
    if (c->ssl != NULL) {
        ERR_clear_error();
        int n = SSL_read(c->ssl, to, (int)size);
        if (n > 0)
            return n;
        int why = SSL_get_error(c->ssl, n);
        if (why == SSL_ERROR_ZERO_RETURN)
            return 0;
        errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
        return -1;
    }
#endif
    return recv(c->fd, to, size, 0);
}

static ssize_t
conn_write_some(conn *c, const char *from, size_t size)
{
#ifdef WITH_TLS
    if (c->ssl != NULL) {
        ERR_clear_error();
        int n = SSL_write(c->ssl, from, (int)(size < 65536 ? size : 65536));
        if (n > 0)
            return n;
        int why = SSL_get_error(c->ssl, n);
        errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
        return -1;
    }
#endif
    return send(c->fd, from, size, MSG_NOSIGNAL);
}

static void
conn_write(worker *w, conn *c)
{
    while (c->to_write > 0) {
        size_t chunk = opt.unit * opt.copies - c->written;
        if (chunk > c->to_write)
            chunk = c->to_write;
        ssize_t n = conn_write_some(c, opt.out + c->written, chunk);
        if (n < 0) {
            if (errno == EAGAIN) {
                want_writable(w, c, true);
                return;
            }
            error(w, "write: %s", strerror(errno));
            conn_fail(w, c);
            return;
        }
        c->written = (c->written + (size_t)n) % (opt.unit * opt.copies);
        c->to_write -= (size_t)n;
    }
    want_writable(w, c, false);
}

static unsigned
ring_size(void)
{
    return (unsigned)(opt.mode == WS ? opt.inflight : opt.depth);
}

/* Asks for `count` answers at once. */
static void
conn_ask(worker *w, conn *c, unsigned count, uint64_t when)
{
    if (c->waiting == 0)
        w->busy++;
    for (unsigned i = 0; i < count; i++)
        c->since[(c->first + c->waiting + i) % ring_size()] = when;
    c->waiting += count;
    if (c->to_write == 0 && opt.mode != WS)
        c->written = 0;
    c->to_write += opt.unit * count;
    conn_write(w, c);
}

static void
conn_opened(worker *w, conn *c)
{
    w->opening--;
    c->state = S_OPEN;
    c->reading = B_HEAD;
    want_writable(w, c, false);
    if (opt.mode == HOLD || (w->counting && !w->draining && opt.rate == 0))
        conn_ask(w, c, ring_size(), now_ns());
    else if (opt.rate > 0 && opt.close)
        conn_write(w, c);
    else if (opt.rate > 0)
        w->idle[w->idle_n++] = (int)(c - w->conns);
}

static void
conn_connected(worker *w, conn *c)
{
#ifdef WITH_TLS
    if (opt.tls) {
        if (c->ssl == NULL) {
            c->ssl = SSL_new(tls_context);
            if (c->ssl == NULL || SSL_set_fd(c->ssl, c->fd) != 1)
                die("TLS");
            SSL_set_connect_state(c->ssl);
        }
        ERR_clear_error();
        int n = SSL_do_handshake(c->ssl);
        if (n != 1) {
            int why = SSL_get_error(c->ssl, n);
            if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) {
                want_writable(w, c, why == SSL_ERROR_WANT_WRITE);
                return;
            }
            error(w, "TLS handshake failed");
            conn_fail(w, c);
            return;
        }
    }
#endif
    if (opt.mode == WS) {
        char text[256];
        int n = snprintf(text, sizeof text,
                         "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                         opt.port);
        if (conn_write_some(c, text, (size_t)n) != n) {
            error(w, "write of the handshake: %s", strerror(errno));
            conn_fail(w, c);
            return;
        }
        c->state = S_UPGRADE;
        want_writable(w, c, false);
        return;
    }
    conn_opened(w, c);
}

static void
conn_begin(worker *w, conn *c)
{
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket");
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->state = S_CONNECT;
    c->reading = B_HEAD;
    c->close_after = c->fin = false;
    c->written = 0;
    w->opening++;
    int result = connect(c->fd, (struct sockaddr *)&to, sizeof to);
    if (result < 0 && errno != EINPROGRESS) {
        error(w, "connect: %s", strerror(errno));
        watch(w, c, EPOLLIN, EPOLL_CTL_ADD);
        conn_fail(w, c);
        return;
    }
    c->writable_wanted = result < 0;
    watch(w, c, EPOLLIN | (result < 0 ? EPOLLOUT : 0), EPOLL_CTL_ADD);
    if (result == 0)
        conn_connected(w, c);
}

/* ---- answers ---- */

/* An answer is complete and right. False when the connection is not to be read further. */
static bool
answered(worker *w, conn *c)
{
    uint64_t now = now_ns(), since = c->since[c->first];
    c->first = (c->first + 1) % ring_size();
    c->waiting--;
    if (c->waiting == 0)
        w->busy--;
    c->got = 0;
    c->reading = B_HEAD;
    if (w->counting) {
        if (!w->draining || opt.rate > 0) {
            w->done++;
            w->bytes += opt.want_len;
            record(&w->latency, now - since);
        } else {
            w->late_done++;
        }
    }
    if (opt.mode == HOLD)
        return true;
    if (c->close_after || opt.close || opt.mode == SINK) {
        if (!opt.close && opt.mode != SINK)
            w->reconnects++;
        conn_drop(w, c);
        if (opt.rate > 0)
            w->idle[w->idle_n++] = (int)(c - w->conns);
        else if (!w->draining)
            conn_begin(w, c);
        return false;
    }
    if (opt.rate > 0) {
        w->idle[w->idle_n++] = (int)(c - w->conns);
        return true;
    }
    if (w->draining)
        return true;
    if (opt.mode != WS && c->waiting == 0) {
        conn_ask(w, c, ring_size(), now);
        return c->state == S_OPEN;
    }
    return true;
}

static bool
bad(worker *w, conn *c, const char *what)
{
    error(w, "%s", what);
    conn_fail(w, c);
    return false;
}

/* Compares `n` octets of a body with what is expected there. */
static bool
body_right(worker *w, conn *c, const char *data, size_t n)
{
    if (n > opt.want_len - c->got || memcmp(data, opt.want + c->got, n) != 0)
        return bad(w, c, n > opt.want_len - c->got ? "a body that is too long" : "a body with wrong octets");
    c->got += n;
    return true;
}

static bool
body_done(worker *w, conn *c)
{
    if (c->got != opt.want_len)
        return bad(w, c, "a body that is too short");
    return answered(w, c);
}

/* Reads the head at `p`; its length, or 0 when it is not complete. */
static size_t
read_head(worker *w, const char *p, size_t n, int *status)
{
    if (n >= w->memo_len && w->memo_len > 0 && memcmp(p, w->memo, w->memo_len) == 0) {
        *status = opt.status;
        return w->memo_len;
    }
    const char *end = memmem(p, n, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    size_t length = (size_t)(end - p) + 4;
    if (length < 16 || memcmp(p, "HTTP/1.", 7) != 0) {
        *status = -1;
        return length;
    }
    *status = atoi(p + 9);
    w->memo_length = -2;
    w->memo_close = p[7] == '0';
    for (const char *line = memmem(p, length, "\r\n", 2) + 2; line < end;) {
        const char *next = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);
        const char *colon = memchr(line, ':', (size_t)(next - line));
        if (colon != NULL) {
            size_t name = (size_t)(colon - line);
            const char *value = colon + 1;
            while (value < next && *value == ' ')
                value++;
            if (name == 14 && strncasecmp(line, "content-length", 14) == 0)
                w->memo_length = w->memo_length == -1 ? -1 : atoll(value);
            else if (name == 17 && strncasecmp(line, "transfer-encoding", 17) == 0)
                w->memo_length = -1;
            else if (name == 10 && strncasecmp(line, "connection", 10) == 0)
                w->memo_close = strncasecmp(value, "close", 5) == 0;
        }
        line = next + 2;
    }
    w->memo_len = 0;
    if (*status == opt.status && length <= sizeof w->memo) {
        memcpy(w->memo, p, length);
        w->memo_len = length;
    }
    return length;
}

/* Takes what it can of `n` octets at `p` and says how many; the rest has to come again with more behind it. -1 when the
   connection is gone. */
static ssize_t
take_http(worker *w, conn *c, const char *p, size_t n)
{
    size_t at = 0;
    while (at < n) {
        const char *here = p + at;
        size_t have = n - at;
        switch (c->reading) {
        case B_HEAD: {
            int status = 0;
            size_t length = read_head(w, here, have, &status);
            if (length == 0)
                return (ssize_t)at;
            if (c->waiting == 0) {
                bad(w, c, "an answer without a request");
                return -1;
            }
            if (status == 100) {
                at += length;
                w->memo_len = 0;
                break;
            }
            if (status != opt.status) {
                error(w, "status %d", status);
                conn_fail(w, c);
                return -1;
            }
            at += length;
            c->close_after = w->memo_close;
            if (w->memo_length == -1) {
                c->reading = B_SIZE;
            } else if (w->memo_length == -2) {
                c->reading = B_CLOSE;
            } else {
                c->left = (uint64_t)w->memo_length;
                c->reading = B_LENGTH;
                if (c->left == 0 && !body_done(w, c))
                    return -1;
            }
            break;
        }
        case B_LENGTH:
        case B_CHUNK: {
            size_t part = have < c->left ? have : (size_t)c->left;
            if (!body_right(w, c, here, part))
                return -1;
            at += part;
            c->left -= part;
            if (c->left == 0) {
                if (c->reading == B_CHUNK)
                    c->reading = B_CHUNK_END;
                else if (!body_done(w, c))
                    return -1;
            }
            break;
        }
        case B_SIZE: {
            const char *end = memmem(here, have, "\r\n", 2);
            if (end == NULL)
                return (ssize_t)at;
            char *stop;
            c->left = strtoull(here, &stop, 16);
            if (stop == here) {
                bad(w, c, "a chunk without a size");
                return -1;
            }
            at += (size_t)(end - here) + 2;
            c->reading = c->left > 0 ? B_CHUNK : B_TRAILER;
            break;
        }
        case B_CHUNK_END:
            if (have < 2)
                return (ssize_t)at;
            at += 2;
            c->reading = B_SIZE;
            break;
        case B_TRAILER: {
            const char *end = memmem(here, have, "\r\n", 2);
            if (end == NULL)
                return (ssize_t)at;
            at += (size_t)(end - here) + 2;
            if (end == here && !body_done(w, c))
                return -1;
            break;
        }
        case B_CLOSE:
            if (!body_right(w, c, here, have))
                return -1;
            at = n;
            break;
        case B_PAYLOAD:
            abort();
        }
    }
    return (ssize_t)at;
}

static ssize_t
take_ws(worker *w, conn *c, const char *p, size_t n)
{
    size_t at = 0;
    unsigned answers = 0;
    while (at < n) {
        const unsigned char *here = (const unsigned char *)p + at;
        size_t have = n - at;
        if (c->reading == B_PAYLOAD) {
            size_t part = have < c->left ? have : (size_t)c->left;
            if (!body_right(w, c, (const char *)here, part))
                return -1;
            at += part;
            c->left -= part;
        } else {
            size_t head = 2;
            if (have < 2)
                break;
            uint64_t length = here[1] & 127;
            if (length == 126)
                head = 4;
            else if (length == 127)
                head = 10;
            if (have < head)
                break;
            if (head > 2) {
                length = 0;
                for (size_t i = 2; i < head; i++)
                    length = length << 8 | here[i];
            }
            unsigned code = here[0] & 15;
            if (here[0] & 0x70 || here[1] & 0x80) {
                bad(w, c, "a WebSocket frame with wrong bits");
                return -1;
            }
            if (code >= 8) {
                if (have < head + length)
                    break;
                if (code == 8) {
                    bad(w, c, "the WebSocket was closed");
                    return -1;
                }
                at += head + length;   /* a ping in a turn of a second needs no pong */
                continue;
            }
            if (code != (c->got > 0 ? 0u : opt.binary ? 2u : 1u) && !(code == 0 && c->got == 0)) {
                bad(w, c, "a message of another kind");
                return -1;
            }
            if (c->waiting == 0) {
                bad(w, c, "a message nobody sent");
                return -1;
            }
            c->fin = (here[0] & 0x80) != 0;
            c->left = length;
            at += head;
            c->reading = B_PAYLOAD;
        }
        if (c->left == 0) {
            c->reading = B_HEAD;
            if (c->fin) {
                if (!body_done(w, c))
                    return -1;
                answers++;
            }
        }
    }
    if (answers > 0 && !w->draining) {
        conn_ask(w, c, answers, now_ns());
        if (c->state != S_OPEN)
            return -1;
    }
    return (ssize_t)at;
}

static ssize_t
take_plain(worker *w, conn *c, const char *p, size_t n)
{
    if (c->waiting == 0) {
        bad(w, c, "octets nobody asked for");
        return -1;
    }
    if (opt.mode == SINK) {
        c->got += n;   /* what they are is not looked at: 256 MiB would cost more than the server takes */
        if (c->got > opt.octets) {
            bad(w, c, "too many octets");
            return -1;
        }
        return (ssize_t)n;
    }
    if (!body_right(w, c, p, n))
        return -1;
    if (c->got == opt.want_len && !answered(w, c))
        return -1;
    return (ssize_t)n;
}

static void
at_end(worker *w, conn *c)
{
    if (c->reading == B_CLOSE && c->waiting > 0) {
        c->close_after = true;
        body_done(w, c);
    } else if (opt.mode == SINK && c->waiting > 0 && c->got == opt.octets) {
        answered(w, c);
    } else if (c->waiting > 0 || opt.mode == WS || opt.mode == HOLD) {
        bad(w, c, "the connection was closed before the answer");
    } else {
        /* Closed between two requests, which a server may do. */
        w->reconnects++;
        if (opt.rate > 0)
            for (int i = 0; i < w->idle_n; i++)
                if (w->idle[i] == (int)(c - w->conns))
                    w->idle[i] = w->idle[--w->idle_n];
        conn_drop(w, c);
        if (!w->draining)
            conn_begin(w, c);
    }
}

static void
conn_readable(worker *w, conn *c)
{
    char *at = w->buffer + REST_SIZE;
    for (;;) {
        ssize_t n = conn_read_some(c, at, READ_SIZE);
        if (n < 0) {
            if (errno == EAGAIN)
                return;
            error(w, "read: %s", strerror(errno));
            conn_fail(w, c);
            return;
        }
        if (n == 0) {
            at_end(w, c);
            return;
        }
        char *p = at - c->rest_len;
        size_t have = (size_t)n + c->rest_len;
        if (c->rest_len > 0)
            memcpy(p, c->rest, c->rest_len);
        c->rest_len = 0;
        ssize_t took = 0;
        if (c->state == S_UPGRADE) {
            char *end = memmem(p, have, "\r\n\r\n", 4);
            if (end != NULL) {
                took = end + 4 - p;
                if (have < 12 || memcmp(p + 9, "101", 3) != 0) {
                    error(w, "the WebSocket handshake was answered with %.3s", p + 9);
                    conn_fail(w, c);
                    return;
                }
                conn_opened(w, c);
            }
        } else if (opt.mode == WS) {
            took = take_ws(w, c, p, have);
        } else if (opt.mode == ECHO || opt.mode == SINK) {
            took = take_plain(w, c, p, have);
        } else {
            took = take_http(w, c, p, have);
        }
        if (took < 0)
            return;
        size_t rest = have - (size_t)took;
        if (rest > 0) {
            if (rest > REST_SIZE) {
                bad(w, c, "a head that is too long");
                return;
            }
            if (c->rest == NULL)
                c->rest = get(REST_SIZE);
            memcpy(c->rest, p + took, rest);
            c->rest_len = rest;
        }
        if (!opt.tls || c->state == S_NONE)
            return;   /* level-triggered: what is left is told again; OpenSSL may hold more */
    }
}

static void
on_event(worker *w, conn *c, uint32_t events)
{
    if (c->state == S_NONE)
        return;
    if (c->state == S_CONNECT) {
        int problem = 0;
        socklen_t size = sizeof problem;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &problem, &size);
        if (problem != 0) {
            error(w, "connect: %s", strerror(problem));
            conn_fail(w, c);
            return;
        }
        conn_connected(w, c);
        return;
    }
    if (events & EPOLLOUT)
        conn_write(w, c);
    if (c->state != S_NONE && c->state != S_CONNECT && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        conn_readable(w, c);
}

/* ---- a thread ---- */

static pthread_barrier_t made, go, ended, over;

static void
begin_due(worker *w)
{
    uint64_t now = now_ns();
    for (;;) {
        uint64_t due = w->start + (uint64_t)((double)w->sent * 1e9 / (opt.rate / opt.threads));
        if (due >= w->end)
            return;
        if (due > now || w->idle_n == 0) {
            if (w->idle_n > 0) {
                struct itimerspec at = {.it_value = {(time_t)(due / 1000000000ull), (long)(due % 1000000000ull)}};
                timerfd_settime(w->timer, TFD_TIMER_ABSTIME, &at, NULL);
            }
            return;
        }
        conn *c = &w->conns[w->idle[--w->idle_n]];
        w->sent++;
        if (opt.close) {
            c->since[0] = due;
            c->waiting = 1;
            c->first = 0;
            c->to_write = opt.unit;
            w->busy++;
            conn_begin(w, c);
        } else {
            conn_ask(w, c, 1, due);
        }
    }
}

static void
turn(worker *w, uint64_t until, bool stop_when_open)
{
    struct epoll_event events[256];
    for (;;) {
        if (stop_when_open && w->opening == 0)
            return;
        if (w->draining && w->busy == 0)
            return;
        if (opt.mode == HOLD && w->counting && w->busy == 0 && w->opening == 0)
            return;
        uint64_t now = now_ns();
        if (now >= until)
            return;
        uint64_t left = (until - now) / 1000000 + 1;
        int n = epoll_wait(w->epoll, events, 256, left > 1000 ? 1000 : (int)left);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL) {
                uint64_t ignored;
                if (read(w->timer, &ignored, sizeof ignored) < 0 && errno != EAGAIN)
                    die("timerfd");
            } else {
                on_event(w, events[i].data.ptr, events[i].events);
            }
        }
        if (opt.rate > 0 && w->counting && !w->draining)
            begin_due(w);
    }
}

static void *
run(void *arg)
{
    worker *w = arg;
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    w->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (w->epoll < 0 || w->timer < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->timer, &event) < 0)
        die("epoll");
    w->buffer = get(REST_SIZE + READ_SIZE);
    w->idle = get(sizeof(int) * (size_t)(w->n + 1));
    w->conns = get(sizeof(conn) * (size_t)w->n);
    for (int i = 0; i < w->n; i++) {
        w->conns[i].since = get(sizeof(uint64_t) * ring_size());
        if (opt.close) {
            w->idle[w->idle_n++] = i;
            continue;
        }
        if (opt.mode == HOLD) {
            w->counting = true;
            if (i % 100 == 99)   /* not all at once: the listen queue has an end */
                turn(w, now_ns() + 5000000000ull, true);
        }
        conn_begin(w, &w->conns[i]);
    }
    turn(w, now_ns() + 10000000000ull, true);
    if (w->opening > 0)
        error(w, "%d connections were not made in 10 s", w->opening);
    pthread_barrier_wait(&made);
    pthread_barrier_wait(&go);
    w->start = now_ns();
    w->end = w->start + (uint64_t)(opt.seconds * 1e9);
    w->counting = true;
    if (opt.mode != HOLD) {
        if (opt.rate > 0)
            begin_due(w);
        else
            for (int i = 0; i < w->n; i++) {
                if (opt.close)
                    conn_begin(w, &w->conns[i]);
                else if (w->conns[i].state == S_OPEN)
                    conn_ask(w, &w->conns[i], ring_size(), now_ns());
            }
    }
    turn(w, w->end, false);
    if (opt.mode != HOLD)
        w->end = now_ns();
    pthread_barrier_wait(&ended);
    w->draining = true;
    turn(w, now_ns() + 5000000000ull, false);
    if (w->busy > 0)
        error(w, "%d requests were not answered in 5 s", w->busy);
    if (opt.rate > 0) {
        uint64_t planned = (uint64_t)(opt.rate / opt.threads * opt.seconds);
        if (w->sent + 1 < planned)
            w->late_done = planned - w->sent;
    }
    pthread_barrier_wait(&over);
    return NULL;
}

/* ---- the whole ---- */

static char *
file(const char *path, size_t *length)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        die(path);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *data = get((size_t)size + 1);
    if (fread(data, 1, (size_t)size, f) != (size_t)size)
        die(path);
    fclose(f);
    *length = (size_t)size;
    return data;
}

/* A client's frame with the payload, masked. */
static void
make_frame(void)
{
    static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    size_t head = 2 + (opt.octets < 126 ? 0 : opt.octets < 65536 ? 2 : 8);
    unsigned char *frame = get(head + 4 + opt.octets);
    frame[0] = opt.binary ? 0x82 : 0x81;
    frame[1] = 0x80 | (head == 2 ? (unsigned char)opt.octets : head == 4 ? 126 : 127);
    for (size_t i = 2; i < head; i++)
        frame[i] = (unsigned char)(opt.octets >> (8 * (head - 1 - i)));
    memcpy(frame + head, mask, 4);
    for (size_t i = 0; i < opt.octets; i++)
        frame[head + 4 + i] = (unsigned char)opt.want[i] ^ mask[i % 4];
    opt.out = (char *)frame;
    opt.unit = head + 4 + opt.octets;
}

static void
repeat(size_t copies)
{
    char *all = get(opt.unit * copies);
    for (size_t i = 0; i < copies; i++)
        memcpy(all + i * opt.unit, opt.out, opt.unit);
    opt.out = all;
    opt.copies = copies;
}

static void
wait_line(void)
{
    char c;
    while (read(0, &c, 1) == 1 && c != '\n')
        ;
}

static void
say(const char *line)
{
    if (write(1, line, strlen(line)) < 0)
        exit(2);
}

static double
cpu_seconds(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static void
print_result(worker *workers, double seconds, double cpu)
{
    histogram *all = get(sizeof *all);
    uint64_t done = 0, bytes = 0, errors = 0, reconnects = 0, late = 0;
    const char *first = "";
    for (int i = 0; i < opt.threads; i++) {
        worker *w = &workers[i];
        done += w->done;
        bytes += w->bytes;
        errors += w->errors;
        reconnects += w->reconnects;
        late += w->late_done;
        if (w->errors > 0)
            first = w->first_error;
        for (unsigned k = 0; k < BUCKETS; k++)
            all->count[k] += w->latency.count[k];
        all->n += w->latency.n;
        all->sum += w->latency.sum;
        if (w->latency.max > all->max)
            all->max = w->latency.max;
    }
    uint64_t over_100ms = 0;
    for (unsigned k = 0; k < BUCKETS; k++)
        if (bucket_value(k) > 100000000)
            over_100ms += all->count[k];
    printf("{\"requests\": %llu, \"seconds\": %.6f, \"bytes\": %llu, \"errors\": %llu, \"reconnects\": %llu, "
           "\"late\": %llu, \"over_100ms\": %llu, \"load_cpu\": %.6f, \"first_error\": \"",
           (unsigned long long)done, seconds, (unsigned long long)bytes, (unsigned long long)errors,
           (unsigned long long)reconnects, (unsigned long long)late, (unsigned long long)over_100ms, cpu);
    for (; *first; first++)
        putchar(*first == '"' || *first == '\\' || (unsigned char)*first < 32 ? ' ' : *first);
    printf("\", \"latency_us\": {\"mean\": %.2f", all->n ? all->sum / (double)all->n / 1e3 : 0.0);
    static const struct { const char *name; double p; } wanted[] = {
        {"p50", 50}, {"p75", 75}, {"p90", 90}, {"p99", 99}, {"p99.9", 99.9}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        printf(", \"%s\": %.2f", wanted[i].name, all->n ? percentile(all, wanted[i].p) / 1e3 : 0.0);
    printf(", \"max\": %.2f}}\n", (double)all->max / 1e3);
    fflush(stdout);
    free(all);
}

int
main(int argc, char **argv)
{
    static const char *modes[] = {"http", "ws", "echo", "sink", "hold"};
    int c;
    opt.mode = -1;
    for (int i = 0; argc > 1 && i < 5; i++)
        if (strcmp(argv[1], modes[i]) == 0)
            opt.mode = i;
    if (opt.mode < 0) {
        fprintf(stderr, "load: http, ws, echo, sink or hold, see the top of load.c\n");
        return 2;
    }
    const char *request = NULL, *body = NULL;
    optind = 2;
    while ((c = getopt(argc, argv, "p:q:b:s:c:P:Cr:m:k:Bd:t:T")) != -1) {
        switch (c) {
        case 'p': opt.port = atoi(optarg); break;
        case 'q': request = optarg; break;
        case 'b': body = optarg; break;
        case 's': opt.status = atoi(optarg); break;
        case 'c': opt.conns = atoi(optarg); break;
        case 'P': opt.depth = atoi(optarg); break;
        case 'C': opt.close = true; break;
        case 'r': opt.rate = atof(optarg); break;
        case 'm': opt.octets = (size_t)atoll(optarg); break;
        case 'k': opt.inflight = atoi(optarg); break;
        case 'B': opt.binary = true; break;
        case 'd': opt.seconds = atof(optarg); break;
        case 't': opt.threads = atoi(optarg); break;
        case 'T': opt.tls = true; break;
        default: return 2;
        }
    }
    if (opt.port < 1 || opt.conns < 1 || opt.threads < 1 || opt.depth < 1 || opt.inflight < 1) {
        fprintf(stderr, "load: a number is missing or wrong\n");
        return 2;
    }
    if (opt.threads > opt.conns)
        opt.threads = opt.conns;
    if (opt.rate > 0 || opt.close || opt.mode == HOLD)
        opt.depth = 1;
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (opt.tls) {
#ifdef WITH_TLS
        tls_context = SSL_CTX_new(TLS_client_method());
        if (tls_context == NULL)
            die("TLS");
        SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
#else
        fprintf(stderr, "load: built without OpenSSL\n");
        return 2;
#endif
    }
    if (opt.mode == HTTP || opt.mode == HOLD) {
        if (request == NULL || body == NULL) {
            fprintf(stderr, "load: -q and -b are missing\n");
            return 2;
        }
        opt.out = file(request, &opt.unit);
        opt.want = file(body, &opt.want_len);
        repeat((size_t)opt.depth);
    } else if (opt.mode == SINK) {
        opt.out = get(1);
        opt.unit = opt.copies = 1;
        opt.want_len = opt.octets;
    } else {
        opt.want = get(opt.octets + 1);
        for (size_t i = 0; i < opt.octets; i++)
            opt.want[i] = (char)('!' + (i * 7 + i / 90) % 90);
        opt.want_len = opt.octets;
        if (opt.mode == WS) {
            make_frame();
            repeat((size_t)opt.inflight);
        } else {
            opt.out = opt.want;
            opt.unit = opt.octets;
            opt.copies = 1;
        }
    }
    pthread_barrier_init(&made, NULL, (unsigned)opt.threads + 1);
    pthread_barrier_init(&go, NULL, (unsigned)opt.threads + 1);
    pthread_barrier_init(&ended, NULL, (unsigned)opt.threads + 1);
    pthread_barrier_init(&over, NULL, (unsigned)opt.threads + 1);
    worker *workers = get(sizeof *workers * (size_t)opt.threads);
    for (int i = 0; i < opt.threads; i++) {
        workers[i].n = opt.conns / opt.threads + (i < opt.conns % opt.threads);
        if (pthread_create(&workers[i].id, NULL, run, &workers[i]) != 0)
            die("pthread_create");
    }
    pthread_barrier_wait(&made);
    if (opt.mode != HOLD) {
        say("ready\n");
        wait_line();
    }
    double cpu = cpu_seconds();
    uint64_t start = now_ns();
    pthread_barrier_wait(&go);
    pthread_barrier_wait(&ended);
    double seconds = (double)(now_ns() - start) / 1e9;
    cpu = cpu_seconds() - cpu;
    if (opt.mode != HOLD)
        say("end\n");
    pthread_barrier_wait(&over);
    print_result(workers, seconds, cpu);
    if (opt.mode == HOLD) {
        wait_line();
        for (int i = 0; i < opt.threads; i++)
            for (int k = 0; k < workers[i].n; k++) {
                char octet;
                ssize_t n = recv(workers[i].conns[k].fd, &octet, 1, MSG_DONTWAIT);
                if (workers[i].conns[k].state == S_OPEN && (n == 0 || (n < 0 && errno != EAGAIN)))
                    error(&workers[i], "an idle connection was closed");
            }
        print_result(workers, seconds, cpu);
    }
    return 0;
}
