/* One request and the application that runs for it. The object is the coroutine
   that the request's asyncio.Task drives: it calls the application, hands the
   Task's steps on to it, and so learns of its end without a callback.

   It belongs to a connection until the response is complete or the connection is
   gone; the application may run on after that (background tasks). `receive` and
   `send` hold it. Loop thread, GIL held. */
#ifndef CAP_ASGI_REQUEST_H
#define CAP_ASGI_REQUEST_H

#include "asgi/body.h"
#include "asgi/callable.h"
#include "asgi/server.h"

struct cap_conn;
struct cap_websocket;
struct cap_file;

typedef enum cap_response_state {
    CAP_RESPONSE_NOT_STARTED,
    CAP_RESPONSE_STARTED,  /* http.response.start came */
    CAP_RESPONSE_TRAILERS, /* the content is out, http.response.trailers is awaited */
    CAP_RESPONSE_COMPLETE
} cap_response_state;

typedef struct cap_request {
    PyObject_HEAD
    cap_state *st;
    struct cap_server *server; /* owned */
    struct cap_conn *conn;     /* owned; NULL when the response is complete or the client gone */
    struct cap_request *next, *prev; /* server's list while the application runs */

    /* The application. */
    PyObject *scope; /* until the first step */
    PyObject *iter;  /* what the Task's steps go to; NULL before and after */
    PyObject *task;  /* NULL before and after */
    bool running;    /* in the server's list */
    bool cancelled;  /* by us: no error of the application */

    /* What the access log and messages say of the request. */
    PyObject *client;
    PyObject *method;
    PyObject *raw_path;
    PyObject *query;
    PyObject *headers; /* the scope's list */
    uint64_t begun_ns;
    int8_t listed;   /* its number in the scoreboard; -1: none */
    uint8_t minor;

    /* The request's content, on its way to receive(). */
    cap_body body;
    bool body_ended;     /* the message's end was seen */
    bool body_given;     /* ... and receive() gave it */
    bool disconnected;   /* receive() says http.disconnect once the rest was taken */
    bool told;           /* http.disconnect although the client is there: shutdown */
    bool expects;        /* 100 Continue is waited for */
    bool is_head;
    cap_waiter *receivers; /* awaitables of receive() that wait */

    /* The response. */
    cap_response_state response;
    int status;
    bool chunked;
    bool trailers;       /* http.response.start announced them */
    bool in_trailers;    /* ... and the last chunk is out */
    bool in_file_chunk;  /* `file` is the content of one chunk */
    bool no_body;        /* HEAD, 204, 304: content is not sent */
    bool has_length;
    uint64_t length_left;
    uint64_t body_octets;
    struct cap_file *file;      /* owned: on its way (send_file.h); or NULL */
    struct cap_websocket *ws;   /* owned: it is a WebSocket (websocket.h); or NULL */
    PyObject *response_headers; /* for the access log's %(x)o, or NULL */
    cap_waiter *senders; /* awaitables of send() that wait for room */
} cap_request;

/* New, for `conn`; the fields of the head are set by cap_scope_fill. NULL with an
   exception. */
cap_request *cap_request_new(struct cap_conn *conn);

/* Make the Task and run its first step. Runs Python: anything may have happened to
   the connection. An error is logged and answered; never fails. Steals nothing. */
void cap_request_start(cap_request *r);

/* A piece of content, perhaps in the server's body_room. 0, or -1 without memory (no exception).
   Wakes receive(). */
int cap_request_feed(cap_request *r, const char *data, size_t len);
/* The message's end. */
void cap_request_feed_end(cap_request *r);

/* The client is gone, or the response complete: no connection any more. Wakes
   whoever waits. */
void cap_request_detach(cap_request *r, bool disconnected);
/* Let receive() say http.disconnect although the connection is there. */
void cap_request_tell_disconnect(cap_request *r);
/* Room again: wake send(). */
void cap_request_drained(cap_request *r);

/* Cancel its task, quietly: the cancellation is ours, not an error of the app. */
void cap_request_cancel(cap_request *r);

/* "GET /path" for log lines; new str or NULL with an exception. */
PyObject *cap_request_name(const cap_request *r);

/* --- receive.c, send.c ----------------------------------------------------------- */

/* The callables for the application. New references, or NULL with an exception. */
PyObject *cap_receive_new(cap_request *r);
PyObject *cap_send_new(cap_request *r);

/* For errors: a whole response of the server's own. `more`: further field lines. */
void cap_send_simple(struct cap_conn *conn, int status, const char *text, bool close);
void cap_send_simple_with(struct cap_conn *conn, int status, const char *text, bool close,
                          const char *more);
/* The default fields, and fields that the application gave beside what the server
   says by itself (a list or tuple, or NULL), checked. 0, or -1 with an exception. */
int cap_send_defaults(struct cap_conn *conn);
/* The application's `headers` as a list or tuple whose items are exact tuples or lists, so
   that writing them runs no Python. This may. New reference, or NULL with an exception. */
PyObject *cap_send_plain_fields(PyObject *headers);
int cap_send_fields(struct cap_conn *conn, PyObject *fields);
/* All octets of r->file are out. `last`: they end the content. */
void cap_send_content_done(cap_request *r, bool last);
/* A response's start and body messages, for a WebSocket that is denied. */
int cap_send_start(cap_request *r, PyObject *message);
int cap_send_body(cap_request *r, PyObject *message);

/* Its response is out, or was cut: count it. */
void cap_request_count(cap_request *r);
/* One access-log line for r, if there is a log and it wants it now. */
void cap_request_log(cap_request *r, bool at_start);

#endif
