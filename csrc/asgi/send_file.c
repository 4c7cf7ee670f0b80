/* Files in responses without passing through Python: http.response.pathsend (a whole
   file, which ends the response) and http.response.zerocopysend (a part of an open
   one). On a plain socket the kernel copies (sendfile); over TLS we read and write.

   What the socket does not take at once is bridged by one block that libuv writes: when
   that has left, there is room again, and the file goes on. */
#include "asgi/send_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/sendfile.h>
#endif

#include "base/mem.h"

/* A block that is read and queued; also the most that is taken of a file in one go, so
   that a fast client with a large file does not keep the loop from others. */
#define BLOCK 65536
#define TURN_MAX (4 << 20)

void
cap_file_free(cap_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    cap_free(f);
}

/* --- moving octets -------------------------------------------------------------------- */

/* Straight into the socket: octets sent, 0 when it takes none now, -1 with errno. */
static ssize_t
send_direct(cap_conn *c, cap_file *f)
{
#ifdef __linux__
    if (cap_conn_tls(c) == NULL && cap_conn_unsent(c) == 0) {
        size_t n = f->left < TURN_MAX ? (size_t)f->left : TURN_MAX;
        ssize_t sent = sendfile(cap_stream_fd(c->io), f->fd, &f->offset, n);
        if (sent >= 0)
            return sent == 0 ? (errno = ENODATA, -1) : sent; /* the file became shorter */
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    }
#endif
    (void)c;
    (void)f;
    return 0;
}

/* One block through memory. 0, or -1 with errno (EIO: no memory either). */
static int
send_block(cap_conn *c, cap_file *f)
{
    size_t n = f->left < BLOCK ? (size_t)f->left : BLOCK;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n);
    if (bytes == NULL) {
        PyErr_Clear();
        errno = ENOMEM;
        return -1;
    }
    size_t got = 0;
    while (got < n) {
        ssize_t r = pread(f->fd, PyBytes_AS_STRING(bytes) + got, n - got, f->offset + (off_t)got);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0) {
            int err = r == 0 ? ENODATA : errno;
            Py_DECREF(bytes);
            errno = err;
            return -1;
        }
        got += (size_t)r;
    }
    f->offset += (off_t)n;
    f->left -= n;
    Py_buffer view = {.buf = PyBytes_AS_STRING(bytes), .len = (Py_ssize_t)n, .obj = bytes};
    int rc = cap_conn_put_object(c, &view, NULL, 0, NULL, 0);
    Py_DECREF(bytes);
    if (rc < 0) {
        PyErr_Clear();
        errno = ENOMEM;
    }
    return rc;
}

/* The file cannot be read on: the response stays short, so the connection ends. */
static void
give_up(cap_request *r, int err)
{
    cap_conn *c = r->conn;
    PyObject *name = cap_request_name(r);
    PyErr_Clear();
    cap_server_log(r->server, CAP_LOG_ERROR, NULL, "The file of a response could not be read: %s. (%S)",
                   err == ENODATA ? "it became shorter" : strerror(err),
                   name != NULL ? name : Py_None);
    Py_XDECREF(name);
    if (r->conn == c)
        cap_conn_break(c);
}

void
cap_file_pump(cap_request *r)
{
    Py_INCREF((PyObject *)r);
    size_t turn = 0;
    while (r->file != NULL && r->conn != NULL && cap_conn_open(r->conn)) {
        cap_file *f = r->file;
        cap_conn *c = r->conn;
        if (f->left == 0) {
            bool last = f->last;
            r->file = NULL;
            cap_file_free(f);
            cap_send_content_done(r, last);
            break;
        }
        if (cap_conn_unsent(c) > CAP_LOW_WATER)
            break; /* cap_request_drained calls again */
        Py_INCREF((PyObject *)c);
        if (c->work->out.len != 0)
            cap_conn_flush(c);
        ssize_t n = r->file == f ? send_direct(c, f) : 0;
        int err = n < 0 ? errno : 0;
        if (n > 0) {
            cap_tally_add(&c->server->tally->octets_out, (uint64_t)n);
            f->left -= (size_t)n;
            turn += (size_t)n;
        }
        /* Nothing went directly, or this turn had its share: one block through libuv,
           whose end brings us back. */
        if (err == 0 && r->file == f && f->left != 0 && (n == 0 || turn >= TURN_MAX))
            err = send_block(c, f) < 0 ? errno : 0;
        if (err == EPIPE || err == ECONNRESET || err == ENOTCONN)
            cap_conn_close(c, true);
        else if (err != 0)
            give_up(r, err);
        bool stop = err != 0 || (turn >= TURN_MAX && cap_conn_unsent(c) != 0);
        Py_DECREF((PyObject *)c);
        if (stop)
            break;
    }
    Py_DECREF((PyObject *)r);
}

/* --- messages ---------------------------------------------------------------------------- */

/* Begin to send `count` octets of `fd` (taken over) from `offset`. */
static int
begin(cap_request *r, int fd, off_t offset, uint64_t count, bool last)
{
    cap_conn *c = r->conn;
    if (r->no_body)
        count = 0;
    if (r->has_length && !r->no_body) {
        if (count > r->length_left) {
            close(fd);
            PyErr_SetString(PyExc_RuntimeError, "Response content longer than Content-Length");
            return -1;
        }
        if (last && count < r->length_left) {
            close(fd);
            PyErr_SetString(PyExc_RuntimeError, "Response content shorter than Content-Length");
            return -1;
        }
        r->length_left -= count;
    }
    cap_file *f = cap_malloc(sizeof *f);
    if (f == NULL) {
        close(fd);
        PyErr_NoMemory();
        return -1;
    }
    *f = (cap_file){.fd = fd, .offset = offset, .left = count, .last = last};
    r->body_octets += count;
    if (r->chunked && count != 0) {
        char line[CAP_H1_CHUNK_LINE];
        if (cap_conn_put(c, line, cap_h1_chunk_line(line, (size_t)count)) < 0) {
            cap_file_free(f);
            return -1;
        }
        f->in_chunk = true;
    }
    r->in_file_chunk = f->in_chunk;
    r->file = f;
    cap_file_pump(r);
    return 0;
}

/* Reading the message may have run Python: is the content still ours to go on with? */
static bool
may_begin(const cap_request *r)
{
    return r->conn != NULL && r->response == CAP_RESPONSE_STARTED && r->file == NULL;
}

static int
send_path(cap_request *r, PyObject *path)
{
    PyObject *encoded = NULL;
    if (!PyUnicode_FSConverter(path, &encoded))
        return -1;
    int fd = open(PyBytes_AS_STRING(encoded), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    int err = errno;
    Py_DECREF(encoded);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) < 0) {
        if (fd >= 0) {
            err = errno;
            close(fd);
        }
        errno = err;
        PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
        return -1;
    }
    if (!S_ISREG(info.st_mode)) {
        close(fd);
        PyErr_Format(PyExc_RuntimeError, "http.response.pathsend: %R is not a regular file.", path);
        return -1;
    }
    if (!may_begin(r)) {
        close(fd);
        return 0;
    }
    return begin(r, fd, 0, (uint64_t)info.st_size, true);
}

int
cap_send_path(cap_request *r, PyObject *message)
{
    /* With a reference of our own: its __fspath__() may change the message. */
    PyObject *path = Py_XNewRef(PyDict_GetItemWithError(message, r->st->str.path));
    if (path == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_KeyError, "path");
        return -1;
    }
    int rc = send_path(r, path);
    Py_DECREF(path);
    return rc;
}

/* All but `file` may be NULL. */
static int
send_part(cap_request *r, PyObject *file, PyObject *offset, PyObject *count, PyObject *more)
{
    int given = PyObject_AsFileDescriptor(file);
    if (given < 0)
        return -1;
    long long at = 0, n = -1;
    if (offset != NULL && offset != Py_None)
        at = PyLong_AsLongLong(offset);
    else if ((at = lseek(given, 0, SEEK_CUR)) < 0)
        PyErr_SetFromErrno(PyExc_OSError);
    if (!PyErr_Occurred() && count != NULL && count != Py_None)
        n = PyLong_AsLongLong(count);
    int last = more == NULL || PyObject_IsTrue(more) == 0;
    if (PyErr_Occurred())
        return -1;
    struct stat info;
    if (fstat(given, &info) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (at < 0 || !S_ISREG(info.st_mode) || (n >= 0 && (at > info.st_size || n > info.st_size - at))) {
        PyErr_SetString(PyExc_RuntimeError, "http.response.zerocopysend: the file is not regular, or "
                                            "shorter than offset and count say.");
        return -1;
    }
    if (n < 0)
        n = info.st_size > at ? info.st_size - at : 0;
    if (!may_begin(r))
        return 0;
    int fd = fcntl(given, F_DUPFD_CLOEXEC, 0); /* the application may close its own */
    if (fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return begin(r, fd, (off_t)at, (uint64_t)n, last);
}

int
cap_send_part(cap_request *r, PyObject *message)
{
    cap_state *st = r->st;
    PyObject *const keys[] = {st->str.file, st->str.offset, st->str.count, st->str.more_body};
    PyObject *value[4] = {NULL}; /* of our own: fileno() and the like may change the message */
    int rc = 0;
    for (int i = 0; i < 4 && rc == 0; i++) {
        value[i] = Py_XNewRef(PyDict_GetItemWithError(message, keys[i]));
        if (value[i] == NULL && PyErr_Occurred())
            rc = -1;
    }
    if (rc == 0 && value[0] == NULL) {
        PyErr_SetString(PyExc_KeyError, "file");
        rc = -1;
    }
    if (rc == 0)
        rc = send_part(r, value[0], value[1], value[2], value[3]);
    for (int i = 0; i < 4; i++)
        Py_XDECREF(value[i]);
    return rc;
}
