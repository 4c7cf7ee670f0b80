/* Accepting for create_server: descriptors and addresses, without a Python socket for each.
   What becomes of them is in Python (python/capicorn/loop.py). */
#include "loop/address.h"
#include "loop/loop.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#define BURST_MAX 128

/* How many to take now. The call that finds nothing costs as much as one that finds a
   connection, so one at a time, unless they come in turn after turn. */
static unsigned
burst(cap_loop *loop, int fd)
{
    uv_metrics_t metrics;
    if (loop->uv == NULL || uv_metrics_info(&loop->uv->loop, &metrics) < 0)
        return 1;
    bool again = loop->accept.fd == fd && metrics.loop_count - loop->accept.turn <= 1;
    loop->accept.fd = fd;
    loop->accept.turn = metrics.loop_count;
    if (!again)
        loop->accept.burst = 1;
    else if (loop->accept.burst < BURST_MAX)
        loop->accept.burst *= 2;
    return loop->accept.burst;
}

static int
append_pair(PyObject *list, int fd, const cap_address *from)
{
    PyObject *peer = cap_address_to_python(from);
    PyObject *pair = peer != NULL ? Py_BuildValue("iN", fd, peer) : NULL;
    int rc = pair != NULL ? PyList_Append(list, pair) : -1;
    Py_XDECREF(pair);
    return rc;
}

PyObject *
cap_loop_accept(cap_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_accept(fd, limit)");
        return NULL;
    }
    long fd = PyLong_AsLong(args[0]), limit = PyLong_AsLong(args[1]);
    if (PyErr_Occurred())
        return NULL;
    PyObject *list = PyList_New(0);
    if (list == NULL)
        return NULL;
    long n = (long)burst(loop, (int)fd);
    if (n > limit)
        n = limit;
    while (n > 0) {
        cap_address from;
        from.len = sizeof from.raw;
        int conn =
            accept4((int)fd, (struct sockaddr *)&from.raw, &from.len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (conn >= 0) {
            int on = 1;
            if (from.raw.ss_family == AF_INET || from.raw.ss_family == AF_INET6)
                (void)setsockopt(conn, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            if (append_pair(list, conn, &from) < 0) {
                close(conn);
                /* Those before it are served. */
                if (PyList_GET_SIZE(list) == 0)
                    goto fail;
                PyErr_Clear();
                break;
            }
            n--;
            continue;
        }
        if (errno == ECONNABORTED)
            continue;
        if (PyList_GET_SIZE(list) == 0 && errno != EAGAIN && errno != EWOULDBLOCK &&
            errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            goto fail;
        }
        break; /* there is no more; or it comes again, with its error */
    }
    return list;
fail:
    Py_DECREF(list);
    return NULL;
}
