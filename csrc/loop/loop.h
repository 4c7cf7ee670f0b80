/* The asyncio event loop: what its files share. capicorn._core.Loop is the base
   of capicorn.Loop (python/capicorn/loop.py), which has the standard library's
   selector loop as its other base: what is not here in C comes from there.

   One turn: poll, then the transports that it found ready, then the timers that are
   due, then what is ready by now (so a task that waits for a stream goes on in the
   turn in which the data came), then the deferred work.

   All functions: GIL held, loop thread unless said otherwise. */
#ifndef CAP_LOOP_LOOP_H
#define CAP_LOOP_LOOP_H

#include "loop/reactor.h"

typedef struct cap_loop cap_loop;

/* ---- handles (handle.c) ---- */

#define CAP_HANDLE_INLINE 3

enum {
    CAP_HANDLE_CANCELLED = 1 << 0,
    CAP_HANDLE_THREADSAFE = 1 << 1, /* from call_soon_threadsafe: cancel() may come from anywhere */
    CAP_HANDLE_RUNNING = 1 << 2,    /* only kept for THREADSAFE */
    CAP_HANDLE_TIMER = 1 << 3,      /* it is a cap_timer */
    CAP_HANDLE_IO = 1 << 4,         /* a transport's: runs before what is ready already */
    CAP_HANDLE_TRACKED = 1 << 5,    /* the garbage collector knows it */
    CAP_HANDLE_HIDES_CONTEXT = 1 << 6, /* ... but not its context, as long as it is in a queue */
};

/* A callback with its context and arguments: capicorn._core.Handle. */
typedef struct cap_handle {
    PyObject_HEAD
    cap_loop *loop;                   /* strong */
    PyObject *callback;               /* NULL once cancelled */
    PyObject *context;
    PyObject *arg[CAP_HANDLE_INLINE]; /* the first nargs, when there are not more */
    PyObject *rest;                   /* otherwise: a tuple of all of them */
    PyObject *source_traceback;       /* debug mode: where it was made; or NULL */
    PyObject *repr;                   /* debug mode: how it read before cancel(); or NULL */
    PyObject *weakrefs;
    uint32_t nargs;
    uint32_t flags;
} cap_handle;

/* capicorn._core.TimerHandle */
typedef struct cap_timer {
    cap_handle base;
    double when;    /* s, the loop's clock */
    uint64_t seq;   /* equal times fire in the order in which they were asked for */
    Py_ssize_t pos; /* in the heap; -1: not scheduled */
} cap_timer;

/* A queue of them: a ring of strong references. */
typedef struct cap_ready {
    cap_handle **slot;
    size_t mask; /* size - 1; the size is a power of two */
    size_t head;
    size_t len;
} cap_ready;

int cap_handle_types_init(PyObject *module, cap_state *st);
/* New references, or NULL with an exception. `context` may be NULL or None: a
   copy of the current one. Nothing of it is queued. */
cap_handle *cap_handle_new(cap_loop *loop, PyObject *callback, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *context);
cap_timer *cap_timer_new(cap_loop *loop, double when, PyObject *callback, PyObject *const *args,
                         Py_ssize_t nargs, PyObject *context);
/* One that goes into `q` at once. Most are not kept by anybody else, and live for a moment:
   the garbage collector does not see them there, but what they hold, in its owner's
   cap_ready_traverse(). New reference, or NULL with an exception. */
cap_handle *cap_handle_queue(cap_loop *loop, cap_ready *q, PyObject *callback,
                             PyObject *const *args, Py_ssize_t nargs, PyObject *context);
/* The same for its context, a copy that nobody else has: other threads queue thousands
   before the loop comes to run. */
void cap_handle_hide_context(cap_handle *h);
/* Give up the reference of a handle that was taken out of a queue. */
void cap_handle_end_queued(cap_handle *h);
int cap_ready_traverse(const cap_ready *q, visitproc visit, void *arg);
/* Call it, in its context. Runs Python. An exception goes to the loop's handler;
   0, or -1 with KeyboardInterrupt or SystemExit (or what the loop's exception
   handler raised). */
int cap_handle_run(cap_handle *h);
/* As its cancel(); may run Python. 0, or -1 with an exception. */
int cap_handle_cancel(cap_handle *h);
/* Give the loop's spare handles back to the allocator. */
void cap_handle_drop_spares(cap_loop *loop);

/* A thread that waits in cancel() for a callback to end. On that thread's stack. */
typedef struct cap_cancel_wait {
    struct cap_cancel_wait *next;
    cap_handle *handle;
    PyThread_type_lock lock;
} cap_cancel_wait;

/* ---- timers (timer_heap.c): a binary heap of (when, seq) ---- */

typedef struct cap_timer_heap {
    cap_timer **item; /* strong references */
    size_t len;
    size_t cap;
    uint64_t seq;
} cap_timer_heap;

/* Takes a reference of its own. 0, or -1 with MemoryError. */
int cap_timer_heap_push(cap_timer_heap *t, cap_timer *timer);
/* Take out a scheduled timer; the reference goes to the caller. */
void cap_timer_heap_remove(cap_timer_heap *t, cap_timer *timer);
static inline cap_timer *
cap_timer_heap_first(const cap_timer_heap *t)
{
    return t->len != 0 ? t->item[0] : NULL;
}

/* ---- the ready queue ---- */

int cap_ready_grow(cap_ready *q); /* 0, or -1 with MemoryError */

/* Takes a reference of its own. 0, or -1 with MemoryError. */
static inline int
cap_ready_push(cap_ready *q, cap_handle *h)
{
    if ((q->slot == NULL || q->len > q->mask) && cap_ready_grow(q) < 0)
        return -1;
    q->slot[(q->head + q->len++) & q->mask] = (cap_handle *)Py_NewRef((PyObject *)h);
    return 0;
}

/* The reference goes to the caller. Only when len != 0. */
static inline cap_handle *
cap_ready_pop(cap_ready *q)
{
    cap_handle *h = q->slot[q->head & q->mask];
    q->head++;
    q->len--;
    return h;
}

/* ---- descriptors (watcher.c) ---- */

typedef struct cap_watch {
    PyObject *fileobj;  /* what was given to add_reader; NULL: not watched */
    cap_handle *reader;
    cap_handle *writer;
} cap_watch;

typedef struct cap_watcher {
    int fd;          /* an epoll set of our own, inside libuv's; -1: closed */
    cap_watch *item; /* indexed by descriptor */
    size_t len;
} cap_watcher;

/* 0, or -1 with an exception. */
int cap_watcher_open(cap_loop *loop);
/* Forgets all and closes the set; its uv_poll_t is closed by then or never was open. */
void cap_watcher_close(cap_loop *loop);
PyObject *cap_watcher_add(cap_loop *loop, PyObject *const *args, Py_ssize_t nargs, bool writer,
                          PyObject *context);
PyObject *cap_watcher_remove(cap_loop *loop, PyObject *fd, bool writer);
/* For C: a handle that is called while `fd` is ready; it replaces another one. 0, or -1
   with an exception. And the end of it, if it is still that handle. */
int cap_watcher_watch(cap_loop *loop, int fd, cap_handle *h, bool writer);
void cap_watcher_unwatch(cap_loop *loop, int fd, cap_handle *h, bool writer);
/* (fileobj, fd, events, reader, writer) of one, or None; for loop._selector */
PyObject *cap_watcher_lookup(cap_loop *loop, PyObject *fd);
PyObject *cap_watcher_fds(cap_loop *loop);
/* Queue the handles of the descriptors that are ready. 0, or -1 with MemoryError. */
int cap_watcher_collect(cap_loop *loop);
int cap_watcher_traverse(cap_loop *loop, visitproc visit, void *arg);

/* ---- asyncio's set of tasks (all_tasks.c) ---- */

/* Whoever makes a loop calls it; only the first call does something. Cannot fail: what
   cannot be done stays as it was. No exception may be set. */
void cap_all_tasks_speed_up(void);

/* ---- the loop (loop.c) ---- */

/* libuv's side, apart from the Python object: libuv holds its addresses until
   every close callback has run. */
typedef struct cap_uv {
    uv_loop_t loop;
    uv_prepare_t prepare; /* last before the poll: gives the GIL up */
    uv_async_t async;     /* wakes the poll, from any thread */
    uv_timer_t timer;     /* bounds the poll by the first timer */
    uv_idle_t idle;       /* active: the poll must not sleep */
    uv_poll_t poll;       /* the watcher's epoll set */
} cap_uv;

struct cap_loop {
    PyObject_HEAD
    cap_reactor reactor;
    cap_uv *uv; /* NULL: closed */
    cap_ready ready;
    cap_ready io; /* transports that the poll found ready: before `ready`, in the same turn */
    cap_timer_heap timers;
    cap_watcher watcher;
    cap_handle *spare;       /* freed Handles, linked by `rest` */
    cap_handle *spare_timer; /* freed TimerHandles */
    uint32_t nspare;
    uint32_t nspare_timer;
    bool closed;
    bool stopping;
    bool debug;
    bool may_sleep;       /* in uv_run(ONCE) of a turn */
    bool asleep;          /* the poll has given the GIL up; written with the GIL */
    bool woken;           /* ... and has been woken already */
    bool capture;         /* call_soon gives its handle to cap_task_start (3.11) */
    cap_handle *captured;
    bool polling;         /* inside uv_run, which must not be entered again */
    unsigned forks;       /* cap_forks when it was made */
    bool in_ready;        /* a handle of the ready queue runs: perhaps a task's step */
    bool has_thread;
    unsigned long thread_id; /* of run_forever's thread, while has_thread */
    PyObject *current_handle; /* debug mode: what runs now; or NULL */
    PyObject *task_factory;   /* or NULL: None */
    cap_cancel_wait *waits;
    struct cap_thread_pool *pools; /* list (thread_pool.h) */
    PyThread_type_lock to_wake;    /* of a pool's thread: released when the GIL is given up */
    _Atomic unsigned sending;      /* threads that wake us without the GIL; close() waits for them */
    struct cap_transport *transports; /* the open ones (transport.h) */
    struct {
        int fd;        /* the listening socket that was accepted from last */
        unsigned burst;
        uint64_t turn; /* libuv's count of them */
    } accept;
    struct cap_resolver *resolver;    /* resolver.h; NULL until it is needed */
    char *read_buffer;                /* what they read into; NULL until it is needed */
    PyObject *weakrefs;
};

#define CAP_LOOP_OF(reactor_) ((cap_loop *)((char *)(reactor_) - offsetof(cap_loop, reactor)))

/* How many forks this process is away from the one that loaded the module. A loop
   of another process is only let go of: its descriptors, and what is registered
   with them, are that process's. */
extern unsigned cap_forks;

/* The loop's clock: seconds of time.monotonic(). */
double cap_loop_now(void);
/* 0, or -1 with RuntimeError when it is closed. */
int cap_loop_check_closed(cap_loop *loop);
/* 0, or -1 with an exception: then close what was opened. */
int cap_loop_open_uv(cap_loop *loop);
/* Close libuv's side. 0; 1 when handles that are not the loop's are still open: then the
   memory stays, since libuv and their owners hold addresses in it. */
int cap_loop_close_uv(cap_loop *loop);
/* Methods: turn after turn until stop(), and one turn. */
PyObject *cap_loop_run(cap_loop *loop, PyObject *ignored);
PyObject *cap_loop_run_once(cap_loop *loop, PyObject *ignored);

/* Methods (loop_schedule.c). */
PyObject *cap_loop_call_soon(cap_loop *loop, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);
PyObject *cap_loop_call_soon_threadsafe(cap_loop *loop, PyObject *const *args, Py_ssize_t nargs,
                                        PyObject *kwnames);
PyObject *cap_loop_call_later(cap_loop *loop, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames);
PyObject *cap_loop_call_at(cap_loop *loop, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames);
PyObject *cap_loop_time(cap_loop *loop, PyObject *ignored);
PyObject *cap_loop_create_task(cap_loop *loop, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames);
PyObject *cap_loop_add_reader(cap_loop *loop, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames);
PyObject *cap_loop_add_writer(cap_loop *loop, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames);
PyObject *cap_loop_remove_reader(cap_loop *loop, PyObject *fd);
PyObject *cap_loop_remove_writer(cap_loop *loop, PyObject *fd);
PyObject *cap_loop_watch_of(cap_loop *loop, PyObject *fd);
PyObject *cap_loop_watched_fds(cap_loop *loop, PyObject *ignored);

/* The type (loop_type.c). */
int cap_loop_type_init(PyObject *module, cap_state *st);
bool cap_loop_check(cap_state *st, PyObject *obj);
/* cap_handle_run, with debug mode's measuring. */
int cap_loop_run_handle(cap_loop *loop, cap_handle *h);
/* End a sleep of the loop. Any thread, GIL held. */
void cap_loop_wake(cap_loop *loop);

/* accept.c: (fd, limit) to a list of (descriptor, peer's address), which is empty when
   nobody waits. Or NULL with OSError: nothing was accepted. */
PyObject *cap_loop_accept(cap_loop *loop, PyObject *const *args, Py_ssize_t nargs);

/* foreign.c */
int cap_foreign_type_init(PyObject *module, cap_state *st);
cap_reactor *cap_foreign_acquire(cap_state *st, PyObject *loop);
void cap_foreign_release(cap_reactor *r);

/* Transports (transport.h), and their methods that handles call. */
typedef enum {
    CAP_STREAM,
    CAP_READ_PIPE,
    CAP_WRITE_PIPE,
    CAP_DATAGRAM,
    CAP_TRANSPORT_KINDS,
} cap_transport_kind;

typedef enum {
    CAP_ON_START,
    CAP_ON_READ,
    CAP_ON_WRITE,
    CAP_ON_LOST,
    CAP_ON_EOF,
    CAP_TRANSPORT_CALLBACKS,
} cap_transport_callback;

/* What st->loop points at. */
typedef struct cap_loop_state {
    struct cap_foreign *drivers; /* list of the foreign loops' drivers in use */
    PyObject *handle_class;      /* asyncio.Handle and asyncio.TimerHandle, and what */
    PyObject *timer_class;       /* ours takes from them */
    PyObject *threadsafe_class;  /* asyncio.events._ThreadSafeHandle; NULL before 3.14 */
    PyObject *handle_repr;
    PyObject *handle_repr_info;
    PyObject *timer_repr_info;
    PyObject *extract_stack;     /* asyncio.format_helpers.extract_stack */
    PyObject *future_kwnames;    /* keyword names: ("loop",) */
    PyObject *task_kwnames;      /* ("loop", "context", "eager_start"); on 3.11 "name" as the last */
    PyObject *create_kwnames;    /* ("context",) */
    PyObject *context_only;      /* ("context",) as it was given last; or NULL */
    PyObject *create_task;       /* BaseEventLoop.create_task */
    PyObject *tasks;             /* asyncio.tasks */
    PyObject *task_name;         /* "Task" */
    PyObject *get_running_loop;  /* asyncio.events._get_running_loop */
    /* Stream transports: methods that handles call, asyncio's classes, names. */
    PyObject *transport_method[CAP_TRANSPORT_KINDS][CAP_TRANSPORT_CALLBACKS];
    PyObject *buffered_protocol; /* asyncio.BufferedProtocol */
    PyObject *protocol;          /* asyncio.Protocol */
    PyObject *minus_one;
    PyObject *data_received;
    PyObject *eof_received;
    PyObject *get_buffer;
    PyObject *buffer_updated;
    PyObject *connection_made;
    PyObject *connection_lost;
    PyObject *maybe_pause;
    PyObject *maybe_resume;
    PyObject *closed_name;
    PyObject *close_name;
    PyObject *datagram_received;
    PyObject *error_received;
} cap_loop_state;

static inline cap_loop_state *
cap_loop_state_of(cap_state *st)
{
    return st->loop;
}

#endif
