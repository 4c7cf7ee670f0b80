/* What is to run, and when: call_soon and its like, tasks, and what watches descriptors
   (watcher.c), with the arguments that asyncio gives them. */
#include "loop/loop.h"

/* The arguments of f(NAME..., *args, context=None): the named ones, of which
   there are `nnames`, go to `named`; what follows them stays where it is. */
static int
split_args(cap_loop *self, const char *function, const char *const *names, int nnames,
           PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **named,
           PyObject **context)
{
    cap_loop_state *ls = cap_loop_state_of(self->reactor.st);
    *context = NULL;
    for (int i = 0; i < nnames; i++)
        named[i] = i < nargs ? args[i] : NULL;
    Py_ssize_t nkw = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    if (nkw != 0 && kwnames == ls->context_only) {
        *context = args[nargs];
        nkw = 0;
    }
    for (Py_ssize_t k = 0; k < nkw; k++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, k), *value = args[nargs + k];
        if (key == self->reactor.st->str.context ||
            PyUnicode_CompareWithASCIIString(key, "context") == 0) {
            *context = value;
            if (nkw == 1) /* asyncio's C code has always the same tuple, and another string than ours */
                Py_XSETREF(ls->context_only, Py_NewRef(kwnames));
            continue;
        }
        int i = 0;
        while (i < nnames && PyUnicode_CompareWithASCIIString(key, names[i]) != 0)
            i++;
        if (i == nnames || named[i] != NULL) {
            PyErr_Format(PyExc_TypeError,
                         i == nnames ? "%s() got an unexpected keyword argument '%U'"
                                     : "%s() got multiple values for argument '%U'",
                         function, key);
            return -1;
        }
        named[i] = value;
    }
    for (int i = 0; i < nnames; i++) {
        if (named[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument: '%s'", function,
                         names[i]);
            return -1;
        }
    }
    return 0;
}

static int
check_thread(cap_loop *self)
{
    if (self->has_thread && self->thread_id != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError, "Non-thread-safe operation invoked on an event loop "
                                            "other than the current one");
        return -1;
    }
    return 0;
}

static int
check_callback(cap_loop *self, PyObject *callback, const char *function)
{
    PyObject *done =
        PyObject_CallMethod((PyObject *)self, "_check_callback", "Os", callback, function);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

static const char *const soon_names[] = {"callback"};
static const char *const later_names[] = {"delay", "callback"};
static const char *const at_names[] = {"when", "callback"};
static const char *const watch_names[] = {"fd", "callback"};

PyObject *
cap_loop_call_soon(cap_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *callback, *context;
    if (split_args(self, "call_soon", soon_names, 1, args, nargs, kwnames, &callback, &context) <
            0 ||
        cap_loop_check_closed(self) < 0)
        return NULL;
    if (self->debug &&
        (check_thread(self) < 0 || check_callback(self, callback, "call_soon") < 0))
        return NULL;
    Py_ssize_t nrest = nargs > 1 ? nargs - 1 : 0;
    if (!self->capture)
        return (PyObject *)cap_handle_queue(self, &self->ready, callback, args + 1, nrest,
                                            context);
    cap_handle *h = cap_handle_new(self, callback, args + 1, nrest, context);
    if (h != NULL) {
        self->capture = false;
        self->captured = (cap_handle *)Py_NewRef((PyObject *)h);
    }
    return (PyObject *)h;
}

PyObject *
cap_loop_call_soon_threadsafe(cap_loop *self, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    PyObject *callback, *context;
    if (split_args(self, "call_soon_threadsafe", soon_names, 1, args, nargs, kwnames, &callback,
                   &context) < 0 ||
        cap_loop_check_closed(self) < 0)
        return NULL;
    if (self->debug && check_callback(self, callback, "call_soon_threadsafe") < 0)
        return NULL;
    cap_handle *h = cap_handle_queue(self, &self->ready, callback, args + 1,
                                     nargs > 1 ? nargs - 1 : 0, context);
    if (h != NULL) {
        h->flags |= CAP_HANDLE_THREADSAFE;
        if (context == NULL || context == Py_None)
            cap_handle_hide_context(h);
        cap_loop_wake(self);
    }
    return (PyObject *)h;
}

static PyObject *
schedule(cap_loop *self, const char *function, double when, PyObject *callback,
         PyObject *const *args, Py_ssize_t nargs, PyObject *context)
{
    if (cap_loop_check_closed(self) < 0)
        return NULL;
    if (when != when) {
        PyErr_SetString(PyExc_ValueError, "Invalid delay: NaN (not a number)");
        return NULL;
    }
    if (self->debug && (check_thread(self) < 0 || check_callback(self, callback, function) < 0))
        return NULL;
    cap_timer *timer =
        cap_timer_new(self, when, callback, args + 2, nargs > 2 ? nargs - 2 : 0, context);
    if (timer != NULL && cap_timer_heap_push(&self->timers, timer) < 0)
        Py_CLEAR(timer);
    return (PyObject *)timer;
}

PyObject *
cap_loop_call_later(cap_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *named[2], *context;
    if (split_args(self, "call_later", later_names, 2, args, nargs, kwnames, named, &context) < 0)
        return NULL;
    if (named[0] == Py_None) {
        PyErr_SetString(PyExc_TypeError, "delay must not be None");
        return NULL;
    }
    double delay = PyFloat_AsDouble(named[0]);
    if (delay == -1.0 && PyErr_Occurred())
        return NULL;
    return schedule(self, "call_at", cap_loop_now() + delay, named[1], args, nargs, context);
}

PyObject *
cap_loop_call_at(cap_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *named[2], *context;
    if (split_args(self, "call_at", at_names, 2, args, nargs, kwnames, named, &context) < 0)
        return NULL;
    if (named[0] == Py_None) {
        PyErr_SetString(PyExc_TypeError, "when cannot be None");
        return NULL;
    }
    double when = PyFloat_AsDouble(named[0]);
    if (when == -1.0 && PyErr_Occurred())
        return NULL;
    return schedule(self, "call_at", when, named[1], args, nargs, context);
}

PyObject *
cap_loop_time(cap_loop *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    return PyFloat_FromDouble(cap_loop_now());
}

/* (fd, callback, *args, context=None) */
static PyObject *
add_watch(cap_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, bool writer)
{
    PyObject *named[2], *context;
    if (split_args(self, writer ? "_add_writer" : "_add_reader", watch_names, 2, args, nargs,
                   kwnames, named, &context) < 0 ||
        cap_loop_check_closed(self) < 0)
        return NULL;
    if (nargs < 2)
        return cap_watcher_add(self, named, 2, writer, context);
    return cap_watcher_add(self, args, nargs, writer, context);
}

PyObject *
cap_loop_add_reader(cap_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return add_watch(self, args, nargs, kwnames, false);
}

PyObject *
cap_loop_add_writer(cap_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return add_watch(self, args, nargs, kwnames, true);
}

PyObject *
cap_loop_remove_reader(cap_loop *self, PyObject *fd)
{
    if (self->closed)
        Py_RETURN_FALSE;
    return cap_watcher_remove(self, fd, false);
}

PyObject *
cap_loop_remove_writer(cap_loop *self, PyObject *fd)
{
    if (self->closed)
        Py_RETURN_FALSE;
    return cap_watcher_remove(self, fd, true);
}

PyObject *
cap_loop_watch_of(cap_loop *self, PyObject *fd)
{
    return cap_watcher_lookup(self, fd);
}

PyObject *
cap_loop_watched_fds(cap_loop *self, PyObject *Py_UNUSED(ignored))
{
    return cap_watcher_fds(self);
}

/* ---- tasks ---- */

#define TASK_KEYWORDS 2

/* Whether all of them are ones that asyncio.Task and every BaseEventLoop.create_task know. */
static bool
plain_task_keywords(const cap_state *st, PyObject *kwnames)
{
    Py_ssize_t n = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    if (n > TASK_KEYWORDS)
        return false;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, i);
        if (key != st->str.context && PyUnicode_CompareWithASCIIString(key, "context") != 0 &&
            PyUnicode_CompareWithASCIIString(key, "name") != 0)
            return false;
    }
    return true;
}

/* ("loop", *kwnames) */
static PyObject *
with_loop(const cap_state *st, PyObject *kwnames)
{
    PyObject *loop_only = cap_loop_state_of((cap_state *)st)->future_kwnames;
    return kwnames != NULL ? PySequence_Concat(loop_only, kwnames) : Py_NewRef(loop_only);
}

/* Whether Task() finds this loop by itself, without keywords that have to be packed and
   unpacked. -1 with an exception. */
static int
is_running_here(cap_loop *self)
{
    if (!self->has_thread)
        return 0;
    PyObject *loop = PyObject_CallNoArgs(cap_loop_state_of(self->reactor.st)->get_running_loop);
    Py_XDECREF(loop);
    return loop == NULL ? -1 : loop == (PyObject *)self;
}

/* asyncio.Task(coro, loop=loop, **kwargs). What is out of the ordinary is left to
   BaseEventLoop.create_task. */
PyObject *
cap_loop_create_task(cap_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    cap_state *st = self->reactor.st;
    cap_loop_state *ls = cap_loop_state_of(st);
    Py_ssize_t nkw = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    if (nargs != 1 || self->closed || self->debug || self->task_factory != NULL ||
        !plain_task_keywords(st, kwnames)) {
        PyObject *method = PyMethod_New(ls->create_task, (PyObject *)self);
        PyObject *task =
            method != NULL ? PyObject_Vectorcall(method, args, (size_t)nargs, kwnames) : NULL;
        Py_XDECREF(method);
        return task;
    }
    PyObject *type = PyObject_GetAttr(ls->tasks, ls->task_name), *task = NULL; /* people replace it */
    if (type == NULL)
        return NULL;
    int running = kwnames == NULL ? is_running_here(self) : 0;
    if (running > 0)
        task = PyObject_CallOneArg(type, args[0]);
    else if (running == 0) {
        PyObject *stack[1 + 2 + TASK_KEYWORDS] = {NULL, args[0], (PyObject *)self};
        for (Py_ssize_t i = 0; i < nkw; i++)
            stack[3 + i] = args[nargs + i];
        PyObject *names = with_loop(st, kwnames);
        if (names != NULL)
            task = PyObject_Vectorcall(type, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, names);
        Py_XDECREF(names);
    }
    Py_DECREF(type);
    return task;
}
