/* Time is cut into ticks. A node fires in the first tick that ends at or after its
   deadline, so every tick is looked at once, and nothing of a slot has to be
   sorted. What is due moves to a list of its own first, so that the caller may arm
   and cancel between two calls of cap_wheel_expire. */
#include "base/timer_wheel.h"

#include <assert.h>

static void
list_init(cap_wheel_node *head)
{
    head->next = head->prev = head;
}

static void
list_append(cap_wheel_node *head, cap_wheel_node *n)
{
    n->prev = head->prev;
    n->next = head;
    head->prev->next = n;
    head->prev = n;
}

static void
list_remove(cap_wheel_node *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->next = n->prev = NULL;
}

/* The tick at whose end the deadline has passed, whatever its last digits. */
static uint64_t
tick_of(uint64_t due)
{
    return due / CAP_WHEEL_TICK_MS + (due % CAP_WHEEL_TICK_MS != 0);
}

void
cap_wheel_init(cap_wheel *w, uint64_t now)
{
    for (size_t i = 0; i < CAP_WHEEL_SLOTS; i++)
        list_init(&w->slot[i]);
    list_init(&w->due);
    w->done = now / CAP_WHEEL_TICK_MS;
    w->armed = 0;
}

void
cap_wheel_arm(cap_wheel *w, cap_wheel_node *n, uint64_t due)
{
    cap_wheel_cancel(w, n);
    uint64_t tick = tick_of(due);
    if (tick <= w->done) /* past: the next tick that will be looked at */
        tick = w->done + 1;
    n->due = due;
    list_append(&w->slot[tick % CAP_WHEEL_SLOTS], n);
    w->armed++;
}

void
cap_wheel_cancel(cap_wheel *w, cap_wheel_node *n)
{
    if (n->prev == NULL)
        return;
    assert(w->armed > 0);
    list_remove(n);
    w->armed--;
}

static void
collect(cap_wheel *w, cap_wheel_node *slot, uint64_t tick)
{
    for (cap_wheel_node *n = slot->next, *next; n != slot; n = next) {
        next = n->next;
        if (tick_of(n->due) > tick)
            continue; /* a later round */
        list_remove(n);
        list_append(&w->due, n);
    }
}

cap_wheel_node *
cap_wheel_expire(cap_wheel *w, uint64_t now)
{
    uint64_t tick = now / CAP_WHEEL_TICK_MS;
    if (w->armed == 0) {
        if (w->done < tick)
            w->done = tick;
        return NULL;
    }
    while (w->due.next == &w->due && w->done < tick) {
        /* after a long sleep each slot once is enough */
        if (tick - w->done > CAP_WHEEL_SLOTS)
            w->done = tick - CAP_WHEEL_SLOTS;
        w->done++;
        collect(w, &w->slot[w->done % CAP_WHEEL_SLOTS], tick);
    }
    cap_wheel_node *n = w->due.next;
    if (n == &w->due)
        return NULL;
    list_remove(n);
    w->armed--;
    return n;
}

uint64_t
cap_wheel_next(const cap_wheel *w, uint64_t now)
{
    if (w->armed == 0)
        return UINT64_MAX;
    if (w->due.next != &w->due)
        return 0;
    for (uint64_t tick = w->done + 1; tick <= w->done + CAP_WHEEL_SLOTS; tick++) {
        const cap_wheel_node *slot = &w->slot[tick % CAP_WHEEL_SLOTS];
        if (slot->next != slot) {
            uint64_t at = tick * CAP_WHEEL_TICK_MS;
            return at > now ? at - now : 0;
        }
    }
    assert(!"armed nodes are in a slot");
    return 0;
}
