/* A connection: where a stream, a parser and the running request meet. Loop
   thread, GIL held (its callbacks take it first). Anything that runs Python may
   close it: hold a reference and look at `state` again.

   References: one while its stream is open, one while its deferred work is queued,
   one of its request. The collector does not know of it: an open one cannot be garbage,
   and a closed one refers to nothing but its server, so that thousands of idle
   connections are not gone through again and again. */
#ifndef CAP_ASGI_CONN_H
#define CAP_ASGI_CONN_H

#include <sys/socket.h>

#include "asgi/conn_work.h"
#include "asgi/request.h"
#include "asgi/server.h"
#include "loop/tls_stream.h"
#include "net/stream.h"

typedef enum cap_conn_state {
    CAP_CONN_IDLE,    /* between requests, nothing of the next one here */
    CAP_CONN_READING, /* a head has begun */
    CAP_CONN_RUNNING, /* a request is being answered */
    CAP_CONN_UPGRADED, /* a WebSocket; the request is its session */
    CAP_CONN_DRAINING, /* answered; the rest of its content is read and dropped */
    CAP_CONN_FLUSHING, /* the last bytes leave; then LINGERING or CLOSING */
    CAP_CONN_LINGERING, /* our side is shut; input is dropped until the peer's end */
    CAP_CONN_CLOSING, /* waiting for the stream's close callback */
    CAP_CONN_CLOSED,
    CAP_CONN_STATES
} cap_conn_state;

typedef struct cap_conn {
    PyObject_HEAD
    cap_server *server;          /* owned */
    struct cap_conn *next, *prev; /* server's list while open */
    cap_request *request;        /* owned: the one being answered, or NULL */
    cap_stream *io;              /* what we read and write: `stream`, or TLS over it, owned */
    cap_stream_uv stream;
    cap_conn_work *work;         /* its own, or the server's no_work */
    cap_wheel_node timer;        /* at the first of due_read and its work's */
    uint64_t due_read;           /* ms; 0: none. What it means is the state's */
    cap_claim *claim;            /* of its descriptor; NULL: nobody else will touch it */
    cap_origin *origin;          /* owned: what the PROXY protocol said; or NULL */
    uint64_t client;             /* 0: not asked yet; odd: packed (addresses.h); else a PyObject *,
                                    owned: what scope["client"] says */
    int16_t memo;                /* entry of the header memo that hit last; -1 */
    uint8_t state;               /* cap_conn_state */
    uint8_t address;             /* place in the server's addresses of scope["server"]; 0: not known */
    bool unix_socket;
    bool reading;                /* the stream reads */
    bool feeding;                /* in conn_feed */
    bool starting;               /* request is complete enough, but not started yet */
    bool keep_alive;             /* this response is not the last */
    bool eof;                    /* the peer sends no more */
    bool used;                   /* a request was served on it */
    bool body_ended;             /* of the request being answered */
    bool rests;                  /* `claim` says so; whoever works on it takes it back first */
    uint8_t gathered;            /* `out`, or what TLS holds of it, is in the reactor's outbox, in
                                    this place from 1 on, and is taken back before it is touched; 0:
                                    it is not */
    bool moved;                  /* it is another process's now: only to be closed */
    bool adopted;                /* another process may have it open still */
    bool cut;                    /* content that only the connection's end delimits is not whole */
    bool head_only;              /* ... which is a HEAD: no content in a response of our own */
} cap_conn;

/* For a freshly accepted socket, which is taken over. Never fails: what cannot be
   served is closed. */
void cap_conn_accept(cap_server *s, int fd, cap_server_listener *l);
/* The same for one that another process, or (h NULL) another thread has accepted. */
void cap_conn_adopt(cap_server *s, int fd, const cap_handover *h);

/* --- the PROXY protocol (conn_proxy.c) ----------------------------------------- */

/* Does this new connection begin with a PROXY header? Asks Python; false when that fails, and the
   connection is closed then. */
bool cap_conn_proxy_wanted(cap_conn *c);
/* Its client and server are these, not the socket's ends. 0, or -1 with an exception. */
int cap_conn_set_origin(cap_conn *c, const cap_origin *origin);
/* Take what was read of the header. 1: it is complete and its addresses are the connection's; the
   client's own octets are c->in. 0: wait for more. -1: the connection was closed. */
int cap_conn_proxy_feed(cap_conn *c, const char *data, ssize_t n);

/* --- output (conn_write.c) ---------------------------------------------------- */

/* Append to the output. 0, or -1 with MemoryError. Sends nothing yet. */
int cap_conn_put(cap_conn *c, const void *data, size_t len);
/* Send a piece of content: `head` (a chunk's line), the bytes-like object, `tail`
   (static memory). Small ones are copied and leave at the turn's end; large ones go
   out at once, and what the kernel does not take is kept by reference. 0, or -1 with
   an exception. May end the connection (when the peer is gone). */
int cap_conn_put_object(cap_conn *c, const Py_buffer *view, const char *head, size_t head_len,
                        const char *tail, size_t tail_len);
/* Give the output to the stream now. May end the connection. */
void cap_conn_flush(cap_conn *c);
/* ... at the turn's end. */
void cap_conn_flush_later(cap_conn *c);
/* ... with the responses of others (pool/outbox.h), when it is one and nothing speaks against it.
   May end this connection and others. */
void cap_conn_flush_together(cap_conn *c);
/* What was gathered may have been held for long enough by `now` (uv_hrtime). Runs Python: anything
   may have happened to any connection. */
void cap_conn_hurry(cap_reactor *r, uint64_t now);
/* Octets that wait to be sent. */
size_t cap_conn_unsent(const cap_conn *c);
/* Octets that the kernel has and the peer has not taken yet. A slow peer takes long until
   there is room for more, and the next write ends. */
int cap_conn_unacknowledged(const cap_conn *c);

/* Called by the stream when what it was given has left. */
void cap_conn_on_written(cap_stream *stream, void *token, int status);

/* --- life (conn.c) -------------------------------------------------------------- */

/* The response of c->request is complete: go on with the next one, or end. */
void cap_conn_response_done(cap_conn *c);
/* c->request's WebSocket was accepted: what comes now are frames. */
void cap_conn_upgrade(cap_conn *c);
/* That WebSocket is over: send what is left and end. */
void cap_conn_session_over(cap_conn *c);
/* The application failed in the middle of a response: end the connection, so that
   nobody takes what was sent for the whole. */
void cap_conn_break(cap_conn *c);
/* All that was to be sent has left (conn_write.c tells). */
void cap_conn_sent_all(cap_conn *c);
/* Read or not, as state and queues want it. */
void cap_conn_update_reading(cap_conn *c);
/* End it. reset: with an RST. Fine in any state. */
void cap_conn_close(cap_conn *c, bool reset);
/* Give its work back and let others have it as long as nothing is to be done; no-op when
   something is. The last thing wherever it may have become idle. */
void cap_conn_rest(cap_conn *c);
/* Re-arm the timer after a due_* was changed. */
void cap_conn_rearm(cap_conn *c);
/* The wheel says that c->timer is due. */
void cap_conn_on_timer(cap_wheel_node *node);
/* An idle connection during shutdown: `grace` ms for a request that is on its way. */
void cap_conn_shutdown(cap_conn *c, uint64_t grace);
/* The longest idle connection of a server; NULL when none is idle. Borrowed. */
cap_conn *cap_conn_longest_idle(cap_server *s);

/* The client has this address. 0, or -1 with an exception. */
int cap_conn_set_client(cap_conn *c, const struct sockaddr_storage *addr, socklen_t len);
void cap_conn_forget_client(cap_conn *c);
/* scope["client"] and scope["server"]; new references, or NULL with an exception. */
PyObject *cap_conn_client(cap_conn *c);
PyObject *cap_conn_server_address(cap_conn *c);
/* "127.0.0.1:4711" for log lines. `out` has room for 64 octets. */
const char *cap_conn_peer_text(cap_conn *c, char out[64]);

/* --- between the files of a connection ------------------------------------------ */

/* After the response of a connection that ends, input is dropped for so long at
   most, so that the response is not lost to an RST (RFC 9112 9.6). */
#define CAP_LINGER_IDLE_MS 2000

/* What its stream calls; by these it is told from one that a PROXY header still precedes. */
extern const cap_stream_events cap_conn_stream_events;
void cap_conn_on_alloc(cap_stream *stream, uv_buf_t *buf);
void cap_conn_on_closed(cap_stream *stream);
/* Its deferred work. */
void cap_conn_on_turn_end(cap_deferred *d);
/* Before anything is done with a connection that may rest, or whose output was gathered. False: it
   is not ours any more. */
bool cap_conn_take(cap_conn *c);
/* The output's part of it; `gathered` is not 0. */
void cap_conn_take_output(cap_conn *c);
/* Its claim, ready to say that it rests as soon as its output has left; NULL when it will not. */
cap_claim *cap_conn_prepare_rest(cap_conn *c);
/* One of its due_* in `timeout` ms; 0: never. */
void cap_conn_due_in(cap_conn *c, uint64_t *due, uint64_t timeout);
/* Into the server's list, at the end. */
void cap_conn_list_last(cap_conn *c);
/* The request has nothing to do with this connection any more. */
void cap_conn_let_go(cap_conn *c, bool disconnected);
/* Has the client got a response, or a part of one, to what we are reading? */
bool cap_conn_has_answered(const cap_conn *c);
/* All is said: send what is left, then end. */
void cap_conn_finish(cap_conn *c);
/* Answer by ourselves with this status, log the reason, and end the connection. */
void cap_conn_refuse(cap_conn *c, int status, const char *reason);
/* The same, in plaintext, for a client that spoke HTTP where TLS is expected. */
void cap_conn_refuse_plain(cap_conn *c);

/* NULL: it is not TLS. */
static inline cap_stream_tls *
cap_conn_tls(const cap_conn *c)
{
    return c->io != &c->stream.base ? (cap_stream_tls *)c->io : NULL;
}

static inline bool
cap_conn_open(const cap_conn *c)
{
    return c->state < CAP_CONN_CLOSING;
}

#endif
