/* Name lookups in threads of our own. */
#include "loop/resolver.h"

#include "base/mem.h"
#include "loop/address.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 32 /* and the number of processors + 4, as in asyncio's default executor */
#define IDLE_S 10
#define NAME_MAX_LEN 253
#define SERVICE_MAX_LEN 63

typedef struct lookup {
    struct lookup *next; /* in `waiting` or `done`; lock */
    /* Set once, then of the thread that has it. */
    char host[NAME_MAX_LEN + 1];
    char service[SERVICE_MAX_LEN + 1];
    bool has_service;
    struct addrinfo hints;
    struct addrinfo *found;
    int error;
    int system_error; /* errno, for EAI_SYSTEM */
    /* Loop thread. */
    PyObject *future; /* NULL: nobody waits */
    struct lookup *prev_known;
    struct lookup *next_known;
} lookup;

typedef struct queue {
    lookup *first;
    lookup *last;
    size_t len;
} queue;

struct cap_resolver {
    /* lock */
    pthread_mutex_t lock;
    pthread_cond_t work;
    queue waiting;
    queue done;
    uv_async_t *wake; /* NULL: the loop is closed */
    unsigned nthreads;
    unsigned nidle;
    unsigned sending; /* threads that are in uv_async_send() */
    unsigned refs;    /* the loop's and each thread's */
    /* loop thread */
    lookup *known;    /* those whose futures we hold */
};

static void
put(queue *q, lookup *l)
{
    l->next = NULL;
    if (q->last != NULL)
        q->last->next = l;
    else
        q->first = l;
    q->last = l;
    q->len++;
}

static lookup *
take(queue *q)
{
    lookup *l = q->first;
    if (l == NULL)
        return NULL;
    q->first = l->next;
    if (q->first == NULL)
        q->last = NULL;
    q->len--;
    return l;
}

/* Any thread. The future was taken out before. */
static void
lookup_free(lookup *l)
{
    if (l->found != NULL)
        freeaddrinfo(l->found);
    cap_free(l);
}

/* Takes the lock with it. Any thread. */
static void
unref(struct cap_resolver *r)
{
    bool last = --r->refs == 0;
    pthread_mutex_unlock(&r->lock);
    if (!last)
        return;
    pthread_cond_destroy(&r->work);
    pthread_mutex_destroy(&r->lock);
    cap_free(r);
}

/* ---- threads: no GIL ---- */

/* With the lock. false: nothing came for long. */
static bool
wait_for_work(struct cap_resolver *r)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += IDLE_S;
    int rc = 0;
    r->nidle++;
    while (rc == 0 && r->waiting.first == NULL && r->wake != NULL)
        rc = pthread_cond_timedwait(&r->work, &r->lock, &until);
    r->nidle--;
    return r->waiting.first != NULL;
}

/* With the lock, which is given up meanwhile. */
static void
hand_back(struct cap_resolver *r, lookup *l)
{
    if (r->wake == NULL) {
        lookup_free(l);
        return;
    }
    bool first = r->done.first == NULL; /* for those behind it the loop is woken already */
    put(&r->done, l);
    if (!first)
        return;
    uv_async_t *wake = r->wake;
    r->sending++;
    pthread_mutex_unlock(&r->lock);
    uv_async_send(wake);
    pthread_mutex_lock(&r->lock);
    r->sending--;
}

static void *
work(void *arg)
{
    struct cap_resolver *r = arg;
    pthread_mutex_lock(&r->lock);
    for (;;) {
        lookup *l = take(&r->waiting);
        if (l == NULL) {
            if (r->wake == NULL || !wait_for_work(r))
                break;
            continue;
        }
        pthread_mutex_unlock(&r->lock);
        l->error = getaddrinfo(l->host, l->has_service ? l->service : NULL, &l->hints, &l->found);
        l->system_error = errno;
        pthread_mutex_lock(&r->lock);
        hand_back(r, l);
    }
    r->nthreads--;
    unref(r);
    return NULL;
}

/* With the lock. All signals are blocked in it: those of CPython's handlers have to wake
   the main thread's poll. */
static int
start_thread(struct cap_resolver *r)
{
    pthread_t thread;
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);
    if (rc != 0)
        return rc;
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&thread, &attr, work, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (rc == 0) {
        r->nthreads++;
        r->refs++;
    }
    return rc;
}

static unsigned
threads_max(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN) + 4;
    return n > 4 && n < THREADS_MAX ? (unsigned)n : THREADS_MAX;
}

/* ---- the loop's side ---- */

static struct cap_resolver *
resolver_of(cap_loop *loop)
{
    struct cap_resolver *r = loop->resolver;
    if (r != NULL)
        return r;
    if ((r = cap_calloc(1, sizeof *r)) == NULL)
        goto no_memory;
    pthread_condattr_t attr;
    if (pthread_condattr_init(&attr) != 0)
        goto no_memory;
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    int rc = pthread_cond_init(&r->work, &attr);
    pthread_condattr_destroy(&attr);
    if (rc != 0)
        goto no_memory;
    if (pthread_mutex_init(&r->lock, NULL) != 0) {
        pthread_cond_destroy(&r->work);
        goto no_memory;
    }
    r->wake = &loop->uv->async;
    r->refs = 1;
    loop->resolver = r;
    return r;
no_memory:
    cap_free(r);
    PyErr_NoMemory();
    return NULL;
}

static void
get_to_know(struct cap_resolver *r, lookup *l, PyObject *future)
{
    l->future = Py_NewRef(future);
    l->prev_known = NULL;
    l->next_known = r->known;
    if (r->known != NULL)
        r->known->prev_known = l;
    r->known = l;
}

/* Its future is the caller's now. */
static PyObject *
part_with(struct cap_resolver *r, lookup *l)
{
    PyObject *future = l->future;
    l->future = NULL;
    if (l->prev_known != NULL)
        l->prev_known->next_known = l->next_known;
    else
        r->known = l->next_known;
    if (l->next_known != NULL)
        l->next_known->prev_known = l->prev_known;
    l->prev_known = l->next_known = NULL;
    return future;
}

/* Letters, digits and what stands between them, of a str or bytes: 1, and it is in `to`;
   0: anything else. */
static int
copy_plain(char *to, size_t max, PyObject *obj, const char *between)
{
    const char *text;
    Py_ssize_t n;
    if (PyUnicode_CheckExact(obj) && PyUnicode_IS_COMPACT_ASCII(obj)) {
        text = (const char *)PyUnicode_1BYTE_DATA(obj);
        n = PyUnicode_GET_LENGTH(obj);
    }
    else if (PyBytes_CheckExact(obj)) {
        text = PyBytes_AS_STRING(obj);
        n = PyBytes_GET_SIZE(obj);
    }
    else
        return 0;
    if (n == 0 || (size_t)n > max)
        return 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (!Py_ISALNUM(text[i]) && (text[i] == '\0' || strchr(between, text[i]) == NULL))
            return 0;
    }
    memcpy(to, text, (size_t)n);
    to[n] = '\0';
    return 1;
}

/* Labels that the codec `idna`, through which a str goes, leaves as they are. The last one
   may be empty. */
static bool
has_plain_labels(const char *host)
{
    for (;;) {
        size_t n = strcspn(host, ".");
        if (n > 63 || (n == 0 && host[0] == '.'))
            return false;
        if (host[n] == '\0')
            return true;
        host += n + 1;
    }
}

/* 1: it is in `l`; 0: it is not for us. */
static int
fill_names(lookup *l, PyObject *host, PyObject *port)
{
    if (!copy_plain(l->host, NAME_MAX_LEN, host, ".-_") || !has_plain_labels(l->host))
        return 0;
    l->has_service = port != Py_None;
    if (!l->has_service)
        return 1;
    if (!PyLong_CheckExact(port))
        return copy_plain(l->service, SERVICE_MAX_LEN, port, "-_");
    int overflow;
    long number = PyLong_AsLongAndOverflow(port, &overflow);
    if (overflow != 0 || number < 0 || number > 65535)
        return 0;
    PyOS_snprintf(l->service, sizeof l->service, "%ld", number);
    return 1;
}

/* The same. */
static int
fill_hints(lookup *l, PyObject *const *numbers)
{
    int *to[] = {&l->hints.ai_family, &l->hints.ai_socktype, &l->hints.ai_protocol,
                 &l->hints.ai_flags};
    for (int i = 0; i < 4; i++) {
        if (!PyLong_Check(numbers[i]))
            return 0;
        int overflow;
        long number = PyLong_AsLongAndOverflow(numbers[i], &overflow);
        if (overflow != 0 || number > INT_MAX || number < INT_MIN)
            return 0;
        *to[i] = (int)number;
    }
    return 1;
}

/* 0; 1: no thread could be started. */
static int
queue_lookup(struct cap_resolver *r, lookup *l)
{
    pthread_mutex_lock(&r->lock);
    bool more = r->waiting.len >= r->nidle && r->nthreads < threads_max();
    if (more && start_thread(r) != 0 && r->nthreads == 0) {
        pthread_mutex_unlock(&r->lock);
        return 1;
    }
    put(&r->waiting, l);
    pthread_mutex_unlock(&r->lock);
    pthread_cond_signal(&r->work);
    return 0;
}

PyObject *
cap_resolver_look_up(cap_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    lookup *l = NULL;
    PyObject *future = NULL;
    if (nargs != 6) {
        PyErr_SetString(PyExc_TypeError, "_look_up(host, port, family, type, proto, flags)");
        return NULL;
    }
    if (cap_loop_check_closed(loop) < 0)
        return NULL;
    if (loop->forks != cap_forks)
        Py_RETURN_NONE;
    struct cap_resolver *r = resolver_of(loop);
    if (r == NULL)
        return NULL;
    if ((l = cap_calloc(1, sizeof *l)) == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if (!fill_names(l, args[0], args[1]) || !fill_hints(l, args + 2))
        goto not_for_us;
    if (PySys_Audit("socket.getaddrinfo", "OOiii", args[0], args[1], l->hints.ai_family,
                    l->hints.ai_socktype, l->hints.ai_protocol) < 0)
        goto fail;
    if (loop->resolver != r) { /* a hook closed the loop */
        (void)cap_loop_check_closed(loop);
        goto fail;
    }
    PyObject *stack[2] = {NULL, (PyObject *)loop};
    cap_state *st = loop->reactor.st;
    future = PyObject_Vectorcall(st->imp.asyncio_Future, stack + 1, PY_VECTORCALL_ARGUMENTS_OFFSET,
                                 cap_loop_state_of(st)->future_kwnames);
    if (future == NULL)
        goto fail;
    get_to_know(r, l, future);
    if (queue_lookup(r, l) == 0)
        return future;
    Py_DECREF(part_with(r, l));
not_for_us:
    lookup_free(l);
    Py_XDECREF(future);
    Py_RETURN_NONE;
fail:
    lookup_free(l);
    return NULL;
}

PyObject *
cap_resolver_forget(cap_loop *loop, PyObject *future)
{
    struct cap_resolver *r = loop->resolver;
    lookup *l = r != NULL && loop->forks == cap_forks ? r->known : NULL;
    while (l != NULL && l->future != future)
        l = l->next_known;
    if (l == NULL)
        Py_RETURN_NONE;
    bool queued = false;
    pthread_mutex_lock(&r->lock);
    for (lookup **at = &r->waiting.first, *before = NULL; *at != NULL;
         before = *at, at = &(*at)->next) {
        if (*at == l) {
            queued = true;
            *at = l->next;
            if (r->waiting.last == l)
                r->waiting.last = before;
            r->waiting.len--;
            break;
        }
    }
    pthread_mutex_unlock(&r->lock);
    if (queued) {
        Py_DECREF(part_with(r, l));
        lookup_free(l);
    }
    Py_RETURN_NONE;
}

/* ---- results ---- */

/* As _socket.getaddrinfo() returns it. */
static PyObject *
found_list(const struct addrinfo *found)
{
    PyObject *list = PyList_New(0);
    for (; list != NULL && found != NULL; found = found->ai_next) {
        cap_address from = {.len = found->ai_addrlen};
        if (from.len > sizeof from.raw)
            from.len = sizeof from.raw;
        memcpy(&from.raw, found->ai_addr, from.len);
        PyObject *address = cap_address_to_python(&from);
        PyObject *entry =
            address != NULL
                ? Py_BuildValue("iiisN", found->ai_family, found->ai_socktype, found->ai_protocol,
                                found->ai_canonname != NULL ? found->ai_canonname : "", address)
                : NULL;
        if (entry == NULL || PyList_Append(list, entry) < 0)
            Py_CLEAR(list);
        Py_XDECREF(entry);
    }
    return list;
}

/* What socket.getaddrinfo() raises. */
static void
set_error(const lookup *l, cap_state *st)
{
    if (l->error == EAI_SYSTEM) {
        errno = l->system_error;
        PyErr_SetFromErrno(PyExc_OSError);
        return;
    }
    PyObject *args = Py_BuildValue("(is)", l->error, gai_strerror(l->error));
    if (args != NULL)
        PyErr_SetObject(st->imp.socket_gaierror, args);
    Py_XDECREF(args);
}

static int
is_done(PyObject *future, cap_state *st)
{
    PyObject *done = PyObject_CallMethodNoArgs(future, st->str.done);
    int is = done != NULL ? PyObject_IsTrue(done) : -1;
    Py_XDECREF(done);
    return is;
}

/* 0, or -1 with an exception that nobody has. */
static int
report(const lookup *l, PyObject *future, cap_state *st)
{
    int done = is_done(future, st); /* cancelled */
    if (done != 0)
        return done < 0 ? -1 : 0;
    PyObject *list = NULL, *told;
    if (l->error == 0)
        list = found_list(l->found);
    else
        set_error(l, st);
    if (list != NULL)
        told = PyObject_CallMethodOneArg(future, st->str.set_result, list);
    else {
        PyObject *exc = cap_err_take();
        told = PyObject_CallMethodOneArg(future, st->str.set_exception, exc);
        Py_XDECREF(exc);
    }
    Py_XDECREF(list);
    Py_XDECREF(told);
    return told != NULL ? 0 : -1;
}

void
cap_resolver_deliver(cap_loop *loop)
{
    struct cap_resolver *r = loop->resolver;
    if (r == NULL)
        return;
    for (;;) {
        pthread_mutex_lock(&r->lock);
        lookup *l = take(&r->done);
        pthread_mutex_unlock(&r->lock);
        if (l == NULL)
            return;
        PyObject *future = part_with(r, l);
        if (report(l, future, loop->reactor.st) < 0)
            cap_reactor_report(&loop->reactor, "The result of a name lookup was lost");
        Py_DECREF(future);
        lookup_free(l);
        if (loop->resolver != r)
            return; /* closed by what ran */
    }
}

void
cap_resolver_close(cap_loop *loop)
{
    struct cap_resolver *r = loop->resolver;
    if (r == NULL)
        return;
    loop->resolver = NULL;
    while (r->known != NULL) /* as long as `wake` is set, no thread frees one */
        Py_DECREF(part_with(r, r->known));
    if (loop->forks != cap_forks)
        return; /* its threads are the parent's, and perhaps one has the lock for good */
    pthread_mutex_lock(&r->lock);
    r->wake = NULL;
    lookup *l;
    while ((l = take(&r->waiting)) != NULL || (l = take(&r->done)) != NULL)
        lookup_free(l);
    pthread_cond_broadcast(&r->work);
    while (r->sending != 0) { /* for the moment that uv_async_send() takes */
        pthread_mutex_unlock(&r->lock);
        sched_yield();
        pthread_mutex_lock(&r->lock);
    }
    unref(r);
}

int
cap_resolver_traverse(cap_loop *loop, visitproc visit, void *arg)
{
    if (loop->resolver == NULL)
        return 0;
    for (lookup *l = loop->resolver->known; l != NULL; l = l->next_known)
        Py_VISIT(l->future);
    return 0;
}
