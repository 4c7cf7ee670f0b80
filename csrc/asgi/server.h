/* The HTTP side of one event loop: listeners, connections, settings, and what all
   connections share (read buffer, timer wheel, Date, header memo). The type
   capicorn._core.HTTPServer. Loop thread only. */
#ifndef CAP_ASGI_SERVER_H
#define CAP_ASGI_SERVER_H

#include "asgi/access_log.h"
#include "asgi/addresses.h"
#include "asgi/header_memo.h"
#include "asgi/objects.h"
#include "base/timer_wheel.h"
#include "http/h1_request.h"
#include "http/h1_response.h"
#include "http/ws_deflate.h"
#include "loop/reactor.h"
#include "net/listener.h"
#include "pool/rescue.h"
#include "pool/scoreboard.h"

struct cap_conn;

/* One read(2) takes at most so much of heads and the content that comes with them, */
#define CAP_READ_BUFFER 131072
/* ... and so much of what has to wait, or of frames. */
#define CAP_READ_OTHER 65536
/* `await send()` waits above the first and goes on below the second; reading stops
   while as much of a request's body waits for the application (uvicorn's numbers). */
#define CAP_HIGH_WATER 65536
#define CAP_LOW_WATER 16384

typedef struct cap_server_settings {
    cap_http_limits limits;
    uint64_t limit_concurrency;  /* requests in flight; 0: none */
    uint64_t limit_max_requests; /* 0: none */
    /* ms; 0: none */
    uint64_t timeout_first_byte;
    uint64_t timeout_request_head;
    uint64_t timeout_request_body;
    uint64_t timeout_send;
    uint64_t timeout_keep_alive;
    uint64_t timeout_request;
    uint64_t ws_ping_interval;
    uint64_t ws_ping_timeout;
    uint64_t ws_max_size;        /* octets of a message; 0: none */
    unsigned ws_max_queue;       /* messages that wait for the application; then reading stops */
    bool ws;                     /* WebSockets are spoken */
    cap_ws_deflate_config ws_deflate;
    bool date_header;
    bool reset_contextvars;
} cap_server_settings;

typedef struct cap_server_listener {
    cap_listener listener;
    struct cap_server_listener *next;
    struct cap_server *server; /* owned reference until closed */
} cap_server_listener;

typedef struct cap_server {
    PyObject_HEAD
    cap_state *st;
    cap_objects *objects;
    cap_reactor *reactor; /* counted, to the end: connections outlive close() */
    PyObject *loop;
    PyObject *app;
    PyObject *logger;
    PyObject *state;         /* dict or NULL: copied into each scope */
    PyObject *proxy_headers; /* callable or NULL */
    PyObject *proxy_protocol; /* callable(client) -> bool: a PROXY header comes first; or NULL */
    PyObject *ssl_context;   /* ssl.SSLContext or NULL: connections speak TLS */
    PyObject *tls_info;      /* callable(ssl.SSLObject) -> the ASGI tls extension's dict; or NULL */
    PyObject *extensions;    /* scope["extensions"] of HTTP; copied */
    PyObject *access_log;    /* AccessLog or NULL */
    PyObject *context;       /* the context in which requests begin; copied for each */
    PyObject *asgi_proto;    /* {"version": ..., "spec_version": "2.3"}; copied */
    PyObject *scope_proto;   /* a scope with every key in place; copied */
    PyObject *proto_server;  /* its "server", borrowed: the first address that was asked for */
    PyObject *root_path;     /* str */
    PyObject *scheme;        /* str */
    const char *root_path_utf8; /* of root_path */
    size_t root_path_len;
    PyObject *default_headers; /* tuple of (bytes, bytes), or NULL */
    cap_server_settings set;

    struct cap_conn *first;  /* open connections, the one used last at the end */
    struct cap_conn *last;
    size_t connection_count;
    size_t request_count;    /* requests in flight */
    uint64_t total_requests;
    struct cap_request *first_request; /* running applications, oldest first */
    struct cap_request *last_request;
    cap_server_listener *listeners;

    PyObject *board_owner;   /* Scoreboard or NULL */
    cap_board *board;        /* its memory, or NULL: nobody sees us */
    uint32_t slot;           /* ours in it, */
    cap_slot *shown;         /* ... that is this one, */
    cap_worker *worker;      /* ... and this; or NULL */
    cap_tally *tally;        /* what we count: the worker's, or */
    cap_tally own_tally;
    bool beats;              /* the reactor's beat is the worker's, for us */
    cap_rescue *rescue;      /* counted: connections that rest may be claimed; or NULL */
    struct cap_server_rescue *rescue_io; /* see server_rescue.c; NULL: never or no more */

    cap_wheel wheel;
    uv_timer_t *timer;       /* own memory: outlives us until its close callback */
    uint64_t timer_due;      /* ms; UINT64_MAX: not running */

    cap_h1_head *spare_head; /* one kept for the next request */
    struct cap_conn_work *spare_work; /* kept for connections that wake up */
    unsigned spare_works;
    struct cap_conn_work *no_work;    /* owned: see conn_work.h */
    cap_header_memo memo;
    cap_addresses addresses;
    cap_ws_pool *ws_pool;    /* of compressors; NULL without compression */
    uint64_t date_checked;   /* the uv_now() for which `defaults` was looked at */
    time_t date_second;
    char *defaults;          /* "date: ...\r\nserver: ...\r\n" ready to copy */
    size_t defaults_len;
    size_t defaults_date_at; /* where in it the date's 29 octets are; SIZE_MAX: no date */

    uint64_t exhausted_said; /* ms: when it was last logged that descriptors ran out */
    bool shutting_down;      /* responses say Connection: close */
    bool closed;
    PyObject *body_room;     /* bytes that nobody else has, or NULL: see body.h */
    char read_buffer[CAP_READ_BUFFER];
} cap_server;

/* Is the loop closed, or being closed, without a close() of ours? libuv calls back once
   more then; nothing may be begun. */
static inline bool
cap_server_loop_gone(const cap_server *s)
{
    return s->reactor->uv == NULL;
}

/* ms of the loop's clock, as of this turn; 0 when there is no loop any more. */
static inline uint64_t
cap_server_now(const cap_server *s)
{
    return s->reactor->uv != NULL ? uv_now(s->reactor->uv) : 0;
}

/* Tell the siblings how many connections there are. */
static inline void
cap_server_tell_connections(cap_server *s, bool one_more)
{
    if (one_more)
        cap_tally_add(&s->tally->connections, 1);
    if (s->shown != NULL)
        atomic_store_explicit(&s->shown->connections, (uint32_t)s->connection_count,
                              memory_order_relaxed);
}

static inline void
cap_server_tell_requests(cap_server *s)
{
    if (s->shown != NULL)
        atomic_store_explicit(&s->shown->requests, (uint32_t)s->request_count,
                              memory_order_relaxed);
}

/* From now on a slot of this board shows what we do; the board lives as long as we do. */
void cap_server_show(cap_server *s, cap_board *board, uint32_t slot);
/* There is no descriptor for a connection that comes: end the one that was idle longest, and say
   so now and then. False: none is idle. Runs Python. */
bool cap_server_exhausted(cap_server *s, int err);

/* See that the wheel is looked at no later than `due`. */
void cap_server_want_timer(cap_server *s, uint64_t due);

/* The default fields for a response's head, with the Date of now. Borrowed until
   the next call. */
const char *cap_server_defaults(cap_server *s, size_t *len);

/* A head to parse into, and its way back. NULL without memory (no exception). */
cap_h1_head *cap_server_head_take(cap_server *s);
void cap_server_head_give(cap_server *s, cap_h1_head *h);

/* Should this response be the connection's last? */
static inline bool
cap_server_wants_close(const cap_server *s)
{
    return s->shutting_down || (s->set.limit_max_requests != 0 &&
                                s->total_requests >= s->set.limit_max_requests);
}

/* logger.log(level, message) with a message made like PyUnicode_FromFormat's. Runs
   Python; an error of the logging goes to sys.unraisablehook. `exc` (or NULL) is
   shown with its traceback. */
#define CAP_LOG_DEBUG 10
#define CAP_LOG_INFO 20
#define CAP_LOG_WARNING 30
#define CAP_LOG_ERROR 40
void cap_server_log(cap_server *s, int level, PyObject *exc, const char *format, ...);
/* The current exception, that nobody can receive: `what` failed. To sys.unraisablehook;
   KeyboardInterrupt and SystemExit (a signal's handler ran there) come out of the loop. */
void cap_server_lost(cap_server *s, PyObject *what);

#endif
