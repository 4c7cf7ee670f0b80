/* Transports: asyncio's, in C. Streams over sockets, both ends of pipes, datagrams.

   capicorn._core.StreamTransport and its like derive from asyncio's own classes, so
   they are what they are for isinstance() and for loop.sendfile(). What is not
   done for every piece of data is in Python (python/capicorn/transports.py), which
   derives from them and owns the socket or file.

   The descriptor stays the Python object's; libuv only says when a socket is ready
   (uv_poll_t), and the system calls are made here. So there is nothing that libuv
   still reads when a connection is dropped, sendfile() works on the same socket,
   and a descriptor is closed when connection_lost() has run, as with asyncio. A pipe
   is looked for by the loop's watcher instead: its file may be closed behind our back,
   or be the same for both directions (a terminal).

   What is ready becomes a handle in a queue of the loop, which is run when the poll
   has ended, in the context in which the transport was made: debug mode's measuring
   and what may be called from where are asyncio's.

   Data written in a turn is gathered and goes out in one system call at its end: so a
   protocol that answers in pieces sends one segment, and whoever reads several
   connections is woken once, when all answers of the turn are ready. What is large, or
   written outside of a turn, leaves at once. */
#ifndef CAP_LOOP_TRANSPORT_H
#define CAP_LOOP_TRANSPORT_H

#include "loop/loop.h"

#include <sys/uio.h>

/* _extra, _loop, _protocol_paused, _high_water, _low_water: the slots of asyncio's
   classes, in whatever order. Only the first is used; the others are hidden by
   attributes of ours. */
#define CAP_TRANSPORT_SLOTS 5

/* What the poll of one loop reads into: octets. asyncio's max_size. */
#define CAP_TRANSPORT_READ (256 * 1024)

/* What else a datagram costs in the queue: octets, as asyncio counts them. */
#define CAP_DATAGRAM_HEADER 8

/* libuv holds its address until the close callback has run. */
typedef struct cap_poll {
    uv_poll_t poll;
    struct cap_transport *owner; /* borrowed */
} cap_poll;

typedef struct cap_chunk {
    PyObject *bytes;   /* exact bytes, owned */
    PyObject *address; /* of a datagram, owned; NULL: where the socket is connected to */
    Py_ssize_t sent;   /* octets of it */
} cap_chunk;

typedef struct cap_transport {
    PyObject_HEAD
    PyObject *slot[CAP_TRANSPORT_SLOTS];
    cap_transport_kind kind;
    cap_loop *loop;     /* strong; NULL: not opened yet, or connection_lost() was called */
    PyObject *protocol;
    PyObject *context;  /* all callbacks run in it */
    PyObject *empty_waiter; /* sendfile waits for an empty queue; or NULL or None */
    cap_poll *poll;       /* of a socket */
    cap_handle *watch[2]; /* of a pipe: what the watcher calls to read and to write */
    struct cap_datagrams *datagrams; /* what only datagrams need (datagram.c) */
    struct cap_transport *next; /* of the loop's open ones */
    struct cap_transport *prev;
    cap_deferred gather;   /* queued: something was written in this turn */
    cap_chunk *chunk;      /* a vector; [head, head + len) wait */
    size_t head;
    size_t len;
    size_t cap;
    Py_ssize_t queued;     /* octets that wait */
    Py_ssize_t high_water;
    Py_ssize_t low_water;
    int fd;
    int polled;            /* UV_READABLE | UV_WRITABLE: what libuv looks for */
    unsigned conn_lost;    /* not 0: connection_lost() was called or is about to be */
    unsigned entered;      /* > 0: a callback runs in `context` */
    bool held;             /* the poll holds a reference: the loop visits it */
    bool buffered;         /* the protocol gives buffers */
    bool connected;        /* set_protocol() was called */
    bool started;          /* connection_made() has been called */
    bool awaited;          /* somebody was told of that, and nothing came since */
    bool paused;           /* reading */
    bool closing;
    bool eof_read;
    bool eof_written;
    bool protocol_paused;
    bool want_write;       /* the kernel took no more: wait for room */
    bool listed;
    bool is_socket;        /* a pipe may be one */
    bool nothing_read;     /* by the last recv() into a protocol's buffer */
    bool sees_peer;        /* of a pipe's writing end: readable means that nobody reads */
} cap_transport;

/* The loop's polls and references are given up: the loop is closed or garbage. */
void cap_transports_drop(cap_loop *loop);
int cap_transports_traverse(cap_loop *loop, visitproc visit, void *arg);

static inline cap_loop_state *
cap_transport_state(const cap_transport *t)
{
    return cap_loop_state_of(t->loop->reactor.st);
}

static inline PyObject *
cap_transport_method(const cap_transport *t, cap_transport_callback which)
{
    return cap_transport_state(t)->transport_method[t->kind][which];
}

static inline bool
cap_transport_wants_read(const cap_transport *t)
{
    if (t->kind == CAP_WRITE_PIPE)
        return t->started && t->sees_peer && !t->conn_lost;
    return t->started && !t->paused && !t->closing && !t->eof_read && !t->conn_lost;
}

/* Queue a call of a method with the transport and up to two arguments, in its context.
   0, or -1 with an exception. */
int cap_transport_call_soon(cap_transport *t, PyObject *method, PyObject *a, PyObject *b);
/* Its protocol's or its own method NAME, with up to one argument, in its context, now. */
int cap_transport_call_in_context(cap_transport *t, PyObject *self, PyObject *name,
                                  PyObject *arg);
/* Look for what is wanted now. 0, or -1 with an exception. The caller holds a
   reference. */
int cap_transport_update(cap_transport *t);
/* self._fatal_error(exc, message) with the current exception; KeyboardInterrupt and
   SystemExit stay. Runs Python. 0, or -1 with an exception. */
int cap_transport_fatal(cap_transport *t, const char *message);
/* The connection ends, with what waits dropped: connection_lost(exc) at the next
   turn. 0, or -1 with an exception. */
int cap_transport_force_close(cap_transport *t, PyObject *exc);
/* connection_lost(exc) now, and the socket is closed. 0, or -1 with an exception. */
int cap_transport_lost(cap_transport *t, PyObject *exc);

/* Nothing comes from the loop any more. May free the transport unless the caller
   holds a reference. */
void cap_transport_detach(cap_transport *t);
int cap_transport_set_protocol(cap_transport *t, cap_state *st, PyObject *protocol);
/* loop->read_buffer is there, CAP_TRANSPORT_READ octets. 0, or -1 with MemoryError. */
int cap_transport_need_buffer(cap_loop *loop);

/* Methods. (loop, fd, protocol, waiter); (protocol, waiter) */
PyObject *cap_transport_open(cap_transport *t, PyObject *const *args, Py_ssize_t nargs);
PyObject *cap_transport_start(cap_transport *t, PyObject *const *args, Py_ssize_t nargs);
/* The same at once instead of by a handle; an exception goes to the loop's handler. */
PyObject *cap_transport_start_now(cap_transport *t, PyObject *protocol);
PyObject *cap_transport_close(cap_transport *t, PyObject *ignored);
PyObject *cap_transport_read_ready(cap_transport *t, PyObject *ignored);

/* ---- pipe.c ---- */

/* _open()'s part: what kind of file it is. 0, or -1 with ValueError or OSError. */
int cap_pipe_open(cap_transport *t, int fd);
int cap_pipe_update(cap_transport *t, int wanted);
void cap_pipe_detach(cap_transport *t);
/* The reading end: nothing more will come. */
int cap_pipe_read_eof(cap_transport *t);
/* The writing end is readable. */
int cap_pipe_peer_gone(cap_transport *t);
/* As write() and writev(); a SIGPIPE is not seen by anybody. */
ssize_t cap_pipe_write(int fd, const struct iovec *iov, size_t n);

/* ---- datagram.c ---- */

/* After _open(): the Python socket, remote_addr or None, and whether it is connected.
   0, or -1 with MemoryError. */
int cap_datagrams_open(cap_transport *t, PyObject *sock, PyObject *remote, bool connected);
/* May free the socket, not close it. */
void cap_datagrams_free(cap_transport *t);
int cap_datagrams_traverse(const cap_transport *t, visitproc visit, void *arg);
int cap_datagrams_read(cap_transport *t, PyObject *protocol);
int cap_datagrams_write_ready(cap_transport *t);
PyObject *cap_datagrams_sendto(cap_transport *t, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames);

/* ---- transport_type.c ---- */

int cap_transport_type_init(PyObject *module, cap_state *st);

/* ---- transport_write.c ---- */

PyObject *cap_transport_write(cap_transport *t, PyObject *data);
PyObject *cap_transport_writelines(cap_transport *t, PyObject *list);
PyObject *cap_transport_write_eof(cap_transport *t, PyObject *ignored);
/* There is room again. */
PyObject *cap_transport_write_ready(cap_transport *t, PyObject *ignored);
/* What was gathered in this turn goes to the kernel now. Runs Python only when that
   fails. 0, or -1 with an exception. */
int cap_transport_send_gathered(cap_transport *t);
void cap_transport_drop_queue(cap_transport *t);
/* Takes the references, also when it fails. 0, or -1 with MemoryError. */
int cap_transport_append(cap_transport *t, PyObject *bytes, Py_ssize_t sent, PyObject *address);
int cap_transport_pause_protocol(cap_transport *t);
int cap_transport_resume_protocol(cap_transport *t);
/* Nobody will get what is written: says so after some of them. */
PyObject *cap_transport_write_to_nobody(cap_transport *t);
/* The end of a turn in which something was written: cap_deferred.run */
void cap_transport_end_of_turn(cap_deferred *d);

#endif
