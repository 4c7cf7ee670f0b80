#include "asgi/conn_work.h"

#include <assert.h>

#include "asgi/conn.h"
#include "base/mem.h"

/* So many are kept: more than that are at work at once where applications wait, and
   then an allocation is the least of it. */
#define SPARE_MAX 64
/* An output buffer up to this size stays with a spare one. */
#define SPARE_OUT_MAX 4096

int
cap_conn_work_take(cap_conn *c)
{
    cap_server *s = c->server;
    if (c->work != s->no_work)
        return 0;
    cap_conn_work *w = s->spare_work;
    if (w != NULL) {
        s->spare_work = w->next;
        s->spare_works--;
    } else if ((w = cap_calloc(1, sizeof *w)) != NULL) {
        w->deferred.run = cap_conn_on_turn_end;
        cap_h1_init(&w->parser, &s->set.limits);
    } else {
        return -1;
    }
    w->conn = c;
    c->work = w;
    return 0;
}

static void
work_free(cap_conn_work *w)
{
    cap_buffer_free(&w->in);
    cap_buffer_free(&w->out);
    cap_free(w);
}

void
cap_conn_work_give(cap_conn *c)
{
    cap_server *s = c->server;
    cap_conn_work *w = c->work;
    if (w == s->no_work)
        return;
    assert(!w->deferred.queued);
    c->work = s->no_work;
    if (w->head != NULL)
        cap_server_head_give(s, w->head);
    if (w->tls != NULL) {
        cap_stream_tls *t = w->tls;
        w->tls = NULL;
        cap_stream_tls_free(t);
        cap_free(t);
    }
#ifndef CAP_NO_FREELISTS
    if (s->spare_works < SPARE_MAX && !s->closed) {
        cap_buffer_free(&w->in);
        w->out.len = 0;
        if (w->out.cap > SPARE_OUT_MAX)
            cap_buffer_free(&w->out);
        if (!cap_h1_fresh(&w->parser))
            cap_h1_init(&w->parser, &s->set.limits);
        w->head = NULL;
        w->due_send = w->due_request = w->due_eof = w->linger_end = 0;
        w->conn = NULL;
        w->next = s->spare_work;
        s->spare_work = w;
        s->spare_works++;
        return;
    }
#endif
    work_free(w);
}

bool
cap_conn_work_done(const cap_conn *c)
{
    const cap_conn_work *w = c->work;
    return w->in.len == 0 && w->out.len == 0 && !w->deferred.queued && w->due_send == 0 &&
           w->due_request == 0 && w->due_eof == 0 && cap_h1_fresh(&w->parser);
}

int
cap_conn_works_init(cap_server *s)
{
    cap_conn_work *w = cap_calloc(1, sizeof *w);
    if (w == NULL)
        return -1;
    cap_h1_init(&w->parser, &s->set.limits);
    s->no_work = w;
    return 0;
}

void
cap_conn_works_drop_spare(cap_server *s)
{
    while (s->spare_work != NULL) {
        cap_conn_work *w = s->spare_work;
        s->spare_work = w->next;
        work_free(w);
    }
    s->spare_works = 0;
}

void
cap_conn_works_free(cap_server *s)
{
    cap_conn_works_drop_spare(s);
    /* Nobody has written to it. */
    assert(s->no_work == NULL || (s->no_work->in.cap == 0 && s->no_work->out.cap == 0 &&
                                  !s->no_work->deferred.queued && s->no_work->due_send == 0 &&
                                  s->no_work->due_request == 0 && s->no_work->due_eof == 0));
    cap_free(s->no_work);
    s->no_work = NULL;
}
