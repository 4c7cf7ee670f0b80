#include "pool/lifeline.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define STACK (64 * 1024)

typedef struct lifeline {
    int fd;
    unsigned seconds;
} lifeline;

static void *
watch(void *arg)
{
    lifeline l = *(lifeline *)arg;
    free(arg);
    struct pollfd p = {.fd = l.fd, .events = 0}; /* POLLHUP comes without being asked for */
    while (poll(&p, 1, -1) < 0 || !(p.revents & (POLLHUP | POLLERR | POLLNVAL)))
        if (errno != EINTR && p.revents == 0)
            return NULL;
    struct timespec left = {.tv_sec = l.seconds};
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
    kill(getpid(), SIGKILL);
    return NULL;
}

int
cap_lifeline_start(int fd, unsigned seconds)
{
    lifeline *l = malloc(sizeof *l);
    if (l == NULL)
        return ENOMEM;
    *l = (lifeline){fd, seconds};
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);
    if (rc != 0) {
        free(l);
        return rc;
    }
    (void)pthread_attr_setstacksize(&attr, STACK);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    /* Signals are the main thread's: those of CPython's handlers have to wake its poll. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    rc = pthread_create(&thread, &attr, watch, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (rc != 0)
        free(l);
    return rc;
}
