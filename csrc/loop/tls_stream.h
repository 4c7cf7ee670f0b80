/* TLS over another stream, by CPython's ssl module (memory BIOs, so no second
   OpenSSL): the same operations as any cap_stream, the owner does not ask which.
   Server side.

   Whatever it does may run Python (an SNI callback for instance). Loop thread, GIL
   held; its inner stream's callbacks take it through `enter`. */
#ifndef CAP_LOOP_TLS_STREAM_H
#define CAP_LOOP_TLS_STREAM_H

#include "loop/reactor.h"
#include "net/stream.h"

typedef struct cap_stream_tls {
    cap_stream base;
    cap_stream *inner;   /* the owner's memory, as this is */
    cap_reactor *reactor;
    PyObject *incoming;  /* ssl.MemoryBIO: what the peer sent */
    PyObject *outgoing;  /* ssl.MemoryBIO: what is to be sent */
    PyObject *object;    /* ssl.SSLObject */
    PyObject *raw;       /* what reads and writes fastest of it: its _sslobj, or itself */
    PyObject *held;      /* bytes: ciphertext that has not been sent yet; or NULL */
    PyObject *info;      /* the owner's, what it says of it; or NULL */
    char *buffer;        /* where alloc put the ciphertext; plaintext goes there too */
    size_t buffer_len;
    uint8_t stage;
    bool reading;        /* the owner wants bytes */
    bool shut;           /* our side ends as soon as what was written, close_notify, is out */
    bool answers;        /* ssl may have something to send behind what is held */
    bool unread;         /* ssl may hold something for the owner */
    bool ended;          /* the peer's half of the connection, with close_notify or without */
    bool begun;          /* its first octet has come */
    bool plain;          /* the peer speaks HTTP without TLS: `read` was told UV_EPROTO, nothing was
                            answered, and the owner may go on with `inner` */
} cap_stream_tls;

/* Begin a handshake over `inner`, which is open and whose callbacks were given to
   cap_tls_inner_events with `owner` set to this stream. `context`: an ssl.SSLContext.
   0, or -1 with an exception: nothing to close then but the inner stream. */
int cap_stream_tls_open(cap_stream_tls *t, cap_reactor *r, cap_stream *inner, PyObject *context,
                        const cap_stream_events *on, void *owner);
/* Gives the Python objects back; after `closed`. */
void cap_stream_tls_free(cap_stream_tls *t);

/* Encrypt `data` and hold the ciphertext back: *out, *out_len, until cap_stream_tls_release, which
   has to come before anything else is done with the stream but closing it. Only when nothing is
   unwritten. 0, or UV_E... (nothing is held, and nothing can be written any more). */
int cap_stream_tls_hold(cap_stream_tls *t, const char *data, size_t len, const char **out,
                        size_t *out_len);
/* Send what is held from `sent` on: so much of it somebody else has sent. When that fails reading
   tells of it. */
void cap_stream_tls_release(cap_stream_tls *t, size_t sent);

/* The callbacks that the inner stream needs. */
extern const cap_stream_events cap_tls_inner_events;

/* Has the handshake been done? */
bool cap_stream_tls_ready(const cap_stream_tls *t);

#endif
