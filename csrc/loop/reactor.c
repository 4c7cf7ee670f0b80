/* What both kinds of reactor share, and how a task begins. */
#include "loop/loop.h"

#include <string.h>

cap_reactor *
cap_reactor_acquire(cap_state *st, PyObject *loop)
{
    if (!cap_loop_check(st, loop))
        return cap_foreign_acquire(st, loop);
    cap_loop *own = (cap_loop *)loop;
    if (own->uv == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        return NULL;
    }
    return &own->reactor;
}

void
cap_reactor_release(cap_reactor *r)
{
    if (r->foreign)
        cap_foreign_release(r);
}

/* ---- deferred work ---- */

void
cap_reactor_defer(cap_reactor *r, cap_deferred *d)
{
    if (d->queued)
        return;
    d->queued = true;
    d->next = NULL;
    d->prev = r->last;
    if (r->last != NULL)
        r->last->next = d;
    else
        r->first = d;
    r->last = d;
    if (!r->running && r->want_turn != NULL)
        r->want_turn(r);
}

void
cap_reactor_undefer(cap_reactor *r, cap_deferred *d)
{
    if (!d->queued)
        return;
    d->queued = false;
    if (d->prev != NULL)
        d->prev->next = d->next;
    else
        r->first = d->next;
    if (d->next != NULL)
        d->next->prev = d->prev;
    else
        r->last = d->prev;
    d->next = d->prev = NULL;
}

static void
run_nothing(cap_deferred *Py_UNUSED(self))
{
}

void
cap_reactor_run_deferred(cap_reactor *r)
{
    if (r->first == NULL)
        return;
    /* Marks the end of what is queued now; anything before it may come and go. */
    cap_deferred end = {.run = run_nothing};
    bool was_running = r->running;
    r->running = true;
    cap_reactor_defer(r, &end);
    while (end.queued) {
        cap_deferred *d = r->first;
        cap_reactor_undefer(r, d);
        d->run(d);
    }
    r->running = was_running;
}

void
cap_reactor_flush(cap_reactor *r)
{
    if (!r->gathered)
        return;
    PyObject *exc = cap_err_take();
    r->flush_outbox(r->outbox);
    r->gathered = false; /* with what came meanwhile */
    cap_err_restore(exc);
}

void
cap_reactor_watchers_changed(cap_reactor *r)
{
    if (r->foreign && !r->running && r->want_turn != NULL)
        r->want_turn(r);
}

/* ---- errors ---- */

static void
keep_fatal(cap_reactor *r)
{
    if (r->fatal != NULL)
        PyErr_WriteUnraisable(r->loop); /* one of them is on its way already */
    else
        r->fatal = cap_err_take();
}

void
cap_reactor_report(cap_reactor *r, const char *message)
{
    if (cap_err_is_exit()) {
        keep_fatal(r);
        return;
    }
    PyObject *exc = cap_err_take(), *context = NULL, *done = NULL;
    if (exc == NULL)
        return;
    context = Py_BuildValue("{sssO}", "message", message, "exception", exc);
    if (context != NULL)
        done = PyObject_CallMethodOneArg(r->loop, r->st->str.call_exception_handler, context);
    if (done == NULL) {
        if (cap_err_is_exit())
            keep_fatal(r);
        else
            PyErr_WriteUnraisable(r->loop);
    }
    Py_XDECREF(done);
    Py_XDECREF(context);
    Py_DECREF(exc);
}

/* ---- tasks ---- */

/* loop.create_task(coro, context=context) */
static PyObject *
create_task(cap_reactor *r, PyObject *coro, PyObject *context)
{
    PyObject *stack[] = {r->loop, coro, context};
    return PyObject_VectorcallMethod(r->st->str.create_task, stack,
                                     2 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                     cap_loop_state_of(r->st)->create_kwnames);
}

#if CAP_HAVE_EAGER_TASKS
static PyObject *
eagerly_or_name(void)
{
    return Py_NewRef(Py_True);
}
#else
/* "Request-N". asyncio's own "Task-N" is made by a general formatter, which takes as long
   as all of the parsing of a small request; later versions put it off. */
static PyObject *
eagerly_or_name(void)
{
    static uint64_t last;
    char text[32] = "Request-", digits[20];
    size_t n = 0, len = 8;
    for (uint64_t value = ++last; value != 0; value /= 10)
        digits[n++] = (char)('0' + value % 10);
    while (n != 0)
        text[len++] = digits[--n];
    PyObject *name = PyUnicode_New((Py_ssize_t)len, 127);
    if (name != NULL)
        memcpy(PyUnicode_1BYTE_DATA(name), text, len);
    return name;
}
#endif

/* asyncio.Task(coro, loop=loop, context=context, eager_start=True), or name= on 3.11 */
static PyObject *
construct_task(cap_reactor *r, PyObject *coro, PyObject *context)
{
    PyObject *last = eagerly_or_name();
    if (last == NULL)
        return NULL;
    PyObject *stack[] = {NULL, coro, r->loop, context, last};
    PyObject *task = PyObject_Vectorcall(r->st->imp.asyncio_Task, stack + 1,
                                         1 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                         cap_loop_state_of(r->st)->task_kwnames);
    Py_DECREF(last);
    return task;
}

#if !CAP_HAVE_EAGER_TASKS
/* Without eager_start: the constructor's call_soon leaves the handle of the first
   step with us, and it is run here. */
static PyObject *
start_captured(cap_loop *loop, PyObject *coro, PyObject *context)
{
    cap_reactor *r = &loop->reactor;
    loop->capture = true;
    PyObject *task = construct_task(r, coro, context);
    loop->capture = false;
    cap_handle *h = loop->captured;
    loop->captured = NULL;
    if (h != NULL) {
        if (task != NULL && cap_loop_run_handle(loop, h) < 0)
            keep_fatal(r);
        Py_DECREF((PyObject *)h);
    }
    return task;
}
#endif

static int
has_task_factory(cap_reactor *r)
{
    if (!r->foreign)
        return CAP_LOOP_OF(r)->task_factory != NULL;
    PyObject *factory = PyObject_CallMethodNoArgs(r->loop, r->st->str.get_task_factory);
    if (factory == NULL)
        return -1;
    int has = factory != Py_None;
    Py_DECREF(factory);
    return has;
}

PyObject *
cap_task_start(cap_reactor *r, PyObject *coro, PyObject *context)
{
    int factory = has_task_factory(r);
    if (factory < 0)
        return NULL;
    if (factory)
        return create_task(r, coro, context);
#if CAP_HAVE_EAGER_TASKS
    return construct_task(r, coro, context);
#else
    /* The first step of one task inside that of another is refused by asyncio. */
    if (!r->foreign && !CAP_LOOP_OF(r)->in_ready && CAP_LOOP_OF(r)->has_thread)
        return start_captured(CAP_LOOP_OF(r), coro, context);
    return construct_task(r, coro, context);
#endif
}
