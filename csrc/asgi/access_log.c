/* The type AccessLog: uvicorn's line, the buffer and its timing. Which way a line goes
   is found in access_route.c, the text of other lines is made in access_format.c, and
   octets leave in access_sink.c.

   The timer is the loop's own call_later, not a uv handle: it is asked for at most
   once in 50 ms, works with any event loop, keeps none alive and has nothing to be
   closed before the uv_loop. */
#include "asgi/access_log.h"

#include "asgi/access_format.h"
#include "asgi/access_route.h"
#include "asgi/access_sink.h"
#include "asgi/access_text.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FLUSH_DELAY 0.05   /* seconds that a line may wait in the buffer */
#define FLUSH_WAIT_MS 1000 /* that flush() waits for a reader */
#define SLOW_READER (-1)   /* in `trouble`, beside errno's values */

typedef struct excluded {
    size_t len;
    bool prefix;
    char path[];
} excluded;

struct cap_access_log {
    PyObject_HEAD
    cap_state *st;
    PyObject *loop; /* NULL after close() */
    cap_access_route route;
    PyObject *error_logger;
    PyObject *delay;        /* FLUSH_DELAY */
    PyObject *context;      /* the timer's, so that it keeps no request's */
    PyObject *kwnames;      /* ("context",) */
    PyObject *timer;        /* TimerHandle while one is due */
    PyObject *weakrefs;
    bool colors;
    bool direct; /* a terminal: each line at once, in order with what is printed */
    bool closed;
    bool busy;   /* some thread is in cap_sink_write, without the GIL */
    bool stuck;  /* waited for the reader in vain; not again before it reads */
    int trouble; /* said in the log: errno or SLOW_READER; 0: none */
    unsigned generation;
    size_t drain_at; /* octets buffered at which to write */
    unsigned long long dropped;
    unsigned long long dropped_before; /* the trouble */
    cap_sink sink;
    cap_buffer scratch;
    cap_access_format *format; /* NULL: uvicorn's line */
    cap_text_phrases phrases;
    cap_buffer prefix;
    excluded **exclude;
    size_t exclude_count;
};

/* A child of fork() has a copy of its parent's buffer, whose lines the parent will
   write. Changed only in the child, where no other thread is. */
static unsigned fork_generation;

static void
forked(void)
{
    fork_generation++;
}

static void
watch_forks(void)
{
    (void)pthread_atfork(NULL, NULL, forked);
}

static void
check_fork(cap_access_log *log)
{
    if (log->generation == fork_generation)
        return;
    log->generation = fork_generation;
    cap_sink_reset(&log->sink);
    log->busy = false;
}

static bool
is_excluded(const cap_access_log *log, const cap_access_record *rec)
{
    size_t path = cap_text_path_len(rec), root = strlen(rec->root_path);
    for (size_t i = 0; i < log->exclude_count; i++) {
        const excluded *e = log->exclude[i];
        if (e->prefix ? e->len <= path : e->len == path) {
            if (memcmp(e->path, rec->target, e->len) == 0)
                return true;
        }
        if (root == 0 || (e->prefix ? e->len > root + path : e->len != root + path))
            continue;
        size_t first = e->len < root ? e->len : root;
        if (memcmp(e->path, rec->root_path, first) == 0 &&
            memcmp(e->path + first, rec->target, e->len - first) == 0)
            return true;
    }
    return false;
}

/* ---- through logging ---- */

static void
call_unraisable(PyObject *name, PyObject **args, size_t nargs)
{
    PyObject *result = PyObject_VectorcallMethod(name, args, nargs, NULL);
    if (result == NULL)
        PyErr_WriteUnraisable(args[0]);
    Py_XDECREF(result);
}

/* The message for a line of one's own: it stands in the format, and five directives
   that print nothing use up the arguments. So record.getMessage() is the line, and
   record.args are uvicorn's five, which filters and formatters unpack. */
static PyObject *
message_of(cap_access_log *log, const cap_access_record *rec, cap_buffer *b)
{
    b->len = 0;
    if (cap_access_format_line(log->format, &log->phrases, rec, b) < 0)
        return PyErr_NoMemory();
    size_t line = b->len;
    if (cap_buffer_reserve(b, 2 * line + 20) < 0)
        return PyErr_NoMemory();
    char *to = b->data + line;
    for (size_t i = 0; i < line; i++) {
        *to++ = b->data[i];
        if (b->data[i] == '%')
            *to++ = '%';
    }
    memcpy(to, "%.0s%.0s%.0s%.0s%.0s", 20);
    return PyUnicode_DecodeUTF8(b->data + line, to + 20 - (b->data + line), "replace");
}

static char *
put_client(char *to, const char *host, size_t len, long port)
{
    to = cap_text_escape(to, host, len);
    if (port >= 0) {
        *to++ = ':';
        to = cap_text_decimal(to, (uint64_t)port);
    }
    return to;
}

/* logger.info(format, client_addr, method, path, http_version, status) */
static void
through_logger(cap_access_log *log, const cap_access_record *rec)
{
    cap_buffer b = log->scratch; /* out first: logging runs anything */
    log->scratch = (cap_buffer){0};
    PyObject *format = NULL, *client = NULL, *path = NULL, *version = NULL, *status = NULL;
    const char *host = "";
    size_t len = 0, root = strlen(rec->root_path);
    long port = -1;
    (void)cap_text_client(rec->client, &host, &len, &port);
    if (cap_buffer_reserve(&b, 4 * (len + root + rec->target_len) + 64) < 0) {
        PyErr_NoMemory();
        goto done;
    }
    char *end = put_client(b.data, host, len, port);
    if ((client = PyUnicode_DecodeASCII(b.data, end - b.data, NULL)) == NULL)
        goto done;
    end = cap_text_escape(b.data, rec->root_path, root);
    end = cap_text_escape(end, rec->target, rec->target_len);
    if ((path = PyUnicode_DecodeASCII(b.data, end - b.data, NULL)) == NULL)
        goto done;
    format = log->format == NULL ? PyUnicode_FromString("%s - \"%s %s HTTP/%s\" %d")
                                 : message_of(log, rec, &b);
    version = PyUnicode_FromFormat("1.%d", rec->minor);
    status = PyLong_FromLong(rec->status);
    if (format == NULL || version == NULL || status == NULL)
        goto done;
    PyObject *args[] = {log->route.logger, format, client, rec->method, path, version, status};
    call_unraisable(log->st->str.info, args, 7);
done:
    if (PyErr_Occurred())
        PyErr_WriteUnraisable((PyObject *)log);
    Py_XDECREF(status);
    Py_XDECREF(version);
    Py_XDECREF(path);
    Py_XDECREF(client);
    Py_XDECREF(format);
    if (log->scratch.data == NULL && b.cap <= 16 * 1024)
        log->scratch = b;
    else
        cap_buffer_free(&b);
}

/* ---- writing ---- */

/* Warn through capicorn.error: once when lines begin to be lost, once when they are
   not lost any more. */
static void
warn(cap_access_log *log, PyObject *text)
{
    if (text == NULL) {
        PyErr_WriteUnraisable((PyObject *)log);
        return;
    }
    PyObject *args[] = {log->error_logger, text};
    call_unraisable(log->st->str.warning, args, 2);
    Py_DECREF(text);
}

static void
report_trouble(cap_access_log *log, int error)
{
    if (log->trouble != 0)
        return;
    log->trouble = error;
    warn(log, PyUnicode_FromFormat(
                  "Access log cannot be written: %s. Lines are dropped until it can.",
                  error == SLOW_READER ? "its reader is too slow" : strerror(error)));
}

static void
report_recovery(cap_access_log *log)
{
    if (log->trouble == 0)
        return;
    log->trouble = 0;
    warn(log, PyUnicode_FromFormat("Access log is written again; %llu lines were lost.",
                                   log->dropped - log->dropped_before));
}

/* Write what is buffered, waiting up to `wait_ms` for the reader. May run Python. */
static void
drain(cap_access_log *log, int wait_ms)
{
    check_fork(log);
    Py_INCREF(log);
    while (!log->busy && cap_sink_take(&log->sink)) {
        int error;
        cap_sink_result result;
        log->busy = true;
        Py_BEGIN_ALLOW_THREADS
        result = cap_sink_write(&log->sink, wait_ms, &error);
        Py_END_ALLOW_THREADS
        log->busy = false;
        if (result == CAP_SINK_DONE) {
            log->stuck = false;
            log->drain_at = CAP_SINK_DRAIN_AT;
            report_recovery(log);
            continue;
        }
        if (result == CAP_SINK_FAILED) {
            if (log->trouble == 0)
                log->dropped_before = log->dropped;
            log->dropped += cap_sink_drop(&log->sink, error == EPIPE);
            report_trouble(log, error);
        }
        log->drain_at = cap_sink_waiting(&log->sink) + CAP_SINK_DRAIN_AT;
        break;
    }
    Py_DECREF(log);
}

static void
arm(cap_access_log *log)
{
    PyObject *tick = PyObject_GetAttr((PyObject *)log, log->st->str.tick_);
    if (tick == NULL)
        goto now;
    PyObject *args[] = {log->loop, log->delay, tick, log->context};
    PyObject *timer = PyObject_VectorcallMethod(log->st->str.call_later, args, 3, log->kwnames);
    Py_DECREF(tick);
    if (timer == NULL)
        goto now;
    Py_XSETREF(log->timer, timer);
    return;
now:
    PyErr_Clear(); /* a loop that is closed */
    drain(log, 0);
}

/* Lines have been appended. */
static void
appended(cap_access_log *log)
{
    if (log->direct || log->closed || cap_sink_waiting(&log->sink) >= log->drain_at)
        drain(log, 0);
    if (log->timer == NULL && !log->closed && cap_sink_waiting(&log->sink) != 0)
        arm(log);
}

static bool
is_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_NONBLOCK) != 0;
}

/* Space for `size` octets more within the limit. When there is none, whoever gave us
   a blocking descriptor wants every line: wait for the reader, once. One that never
   reads stops the server for a second, not for ever. */
static bool
make_room(cap_access_log *log, size_t size)
{
    cap_sink *s = &log->sink;
    if (cap_sink_waiting(s) + size > CAP_SINK_LIMIT) {
        if (!log->stuck && !is_nonblocking(s->fd)) {
            drain(log, FLUSH_WAIT_MS);
            log->stuck = cap_sink_waiting(s) + size > CAP_SINK_LIMIT;
        }
        if (cap_sink_waiting(s) + size > CAP_SINK_LIMIT)
            return false;
    }
    return cap_buffer_reserve(&s->pending, size) == 0;
}

static void
drop_line(cap_access_log *log)
{
    if (log->trouble == 0)
        log->dropped_before = log->dropped;
    log->dropped++;
    report_trouble(log, cap_sink_waiting(&log->sink) > CAP_SINK_LIMIT / 2 ? SLOW_READER : ENOMEM);
}

static inline char *
put(char *to, const char *text, size_t len)
{
    memcpy(to, text, len);
    return to + len;
}

#define PUT(to, text) put(to, text, sizeof text - 1)

/* {prefix}{host}:{port} - "{METHOD} {path} HTTP/1.1" {status} {phrase}, as uvicorn's
   AccessFormatter makes it, colours too. */
static void
write_line(cap_access_log *log, const cap_access_record *rec)
{
    static const char *const color_of[] = {"\x1b[97m", "\x1b[32m", "\x1b[33m", "\x1b[31m",
                                           "\x1b[91m"};
    const char *host = "", *phrase = "";
    size_t host_len = 0, root = strlen(rec->root_path);
    long port = -1;
    (void)cap_text_client(rec->client, &host, &host_len, &port);
    Py_ssize_t method_len = 1;
    const char *method = PyUnicode_AsUTF8AndSize(rec->method, &method_len);
    if (method == NULL) {
        PyErr_Clear();
        method = "?";
        method_len = 1;
    }
    size_t most = log->prefix.len + 4 * (host_len + (size_t)method_len + root + rec->target_len) +
                  256; /* two numbers, a phrase, the colours, the fixed text */
    if (!make_room(log, most)) {
        drop_line(log);
        return;
    }
    cap_buffer *b = &log->sink.pending;
    char *to = b->data + b->len;
    if (log->prefix.len != 0)
        to = put(to, log->prefix.data, log->prefix.len);
    to = put_client(to, host, host_len, port);
    to = PUT(to, " - \"");
    if (log->colors)
        to = PUT(to, "\x1b[1m");
    to = cap_text_escape(to, method, (size_t)method_len);
    *to++ = ' ';
    to = cap_text_escape(to, rec->root_path, root);
    to = cap_text_escape(to, rec->target, rec->target_len);
    to = PUT(to, " HTTP/1.");
    to = cap_text_decimal(to, (uint64_t)rec->minor);
    if (log->colors)
        to = PUT(to, "\x1b[0m");
    to = PUT(to, "\" ");
    int class = rec->status / 100;
    bool colored = log->colors && class >= 1 && class <= 5;
    if (colored)
        to = put(to, color_of[class - 1], 5);
    to = cap_text_decimal(to, rec->status < 0 ? 0 : (uint64_t)rec->status);
    *to++ = ' ';
    size_t phrase_len = cap_text_phrase(&log->phrases, rec->status, &phrase);
    to = put(to, phrase, phrase_len);
    if (colored)
        to = PUT(to, "\x1b[0m");
    *to++ = '\n';
    b->len = (size_t)(to - b->data);
    appended(log);
}

static void
write_format(cap_access_log *log, const cap_access_record *rec)
{
    cap_buffer b = log->scratch;
    log->scratch = (cap_buffer){0};
    b.len = 0;
    if (cap_access_format_line(log->format, &log->phrases, rec, &b) < 0 ||
        cap_buffer_append(&b, "\n", 1) < 0 || !make_room(log, b.len))
        drop_line(log);
    else {
        (void)cap_buffer_append(&log->sink.pending, b.data, b.len);
        appended(log);
    }
    if (log->scratch.data == NULL && b.cap <= 16 * 1024)
        log->scratch = b;
    else
        cap_buffer_free(&b);
}

void
cap_access_log_write(cap_access_log *log, const cap_access_record *rec)
{
    if ((log->exclude_count != 0 && is_excluded(log, rec)) || log->route.logger == NULL)
        return;
    Py_INCREF(log); /* whoever holds it may let go when Python runs */
    check_fork(log);
    switch (cap_access_route_choose(&log->route)) {
    case CAP_ACCESS_NONE:
        break;
    case CAP_ACCESS_DIRECT:
        if (log->format == NULL)
            write_line(log, rec);
        else
            write_format(log, rec);
        break;
    case CAP_ACCESS_LOGGER:
        if (cap_sink_waiting(&log->sink) != 0) { /* what came first goes out first */
            drain(log, log->stuck ? 0 : FLUSH_WAIT_MS);
            log->stuck = cap_sink_waiting(&log->sink) != 0;
        }
        through_logger(log, rec);
        break;
    }
    Py_DECREF(log);
}

bool
cap_access_log_at_start(const cap_access_log *log)
{
    return log->format == NULL || cap_access_format_at_start(log->format);
}

bool
cap_access_log_check(cap_state *st, PyObject *obj)
{
    return Py_TYPE(obj) == st->type.AccessLog;
}

/* ---- the type ---- */

static PyObject *
access_log_flush(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    cap_access_log *log = (cap_access_log *)self;
    check_fork(log);
    for (int ms = 0; log->busy && ms < FLUSH_WAIT_MS; ms++) { /* another thread writes */
        struct timespec pause = {.tv_nsec = 1000000};
        Py_BEGIN_ALLOW_THREADS
        nanosleep(&pause, NULL);
        Py_END_ALLOW_THREADS
    }
    drain(log, FLUSH_WAIT_MS);
    Py_RETURN_NONE;
}

static PyObject *
access_log_tick(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    cap_access_log *log = (cap_access_log *)self;
    Py_CLEAR(log->timer);
    drain(log, 0);
    if (log->timer == NULL && !log->closed && cap_sink_waiting(&log->sink) != 0)
        arm(log);
    Py_RETURN_NONE;
}

static PyObject *
access_log_close(PyObject *self, PyObject *ignored)
{
    cap_access_log *log = (cap_access_log *)self;
    log->closed = true;
    PyObject *timer = log->timer;
    log->timer = NULL;
    if (timer != NULL) {
        PyObject *args[] = {timer};
        call_unraisable(log->st->str.cancel, args, 1);
        Py_DECREF(timer);
    }
    Py_CLEAR(log->loop);
    return access_log_flush(self, ignored);
}

static PyObject *
access_log_write(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"client",      "method",          "target",           "root_path",
                            "minor",       "status",          "body_octets",      "duration_ns",
                            "request_headers", "response_headers", NULL};
    cap_access_record rec = {.minor = 1, .status = 200, .root_path = ""};
    unsigned long long octets = 0, duration = 0;
    PyObject *request = Py_None, *response = Py_None;
    Py_ssize_t len;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OUy#|$siiKKOO:_write", names, &rec.client,
                                     &rec.method, &rec.target, &len, &rec.root_path, &rec.minor,
                                     &rec.status, &octets, &duration, &request, &response))
        return NULL;
    rec.target_len = (size_t)len;
    rec.body_octets = octets;
    rec.duration_ns = duration;
    rec.request_headers = request != Py_None ? request : NULL;
    rec.response_headers = response != Py_None ? response : NULL;
    cap_access_log_write((cap_access_log *)self, &rec);
    Py_RETURN_NONE;
}

static PyObject *
access_log_buffered(PyObject *self, void *Py_UNUSED(closure))
{
    cap_access_log *log = (cap_access_log *)self;
    return PyLong_FromSize_t(cap_sink_waiting(&log->sink));
}

static PyObject *
access_log_get_at_start(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(cap_access_log_at_start((cap_access_log *)self));
}

/* The level's name in green, up to the colon, as uvicorn's levelprefix has it. */
static int
set_prefix(cap_access_log *log, const char *prefix, size_t len)
{
    const char *colon = len != 0 ? memchr(prefix, ':', len) : NULL;
    cap_buffer *b = &log->prefix;
    if (!log->colors || colon == NULL || memchr(prefix, '\x1b', len) != NULL)
        return cap_buffer_append(b, prefix, len);
    size_t name = (size_t)(colon - prefix);
    if (cap_buffer_append(b, "\x1b[32m", 5) < 0 || cap_buffer_append(b, prefix, name) < 0 ||
        cap_buffer_append(b, "\x1b[0m", 4) < 0)
        return -1;
    return cap_buffer_append(b, colon, len - name);
}

static int
set_exclude(cap_access_log *log, PyObject *paths)
{
    if (paths == NULL)
        return 0;
    if (PyUnicode_Check(paths)) {
        PyErr_SetString(PyExc_TypeError, "exclude must be a sequence of paths, not one str");
        return -1;
    }
    PyObject *list = PySequence_Tuple(paths);
    if (list == NULL)
        return -1;
    Py_ssize_t count = PyTuple_GET_SIZE(list);
    if (count != 0 && (log->exclude = cap_calloc((size_t)count, sizeof *log->exclude)) == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *path = PyTuple_GET_ITEM(list, i);
        if (!PyUnicode_Check(path)) {
            PyErr_Format(PyExc_TypeError, "exclude must hold str, not %.100s",
                         Py_TYPE(path)->tp_name);
            goto fail;
        }
        Py_ssize_t len;
        const char *text = PyUnicode_AsUTF8AndSize(path, &len);
        if (text == NULL)
            goto fail;
        excluded *e = cap_malloc(sizeof *e + (size_t)len + 1);
        if (e == NULL) {
            PyErr_NoMemory();
            goto fail;
        }
        memcpy(e->path, text, (size_t)len + 1);
        e->prefix = len != 0 && text[len - 1] == '*';
        e->len = (size_t)len - e->prefix;
        log->exclude[log->exclude_count++] = e;
    }
    Py_DECREF(list);
    return 0;
fail:
    Py_DECREF(list);
    return -1;
}

static int
set_error_logger(cap_access_log *log)
{
    PyObject *logging = PyImport_ImportModule("logging");
    if (logging != NULL)
        log->error_logger = PyObject_CallMethod(logging, "getLogger", "s", "capicorn.error");
    Py_XDECREF(logging);
    return log->error_logger != NULL ? 0 : -1;
}

static PyObject *
access_log_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"loop", "logger", "handler", "fd",      "format",
                            "json", "prefix", "colors",  "exclude", NULL};
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    PyObject *loop, *logger, *handler = Py_None, *format = Py_None, *exclude = NULL;
    const char *prefix = "INFO:     ";
    Py_ssize_t prefix_len = 10;
    int fd = -1, json = 0, colors = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$OiOps#pO:AccessLog", names, &loop, &logger,
                                     &handler, &fd, &format, &json, &prefix, &prefix_len, &colors,
                                     &exclude))
        return NULL;
    if (format != Py_None && !PyUnicode_Check(format))
        return PyErr_Format(PyExc_TypeError, "format must be str or None, not %.100s",
                            Py_TYPE(format)->tp_name);
    if (format != Py_None && json) {
        PyErr_SetString(PyExc_ValueError, "an access log is either formatted or JSON, not both");
        return NULL;
    }
    cap_access_log *log = (cap_access_log *)type->tp_alloc(type, 0);
    if (log == NULL)
        return NULL;
    log->st = PyType_GetModuleState(type);
    (void)pthread_once(&once, watch_forks);
    log->generation = fork_generation;
    log->loop = Py_NewRef(loop);
    log->sink.fd = fd;
    log->drain_at = CAP_SINK_DRAIN_AT;
    log->colors = colors;
    log->direct = fd >= 0 && isatty(fd);
    if (handler == Py_None || fd < 0)
        handler = NULL;
    if (cap_access_route_init(&log->route, log->st, logger, handler) < 0 ||
        set_error_logger(log) < 0 || cap_text_phrases_load(&log->phrases, log->st) < 0 ||
        set_exclude(log, exclude) < 0)
        goto fail;
    if (set_prefix(log, prefix, (size_t)prefix_len) < 0) {
        PyErr_NoMemory();
        goto fail;
    }
    if ((log->delay = PyFloat_FromDouble(FLUSH_DELAY)) == NULL ||
        (log->context = PyContext_New()) == NULL ||
        (log->kwnames = PyTuple_Pack(1, log->st->str.context)) == NULL)
        goto fail;
    if (json && (log->format = cap_access_format_new_json()) == NULL)
        goto fail;
    if (format != Py_None) {
        Py_ssize_t len;
        const char *text = PyUnicode_AsUTF8AndSize(format, &len);
        if (text == NULL || (log->format = cap_access_format_new(text, (size_t)len)) == NULL)
            goto fail;
    }
    return (PyObject *)log;
fail:
    Py_DECREF(log);
    return NULL;
}

static int
access_log_traverse(PyObject *self, visitproc visit, void *arg)
{
    cap_access_log *log = (cap_access_log *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(log->loop);
    Py_VISIT(log->error_logger);
    Py_VISIT(log->context);
    Py_VISIT(log->timer);
    return cap_access_route_traverse(&log->route, visit, arg);
}

static int
access_log_clear(PyObject *self)
{
    cap_access_log *log = (cap_access_log *)self;
    log->closed = true; /* nothing to arm a timer with */
    Py_CLEAR(log->timer);
    Py_CLEAR(log->loop);
    cap_access_route_clear(&log->route);
    Py_CLEAR(log->context);
    return 0;
}

static void
access_log_dealloc(PyObject *self)
{
    cap_access_log *log = (cap_access_log *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (log->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    check_fork(log);
    while (cap_sink_take(&log->sink)) { /* nobody else knows us: the GIL stays */
        int error;
        if (cap_sink_write(&log->sink, FLUSH_WAIT_MS, &error) != CAP_SINK_DONE)
            break;
    }
    (void)access_log_clear(self);
    Py_CLEAR(log->error_logger);
    Py_CLEAR(log->delay);
    Py_CLEAR(log->kwnames);
    cap_sink_free(&log->sink);
    cap_buffer_free(&log->scratch);
    cap_buffer_free(&log->prefix);
    cap_access_format_free(log->format);
    cap_text_phrases_free(&log->phrases);
    for (size_t i = 0; i < log->exclude_count; i++)
        cap_free(log->exclude[i]);
    cap_free(log->exclude);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef access_log_methods[] = {
    {"flush", access_log_flush, METH_NOARGS,
     PyDoc_STR("flush()\n--\n\nWrite what is buffered; waits up to a second for the reader of a "
               "full pipe.")},
    {"close", access_log_close, METH_NOARGS,
     PyDoc_STR("close()\n--\n\nFlush and forget the loop; later lines are written at once. In the "
               "loop's thread. Idempotent.")},
    {"_tick", access_log_tick, METH_NOARGS, NULL},
    {"_write", (PyCFunction)(void (*)(void))access_log_write, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("Log one response, as the server does it. For tests.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef access_log_members[] = {
    {"dropped", T_ULONGLONG, offsetof(cap_access_log, dropped), READONLY,
     PyDoc_STR("Lines that could not be written.")},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(cap_access_log, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef access_log_getset[] = {
    {"buffered", access_log_buffered, NULL, PyDoc_STR("Octets not yet written."), NULL},
    {"at_start", access_log_get_at_start, NULL,
     PyDoc_STR("Is a line written when its response begins (or when it ends)?"), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot access_log_slots[] = {
    {Py_tp_new, access_log_new},
    {Py_tp_dealloc, access_log_dealloc},
    {Py_tp_traverse, access_log_traverse},
    {Py_tp_clear, access_log_clear},
    {Py_tp_methods, access_log_methods},
    {Py_tp_members, access_log_members},
    {Py_tp_getset, access_log_getset},
    {Py_tp_doc, (void *)"The access log, formatted and buffered in C."},
    {0, NULL},
};

static PyType_Spec access_log_spec = {
    .name = "capicorn._core.AccessLog",
    .basicsize = sizeof(cap_access_log),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = access_log_slots,
};

int
cap_access_log_init(PyObject *module, cap_state *st)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &access_log_spec, NULL);
    if (type == NULL)
        return -1;
    st->type.AccessLog = (PyTypeObject *)type;
    return PyModule_AddType(module, st->type.AccessLog);
}
