/* A WebSocket session: the frames of http/ws_frame.h on one side, the ASGI
   websocket messages on the other. It hangs on the request that asked for it
   (request->ws) and lives as long; until it is accepted the connection is in state
   RUNNING, then UPGRADED. Loop thread, GIL held. */
#ifndef CAP_ASGI_WEBSOCKET_H
#define CAP_ASGI_WEBSOCKET_H

#include "asgi/conn.h"
#include "http/ws_frame.h"
#include "http/ws_handshake.h"

typedef enum cap_ws_state {
    CAP_WS_CONNECTING, /* the application has not answered */
    CAP_WS_DENYING,    /* it answers with a response of its own */
    CAP_WS_OPEN,
    CAP_WS_CLOSING,    /* our Close frame is out, the client's is awaited */
    CAP_WS_CLOSED
} cap_ws_state;

/* How long the client has for its Close frame after ours (uvicorn: 10 s). */
#define CAP_WS_CLOSE_MS 10000
/* ... and when the server is ending: it does not wait for who is gone or asleep. */
#define CAP_WS_GOODBYE_MS 2000

typedef struct cap_websocket {
    cap_ws_parser parser;
    cap_ws_deflate *deflate; /* or NULL */
    cap_ws_handshake handshake;
    PyObject **queue;        /* messages for the application: str or bytes, owned */
    unsigned first, count, cap;
    PyObject *reason;        /* str: of the disconnect; or NULL */
    int code;                /* of the disconnect; 0: there was none yet */
    uint8_t state;           /* cap_ws_state */
    bool parsing;            /* the parser was made */
    bool connect_given;
    bool awaits_pong;
    bool closed_by_app;      /* it sent websocket.close */
} cap_websocket;

/* Is this head a WebSocket's (and do we speak it)? Then cap_websocket_begin. */
bool cap_websocket_wanted(const cap_server *s, const cap_h1_head *h);

/* Check the handshake and make r->ws, whose scope is filled already: 0; or -1: the
   client was refused and the connection is ending, or there is an exception. */
int cap_websocket_begin(cap_request *r, cap_conn *c, const cap_h1_head *h, const char *base);
void cap_websocket_free(cap_websocket *ws);

/* Input of an UPGRADED connection: all that is in c->in, or `data` when that is
   empty. Written to (unmasked). */
void cap_websocket_feed(cap_conn *c, char *data, size_t len);
/* The peer sends no more. */
void cap_websocket_eof(cap_conn *c);
/* Does it read now? */
bool cap_websocket_wants_input(const cap_request *r);
/* due_read is over: ping, give up waiting for a pong or a Close. */
void cap_websocket_on_timer(cap_conn *c);
/* The server stops: 1012. */
void cap_websocket_shutdown(cap_conn *c);

/* Begin the closing handshake from our side. */
void cap_websocket_close(cap_request *r, int code, const char *reason, size_t len);

/* The connection is gone, or the session over: what receive() says from now on. */
void cap_websocket_detached(cap_request *r);
/* The application returned, or raised. */
void cap_websocket_app_done(cap_request *r, bool failed);

/* --- ASGI messages (websocket_messages.c) ------------------------------------------ */

/* Is there a message for receive()? */
bool cap_websocket_ready(const cap_request *r);
/* The next; new reference, or NULL with an exception. */
PyObject *cap_websocket_take(cap_request *r);
/* 0, or -1 with the exception that the application gets. */
int cap_websocket_send(cap_request *r, PyObject *message);

#endif
