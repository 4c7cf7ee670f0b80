/* Health checks: which path they have, when the answer is yes, and what it looks like. */
#ifndef CAP_POOL_HEALTH_H
#define CAP_POOL_HEALTH_H

#include "pool/scoreboard.h"

#define CAP_HEALTH_HEAD 2048     /* octets of a request */
#define CAP_HEALTH_ANSWER 320    /* octets of an answer, at most */

typedef struct cap_health {
    int fd;                   /* listening, non-blocking; the caller's; -1: none of its own */
    char path[256];           /* "": no health checks */
    const cap_board *board;   /* ready is when one of its workers serves; or NULL: */
    _Atomic uint32_t *ready;  /* ... when this is not 0 */
} cap_health;

bool cap_health_ready(const cap_health *h);

/* Is this target (its query is looked away from) the path of health checks? */
bool cap_health_is_path(const cap_health *h, const char *target, size_t len);

/* A health check on a connection that others have, too: is it at the front of these octets,
   whole, without content, and in no way unusual? Its octets; 0 when it is not, or not yet.
   `close`: the connection ends with the answer. */
size_t cap_health_find(const cap_health *h, const char *data, size_t len, bool *no_content,
                       bool *close);
/* Its answer; how long. */
size_t cap_health_answer(const cap_health *h, bool no_content, bool close,
                         char out[CAP_HEALTH_ANSWER]);

#endif
