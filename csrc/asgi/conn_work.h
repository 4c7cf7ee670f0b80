/* What a connection needs while something is to be done on it: parser, buffers, the
   deadlines of requests and responses. One that rests between two requests gives it
   back, so that it holds no more memory than its place in the lists and the stream's
   handle; the server keeps some for those that wake up.

   A connection without work of its own has the server's `no_work`, in which everything
   is empty: reading asks no question, only who writes needs cap_conn_work_take first.
   Loop thread. */
#ifndef CAP_ASGI_CONN_WORK_H
#define CAP_ASGI_CONN_WORK_H

#include "base/buffer.h"
#include "http/h1_request.h"
#include "loop/reactor.h"
#include "loop/tls_stream.h"

struct cap_conn;
struct cap_server;

typedef struct cap_conn_work {
    cap_buffer in;         /* input that was not consumed */
    cap_buffer out;        /* output that the stream has not seen */
    cap_deferred deferred; /* flush, next request */
    struct cap_conn *conn; /* borrowed: whose it is */
    struct cap_conn_work *next; /* the server's spare ones */
    cap_h1_head *head;     /* the server's, while a head is being read */
    cap_stream_tls *tls;   /* owned: not spoken any more; or NULL */
    uint64_t due_send;     /* ms; 0: none */
    uint64_t due_request;
    uint64_t due_eof;      /* the peer ended its side; now its absence is believed */
    uint64_t linger_end;
    size_t send_mark;      /* unwritten octets when due_send was set, */
    int send_mark_kernel;  /* and those that the kernel had and the peer had not taken */
    uint64_t drained;      /* octets dropped in DRAINING */
    cap_h1_parser parser;
} cap_conn_work;

/* Have work of its own, new if it has none. 0, or -1 without memory (no exception). */
int cap_conn_work_take(struct cap_conn *c);
/* Back to the server, whatever is in it. Not while it is queued. */
void cap_conn_work_give(struct cap_conn *c);
/* Nothing in it that a connection would miss? */
bool cap_conn_work_done(const struct cap_conn *c);

/* Of a server: the empty one; 0, or -1 without memory (no exception). And the end of all. */
int cap_conn_works_init(struct cap_server *s);
void cap_conn_works_drop_spare(struct cap_server *s);
void cap_conn_works_free(struct cap_server *s);

#endif
