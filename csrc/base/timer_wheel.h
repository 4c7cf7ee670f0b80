/* Many coarse timeouts for little: a hashed wheel of deadlines in milliseconds.
   Connections set deadlines thousands of times a second and almost none is ever
   reached, so a node is armed, re-armed and cancelled in constant time, and may
   fire up to one tick late, never early.

   Nodes are embedded in what they time; the wheel owns nothing and reads no
   clock: the caller says what time it is. One thread. */
#ifndef CAP_BASE_TIMER_WHEEL_H
#define CAP_BASE_TIMER_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CAP_WHEEL_TICK_MS 50

typedef struct cap_wheel_node {
    struct cap_wheel_node *next;
    struct cap_wheel_node *prev; /* NULL: not armed */
    uint64_t due;                /* ms */
} cap_wheel_node;

#define CAP_WHEEL_SLOTS 512 /* 25.6 s a round; later deadlines go round again */

typedef struct cap_wheel {
    cap_wheel_node slot[CAP_WHEEL_SLOTS]; /* list heads */
    cap_wheel_node due;                   /* list head: taken out of slots, not yet returned */
    uint64_t done;                        /* the last tick that was expired */
    uint32_t armed;                       /* nodes in the wheel */
} cap_wheel;

void cap_wheel_init(cap_wheel *w, uint64_t now);
/* (Re-)arm for `due`. */
void cap_wheel_arm(cap_wheel *w, cap_wheel_node *n, uint64_t due);
/* Nothing happens when it is not armed. */
void cap_wheel_cancel(cap_wheel *w, cap_wheel_node *n);
static inline bool
cap_wheel_armed(const cap_wheel_node *n)
{
    return n->prev != NULL;
}
/* Takes one node that is due at `now` out of the wheel and returns it; NULL when
   no more is due. Call it until NULL. Between calls anything may be armed or
   cancelled. */
cap_wheel_node *cap_wheel_expire(cap_wheel *w, uint64_t now);
/* Ms until the next call of cap_wheel_expire can return a node (0: now); at most a
   tick more than to the next deadline, and sometimes less, when a node has rounds
   to go; UINT64_MAX when nothing is armed. Looks at no more than CAP_WHEEL_SLOTS
   slots. */
uint64_t cap_wheel_next(const cap_wheel *w, uint64_t now);

#endif
