/* Timers in order: a binary heap whose members know their place, so that a
   cancelled one leaves at once and nothing has to be swept. */
#include "loop/loop.h"

#include "base/mem.h"

static inline bool
before(const cap_timer *a, const cap_timer *b)
{
    return a->when < b->when || (a->when == b->when && a->seq < b->seq);
}

static inline void
put(cap_timer_heap *t, size_t pos, cap_timer *timer)
{
    t->item[pos] = timer;
    timer->pos = (Py_ssize_t)pos;
}

static void
sift_up(cap_timer_heap *t, size_t pos, cap_timer *timer)
{
    while (pos > 0) {
        size_t parent = (pos - 1) / 2;
        if (!before(timer, t->item[parent]))
            break;
        put(t, pos, t->item[parent]);
        pos = parent;
    }
    put(t, pos, timer);
}

static void
sift_down(cap_timer_heap *t, size_t pos, cap_timer *timer)
{
    for (;;) {
        size_t child = 2 * pos + 1;
        if (child >= t->len)
            break;
        if (child + 1 < t->len && before(t->item[child + 1], t->item[child]))
            child++;
        if (!before(t->item[child], timer))
            break;
        put(t, pos, t->item[child]);
        pos = child;
    }
    put(t, pos, timer);
}

int
cap_timer_heap_push(cap_timer_heap *t, cap_timer *timer)
{
    assert(timer->pos < 0);
    if (t->len == t->cap) {
        size_t cap = t->cap != 0 ? t->cap * 2 : 64;
        cap_timer **item = cap_realloc(t->item, cap * sizeof *item);
        if (item == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        t->item = item;
        t->cap = cap;
    }
    timer->seq = t->seq++;
    Py_INCREF((PyObject *)timer);
    sift_up(t, t->len++, timer);
    return 0;
}

void
cap_timer_heap_remove(cap_timer_heap *t, cap_timer *timer)
{
    assert(timer->pos >= 0 && (size_t)timer->pos < t->len && t->item[timer->pos] == timer);
    size_t pos = (size_t)timer->pos;
    cap_timer *last = t->item[--t->len];
    if (last != timer) {
        if (pos > 0 && before(last, t->item[(pos - 1) / 2]))
            sift_up(t, pos, last);
        else
            sift_down(t, pos, last);
    }
    timer->pos = -1;
}
