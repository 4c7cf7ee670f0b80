/* The type capicorn._core.HTTPServer: settings, listeners, the timer behind all
   connections' timeouts, the fields that every response begins with. */
#include "asgi/server.h"

#include <math.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "asgi/conn.h"
#include "asgi/server_rescue.h"
#include "base/mem.h"

/* --- words ---------------------------------------------------------------------------- */

void
cap_server_lost(cap_server *s, PyObject *what)
{
    if (cap_err_is_exit())
        cap_reactor_report(s->reactor, "The HTTP server was interrupted");
    else
        PyErr_WriteUnraisable(what);
}

void
cap_server_log(cap_server *s, int level, PyObject *exc, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    PyObject *message = PyUnicode_FromFormatV(format, args);
    va_end(args);
    PyObject *log = NULL, *rc = NULL, *pos = NULL, *kw = NULL;
    if (message == NULL || (log = PyObject_GetAttr(s->logger, s->st->str.log)) == NULL ||
        (pos = Py_BuildValue("(isO)", level, "%s", message)) == NULL)
        goto done;
    if (exc != NULL && ((kw = PyDict_New()) == NULL ||
                        PyDict_SetItem(kw, s->st->str.exc_info, exc) < 0))
        goto done;
    rc = PyObject_Call(log, pos, kw);
done:
    if (rc == NULL)
        cap_server_lost(s, s->logger);
    Py_XDECREF(rc);
    Py_XDECREF(kw);
    Py_XDECREF(pos);
    Py_XDECREF(log);
    Py_XDECREF(message);
}

/* --- time ------------------------------------------------------------------------------- */

typedef struct server_timer {
    uv_timer_t handle;  /* first: the two pointers are one */
    cap_server *server; /* borrowed; NULL after close() */
    cap_reactor *reactor;
} server_timer;

static void arm_timer(cap_server *s, uint64_t now);

static void
on_timer(uv_timer_t *handle)
{
    server_timer *t = (server_timer *)handle;
    cap_reactor_enter(t->reactor);
    cap_server *s = t->server;
    if (s == NULL || cap_server_loop_gone(s))
        return;
    Py_INCREF(s);
    s->timer_due = UINT64_MAX;
    cap_wheel_node *node;
    while (!s->closed && (node = cap_wheel_expire(&s->wheel, cap_server_now(s))) != NULL)
        cap_conn_on_timer(node);
    if (!s->closed)
        arm_timer(s, cap_server_now(s));
    Py_DECREF(s);
}

static void
arm_timer(cap_server *s, uint64_t now)
{
    uint64_t wait = cap_wheel_next(&s->wheel, now);
    if (wait == UINT64_MAX)
        return;
    if (wait < CAP_WHEEL_TICK_MS)
        wait = CAP_WHEEL_TICK_MS;
    if (s->timer_due <= now + wait)
        return;
    s->timer_due = now + wait;
    uv_timer_start(s->timer, on_timer, wait, 0);
    cap_reactor_watchers_changed(s->reactor);
}

void
cap_server_want_timer(cap_server *s, uint64_t due)
{
    if (s->timer == NULL || cap_server_loop_gone(s))
        return;
    uint64_t now = cap_server_now(s);
    if (s->timer_due <= due + CAP_WHEEL_TICK_MS)
        return;
    uint64_t wait = (due > now ? due - now : 0) + CAP_WHEEL_TICK_MS;
    s->timer_due = now + wait;
    uv_timer_start(s->timer, on_timer, wait, 0);
    cap_reactor_watchers_changed(s->reactor);
}

static void
on_timer_closed(uv_handle_t *handle)
{
    server_timer *t = (server_timer *)handle;
    cap_reactor_enter(t->reactor);
    cap_reactor *r = t->reactor;
    cap_count.uv_handles--;
    cap_free(t);
    cap_reactor_release(r);
}

/* --- what every response begins with ------------------------------------------------------ */

static int
make_defaults(cap_server *s)
{
    size_t len = s->set.date_header ? 6 + CAP_HTTP_DATE + 2 : 0;
    Py_ssize_t n = s->default_headers != NULL ? PyTuple_GET_SIZE(s->default_headers) : 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *pair = PyTuple_GET_ITEM(s->default_headers, i);
        len += (size_t)PyBytes_GET_SIZE(PyTuple_GET_ITEM(pair, 0)) +
               (size_t)PyBytes_GET_SIZE(PyTuple_GET_ITEM(pair, 1)) + 4;
    }
    char *to = s->defaults = cap_malloc(len + 1);
    if (to == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    s->defaults_len = len;
    s->defaults_date_at = SIZE_MAX;
    if (s->set.date_header) {
        memcpy(to, "date: ", 6);
        s->defaults_date_at = 6;
        memcpy(to + 6 + CAP_HTTP_DATE, "\r\n", 2);
        to += 6 + CAP_HTTP_DATE + 2;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *name = PyTuple_GET_ITEM(PyTuple_GET_ITEM(s->default_headers, i), 0);
        PyObject *value = PyTuple_GET_ITEM(PyTuple_GET_ITEM(s->default_headers, i), 1);
        memcpy(to, PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name));
        to += PyBytes_GET_SIZE(name);
        memcpy(to, ": ", 2);
        memcpy(to + 2, PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value));
        to += 2 + PyBytes_GET_SIZE(value);
        memcpy(to, "\r\n", 2);
        to += 2;
    }
    return 0;
}

const char *
cap_server_defaults(cap_server *s, size_t *len)
{
    *len = s->defaults_len;
    uint64_t now = cap_server_now(s);
    if (s->defaults_date_at != SIZE_MAX && (now != s->date_checked || s->date_second == 0)) {
        s->date_checked = now;
        time_t second = time(NULL);
        if (second != s->date_second) {
            s->date_second = second;
            cap_http_date(s->defaults + s->defaults_date_at, second);
        }
    }
    return s->defaults;
}

cap_h1_head *
cap_server_head_take(cap_server *s)
{
    cap_h1_head *h = s->spare_head;
    s->spare_head = NULL;
    if (h == NULL && (h = cap_malloc(sizeof *h)) != NULL)
        cap_h1_head_init(h);
    return h;
}

void
cap_server_head_give(cap_server *s, cap_h1_head *h)
{
    if (s->spare_head == NULL && !s->closed) {
        s->spare_head = h;
        return;
    }
    cap_h1_head_free(h);
    cap_free(h);
}

/* --- listening -------------------------------------------------------------------------------- */

static cap_server_listener *
listener_of(cap_listener *l)
{
    return l->owner;
}

static void
on_listener_enter(cap_listener *l)
{
    cap_reactor_enter(listener_of(l)->server->reactor);
}

static void
on_accepted(cap_listener *l, int fd)
{
    cap_server_listener *sl = listener_of(l);
    cap_conn_accept(sl->server, fd, sl);
}

/* Workers that share the socket share the connections. */
static bool
on_may_accept(cap_listener *l)
{
    const cap_server *s = listener_of(l)->server;
    return s->board == NULL || cap_board_may_accept(s->board, s->slot, cap_board_now());
}

/* So often at most is it said that descriptors ran out. */
#define EXHAUSTED_SAID_MS 1000

/* Descriptors ran out: the connection that has been idle longest makes room. */
bool
cap_server_exhausted(cap_server *s, int err)
{
    cap_conn *idle = (cap_conn *)Py_XNewRef((PyObject *)cap_conn_longest_idle(s));
    uint64_t now = cap_server_now(s);
    if (s->exhausted_said == 0 || now >= s->exhausted_said + EXHAUSTED_SAID_MS) {
        s->exhausted_said = now;
        cap_server_log(s, CAP_LOG_WARNING, NULL, "Cannot accept a connection: %s.%s", strerror(err),
                       idle != NULL ? " The connection that was idle longest is closed for it."
                                    : " None is idle; trying again.");
    }
    if (idle == NULL)
        return false;
    bool freed = idle->state == CAP_CONN_IDLE && !s->closed; /* logging is Python */
    if (freed)
        cap_conn_close(idle, false);
    Py_DECREF((PyObject *)idle);
    return freed;
}

static bool
on_exhausted(cap_listener *l, int err)
{
    return cap_server_exhausted(listener_of(l)->server, err);
}

static void
on_listener_closed(cap_listener *l)
{
    cap_server_listener *sl = listener_of(l);
    cap_server *s = sl->server;
    cap_count.uv_handles -= 2;
    cap_free(sl);
    Py_DECREF(s);
}

static const cap_listener_events listener_events = {
    .enter = on_listener_enter,
    .accepted = on_accepted,
    .may_accept = on_may_accept,
    .exhausted = on_exhausted,
    .closed = on_listener_closed,
};

static int
check_open(cap_server *s)
{
    if (!s->closed && s->reactor != NULL)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "the HTTP server is closed");
    return -1;
}

static PyObject *
server_listen(PyObject *self, PyObject *arg)
{
    cap_server *s = (cap_server *)self;
    int fd = PyObject_AsFileDescriptor(arg);
    if (fd < 0 || check_open(s) < 0)
        return NULL;
    cap_server_listener *sl = cap_calloc(1, sizeof *sl);
    if (sl == NULL)
        return PyErr_NoMemory();
    int rc = cap_listener_start(&sl->listener, s->reactor->uv, fd, &listener_events, sl);
    if (rc < 0) {
        cap_free(sl);
        PyErr_Format(PyExc_OSError, "cannot listen on descriptor %d: %s", fd, uv_strerror(rc));
        return NULL;
    }
    cap_count.uv_handles += 2;
    sl->server = (cap_server *)Py_NewRef(self);
    sl->next = s->listeners;
    s->listeners = sl;
    if (s->rescue != NULL && s->ssl_context == NULL)
        cap_rescue_listen(s->rescue, fd);
    cap_reactor_watchers_changed(s->reactor);
    Py_RETURN_NONE;
}

static void
stop_listening(cap_server *s)
{
    cap_server_listener *sl = s->listeners;
    s->listeners = NULL;
    if (s->rescue != NULL)
        cap_rescue_unlisten(s->rescue);
    while (sl != NULL) {
        cap_server_listener *next = sl->next;
        cap_listener_close(&sl->listener); /* frees sl later, from its callback */
        sl = next;
    }
    if (s->reactor != NULL)
        cap_reactor_watchers_changed(s->reactor);
}

static PyObject *
server_take_waiting(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    cap_server *s = (cap_server *)self;
    for (cap_server_listener *sl = s->listeners; sl != NULL; sl = sl->next)
        cap_listener_take_waiting(&sl->listener); /* runs no Python that could end the list */
    if (s->reactor != NULL)
        cap_reactor_watchers_changed(s->reactor);
    Py_RETURN_NONE;
}

static PyObject *
server_stop_listening(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    stop_listening((cap_server *)self);
    cap_server_rescue_stop((cap_server *)self);
    Py_RETURN_NONE;
}

/* --- ending ------------------------------------------------------------------------------------- */

/* Call `act` for each open connection. It may close any of them: the next is held. */
static void
each_connection(cap_server *s, void (*act)(cap_conn *c, uint64_t arg), uint64_t arg)
{
    cap_conn *c = s->first;
    Py_XINCREF((PyObject *)c);
    while (c != NULL) {
        cap_conn *next = c->next;
        Py_XINCREF((PyObject *)next);
        if (cap_conn_open(c))
            act(c, arg);
        Py_DECREF((PyObject *)c);
        c = next;
    }
}

static void
close_one(cap_conn *c, uint64_t arg)
{
    (void)arg;
    cap_conn_close(c, false);
}

static PyObject *
server_shutdown(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    cap_server *s = (cap_server *)self;
    Py_ssize_t all = nargs + (kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0);
    double grace = all > 0 ? PyFloat_AsDouble(args[0]) : 0.0;
    if (all > 1 || (grace == -1.0 && PyErr_Occurred())) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "shutdown() takes one number of seconds");
        return NULL;
    }
    s->shutting_down = true;
    uint64_t ms = grace > 0 ? (uint64_t)ceil((grace < 1e9 ? grace : 1e9) * 1000) : 0;
    if (s->reactor != NULL && !s->closed)
        each_connection(s, cap_conn_shutdown, ms);
    Py_RETURN_NONE;
}

/* Do `act` with each running request that `which` picks, and list their names. */
static PyObject *
each_request(cap_server *s, bool (*act)(cap_request *r))
{
    PyObject *names = PyList_New(0);
    if (names == NULL)
        return NULL;
    cap_request *r = s->first_request;
    Py_XINCREF((PyObject *)r);
    while (r != NULL) {
        PyObject *name = cap_request_name(r);
        if (name != NULL && act(r))
            (void)PyList_Append(names, name);
        Py_XDECREF(name);
        cap_request *next = r->running ? r->next : s->first_request;
        Py_XINCREF((PyObject *)next);
        Py_DECREF((PyObject *)r);
        r = next;
        if (PyErr_Occurred()) {
            Py_XDECREF((PyObject *)r);
            Py_DECREF(names);
            return NULL;
        }
    }
    return names;
}

static bool
tell_one(cap_request *r)
{
    if (r->told || r->disconnected || r->response == CAP_RESPONSE_COMPLETE)
        return false;
    cap_request_tell_disconnect(r);
    return true;
}

static bool
cancel_one(cap_request *r)
{
    if (r->cancelled)
        return false;
    cap_request_cancel(r);
    return true;
}

static PyObject *
server_disconnect(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return each_request((cap_server *)self, tell_one);
}

static PyObject *
server_cancel(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return each_request((cap_server *)self, cancel_one);
}

static PyObject *
server_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    cap_server *s = (cap_server *)self;
    if (s->closed)
        Py_RETURN_NONE;
    s->closed = true; /* first: what follows may run Python, which finds it closed */
    s->shutting_down = true;
    stop_listening(s);
    each_connection(s, close_one, 0);
    cap_server_rescue_close(s);
    server_timer *t = (server_timer *)s->timer;
    s->timer = NULL;
    if (t != NULL) {
        t->server = NULL;
        uv_close((uv_handle_t *)&t->handle, on_timer_closed);
        cap_reactor_watchers_changed(t->reactor);
    }
    if (s->spare_head != NULL) {
        cap_h1_head_free(s->spare_head);
        cap_free(s->spare_head);
        s->spare_head = NULL;
    }
    cap_conn_works_drop_spare(s);
    Py_CLEAR(s->body_room);
    cap_memo_clear(&s->memo);
    if (s->beats && s->reactor->beat == &s->worker->beat)
        s->reactor->beat = NULL;
    s->beats = false;
    Py_RETURN_NONE;
}

void
cap_server_show(cap_server *s, cap_board *board, uint32_t slot)
{
    cap_worker *w = cap_board_worker(board, slot);
    if (s->beats)
        s->reactor->beat = NULL;
    s->beats = false;
    if (s->tally == &s->own_tally)
        cap_tally_merge(&w->tally, &s->own_tally);
    s->board = board;
    s->slot = slot;
    s->shown = &board->slot[slot];
    s->worker = w;
    s->tally = &w->tally;
    if (s->reactor->beat == NULL) { /* there is no guard, whose beat it would be */
        s->reactor->beat = &w->beat;
        s->beats = true;
    }
    cap_server_tell_connections(s, false);
    cap_server_tell_requests(s);
}

/* --- making ----------------------------------------------------------------------------------------- */

static int
parse_count(PyObject *value, const char *name, uint64_t max, uint64_t *out)
{
    if (value == NULL || value == Py_None) {
        return 0;
    }
    unsigned long long n = PyLong_Check(value) ? PyLong_AsUnsignedLongLong(value) : 0;
    if (!PyLong_Check(value) || PyErr_Occurred() || n > max) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s: a whole number from 0 to %llu, not %R", name,
                     (unsigned long long)max, value);
        return -1;
    }
    *out = n;
    return 0;
}

static int
parse_seconds(PyObject *value, const char *name, uint64_t *ms)
{
    if (value == NULL)
        return 0;
    double s = value == Py_None ? 0.0 : PyFloat_AsDouble(value);
    if (PyErr_Occurred() || !(s >= 0.0) || s > 1e9) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s: seconds from 0 (no limit) on, not %R", name, value);
        return -1;
    }
    *ms = (uint64_t)ceil(s * 1000);
    return 0;
}

/* A checked copy: a tuple of tuples of two bytes, names in lower case. */
static PyObject *
parse_default_headers(PyObject *given)
{
    PyObject *seq = PySequence_Fast(given, "default_headers: pairs of bytes");
    if (seq == NULL)
        return NULL;
    Py_ssize_t n = PySequence_Fast_GET_SIZE(seq);
    PyObject *out = PyTuple_New(n);
    for (Py_ssize_t i = 0; out != NULL && i < n; i++) {
        PyObject *pair = PySequence_Fast_GET_ITEM(seq, i);
        const char *name, *value;
        Py_ssize_t nlen, vlen;
        PyObject *two = PySequence_Tuple(pair), *copy = NULL, *lower = NULL;
        if (two == NULL || !PyArg_ParseTuple(two, "y#y#:default_headers", &name, &nlen, &value, &vlen)) {
            ;
        } else if (!cap_h1_name_ok(name, (size_t)nlen) || !cap_h1_value_ok(value, (size_t)vlen)) {
            PyErr_Format(PyExc_ValueError, "default_headers: %R is no header field", pair);
        } else if ((lower = PyBytes_FromStringAndSize(NULL, nlen)) != NULL) {
            cap_h1_lower(PyBytes_AS_STRING(lower), name, (size_t)nlen);
            copy = Py_BuildValue("(NO)", lower, PyTuple_GET_ITEM(two, 1));
        }
        Py_XDECREF(two);
        if (copy == NULL)
            Py_CLEAR(out);
        else
            PyTuple_SET_ITEM(out, i, copy);
    }
    Py_DECREF(seq);
    return out;
}

/* A scope with every key of uvicorn's, in its order; copied for each request. What most
   requests have is there already. */
static int
make_protos(cap_server *s, const char *asgi_version)
{
    cap_state *st = s->st;
    cap_objects *o = s->objects;
    s->asgi_proto = Py_BuildValue("{OsOs}", st->str.version, asgi_version, st->str.spec_version, "2.3");
    s->scope_proto = PyDict_New();
    s->extensions = Py_BuildValue("{O{}O{}O{}O{}}", st->str.http_response_pathsend,
                                  st->str.http_response_zerocopysend,
                                  st->str.http_response_trailers, st->str.http_response_early_hint);
    if (s->asgi_proto == NULL || s->scope_proto == NULL || s->extensions == NULL)
        return -1;
    PyObject *const pairs[][2] = {
        {st->str.type, st->str.http},
        {st->str.asgi, Py_None},
        {st->str.http_version, o->http_1_1},
        {st->str.server, Py_None},
        {st->str.client, Py_None},
        {st->str.scheme, s->scheme},
        {st->str.root_path, s->root_path},
        {st->str.headers, Py_None},
        {st->str.state, Py_None},
        {st->str.method, o->get},
        {st->str.path, Py_None},
        {st->str.raw_path, Py_None},
        {st->str.query_string, o->empty_bytes},
        {st->str.extensions, Py_None},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        if (PyDict_SetItem(s->scope_proto, pairs[i][0], pairs[i][1]) < 0)
            return -1;
    s->proto_server = Py_None;
    return 0;
}

static int
make_timer(cap_server *s)
{
    server_timer *t = cap_calloc(1, sizeof *t);
    if (t == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    t->server = s;
    t->reactor = cap_reactor_acquire(s->st, s->loop); /* its own count: it may outlive s */
    if (t->reactor == NULL) {
        cap_free(t);
        return -1;
    }
    uv_timer_init(s->reactor->uv, &t->handle);
    uv_unref((uv_handle_t *)&t->handle);
    cap_count.uv_handles++;
    s->timer = &t->handle;
    s->timer_due = UINT64_MAX;
    cap_wheel_init(&s->wheel, cap_server_now(s));
    return 0;
}

static PyObject *
optional(PyObject *value)
{
    return value == NULL || value == Py_None ? NULL : Py_NewRef(value);
}

static PyObject *
server_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {
        "loop", "app", "logger", "state", "asgi_version", "root_path", "scheme", "default_headers",
        "date_header", "proxy_headers", "access_log", "reset_contextvars", "limit_request_line",
        "limit_request_head", "limit_request_fields", "limit_request_field_size",
        "limit_request_body", "limit_concurrency", "limit_max_requests", "timeout_first_byte",
        "timeout_request_head", "timeout_request_body", "timeout_send", "timeout_keep_alive",
        "timeout_request", "ws", "ws_max_size", "ws_max_queue", "ws_ping_interval",
        "ws_ping_timeout", "ws_per_message_deflate", "ssl_context", "tls_info", "proxy_protocol",
        NULL};
    PyObject *loop, *app, *logger = NULL, *state = NULL, *root_path = NULL, *scheme = NULL;
    PyObject *defaults = NULL, *proxy = NULL, *log = NULL, *line = NULL, *head = NULL;
    PyObject *fields = NULL, *field_size = NULL, *body = NULL, *concurrency = NULL;
    PyObject *max_requests = NULL, *first = NULL, *t_head = NULL, *t_body = NULL, *t_send = NULL;
    PyObject *keep = NULL, *t_request = NULL;
    const char *asgi_version = "3.0";
    PyObject *ws_size = NULL, *ws_queue = NULL, *ws_interval = NULL, *ws_timeout = NULL;
    PyObject *ssl_context = NULL, *tls_info = NULL, *proxy_protocol = NULL;
    int date = 1, reset = 0, ws = 1, ws_deflate = 1;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "OO|$OOsUUOpOOpOOOOOOOOOOOOOpOOOOpOOO:HTTPServer", names, &loop, &app, &logger,
            &state, &asgi_version, &root_path, &scheme, &defaults, &date, &proxy, &log, &reset,
            &line, &head, &fields, &field_size, &body, &concurrency, &max_requests, &first, &t_head,
            &t_body, &t_send, &keep, &t_request, &ws, &ws_size, &ws_queue, &ws_interval,
            &ws_timeout, &ws_deflate, &ssl_context, &tls_info, &proxy_protocol))
        return NULL;
    if (logger == NULL) {
        PyErr_SetString(PyExc_TypeError, "HTTPServer() needs a logger");
        return NULL;
    }
    if (state != NULL && state != Py_None && !PyDict_Check(state)) {
        PyErr_SetString(PyExc_TypeError, "state is a dict or None");
        return NULL;
    }
    cap_state *st = PyType_GetModuleState(type);
    if (log != NULL && log != Py_None && !cap_access_log_check(st, log)) {
        PyErr_SetString(PyExc_TypeError, "access_log is an AccessLog or None");
        return NULL;
    }
    cap_server *s = (cap_server *)type->tp_alloc(type, 0); /* zeroed */
    if (s == NULL)
        return NULL;
    s->st = st;
    s->tally = &s->own_tally;
    s->objects = cap_objects_of(st);
    s->closed = true; /* until all is there: dealloc looks */
    s->loop = Py_NewRef(loop);
    s->app = Py_NewRef(app);
    s->logger = Py_NewRef(logger);
    s->state = optional(state);
    s->proxy_headers = optional(proxy);
    s->access_log = optional(log);
    s->ssl_context = optional(ssl_context);
    s->tls_info = optional(tls_info);
    s->proxy_protocol = optional(proxy_protocol);
    s->root_path = Py_NewRef(root_path != NULL ? root_path : s->objects->empty_str);
    s->scheme = Py_NewRef(scheme != NULL ? scheme : st->str.http);
    Py_ssize_t root_len;
    s->root_path_utf8 = PyUnicode_AsUTF8AndSize(s->root_path, &root_len);
    if (s->root_path_utf8 == NULL)
        goto fail;
    s->root_path_len = (size_t)root_len;
    if (defaults != NULL && defaults != Py_None &&
        (s->default_headers = parse_default_headers(defaults)) == NULL)
        goto fail;

    cap_server_settings *set = &s->set;
    *set = (cap_server_settings){.limits = CAP_HTTP_LIMITS_DEFAULT,
                                 .timeout_first_byte = 30000,
                                 .timeout_request_head = 30000,
                                 .timeout_request_body = 30000,
                                 .timeout_send = 60000,
                                 .timeout_keep_alive = 5000,
                                 .date_header = date,
                                 .reset_contextvars = reset,
                                 .ws = ws,
                                 .ws_max_size = 16 << 20,
                                 .ws_ping_interval = 20000,
                                 .ws_ping_timeout = 20000,
                                 .ws_deflate = CAP_WS_DEFLATE_DEFAULT};
    const uint64_t most = 1u << 30;
    uint64_t n_line = set->limits.request_line, n_head = set->limits.head;
    uint64_t n_queue = 32, n_fields = set->limits.fields, n_field_size = set->limits.field_size;
    if (parse_count(line, "limit_request_line", most, &n_line) < 0 ||
        parse_count(head, "limit_request_head", most, &n_head) < 0 ||
        parse_count(fields, "limit_request_fields", 32768, &n_fields) < 0 ||
        parse_count(field_size, "limit_request_field_size", most, &n_field_size) < 0 ||
        parse_count(body, "limit_request_body", UINT64_MAX >> 1, &set->limits.body) < 0 ||
        parse_count(concurrency, "limit_concurrency", most, &set->limit_concurrency) < 0 ||
        parse_count(max_requests, "limit_max_requests", UINT64_MAX >> 1, &set->limit_max_requests) < 0 ||
        parse_seconds(first, "timeout_first_byte", &set->timeout_first_byte) < 0 ||
        parse_seconds(t_head, "timeout_request_head", &set->timeout_request_head) < 0 ||
        parse_seconds(t_body, "timeout_request_body", &set->timeout_request_body) < 0 ||
        parse_seconds(t_send, "timeout_send", &set->timeout_send) < 0 ||
        parse_seconds(keep, "timeout_keep_alive", &set->timeout_keep_alive) < 0 ||
        parse_seconds(t_request, "timeout_request", &set->timeout_request) < 0 ||
        parse_count(ws_size, "ws_max_size", UINT64_MAX >> 1, &set->ws_max_size) < 0 ||
        parse_count(ws_queue, "ws_max_queue", most, &n_queue) < 0 ||
        parse_seconds(ws_interval, "ws_ping_interval", &set->ws_ping_interval) < 0 ||
        parse_seconds(ws_timeout, "ws_ping_timeout", &set->ws_ping_timeout) < 0)
        goto fail;
    set->ws_max_queue = n_queue != 0 ? (unsigned)n_queue : (unsigned)most;
    set->ws_deflate.enabled = ws && ws_deflate && cap_ws_deflate_available();
    if (set->ws_deflate.enabled && (s->ws_pool = cap_ws_pool_new(16)) == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    set->limits.request_line = n_line != 0 ? (uint32_t)n_line : (uint32_t)most;
    set->limits.head = n_head != 0 ? (uint32_t)n_head : (uint32_t)most;
    set->limits.fields = n_fields != 0 ? (uint32_t)n_fields : 32768;
    set->limits.field_size = (uint32_t)n_field_size;

    if (make_protos(s, asgi_version) < 0 || make_defaults(s) < 0)
        goto fail;
    s->context = PyContext_CopyCurrent();
    if (s->context == NULL || (s->reactor = cap_reactor_acquire(st, loop)) == NULL)
        goto fail;
    if (cap_conn_works_init(s) < 0) {
        PyErr_NoMemory();
        goto fail;
    }
    if (make_timer(s) < 0)
        goto fail;
    s->closed = false;
    return (PyObject *)s;

fail:
    Py_DECREF((PyObject *)s);
    return NULL;
}

static int
server_traverse(PyObject *self, visitproc visit, void *arg)
{
    cap_server *s = (cap_server *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(s->loop);
    Py_VISIT(s->app);
    Py_VISIT(s->logger);
    Py_VISIT(s->state);
    Py_VISIT(s->proxy_headers);
    Py_VISIT(s->access_log);
    Py_VISIT(s->ssl_context);
    Py_VISIT(s->tls_info);
    Py_VISIT(s->proxy_protocol);
    Py_VISIT(s->extensions);
    Py_VISIT(s->context);
    Py_VISIT(s->asgi_proto);
    Py_VISIT(s->scope_proto);
    return cap_memo_traverse(&s->memo, visit, arg);
}

static int
server_clear(PyObject *self)
{
    cap_server *s = (cap_server *)self;
    /* `loop` stays: whoever still waits on us makes futures of it. */
    Py_CLEAR(s->state);
    Py_CLEAR(s->proxy_headers);
    Py_CLEAR(s->access_log);
    Py_CLEAR(s->ssl_context);
    Py_CLEAR(s->tls_info);
    Py_CLEAR(s->proxy_protocol);
    Py_CLEAR(s->context);
    return 0;
}

static void
server_dealloc(PyObject *self)
{
    cap_server *s = (cap_server *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (!s->closed) {
        PyObject *exc = cap_err_take();
        PyObject *rc = server_close(self, NULL);
        Py_XDECREF(rc);
        cap_err_restore(exc);
    }
    cap_reactor *reactor = s->reactor;
    server_clear(self);
    cap_memo_clear(&s->memo);
    cap_conn_works_free(s);
    cap_addresses_clear(&s->addresses);
    cap_ws_pool_free(s->ws_pool);
    if (s->rescue != NULL)
        cap_rescue_unref(s->rescue);
    cap_free(s->defaults);
    Py_XDECREF(s->app);
    Py_XDECREF(s->logger);
    Py_XDECREF(s->asgi_proto);
    Py_XDECREF(s->extensions);
    Py_XDECREF(s->scope_proto);
    Py_XDECREF(s->root_path);
    Py_XDECREF(s->scheme);
    Py_XDECREF(s->default_headers);
    Py_XDECREF(s->board_owner);
    PyObject *loop = s->loop;
    type->tp_free(self);
    if (reactor != NULL)
        cap_reactor_release(reactor);
    Py_XDECREF(loop); /* after its reactor */
    Py_DECREF(type);
}

/* --- what Python sees ----------------------------------------------------------------------------------- */

static PyObject *
get_connections(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *set = PySet_New(NULL);
    for (cap_conn *c = ((cap_server *)self)->first; set != NULL && c != NULL; c = c->next)
        if (cap_conn_open(c) && PySet_Add(set, (PyObject *)c) < 0)
            Py_CLEAR(set);
    return set;
}

static PyObject *
get_tasks(PyObject *self, void *Py_UNUSED(closure))
{
    /* Tasks may be of a type whose hash is Python: first all of them, held, then the set. */
    PyObject *list = PyList_New(0);
    for (cap_request *r = ((cap_server *)self)->first_request; list != NULL && r != NULL; r = r->next)
        if (r->task != NULL && PyList_Append(list, r->task) < 0)
            Py_CLEAR(list);
    PyObject *set = list != NULL ? PySet_New(list) : NULL;
    Py_XDECREF(list);
    return set;
}

static PyObject *
get_connection_count(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(((cap_server *)self)->connection_count);
}

static PyObject *
get_request_count(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(((cap_server *)self)->request_count);
}

static PyObject *
get_total_requests(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((cap_server *)self)->total_requests);
}

static PyObject *
get_wants_restart(PyObject *self, void *Py_UNUSED(closure))
{
    cap_server *s = (cap_server *)self;
    return PyBool_FromLong(s->set.limit_max_requests != 0 &&
                           s->total_requests >= s->set.limit_max_requests);
}

static PyObject *
get_app(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(((cap_server *)self)->app);
}

static PyObject *
get_ssl_context(PyObject *self, void *Py_UNUSED(closure))
{
    cap_server *s = (cap_server *)self;
    return Py_NewRef(s->ssl_context != NULL ? s->ssl_context : Py_None);
}

static int
set_ssl_context(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    cap_server *s = (cap_server *)self;
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "ssl_context cannot be deleted");
        return -1;
    }
    Py_XSETREF(s->ssl_context, optional(value));
    return 0;
}

static PyGetSetDef server_getset[] = {
    {"ssl_context", get_ssl_context, set_ssl_context,
     "The ssl.SSLContext of connections accepted from now on, or None.", NULL},
    {"connections", get_connections, NULL, "The open connections; a new set each time.", NULL},
    {"tasks", get_tasks, NULL, "The tasks of requests that run; a new set each time.", NULL},
    {"connection_count", get_connection_count, NULL, "How many connections are open.", NULL},
    {"request_count", get_request_count, NULL, "Requests in flight.", NULL},
    {"total_requests", get_total_requests, NULL, "Requests begun since the start.", NULL},
    {"wants_restart", get_wants_restart, NULL, "limit_max_requests is reached.", NULL},
    {"app", get_app, NULL, "The ASGI application.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef server_methods[] = {
    {"listen", server_listen, METH_O, "listen(fd, /)\n--\n\nAccept from a listening socket."},
    {"take_waiting", server_take_waiting, METH_NOARGS,
     "take_waiting()\n--\n\nAccept what waits in the kernel, before the sockets are closed."},
    {"stop_listening", server_stop_listening, METH_NOARGS,
     "stop_listening()\n--\n\nAccept no more."},
    {"shutdown", (PyCFunction)(void (*)(void))server_shutdown, METH_FASTCALL | METH_KEYWORDS,
     "shutdown(idle_grace=0.0)\n--\n\nLet what runs end; idle connections are closed after the grace, in seconds."},
    {"disconnect", server_disconnect, METH_NOARGS,
     "disconnect()\n--\n\nTell running requests http.disconnect; returns which."},
    {"cancel", server_cancel, METH_NOARGS,
     "cancel()\n--\n\nCancel the tasks of running requests; returns which."},
    {"close", server_close, METH_NOARGS, "close()\n--\n\nClose everything at once."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot server_slots[] = {
    {Py_tp_new, server_new},
    {Py_tp_dealloc, server_dealloc},
    {Py_tp_traverse, server_traverse},
    {Py_tp_clear, server_clear},
    {Py_tp_getset, server_getset},
    {Py_tp_methods, server_methods},
    {Py_tp_doc, "The HTTP side of one event loop: accepts, reads, calls the application, writes."},
    {0, NULL},
};

static PyType_Spec server_spec = {
    .name = "capicorn._core.HTTPServer",
    .basicsize = sizeof(cap_server),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = server_slots,
};

int
cap_server_type_init(PyObject *module, cap_state *st)
{
    st->type.HTTPServer = (PyTypeObject *)PyType_FromModuleAndSpec(module, &server_spec, NULL);
    if (st->type.HTTPServer == NULL)
        return -1;
    return PyModule_AddType(module, st->type.HTTPServer);
}
