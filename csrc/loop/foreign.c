/* A reactor inside somebody else's asyncio loop (asyncio's own, uvloop's): a
   uv_loop whose backend descriptor that loop watches. When it is readable, or a
   timer is due, or we ask for it, `drive` runs one turn that does not sleep.

   The descriptor does not know watchers that were added since the last uv_run;
   uv_backend_timeout() says 0 then, so that one more turn is asked for. */
#include "loop/loop.h"

#include "base/mem.h"

typedef struct cap_foreign {
    PyObject_HEAD
    cap_reactor reactor;
    uv_loop_t *uv;         /* NULL: closed */
    uv_async_t *keep;      /* something active: without it uv_backend_timeout() is 0 */
    PyObject *drive;       /* bound methods */
    PyObject *drive_timer;
    PyObject *timer;       /* what the loop's call_later gave for the next timer; or NULL */
    uint64_t timer_due;    /* in uv_now()'s ms */
    bool scheduled;        /* a call_soon(drive) is under way */
    bool closing;          /* released from inside drive */
    Py_ssize_t users;
    struct cap_foreign *next; /* in cap_loop_state.drivers, which owns a reference */
} cap_foreign;

#define FOREIGN_OF(r) ((cap_foreign *)((char *)(r) - offsetof(cap_foreign, reactor)))

static void close_driver(cap_foreign *self);

static void
forget_error(cap_foreign *self)
{
    /* A loop that is closed refuses; its driver will be released. */
    if (PyErr_ExceptionMatches(PyExc_RuntimeError))
        PyErr_Clear();
    else
        PyErr_WriteUnraisable((PyObject *)self);
}

static void
want_turn(cap_reactor *r)
{
    cap_foreign *self = FOREIGN_OF(r);
    if (self->scheduled || self->uv == NULL)
        return;
    self->scheduled = true;
    PyObject *handle = PyObject_CallMethodOneArg(r->loop, r->st->str.call_soon, self->drive);
    if (handle == NULL) {
        self->scheduled = false;
        forget_error(self);
    }
    Py_XDECREF(handle);
}

static void
cancel_timer(cap_foreign *self)
{
    PyObject *timer = self->timer;
    self->timer = NULL;
    if (timer == NULL)
        return;
    PyObject *done = PyObject_CallMethodNoArgs(timer, self->reactor.st->str.cancel);
    if (done == NULL)
        PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(done);
    Py_DECREF(timer);
}

/* See that the next turn comes when it has to. */
static void
arm(cap_foreign *self)
{
    cap_reactor *r = &self->reactor;
    if (self->uv == NULL || self->scheduled)
        return;
    uv_update_time(self->uv);
    int ms = uv_backend_timeout(self->uv);
    if (ms == 0 || r->first != NULL) {
        want_turn(r);
        return;
    }
    if (ms < 0)
        return; /* an earlier timer that is still under way finds nothing to do */
    uint64_t due = uv_now(self->uv) + (uint64_t)ms;
    if (self->timer != NULL && self->timer_due <= due)
        return;
    cancel_timer(self);
    PyObject *delay = PyFloat_FromDouble(ms / 1e3), *timer = NULL;
    if (delay != NULL)
        timer = PyObject_CallMethodObjArgs(r->loop, r->st->str.call_later, delay,
                                           self->drive_timer, NULL);
    Py_XDECREF(delay);
    if (timer == NULL) {
        forget_error(self);
        return;
    }
    Py_XSETREF(self->timer, timer);
    self->timer_due = due;
}

static PyObject *
run_turn(cap_foreign *self)
{
    cap_reactor *r = &self->reactor;
    if (self->uv == NULL || r->running)
        Py_RETURN_NONE; /* closed; or a nested loop runs inside one of our callbacks */
    Py_INCREF((PyObject *)self);
    r->running = true;
    uv_run(self->uv, UV_RUN_NOWAIT);
    cap_reactor_run_deferred(r);
    r->running = false;
    PyObject *fatal = r->fatal;
    r->fatal = NULL;
    if (self->closing)
        close_driver(self);
    else
        arm(self);
    Py_DECREF((PyObject *)self);
    if (fatal != NULL) {
        cap_err_restore(fatal);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
foreign_drive(cap_foreign *self, PyObject *Py_UNUSED(ignored))
{
    self->scheduled = false;
    return run_turn(self);
}

static PyObject *
foreign_drive_timer(cap_foreign *self, PyObject *Py_UNUSED(ignored))
{
    Py_CLEAR(self->timer);
    return run_turn(self);
}

/* ---- life ---- */

static void
on_keep(uv_async_t *Py_UNUSED(async))
{
}

static void
on_keep_closed(uv_handle_t *handle)
{
    cap_count.uv_handles--;
    cap_free(handle);
}

static void
close_uv(cap_foreign *self)
{
    uv_loop_t *uv = self->uv;
    self->uv = NULL;
    self->reactor.uv = NULL;
    if (uv == NULL)
        return;
    if (self->keep != NULL)
        uv_close((uv_handle_t *)self->keep, on_keep_closed);
    self->keep = NULL;
    for (int i = 0; i < 8 && uv_loop_alive(uv); i++)
        uv_run(uv, UV_RUN_NOWAIT);
    if (uv_loop_close(uv) == 0) {
        cap_free(uv);
        return;
    }
    /* Somebody's handle is still open: the memory stays with it. */
    if (PyErr_ResourceWarning((PyObject *)self, 1,
                              "a reactor was released while something in C still used it") < 0)
        PyErr_WriteUnraisable((PyObject *)self);
}

static void
close_driver(cap_foreign *self)
{
    cap_loop_state *ls = cap_loop_state_of(self->reactor.st);
    for (cap_foreign **at = &ls->drivers; *at != NULL; at = &(*at)->next) {
        if (*at == self) {
            *at = self->next;
            break;
        }
    }
    self->next = NULL;
    cancel_timer(self);
    PyObject *closed = PyObject_CallMethod(self->reactor.loop, "is_closed", NULL);
    int gone = closed != NULL ? PyObject_IsTrue(closed) : -1;
    Py_XDECREF(closed);
    if (gone == 0) {
        PyObject *done = PyObject_CallMethod(self->reactor.loop, "remove_reader", "i",
                                             uv_backend_fd(self->uv));
        if (done == NULL)
            forget_error(self);
        Py_XDECREF(done);
    }
    else if (gone < 0)
        PyErr_WriteUnraisable((PyObject *)self);
    close_uv(self);
    Py_CLEAR(self->drive); /* bound to self: a cycle */
    Py_CLEAR(self->drive_timer);
    Py_DECREF((PyObject *)self); /* the list's */
}

static int
open_uv(cap_foreign *self)
{
    uv_loop_t *uv = cap_calloc(1, sizeof *uv);
    uv_async_t *keep = cap_calloc(1, sizeof *keep);
    int rc = uv != NULL && keep != NULL ? uv_loop_init(uv) : UV_ENOMEM;
    if (rc < 0) {
        cap_free(uv);
        cap_free(keep);
        goto fail;
    }
    self->uv = self->reactor.uv = uv;
    uv->data = self;
    if ((rc = uv_async_init(uv, keep, on_keep)) < 0) {
        cap_free(keep);
        goto fail;
    }
    self->keep = keep;
    cap_count.uv_handles++;
    return 0;
fail:
    errno = -rc;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

cap_reactor *
cap_foreign_acquire(cap_state *st, PyObject *loop)
{
    cap_loop_state *ls = cap_loop_state_of(st);
    for (cap_foreign *d = ls->drivers; d != NULL; d = d->next) {
        if (d->reactor.loop == loop && !d->closing) {
            d->users++;
            return &d->reactor;
        }
    }
    cap_foreign *self = PyObject_GC_New(cap_foreign, st->type.ForeignDriver);
    if (self == NULL)
        return NULL;
    memset((char *)self + offsetof(cap_foreign, reactor), 0,
           sizeof *self - offsetof(cap_foreign, reactor));
    self->reactor.st = st;
    self->reactor.loop = Py_NewRef(loop);
    self->reactor.foreign = true;
    self->reactor.want_turn = want_turn;
    PyObject_GC_Track((PyObject *)self);
    if (open_uv(self) < 0 ||
        (self->drive = PyObject_GetAttrString((PyObject *)self, "drive")) == NULL ||
        (self->drive_timer = PyObject_GetAttrString((PyObject *)self, "drive_timer")) == NULL)
        goto fail;
    PyObject *done = PyObject_CallMethod(loop, "add_reader", "iO", uv_backend_fd(self->uv),
                                         self->drive);
    if (done == NULL)
        goto fail;
    Py_DECREF(done);
    self->users = 1;
    self->next = ls->drivers;
    ls->drivers = self; /* with our reference */
    return &self->reactor;
fail:;
    PyObject *exc = cap_err_take();
    close_uv(self);
    Py_CLEAR(self->drive);
    Py_CLEAR(self->drive_timer);
    Py_DECREF((PyObject *)self);
    cap_err_restore(exc);
    return NULL;
}

void
cap_foreign_release(cap_reactor *r)
{
    cap_foreign *self = FOREIGN_OF(r);
    assert(self->users > 0);
    if (--self->users != 0)
        return;
    if (r->running)
        self->closing = true; /* uv_run is below us: drive closes when it has returned */
    else
        close_driver(self);
}

static int
foreign_traverse(cap_foreign *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->reactor.loop);
    Py_VISIT(self->reactor.fatal);
    Py_VISIT(self->drive);
    Py_VISIT(self->drive_timer);
    Py_VISIT(self->timer);
    return 0;
}

static void
foreign_dealloc(cap_foreign *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack((PyObject *)self);
    assert(self->uv == NULL); /* the list's reference goes when it is closed */
    Py_CLEAR(self->reactor.loop);
    Py_CLEAR(self->reactor.fatal);
    Py_CLEAR(self->drive);
    Py_CLEAR(self->drive_timer);
    Py_CLEAR(self->timer);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef foreign_methods[] = {
    {"drive", (PyCFunction)foreign_drive, METH_NOARGS,
     PyDoc_STR("drive($self)\n--\n\nOne turn of the reactor.")},
    {"drive_timer", (PyCFunction)foreign_drive_timer, METH_NOARGS,
     PyDoc_STR("drive_timer($self)\n--\n\nOne turn of the reactor: a timer is due.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot foreign_slots[] = {
    {Py_tp_doc, PyDoc_STR("Drives the server's libuv loop inside another asyncio loop.")},
    {Py_tp_dealloc, foreign_dealloc},
    {Py_tp_traverse, foreign_traverse},
    {Py_tp_methods, foreign_methods},
    {0, NULL},
};

static PyType_Spec foreign_spec = {
    .name = "capicorn._core.ForeignDriver",
    .basicsize = sizeof(cap_foreign),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = foreign_slots,
};

int
cap_foreign_type_init(PyObject *module, cap_state *st)
{
    st->type.ForeignDriver =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &foreign_spec, NULL);
    return st->type.ForeignDriver != NULL ? 0 : -1;
}
