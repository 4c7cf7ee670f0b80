/* A connection's life: states, input to requests, the end. */
#include "asgi/conn.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "asgi/scope.h"
#include "asgi/websocket.h"
#include "base/mem.h"

#define LINGER_MAX_MS 30000
/* An answered request's remaining content: so much is read to keep the connection. */
#define DRAIN_MAX (1 << 20)
/* After the peer's FIN it may still read the response (half-close), or be gone: an
   application that waits for the disconnect hears of it after this. */
#define EOF_GRACE_MS 500

/* --- states ----------------------------------------------------------------------- */

#define TO(s) (1u << CAP_CONN_##s)
static const unsigned allowed[CAP_CONN_STATES] = {
    [CAP_CONN_IDLE] = TO(READING) | TO(RUNNING) | TO(FLUSHING) | TO(CLOSING),
    [CAP_CONN_READING] = TO(RUNNING) | TO(FLUSHING) | TO(CLOSING),
    [CAP_CONN_UPGRADED] = TO(FLUSHING) | TO(CLOSING),
    [CAP_CONN_RUNNING] = TO(IDLE) | TO(UPGRADED) | TO(DRAINING) | TO(FLUSHING) | TO(CLOSING),
    [CAP_CONN_DRAINING] = TO(IDLE) | TO(FLUSHING) | TO(CLOSING),
    [CAP_CONN_FLUSHING] = TO(LINGERING) | TO(CLOSING),
    [CAP_CONN_LINGERING] = TO(CLOSING),
    [CAP_CONN_CLOSING] = TO(CLOSED),
    [CAP_CONN_CLOSED] = 0,
};

/* The only place that writes c->state. */
static void
conn_goto(cap_conn *c, cap_conn_state to)
{
    assert(allowed[c->state] & (1u << to));
    assert(!c->rests);
    assert(c->work != c->server->no_work || to == CAP_CONN_FLUSHING || to >= CAP_CONN_CLOSING);
    (void)allowed; /* without assertions it is documentation */
    c->state = (uint8_t)to;
}

static cap_conn *
conn_of_stream(cap_stream *s)
{
    return s->owner;
}

/* --- resting --------------------------------------------------------------------------- */

cap_claim *
cap_conn_prepare_rest(cap_conn *c)
{
    if (c->claim == NULL || c->rests || c->state != CAP_CONN_IDLE || !c->reading || c->feeding ||
        c->work->in.len != 0 || cap_conn_tls(c) != NULL || c->stream.base.on != &cap_conn_stream_events)
        return NULL;
    c->claim->flags = (c->unix_socket ? CAP_HANDOVER_UNIX : 0) | (c->used ? CAP_HANDOVER_USED : 0);
    c->claim->origin = c->origin;
    return c->claim;
}

/* A response's head has queued a flush for the turn's end, but all of it has left before. (TLS may
   still hold something for us then.) */
static void
drop_deferred(cap_conn *c)
{
    cap_conn_work *w = c->work;
    if (!w->deferred.queued || w->in.len != 0 || w->out.len != 0 || cap_conn_tls(c) != NULL)
        return;
    cap_reactor_undefer(c->server->reactor, &w->deferred);
    Py_DECREF(c); /* the queue's; the open stream has one more */
}

void
cap_conn_rest(cap_conn *c)
{
    if (c->state != CAP_CONN_IDLE || !c->reading || c->feeding || cap_stream_unwritten(c->io) != 0)
        return;
    drop_deferred(c);
    if (!cap_conn_work_done(c))
        return;
    cap_conn_work_give(c);
    if (cap_conn_prepare_rest(c) == NULL)
        return;
    c->rests = true;
    cap_claim_rest(c->claim);
}

bool
cap_conn_take(cap_conn *c)
{
    if (c->gathered != 0)
        cap_conn_take_output(c);
    if (c->rests) {
        c->rests = false;
        c->moved = !cap_claim_take(c->claim);
    }
    return !c->moved;
}

/* --- the end -------------------------------------------------------------------------- */

static void
unlist(cap_conn *c)
{
    cap_server *s = c->server;
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        s->first = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    else
        s->last = c->prev;
    c->next = c->prev = NULL;
    s->connection_count--;
    cap_server_tell_connections(s, false);
}

void
cap_conn_list_last(cap_conn *c)
{
    cap_server *s = c->server;
    c->prev = s->last;
    c->next = NULL;
    if (s->last != NULL)
        s->last->next = c;
    else
        s->first = c;
    s->last = c;
    s->connection_count++;
    cap_server_tell_connections(s, true);
}

static void
release_head(cap_conn *c)
{
    if (c->work->head != NULL) {
        cap_server_head_give(c->server, c->work->head);
        c->work->head = NULL;
    }
}

/* An orderly end in the middle of a response that has neither length nor chunks would make it
   look whole, over TLS as well (RFC 9112 8, 9.8). */
static void
look_for_cut(cap_conn *c)
{
    const cap_request *r = c->request;
    if (r != NULL && r->ws == NULL && r->response == CAP_RESPONSE_STARTED && !r->chunked &&
        !r->has_length && !r->no_body)
        c->cut = true;
}

void
cap_conn_let_go(cap_conn *c, bool disconnected)
{
    cap_request *r = c->request;
    if (r == NULL)
        return;
    look_for_cut(c);
    c->request = NULL;
    c->starting = false;
    c->work->due_request = 0;
    c->work->due_eof = 0;
    cap_request_detach(r, disconnected);
    Py_DECREF(r);
}

void
cap_conn_close(cap_conn *c, bool reset)
{
    if (!cap_conn_open(c))
        return;
    Py_INCREF(c);
    bool ours = cap_conn_take(c);
    look_for_cut(c);
    conn_goto(c, CAP_CONN_CLOSING);
    cap_wheel_cancel(&c->server->wheel, &c->timer);
    if (c->claim != NULL)
        cap_claim_drop(c->claim);
    c->claim = NULL;
    unsigned how = reset || c->cut ? CAP_CLOSE_RESET : 0;
    if (c->adopted || atomic_load_explicit(&cap_has_forked, memory_order_relaxed))
        how |= CAP_CLOSE_SHARED;
    cap_stream_close(c->io, ours ? how : 0);
    cap_conn_let_go(c, true); /* first: what follows may run Python, which may still send */
    cap_reactor_watchers_changed(c->server->reactor);
    Py_DECREF(c);
}

void
cap_conn_on_closed(cap_stream *stream)
{
    cap_conn *c = conn_of_stream(stream);
    cap_reactor_enter(c->server->reactor);
    cap_count.uv_handles--;
    conn_goto(c, CAP_CONN_CLOSED);
    assert(c->gathered == 0);
    unlist(c);
    if (!c->work->deferred.queued) /* else: at the turn's end */
        cap_conn_work_give(c);
    cap_stream_tls *t = cap_conn_tls(c);
    if (t != NULL) {
        c->io = &c->stream.base;
        cap_stream_tls_free(t);
        cap_free(t);
    }
    Py_DECREF(c); /* the open stream's */
}

void
cap_conn_finish(cap_conn *c)
{
    conn_goto(c, CAP_CONN_FLUSHING);
    c->due_read = 0;
    if (cap_conn_unsent(c) == 0)
        cap_conn_sent_all(c);
    else
        cap_conn_flush(c);
}

void
cap_conn_sent_all(cap_conn *c)
{
    assert(c->state == CAP_CONN_FLUSHING);
    /* Closing a socket with unread input sends an RST, which may overtake the response:
       so our side is shut first, and what still comes is dropped for a while. */
    bool quiet = c->body_ended && c->work->in.len == 0 && !c->feeding;
    if (c->eof || quiet || c->cut || cap_stream_shut_write(c->io) < 0) {
        cap_conn_close(c, false);
        return;
    }
    conn_goto(c, CAP_CONN_LINGERING);
    if (!c->feeding)
        cap_buffer_free(&c->work->in);
    assert(c->work != c->server->no_work);
    c->work->linger_end = cap_server_now(c->server) + LINGER_MAX_MS;
    cap_conn_due_in(c, &c->due_read, CAP_LINGER_IDLE_MS);
    cap_conn_update_reading(c);
}

void
cap_conn_break(cap_conn *c)
{
    if (!cap_conn_open(c) || c->state >= CAP_CONN_FLUSHING)
        return;
    cap_conn_let_go(c, true);
    if (!cap_conn_open(c) || c->state >= CAP_CONN_FLUSHING)
        return;
    c->keep_alive = false;
    cap_conn_finish(c);
}

bool
cap_conn_has_answered(const cap_conn *c)
{
    const cap_request *r = c->request;
    return c->state == CAP_CONN_DRAINING ||
           (r != NULL && r->response != CAP_RESPONSE_NOT_STARTED);
}

void
cap_conn_refuse(cap_conn *c, int status, const char *reason)
{
    char peer[64];
    bool answered = cap_conn_has_answered(c);
    cap_server_log(c->server, CAP_LOG_WARNING, NULL,
                   answered ? "Invalid HTTP request received. %s. (%s, closed: the response had begun)"
                            : "Invalid HTTP request received. %s. (%s, answered %d)",
                   reason, cap_conn_peer_text(c, peer), status);
    if (!cap_conn_open(c) || c->state >= CAP_CONN_FLUSHING)
        return; /* logging is Python */
    answered = cap_conn_has_answered(c);
    cap_conn_let_go(c, true);
    if (!cap_conn_open(c) || c->state >= CAP_CONN_FLUSHING)
        return;
    c->keep_alive = false;
    c->body_ended = false;
    if (!answered) {
        char text[256];
        PyOS_snprintf(text, sizeof text, "%s\n%s.\n",
                      status == 408   ? "Request timed out."
                      : status == 413 ? "Request body too large."
                                      : "Invalid HTTP request received.",
                      reason);
        cap_send_simple(c, status, text, true);
    }
    cap_conn_finish(c);
}

/* --- input --------------------------------------------------------------------------- */

void
cap_conn_update_reading(cap_conn *c)
{
    if (!cap_conn_open(c))
        return;
    bool want = !c->eof;
    switch (c->state) {
    case CAP_CONN_RUNNING:
        if (c->body_ended || c->request == NULL)
            want = want && c->work->in.len < CAP_HIGH_WATER;
        else
            want = want && c->request->body.len < CAP_HIGH_WATER;
        break;
    case CAP_CONN_UPGRADED:
        want = want && cap_websocket_wants_input(c->request) && c->work->in.len < CAP_HIGH_WATER;
        break;
    case CAP_CONN_IDLE:
        want = want && c->work->in.len < CAP_HIGH_WATER;
        break;
    default: /* READING: the parser's limits are the bound */
        break;
    }
    if (want == c->reading)
        return;
    if (want && cap_stream_read_start(c->io) < 0) {
        cap_conn_close(c, true);
        return;
    }
    if (!want)
        cap_stream_read_stop(c->io);
    c->reading = want;
    if (want && cap_conn_tls(c) != NULL)
        cap_conn_flush_later(c); /* what was deciphered and not read is asked for then */
    /* While the application does not read, the client is not to blame for silence. */
    if (c->state == CAP_CONN_RUNNING && !c->body_ended && want && c->server->set.timeout_request_body)
        cap_conn_due_in(c, &c->due_read, c->server->set.timeout_request_body);
    else if (c->state == CAP_CONN_RUNNING && !want)
        c->due_read = 0;
    cap_reactor_watchers_changed(c->server->reactor);
}

/* The response is out and the request read: what next? */
static void
next_cycle(cap_conn *c)
{
    if (!c->keep_alive || (c->eof && c->work->in.len == 0 && !c->feeding)) {
        cap_conn_finish(c);
        return;
    }
    conn_goto(c, CAP_CONN_IDLE);
    c->head_only = false;
    cap_conn_due_in(c, &c->due_read, c->server->set.timeout_keep_alive);
    if (c->feeding)
        return; /* it goes on, and flushes at its end */
    if (c->work->in.len != 0) {
        cap_conn_flush_later(c);
        return;
    }
    cap_conn_update_reading(c);
    cap_conn_flush_together(c);
    cap_conn_rest(c);
}

void
cap_conn_response_done(cap_conn *c)
{
    assert(c->state == CAP_CONN_RUNNING);
    cap_conn_let_go(c, false);
    if (c->state != CAP_CONN_RUNNING)
        return;
    if (c->body_ended) {
        next_cycle(c);
    } else if (c->keep_alive) {
        conn_goto(c, CAP_CONN_DRAINING);
        c->work->drained = 0;
        cap_conn_due_in(c, &c->due_read, c->server->set.timeout_request_body);
        if (!c->feeding)
            cap_conn_flush(c);
        cap_conn_update_reading(c);
    } else {
        cap_conn_finish(c);
    }
}

void
cap_conn_upgrade(cap_conn *c)
{
    conn_goto(c, CAP_CONN_UPGRADED);
    c->keep_alive = false;
    cap_conn_due_in(c, &c->work->due_request, 0);
    if (c->request->ws->state == CAP_WS_OPEN) /* logging ran Python: perhaps it was closed */
        cap_conn_due_in(c, &c->due_read, c->server->set.ws_ping_interval);
    cap_conn_flush_later(c);
    if (c->state != CAP_CONN_UPGRADED || c->request == NULL)
        return; /* another loop's call_soon() is Python */
    if (c->eof)
        cap_websocket_eof(c);
    else
        cap_conn_update_reading(c);
}

void
cap_conn_session_over(cap_conn *c)
{
    if (c->state != CAP_CONN_UPGRADED)
        return;
    cap_conn_let_go(c, true);
    if (c->state != CAP_CONN_UPGRADED)
        return;
    c->body_ended = false; /* linger: an RST could overtake our Close frame */
    cap_conn_finish(c);
}

/* On our own port, and for us rather than for the application? */
static bool
is_health_check(const cap_conn *c, const cap_h1_head *h, const char *base)
{
    const cap_rescue *r = c->server->rescue;
    return r != NULL && r->health.path[0] != 0 && h->form == CAP_H1_ORIGIN &&
           (c->head_only || (h->method.len == 3 && memcmp(base + h->method.off, "GET", 3) == 0)) &&
           (h->flags & CAP_H1_UPGRADE) == 0 &&
           cap_health_is_path(&r->health, base + h->path.off, h->path.len);
}

static void
answer_health_check(cap_conn *c, const cap_h1_head *h)
{
    bool ready = cap_health_ready(&c->server->rescue->health);
    if ((h->flags & CAP_H1_EXPECT_CONTINUE) != 0 || c->server->shutting_down)
        c->keep_alive = false;
    cap_send_simple_with(c, ready ? 200 : 503, ready ? "ok\n" : "not ready\n", !c->keep_alive,
                         "cache-control: no-store\r\n");
    if (c->keep_alive)
        cap_conn_response_done(c); /* its content, if there is any, is read and dropped */
    else
        cap_conn_finish(c);
}

/* A head is complete: make the request. Its application starts when the input at
   hand is used up, so that a small body is there when it asks. */
static void
on_head(cap_conn *c, const cap_h1_head *h, const char *base, int memo)
{
    cap_server *s = c->server;
    conn_goto(c, CAP_CONN_RUNNING);
    c->used = true;
    c->body_ended = false;
    c->head_only = h->method.len == 4 && memcmp(base + h->method.off, "HEAD", 4) == 0;
    c->due_read = 0;
    c->keep_alive = (h->flags & CAP_H1_KEEP_ALIVE) != 0;
    if (is_health_check(c, h, base)) {
        answer_health_check(c, h);
        return;
    }
    s->total_requests++;
    cap_tally_add(&s->tally->requests, 1);
    if (s->set.limit_concurrency != 0 && s->request_count >= s->set.limit_concurrency) {
        cap_server_log(s, CAP_LOG_WARNING, NULL, "Exceeded concurrency limit.");
        if (c->state != CAP_CONN_RUNNING)
            return;
        c->keep_alive = false;
        cap_send_simple(c, 503, "Service Unavailable", true);
        cap_conn_finish(c);
        return;
    }
    bool websocket = cap_websocket_wanted(s, h);
    if ((h->flags & CAP_H1_UPGRADE) != 0 && !websocket) {
        cap_server_log(s, CAP_LOG_WARNING, NULL, "Unsupported upgrade request.");
        if (c->state != CAP_CONN_RUNNING)
            return;
    }
    cap_request *r = cap_request_new(c);
    if (r == NULL || cap_scope_fill(r, c, h, base, memo) < 0) {
        PyObject *exc = cap_err_take();
        if (r != NULL)
            cap_request_detach(r, true);
        Py_XDECREF(r);
        if (PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt) ||
            PyErr_GivenExceptionMatches(exc, PyExc_SystemExit)) {
            cap_err_restore(Py_NewRef(exc)); /* proxy_headers is Python */
            cap_server_lost(s, (PyObject *)s);
        } else {
            cap_server_log(s, CAP_LOG_ERROR, exc, "A request could not be handed to the application");
        }
        Py_XDECREF(exc);
        if (c->state == CAP_CONN_RUNNING) {
            c->keep_alive = false;
            cap_send_simple(c, 500, "Internal Server Error", true);
            cap_conn_finish(c);
        }
        return;
    }
    if (c->state != CAP_CONN_RUNNING) { /* proxy_headers is Python */
        cap_request_detach(r, true);
        Py_DECREF(r);
        return;
    }
    if (r->method == s->objects->connect)
        c->keep_alive = false; /* a proxy may take what follows for a tunnel (9110 9.3.6) */
    if (websocket && cap_websocket_begin(r, c, h, base) < 0) {
        cap_request_detach(r, true);
        Py_DECREF(r);
        if (PyErr_Occurred()) {
            cap_server_lost(s, (PyObject *)s);
            if (c->state == CAP_CONN_RUNNING) {
                c->keep_alive = false;
                cap_send_simple(c, 500, "Internal Server Error", true);
            }
        }
        if (c->state == CAP_CONN_RUNNING)
            cap_conn_finish(c);
        return;
    }
    r->expects = (h->flags & CAP_H1_EXPECT_CONTINUE) != 0;
    c->request = r;
    c->starting = true;
    if (s->set.timeout_request != 0)
        cap_conn_due_in(c, &c->work->due_request, s->set.timeout_request);
}

static void
start_request(cap_conn *c)
{
    c->starting = false;
    cap_request *r = c->request;
    if (!c->body_ended)
        cap_conn_due_in(c, &c->due_read, c->server->set.timeout_request_body);
    Py_INCREF(r);
    cap_conn_hurry(c->server->reactor, r->begun_ns);
    if (c->request == r)
        cap_request_start(r);
    Py_DECREF(r);
}

static void
on_body(cap_conn *c, const char *data, size_t len)
{
    if (c->state == CAP_CONN_DRAINING) {
        c->work->drained += len;
        if (c->work->drained > DRAIN_MAX) {
            c->keep_alive = false;
            cap_conn_finish(c);
            return;
        }
    } else if (c->request != NULL && cap_request_feed(c->request, data, len) < 0) {
        cap_conn_refuse(c, 500, "Out of memory");
        return;
    }
    /* What nobody reads has one time for all of it, set when DRAINING began. */
    if (c->state == CAP_CONN_RUNNING && c->server->set.timeout_request_body != 0 && !c->starting)
        cap_conn_due_in(c, &c->due_read, c->server->set.timeout_request_body);
}

static void
on_end(cap_conn *c)
{
    c->body_ended = true;
    c->due_read = 0;
    if (c->state == CAP_CONN_DRAINING)
        next_cycle(c);
    else if (c->request != NULL)
        cap_request_feed_end(c->request);
}

/* May this state take more input now? */
static bool
wants_input(const cap_conn *c)
{
    switch (c->state) {
    case CAP_CONN_IDLE:
        return cap_conn_unsent(c) <= CAP_HIGH_WATER;
    case CAP_CONN_READING:
    case CAP_CONN_DRAINING:
        return true;
    case CAP_CONN_RUNNING:
        return !c->body_ended;
    default:
        return false;
    }
}

/* The same client sends the same field lines again: see header_memo.h. The entry, or
   -1 when it has to be parsed. */
static int
known_head(cap_conn *c, const char *data, size_t len, size_t *used)
{
    cap_server *s = c->server;
    if (c->memo < 0 || !cap_h1_at_start(&c->work->parser))
        return -1;
    size_t line = cap_h1_request_line(&s->set.limits, c->work->head, data, len);
    if (line == 0 || c->work->head->form != CAP_H1_ORIGIN ||
        !cap_memo_begins(&s->memo, c->memo, data + line, len - line, c->work->head->minor))
        return -1;
    const cap_memo_entry *e = &s->memo.entry[c->memo];
    c->work->head->flags = e->flags;
    cap_h1_skip_head(&c->work->parser);
    *used = line + e->len;
    return c->memo;
}

/* One step of reading; false when no more can be done with this input. */
static bool
feed_step(cap_conn *c, const char *data, size_t len, size_t *used)
{
    cap_server *s = c->server;
    bool in_head = c->state == CAP_CONN_IDLE || c->state == CAP_CONN_READING;
    *used = 0;
    if (in_head && c->work->head == NULL && (c->work->head = cap_server_head_take(s)) == NULL) {
        cap_conn_refuse(c, 500, "Out of memory");
        return false;
    }
    if (c->state == CAP_CONN_IDLE) {
        int memo = known_head(c, data, len, used);
        if (memo >= 0) {
            on_head(c, c->work->head, data, memo);
            release_head(c);
            return true;
        }
    }
    cap_h1_out out;
    switch (cap_h1_next(&c->work->parser, c->work->head, data, len, used, &out)) {
    case CAP_H1_MORE:
        if (c->state == CAP_CONN_IDLE && len > *used) {
            conn_goto(c, CAP_CONN_READING);
            cap_conn_due_in(c, &c->due_read, s->set.timeout_request_head);
        }
        return false;
    case CAP_H1_HEAD:
        on_head(c, c->work->head, data + out.head_off, -1);
        release_head(c);
        return true;
    case CAP_H1_BODY:
        on_body(c, out.body, out.body_len);
        return true;
    case CAP_H1_END:
        on_end(c);
        return true;
    case CAP_H1_ERROR:
        cap_conn_refuse(c, out.status, out.reason);
        return false;
    }
    return false;
}

/* The peer sends no more, and what it sent was used as far as the state lets us. */
static void
at_eof(cap_conn *c)
{
    switch (c->state) {
    case CAP_CONN_IDLE:
        if (c->work->in.len == 0)
            cap_conn_finish(c);
        break; /* else: pipelined requests wait for the peer to read */
    case CAP_CONN_READING:
        cap_conn_refuse(c, 400, "The connection ended in the middle of the request's head");
        break;
    case CAP_CONN_RUNNING:
        if (!c->body_ended)
            cap_conn_refuse(c, 400, "The connection ended in the middle of the request's content");
        else if (c->work->due_eof == 0)
            cap_conn_due_in(c, &c->work->due_eof, EOF_GRACE_MS);
        break;
    case CAP_CONN_UPGRADED:
        cap_websocket_eof(c);
        break;
    case CAP_CONN_DRAINING:
        c->keep_alive = false;
        cap_conn_finish(c);
        break;
    case CAP_CONN_LINGERING:
        cap_conn_close(c, false);
        break;
    default:
        break;
    }
}

static void
on_eof(cap_conn *c)
{
    c->eof = true;
    c->reading = false;
    cap_stream_read_stop(c->io);
    at_eof(c);
}

/* Use the input at hand: c->work->in, or (when that is empty) `data`, of which the rest is
   put into c->work->in. Holds c. */
static void
feed(cap_conn *c, const char *data, size_t len)
{
    bool own = data == NULL;
    if (own) {
        data = c->work->in.data;
        len = c->work->in.len;
    }
    size_t at = 0, used;
    bool more = true;
    c->feeding = true;
    while (wants_input(c) && more && (at < len || !cap_h1_at_start(&c->work->parser))) {
        more = feed_step(c, data + at, len - at, &used);
        at += used;
        /* MORE or END comes without further input, so this is reached for every head. */
        if (c->starting && (!more || c->body_ended))
            start_request(c);
    }
    c->feeding = false;
    if (!cap_conn_open(c))
        return;
    if (c->state >= CAP_CONN_FLUSHING) {
        cap_buffer_free(&c->work->in);
    } else if (own) {
        cap_buffer_consume(&c->work->in, at);
        if (c->work->in.len == 0)
            cap_buffer_free(&c->work->in);
    } else if (at < len && cap_buffer_append(&c->work->in, data + at, len - at) < 0) {
        cap_conn_close(c, true);
        return;
    }
    if (c->state == CAP_CONN_UPGRADED && c->work->in.len != 0)
        cap_conn_flush_later(c); /* frames that came with the handshake */
    else if (c->eof && c->state != CAP_CONN_UPGRADED)
        at_eof(c);
    cap_conn_update_reading(c);
    cap_conn_flush_together(c);
}

void
cap_conn_on_alloc(cap_stream *stream, uv_buf_t *buf)
{
    cap_conn *c = conn_of_stream(stream);
    /* First: as long as others keep the GIL from us the connection rests. */
    cap_reactor_enter(c->server->reactor);
    if (!cap_conn_take(c))
        return; /* the octets are another process's */
    cap_server *s = c->server;
    bool used_at_once = c->work->in.len == 0 && wants_input(c);
    buf->base = s->read_buffer;
    buf->len = used_at_once ? CAP_READ_BUFFER : CAP_READ_OTHER;
    if (used_at_once && c->state == CAP_CONN_RUNNING && c->request != NULL && cap_conn_tls(c) == NULL) {
        size_t len;
        char *room = cap_body_room(&c->request->body, &s->body_room,
                                   cap_h1_content_left(&c->work->parser), &len);
        if (room != NULL)
            *buf = uv_buf_init(room, (unsigned)len);
    }
}

static void
on_stream_unread(cap_stream *stream)
{
    cap_conn_rest(conn_of_stream(stream));
}

static void
on_stream_read(cap_stream *stream, const char *data, ssize_t n)
{
    cap_conn *c = conn_of_stream(stream);
    cap_reactor_enter(c->server->reactor);
    if (!cap_conn_open(c))
        return;
    if (n > 0)
        cap_tally_add(&c->server->tally->octets_in, (uint64_t)n);
    Py_INCREF(c);
    if (n < 0 && cap_conn_tls(c) != NULL && cap_conn_tls(c)->plain) {
        cap_conn_refuse_plain(c);
    } else if (n < 0 || cap_server_loop_gone(c->server)) {
        cap_conn_close(c, false); /* reset, or timed out by the kernel */
    } else if (n > 0 && cap_conn_work_take(c) < 0) {
        cap_conn_close(c, true);
    } else if (n == 0) {
        on_eof(c);
    } else if (c->state == CAP_CONN_LINGERING) {
        uint64_t due = cap_server_now(c->server) + CAP_LINGER_IDLE_MS;
        c->due_read = due < c->work->linger_end ? due : c->work->linger_end;
    } else if (c->state == CAP_CONN_FLUSHING) {
        ; /* dropped */
    } else if (c->state == CAP_CONN_UPGRADED) {
        cap_websocket_feed(c, (char *)data, (size_t)n); /* our read buffer: written to */
    } else if (c->work->in.len == 0 && wants_input(c)) {
        feed(c, data, (size_t)n);
    } else if (cap_buffer_append(&c->work->in, data, (size_t)n) < 0) {
        cap_conn_close(c, true);
    } else if (wants_input(c)) {
        feed(c, NULL, 0);
    } else {
        cap_conn_update_reading(c);
    }
    cap_conn_rest(c);
    Py_DECREF(c);
}

const cap_stream_events cap_conn_stream_events = {
    .alloc = cap_conn_on_alloc,
    .read = on_stream_read,
    .unread = on_stream_unread,
    .written = cap_conn_on_written,
    .closed = cap_conn_on_closed,
};

/* The turn's end: what was gathered leaves, and the next pipelined request begins. */
void
cap_conn_on_turn_end(cap_deferred *d)
{
    cap_conn *c = ((cap_conn_work *)((char *)d - offsetof(cap_conn_work, deferred)))->conn;
    if (cap_conn_open(c) && !cap_conn_take(c)) {
        cap_conn_close(c, false);
    } else if (cap_conn_open(c) && !cap_server_loop_gone(c->server)) {
        if (c->work->in.len != 0 && c->state == CAP_CONN_UPGRADED)
            cap_websocket_feed(c, NULL, 0);
        else if (c->work->in.len != 0 && !c->feeding && wants_input(c))
            feed(c, NULL, 0);
        else
            cap_conn_flush(c);
        if (c->state == CAP_CONN_UPGRADED)
            cap_conn_update_reading(c); /* there may be room again in the session's queue */
        if (cap_conn_open(c) && c->reading)
            cap_stream_resume(c->io);
        cap_conn_rest(c);
    }
    if (c->state == CAP_CONN_CLOSED)
        cap_conn_work_give(c);
    Py_DECREF(c); /* the queue's */
}
