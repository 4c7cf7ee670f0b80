/* The end of a worker whose supervisor is gone and whose loop does not notice.

   A thread of its own, which sleeps until the other end of a socket is closed, gives the
   process a time to end by itself, and then kills it: whatever holds the GIL. */
#ifndef CAP_POOL_LIFELINE_H
#define CAP_POOL_LIFELINE_H

/* Watch `fd`, one end of a socket pair, which stays open to the end of the process.
   `seconds` from the moment the other end is closed to SIGKILL. 0, or an errno. */
int cap_lifeline_start(int fd, unsigned seconds);

#endif
