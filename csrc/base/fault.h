/* Fault points, in builds with CAP_FAULTS alone (CAPICORN_BUILD=faults). CPython's freelists
   hide many failures from a test that lets the n-th allocation fail, so here each place
   that calls something fallible can be made to fail, once, and they all have their turn:

       while armed, the first place that is reached and never failed before fails.

   py/faults.h puts CPython's fallible functions behind such points, base/mem.h our own
   allocation. Variables of the environment:
   CAPICORN_FAULTS_SEEN   a file of the places that failed, one "file:line" a line; it is
                          read at the start and appended to, so that a process that a fault
                          has ended can be followed by another one
   CAPICORN_FAULTS_ARMED  armed from the start */
#ifndef CAP_BASE_FAULT_H
#define CAP_BASE_FAULT_H
#ifdef CAP_FAULTS

#include <stdatomic.h>
#include <stdbool.h>

typedef struct cap_fault_site {
    const char *file;
    int line;
    atomic_bool known; /* looked up among those that failed before */
    atomic_bool spent; /* it failed */
} cap_fault_site;

/* Arm it, or not: is then true until a place fails. Any thread. */
void cap_fault_arm(bool on);
bool cap_fault_armed(void);
/* Does this place fail now? Any thread. */
bool cap_fault_hit(cap_fault_site *site);

#define CAP_FAULT()                                                            \
    (__extension__({                                                           \
        static cap_fault_site site_ = {.file = __FILE__, .line = __LINE__};    \
        cap_fault_hit(&site_);                                                 \
    }))

#endif
#endif
