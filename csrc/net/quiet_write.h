/* What libuv's streams call instead of write() and writev(): tools/build_deps.py renames
   the calls in its stream.c. Their descriptors are sockets, and a peer that is gone is an
   error there (EPIPE), never SIGPIPE: CPython ignores that signal, but an application may
   set it back to its default, which ends the process. (A libuv of the system,
   CAPICORN_SYSTEM_LIBS, does not know of this.)

   Any thread. As write() and writev(). */
#ifndef CAP_NET_QUIET_WRITE_H
#define CAP_NET_QUIET_WRITE_H

#include <sys/types.h>
#include <sys/uio.h>

ssize_t cap_quiet_write(int fd, const void *data, size_t size);
ssize_t cap_quiet_writev(int fd, const struct iovec *iov, int n);

#endif
