/* Both ends of pipes, and what else may stand there: terminals, sockets. As asyncio's
   (unix_events.py): what is not said here is the same as for streams. */
#include "loop/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

int
cap_pipe_open(cap_transport *t, int fd)
{
    struct stat st;
    int flags;
    if (fstat(fd, &st) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    bool fifo = S_ISFIFO(st.st_mode);
    t->is_socket = S_ISSOCK(st.st_mode);
    /* A terminal is readable when somebody types: that says nothing of its writing side. */
    t->sees_peer = fifo || t->is_socket;
    if (!t->sees_peer && !S_ISCHR(st.st_mode)) {
        PyErr_SetString(PyExc_ValueError,
                        t->kind == CAP_READ_PIPE
                            ? "Pipe transport is for pipes/sockets only."
                            : "Pipe transport is only for pipes, sockets and character devices");
        return -1;
    }
    if ((flags = fcntl(fd, F_GETFL)) < 0 ||
        (!(flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

/* ---- what the watcher calls ---- */

static int
start_watching(cap_transport *t, bool writer)
{
    if (t->watch[writer] == NULL) {
        PyObject *self = (PyObject *)t;
        cap_handle *h = cap_handle_new(
            t->loop, cap_transport_method(t, writer ? CAP_ON_WRITE : CAP_ON_READ), &self, 1,
            t->context);
        if (h == NULL)
            return -1;
        /* Making it may have run Python. */
        if (!t->listed || t->watch[writer] != NULL) {
            Py_DECREF((PyObject *)h);
            return 0;
        }
        h->flags |= CAP_HANDLE_IO;
        t->watch[writer] = h;
    }
    if (cap_watcher_watch(t->loop, t->fd, t->watch[writer], writer) < 0)
        return -1;
    t->polled |= writer ? UV_WRITABLE : UV_READABLE;
    return 0;
}

static void
stop_watching(cap_transport *t, bool writer)
{
    t->polled &= ~(writer ? UV_WRITABLE : UV_READABLE);
    cap_watcher_unwatch(t->loop, t->fd, t->watch[writer], writer);
}

int
cap_pipe_update(cap_transport *t, int wanted)
{
    int changed = wanted ^ t->polled;
    Py_INCREF((PyObject *)t); /* perhaps the watcher's is the last reference */
    int rc = 0;
    if (changed & ~wanted & UV_READABLE)
        stop_watching(t, false);
    if (changed & ~wanted & UV_WRITABLE)
        stop_watching(t, true);
    if (changed & wanted & UV_READABLE)
        rc = start_watching(t, false);
    if (rc == 0 && (changed & wanted & UV_WRITABLE))
        rc = start_watching(t, true);
    Py_DECREF((PyObject *)t);
    return rc;
}

void
cap_pipe_detach(cap_transport *t)
{
    for (int writer = 0; writer < 2; writer++) {
        cap_handle *h = t->watch[writer];
        if (h == NULL)
            continue;
        stop_watching(t, writer);
        t->watch[writer] = NULL;
        Py_DECREF((PyObject *)h);
    }
}

/* ---- ends ---- */

/* Debug mode: a line in the log. */
static int
say_closed(cap_transport *t)
{
    if (!t->loop->debug)
        return 0;
    PyObject *done = PyObject_CallMethod((PyObject *)t, "_closed_by_peer", NULL);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

int
cap_pipe_read_eof(cap_transport *t)
{
    if (say_closed(t) < 0)
        return -1;
    if (t->loop == NULL || t->conn_lost)
        return 0;
    t->closing = true;
    t->conn_lost++;
    if (cap_transport_update(t) < 0 ||
        cap_transport_call_soon(t, cap_transport_method(t, CAP_ON_EOF), NULL, NULL) < 0)
        return -1;
    return cap_transport_call_soon(t, cap_transport_method(t, CAP_ON_LOST), Py_None, NULL);
}

int
cap_pipe_peer_gone(cap_transport *t)
{
    if (say_closed(t) < 0)
        return -1;
    if (t->len == 0)
        return cap_transport_force_close(t, Py_None);
    PyObject *exc = PyObject_CallNoArgs(PyExc_BrokenPipeError);
    int rc = exc != NULL ? cap_transport_force_close(t, exc) : -1;
    Py_XDECREF(exc);
    return rc;
}

/* ---- SIGPIPE ---- */

static ssize_t
write_all_of(int fd, const struct iovec *iov, size_t n)
{
    return n == 1 ? write(fd, iov->iov_base, iov->iov_len) : writev(fd, iov, (int)n);
}

/* There is no MSG_NOSIGNAL for pipes. CPython ignores the signal, and applications undo
   that (signal.signal(SIGPIPE, SIG_DFL)); so look, and keep it from this thread then. */
ssize_t
cap_pipe_write(int fd, const struct iovec *iov, size_t n)
{
    struct sigaction action;
    if (sigaction(SIGPIPE, NULL, &action) == 0 && !(action.sa_flags & SA_SIGINFO) &&
        action.sa_handler == SIG_IGN)
        return write_all_of(fd, iov, n);
    sigset_t blocked, before, pending;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGPIPE);
    sigemptyset(&pending);
    sigpending(&pending);
    bool was_pending = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &blocked, &before);
    ssize_t written = write_all_of(fd, iov, n);
    int error = errno;
    if (written < 0 && error == EPIPE && !was_pending) {
        /* It is this thread's, and waits already: nothing here can block. */
        int sig;
        sigpending(&pending);
        if (sigismember(&pending, SIGPIPE) == 1)
            sigwait(&blocked, &sig);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return written;
}
