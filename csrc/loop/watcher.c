/* Descriptors watched for add_reader and add_writer: an epoll set of our own that
   libuv polls as one descriptor.

   Not a uv_poll_t each, since libuv tells the kernel of a new watcher only at its
   next poll and calls abort() when the descriptor was closed meanwhile, which
   asyncio's users do. Here the kernel is asked at once and its error is raised,
   closed descriptors vanish as they do with selectors.EpollSelector, nothing is
   made non-blocking behind the owner's back, and adding or removing one costs
   one system call. The price is one epoll_wait for each poll that found some. */
#include "loop/loop.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/epoll.h>
#include <unistd.h>

int
cap_watcher_open(cap_loop *loop)
{
    cap_watcher *w = &loop->watcher;
    w->fd = epoll_create1(EPOLL_CLOEXEC);
    if (w->fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

static void
forget(cap_watch *watch)
{
    PyObject *fileobj = watch->fileobj;
    cap_handle *reader = watch->reader, *writer = watch->writer;
    watch->fileobj = NULL;
    watch->reader = watch->writer = NULL;
    Py_XDECREF(fileobj);
    Py_XDECREF((PyObject *)reader);
    Py_XDECREF((PyObject *)writer);
}

void
cap_watcher_close(cap_loop *loop)
{
    cap_watcher *w = &loop->watcher;
    cap_watch *item = w->item;
    size_t len = w->len;
    w->item = NULL;
    w->len = 0;
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
    for (size_t i = 0; i < len; i++)
        forget(&item[i]);
    cap_free(item);
}

int
cap_watcher_traverse(cap_loop *loop, visitproc visit, void *arg)
{
    for (size_t i = 0; i < loop->watcher.len; i++) {
        Py_VISIT(loop->watcher.item[i].fileobj);
        Py_VISIT((PyObject *)loop->watcher.item[i].reader);
        Py_VISIT((PyObject *)loop->watcher.item[i].writer);
    }
    return 0;
}

static uint32_t
events_of(const cap_watch *watch)
{
    return (watch->reader != NULL ? (uint32_t)EPOLLIN : 0) |
           (watch->writer != NULL ? (uint32_t)EPOLLOUT : 0);
}

/* The descriptor of an int or an object with fileno(), as selectors takes it; -1
   with ValueError. */
static int
descriptor_of(PyObject *fileobj)
{
    PyObject *number = NULL;
    if (PyLong_Check(fileobj))
        number = Py_NewRef(fileobj);
    else {
        PyObject *given = PyObject_CallMethod(fileobj, "fileno", NULL);
        if (given != NULL) {
            number = PyNumber_Long(given);
            Py_DECREF(given);
        }
        if (number == NULL) {
            if (PyErr_ExceptionMatches(PyExc_AttributeError) ||
                PyErr_ExceptionMatches(PyExc_TypeError) ||
                PyErr_ExceptionMatches(PyExc_ValueError)) {
                PyErr_Clear();
                PyErr_Format(PyExc_ValueError, "Invalid file object: %R", fileobj);
            }
            return -1;
        }
    }
    int overflow;
    long fd = PyLong_AsLongAndOverflow(number, &overflow);
    Py_DECREF(number);
    if (overflow == 0 && fd >= 0 && fd <= INT_MAX)
        return (int)fd;
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %ld", fd);
    return -1;
}

/* The watch of `fd`, an int or an object with fileno(). When the object has been
   closed it is looked for by identity, as selectors does. NULL: none; with an
   exception when *fd is negative. */
static cap_watch *
find(cap_watcher *w, PyObject *fileobj, int *fd)
{
    *fd = descriptor_of(fileobj);
    if (*fd >= 0)
        return (size_t)*fd < w->len && w->item[*fd].fileobj != NULL ? &w->item[*fd] : NULL;
    if (!PyErr_ExceptionMatches(PyExc_ValueError))
        return NULL;
    for (size_t i = 0; i < w->len; i++) {
        if (w->item[i].fileobj == fileobj) {
            PyErr_Clear();
            *fd = (int)i;
            return &w->item[i];
        }
    }
    return NULL;
}

/* Tell the kernel. 0, or -1 with an exception and nothing changed. */
static int
control(cap_watcher *w, int fd, uint32_t before, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.fd = fd};
    int op = before == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    if (before == events && op == EPOLL_CTL_MOD) {
        /* Replacing a callback: the kernel knows, unless the descriptor was closed
           and its number came back. */
        if (epoll_ctl(w->fd, EPOLL_CTL_MOD, fd, &ev) == 0)
            return 0;
        op = EPOLL_CTL_ADD;
    }
    if (epoll_ctl(w->fd, op, fd, &ev) == 0)
        return 0;
    if (op == EPOLL_CTL_MOD && errno == ENOENT && epoll_ctl(w->fd, EPOLL_CTL_ADD, fd, &ev) == 0)
        return 0;
    if (op == EPOLL_CTL_ADD && errno == EEXIST && epoll_ctl(w->fd, EPOLL_CTL_MOD, fd, &ev) == 0)
        return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static int
make_room(cap_watcher *w, int fd)
{
    size_t need = (size_t)fd + 1, len = w->len != 0 ? w->len : 16;
    if (need <= w->len)
        return 0;
    if (fcntl(fd, F_GETFD) < 0) { /* any number: no memory for what there is not */
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    while (len < need)
        len *= 2;
    cap_watch *item = cap_realloc(w->item, len * sizeof *item);
    if (item == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memset(item + w->len, 0, (len - w->len) * sizeof *item);
    w->item = item;
    w->len = len;
    return 0;
}

/* `fileobj` NULL: the number of `fd` itself. */
static int
watch(cap_loop *loop, PyObject *fileobj, int fd, cap_handle *h, bool writer)
{
    cap_watcher *w = &loop->watcher;
    if (w->fd < 0) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        return -1;
    }
    PyObject *key = fileobj != NULL ? Py_NewRef(fileobj) : PyLong_FromLong(fd);
    if (key == NULL)
        return -1;
    if (make_room(w, fd) < 0)
        goto fail;
    cap_watch *watch = &w->item[fd];
    uint32_t before = events_of(watch);
    if (control(w, fd, before, before | (uint32_t)(writer ? EPOLLOUT : EPOLLIN)) < 0)
        goto fail;
    if (watch->fileobj == NULL)
        watch->fileobj = Py_NewRef(key);
    Py_DECREF(key);
    cap_handle **at = writer ? &watch->writer : &watch->reader, *old = *at;
    *at = (cap_handle *)Py_NewRef((PyObject *)h);
    int rc = old != NULL && old != h ? cap_handle_cancel(old) : 0;
    Py_XDECREF((PyObject *)old);
    return rc;
fail:
    Py_DECREF(key);
    return -1;
}

PyObject *
cap_watcher_add(cap_loop *loop, PyObject *const *args, Py_ssize_t nargs, bool writer,
                PyObject *context)
{
    int fd;
    if (nargs < 2) {
        PyErr_SetString(PyExc_TypeError, "a descriptor and a callback are needed");
        return NULL;
    }
    if (find(&loop->watcher, args[0], &fd) == NULL && fd < 0)
        return NULL;
    cap_handle *h = cap_handle_new(loop, args[1], args + 2, nargs - 2, context);
    /* Making it ran Python (debug mode, a collection): nothing that was found holds. */
    if (h != NULL && watch(loop, args[0], fd, h, writer) < 0)
        Py_CLEAR(h);
    return (PyObject *)h;
}

int
cap_watcher_watch(cap_loop *loop, int fd, cap_handle *h, bool writer)
{
    return watch(loop, NULL, fd, h, writer);
}

/* Takes out one of a watch. The reference of its handle goes to the caller. */
static cap_handle *
take_out(cap_loop *loop, int fd, bool writer)
{
    cap_watch *watch = &loop->watcher.item[fd];
    cap_handle **at = writer ? &watch->writer : &watch->reader, *old = *at;
    if (old == NULL)
        return NULL;
    *at = NULL;
    struct epoll_event ev = {.events = events_of(watch), .data.fd = fd};
    PyObject *last = NULL;
    if (ev.events == 0) {
        last = watch->fileobj;
        watch->fileobj = NULL;
    }
    /* Fails when the descriptor was closed first: then the kernel forgot it. After a
       fork the set is shared with the parent, who goes on using it. */
    if (loop->forks == cap_forks)
        (void)epoll_ctl(loop->watcher.fd, ev.events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD, fd,
                        &ev);
    Py_XDECREF(last);
    return old;
}

void
cap_watcher_unwatch(cap_loop *loop, int fd, cap_handle *h, bool writer)
{
    cap_watcher *w = &loop->watcher;
    if (fd < 0 || (size_t)fd >= w->len ||
        (writer ? w->item[fd].writer : w->item[fd].reader) != h)
        return;
    Py_DECREF((PyObject *)take_out(loop, fd, writer));
}

PyObject *
cap_watcher_remove(cap_loop *loop, PyObject *fileobj, bool writer)
{
    cap_watcher *w = &loop->watcher;
    int fd;
    cap_watch *watch = find(w, fileobj, &fd);
    if (watch == NULL)
        return fd < 0 ? NULL : Py_NewRef(Py_False);
    cap_handle *old = take_out(loop, fd, writer);
    if (old == NULL)
        Py_RETURN_FALSE;
    int rc = cap_handle_cancel(old);
    Py_DECREF((PyObject *)old);
    if (rc < 0)
        return NULL;
    Py_RETURN_TRUE;
}

PyObject *
cap_watcher_lookup(cap_loop *loop, PyObject *fileobj)
{
    int fd;
    cap_watch *watch = find(&loop->watcher, fileobj, &fd);
    if (watch == NULL)
        return fd < 0 ? NULL : Py_NewRef(Py_None);
    /* selectors.EVENT_READ is 1, EVENT_WRITE 2 */
    int events = (watch->reader != NULL ? 1 : 0) | (watch->writer != NULL ? 2 : 0);
    PyObject *reader = watch->reader != NULL ? (PyObject *)watch->reader : Py_None;
    PyObject *writer = watch->writer != NULL ? (PyObject *)watch->writer : Py_None;
    /* With references of their own: making the tuple may run the collector, and that Python. */
    return Py_BuildValue("NiiNN", Py_NewRef(watch->fileobj), fd, events, Py_NewRef(reader),
                         Py_NewRef(writer));
}

PyObject *
cap_watcher_fds(cap_loop *loop)
{
    PyObject *fds = PyList_New(0);
    for (size_t i = 0; fds != NULL && i < loop->watcher.len; i++) {
        if (loop->watcher.item[i].fileobj == NULL)
            continue;
        PyObject *fd = PyLong_FromSize_t(i);
        if (fd == NULL || PyList_Append(fds, fd) < 0)
            Py_CLEAR(fds);
        Py_XDECREF(fd);
    }
    return fds;
}

static int
queue(cap_loop *loop, cap_handle *h)
{
    return cap_ready_push(h->flags & CAP_HANDLE_IO ? &loop->io : &loop->ready, h);
}

int
cap_watcher_collect(cap_loop *loop)
{
    cap_watcher *w = &loop->watcher;
    struct epoll_event ev[128];
    int n;
    do
        n = epoll_wait(w->fd, ev, 128, 0);
    while (n < 0 && errno == EINTR);
    /* Only queues handles: no Python runs, so nothing is removed meanwhile. More
       than 128: the set is still readable at the next poll. */
    for (int i = 0; i < n; i++) {
        size_t fd = (size_t)ev[i].data.fd;
        if (fd >= w->len || w->item[fd].fileobj == NULL)
            continue;
        cap_watch *watch = &w->item[fd];
        /* An error or a hang-up wakes both, as with selectors. */
        if ((ev[i].events & ~(uint32_t)EPOLLOUT) && watch->reader != NULL &&
            !(watch->reader->flags & CAP_HANDLE_CANCELLED) &&
            queue(loop, watch->reader) < 0)
            return -1;
        if ((ev[i].events & ~(uint32_t)EPOLLIN) && watch->writer != NULL &&
            !(watch->writer->flags & CAP_HANDLE_CANCELLED) &&
            queue(loop, watch->writer) < 0)
            return -1;
    }
    return 0;
}
