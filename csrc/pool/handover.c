#include "pool/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Room for one descriptor, aligned as the kernel wants it. */
typedef union control {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof(int))];
} control;

int
cap_handover_send(int channel, int fd, uint32_t flags, const cap_origin *origin)
{
    cap_handover h = {.magic = CAP_HANDOVER_MAGIC, .version = CAP_HANDOVER_VERSION,
                      .flags = (uint16_t)flags};
    if (origin != NULL) {
        h.origin = *origin;
        h.flags |= CAP_HANDOVER_PROXIED;
    }
    control c;
    memset(&c, 0, sizeof c);
    struct iovec iov = {.iov_base = &h, .iov_len = sizeof h};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c,
                       .msg_controllen = sizeof c.room};
    struct cmsghdr *head = CMSG_FIRSTHDR(&m);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    ssize_t n;
    do
        n = sendmsg(channel, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof h ? 0 : n < 0 ? errno : EMSGSIZE;
}

int
cap_handover_receive(int channel, cap_handover *h, int *fd)
{
    control c;
    struct iovec iov = {.iov_base = h, .iov_len = sizeof *h};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c,
                       .msg_controllen = sizeof c.room};
#ifdef MSG_CMSG_CLOEXEC
    const int flags = MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
#else
    const int flags = MSG_DONTWAIT;
#endif
    *fd = -1;
    ssize_t n;
    do
        n = recvmsg(channel, &m, flags);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return 0; /* nothing there, or nobody will send any more */
    struct cmsghdr *head = CMSG_FIRSTHDR(&m);
    if (head != NULL && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
        head->cmsg_len == CMSG_LEN(sizeof *fd))
        memcpy(fd, CMSG_DATA(head), sizeof *fd);
    if (*fd < 0)
        return -1;
#ifndef MSG_CMSG_CLOEXEC
    (void)fcntl(*fd, F_SETFD, FD_CLOEXEC);
#endif
    if (n == (ssize_t)sizeof *h && h->magic == CAP_HANDOVER_MAGIC &&
        h->version == CAP_HANDOVER_VERSION)
        return 1;
    close(*fd);
    *fd = -1;
    return -1;
}
