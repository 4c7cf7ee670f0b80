/* A connection and time: its deadlines, what happens when one is over, a server that ends. */
#include "asgi/conn.h"

#include <stddef.h>
#include <sys/socket.h>

#include "asgi/websocket.h"

/* --- timeouts ------------------------------------------------------------------------ */

static uint64_t
earlier(uint64_t a, uint64_t b)
{
    return a == 0 ? b : b == 0 || a < b ? a : b;
}

/* Lazily: a deadline that moves later leaves the node where it is; when the node
   fires, it is armed again for what is due by then. So a keep-alive connection
   costs no timer operation per request. */
void
cap_conn_rearm(cap_conn *c)
{
    const cap_conn_work *w = c->work;
    uint64_t due = earlier(earlier(c->due_read, w->due_send), earlier(w->due_request, w->due_eof));
    if (due == 0 || !cap_conn_open(c))
        return;
    if (cap_wheel_armed(&c->timer) && c->timer.due <= due)
        return;
    cap_wheel_arm(&c->server->wheel, &c->timer, due);
    cap_server_want_timer(c->server, due);
}

void
cap_conn_due_in(cap_conn *c, uint64_t *due, uint64_t timeout)
{
    *due = timeout == 0 ? 0 : cap_server_now(c->server) + timeout;
    if (*due != 0)
        cap_conn_rearm(c);
}

/* --- what is over ----------------------------------------------------------------------- */

/* due_request is over. */
static void
request_too_long(cap_conn *c)
{
    cap_request *r = (cap_request *)Py_NewRef((PyObject *)c->request);
    PyObject *name = cap_request_name(r);
    PyErr_Clear();
    cap_server_log(c->server, CAP_LOG_ERROR, NULL, "Request timed out, its task is cancelled: %S.",
                   name != NULL ? name : Py_None);
    Py_XDECREF(name);
    if (c->request == r && c->state == CAP_CONN_RUNNING) {
        bool answered = cap_conn_has_answered(c);
        cap_conn_let_go(c, true);
        if (c->state == CAP_CONN_RUNNING) {
            c->keep_alive = false;
            if (!answered)
                cap_send_simple(c, 504, "Gateway Timeout", true);
            cap_conn_finish(c);
        }
    }
    cap_request_cancel(r);
    Py_DECREF(r);
}

/* Has the peer sent something that we have not read yet? */
static bool
input_waits(const cap_conn *c)
{
    char octet;
    return c->reading && recv(cap_stream_fd(c->io), &octet, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* due_read is over. */
static void
read_too_long(cap_conn *c)
{
    switch (c->state) {
    case CAP_CONN_UPGRADED:
        cap_websocket_on_timer(c);
        break;
    case CAP_CONN_READING:
        cap_conn_refuse(c, 408, "The request's head did not arrive in time");
        break;
    case CAP_CONN_RUNNING:
        if (c->body_ended)
            break;
        if (c->request != NULL && c->request->expects) /* it waits for our 100 (Continue) */
            cap_conn_due_in(c, &c->due_read, c->server->set.timeout_request_body);
        else
            cap_conn_refuse(c, 408, "The request's content did not arrive in time");
        break;
    case CAP_CONN_IDLE:
        /* While it takes the last response, the client is not idle: due_send is for that. */
        if (c->server->shutting_down)
            cap_conn_finish(c);
        else if (cap_conn_unsent(c) != 0)
            cap_conn_due_in(c, &c->due_read, c->server->set.timeout_keep_alive);
        else if (input_waits(c))
            cap_conn_due_in(c, &c->due_read, CAP_WHEEL_TICK_MS); /* it is we who were late */
        else
            cap_conn_close(c, false);
        break;
    case CAP_CONN_DRAINING:
        c->keep_alive = false;
        cap_conn_finish(c);
        break;
    case CAP_CONN_FLUSHING:
        break;
    default:
        cap_conn_close(c, false);
        break;
    }
}

void
cap_conn_on_timer(cap_wheel_node *node)
{
    cap_conn *c = (cap_conn *)((char *)node - offsetof(cap_conn, timer));
    cap_server *s = c->server;
    uint64_t now = cap_server_now(s);
    if (!cap_conn_open(c))
        return;
    if (!cap_conn_take(c)) {
        cap_conn_close(c, false);
        return;
    }
    Py_INCREF(c);
    if (c->work->due_eof != 0 && now >= c->work->due_eof) {
        c->work->due_eof = 0;
        if (c->request != NULL)
            cap_request_tell_disconnect(c->request);
    }
    if (c->work->due_send != 0 && now >= c->work->due_send) {
        size_t unsent = cap_conn_unsent(c);
        int in_kernel = cap_conn_unacknowledged(c);
        if (unsent < c->work->send_mark || in_kernel < c->work->send_mark_kernel) {
            c->work->send_mark = unsent;
            c->work->send_mark_kernel = in_kernel;
            c->work->due_send = now + s->set.timeout_send;
        } else {
            char peer[64];
            cap_server_log(s, CAP_LOG_WARNING, NULL,
                           "Closed a connection that took none of its response in time. (%s)",
                           cap_conn_peer_text(c, peer));
            cap_conn_close(c, true);
        }
    }
    if (cap_conn_open(c) && c->work->due_request != 0 && now >= c->work->due_request) {
        c->work->due_request = 0;
        if (c->request != NULL)
            request_too_long(c);
    }
    if (cap_conn_open(c) && c->due_read != 0 && now >= c->due_read) {
        c->due_read = 0;
        read_too_long(c);
    }
    cap_conn_rearm(c);
    cap_conn_rest(c);
    Py_DECREF(c);
}

void
cap_conn_shutdown(cap_conn *c, uint64_t grace)
{
    if (!cap_conn_take(c)) {
        cap_conn_close(c, false);
        return;
    }
    uint64_t now = cap_server_now(c->server), due = now + grace;
    switch (c->state) {
    case CAP_CONN_UPGRADED:
        cap_websocket_shutdown(c);
        break;
    case CAP_CONN_IDLE:
        if (grace == 0) {
            cap_conn_finish(c);
        } else if (c->due_read == 0 || c->due_read > due) {
            c->due_read = due;
            cap_conn_rearm(c);
        }
        break;
    case CAP_CONN_DRAINING: /* it has its response, and there will not be another */
        c->keep_alive = false;
        cap_conn_finish(c);
        break;
    case CAP_CONN_LINGERING:
        if (c->work->linger_end > now + CAP_LINGER_IDLE_MS)
            c->work->linger_end = now + CAP_LINGER_IDLE_MS;
        break;
    default:
        break;
    }
    cap_conn_rest(c);
}

/* When it began to be idle, in ms; only to be compared with others. */
static uint64_t
idle_since(const cap_conn *c)
{
    const cap_server_settings *set = &c->server->set;
    uint64_t timeout = c->used ? set->timeout_keep_alive : set->timeout_first_byte;
    return c->due_read > timeout ? c->due_read - timeout : 0;
}

cap_conn *
cap_conn_longest_idle(cap_server *s)
{
    cap_conn *longest = NULL;
    for (cap_conn *c = s->first; c != NULL; c = c->next)
        if (c->state == CAP_CONN_IDLE && c->work->in.len == 0 && cap_conn_unsent(c) == 0 &&
            (longest == NULL || idle_since(c) < idle_since(longest)))
            longest = c;
    return longest;
}
