/* A connection on its way from one worker to another: its descriptor and what the next one
   has to know, as one message over a unix socket pair that all workers of a supervisor share.
   Whoever receives a message first has it. No Python, no libuv; nothing here waits. */
#ifndef CAP_POOL_HANDOVER_H
#define CAP_POOL_HANDOVER_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

#define CAP_HANDOVER_MAGIC 0x43415048u /* "CAPH" */
#define CAP_HANDOVER_VERSION 1u

enum {
    CAP_HANDOVER_UNIX = 1 << 0,    /* a unix socket */
    CAP_HANDOVER_USED = 1 << 1,    /* requests were served on it */
    CAP_HANDOVER_PROXIED = 1 << 2, /* `origin` is what the PROXY protocol said */
    CAP_HANDOVER_FRESH = 1 << 3,   /* nobody has read from it: a PROXY header may come first */
};

typedef union cap_inet {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
} cap_inet;

/* Client and server of a connection, other than its own two ends. */
typedef struct cap_origin {
    cap_inet client, server;
} cap_origin;

typedef struct cap_handover {
    uint32_t magic;
    uint16_t version;
    uint16_t flags;
    cap_origin origin;
} cap_handover;

/* Send a connection; its descriptor stays the caller's. 0, or an errno: EAGAIN when too many
   are on their way. */
int cap_handover_send(int channel, int fd, uint32_t flags, const cap_origin *origin);
/* The next one: 1, and *fd is the caller's (close-on-exec); 0: there is none; -1: a message
   that could not be used, its connection is lost. There has to be room for a descriptor: the
   kernel drops the one for which there is none. */
int cap_handover_receive(int channel, cap_handover *h, int *fd);

#endif
