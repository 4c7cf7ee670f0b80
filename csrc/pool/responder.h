/* Answers to health checks, in plain C: GET and HEAD of one path on a listening socket of
   its own, one request on each connection. Bounded in connections, octets and time. For
   one thread, which polls; nothing here waits. */
#ifndef CAP_POOL_RESPONDER_H
#define CAP_POOL_RESPONDER_H

#include "pool/health.h"

#include <poll.h>

#define CAP_HEALTH_CONNECTIONS 32
#define CAP_HEALTH_TIMEOUT 5000  /* ms for one */
#define CAP_HEALTH_LINGER 1000   /* ms for the client to take the answer and close */

typedef struct cap_health_conn {
    int fd;                   /* -1: free */
    bool answered;
    uint64_t deadline;
    size_t len;
    char head[CAP_HEALTH_HEAD];
} cap_health_conn;

typedef struct cap_responder {
    const cap_health *set;
    uint64_t accept_at;       /* descriptors ran out: not before; 0: now */
    cap_health_conn conn[CAP_HEALTH_CONNECTIONS];
} cap_responder;

void cap_responder_init(cap_responder *r, const cap_health *set);
void cap_responder_close(cap_responder *r);

/* What to poll for, at most CAP_HEALTH_CONNECTIONS + 1 entries; how many. `due` becomes
   the earliest deadline, if that is before. */
size_t cap_responder_poll(const cap_responder *r, struct pollfd *p, uint64_t *due);
/* Do what those entries say. */
void cap_responder_serve(cap_responder *r, const struct pollfd *p, size_t n, uint64_t now);

#endif
