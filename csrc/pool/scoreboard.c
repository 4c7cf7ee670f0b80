#include "pool/scoreboard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(cap_slot) == CAP_SLOT_SIZE, "a slot is two cache lines");

static size_t
size_of(uint32_t slots)
{
    return sizeof(cap_board) + (size_t)slots * sizeof(cap_slot);
}

uint64_t
cap_board_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* A descriptor of memory that has no name any more. */
static int
anonymous(void)
{
#ifdef __linux__
    return memfd_create("capicorn scoreboard", MFD_CLOEXEC);
#else
    char name[32];
    snprintf(name, sizeof name, "/capicorn-%ld", (long)getpid());
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd >= 0) {
        shm_unlink(name);
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    return fd;
#endif
}

static cap_board *
map(int fd, size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

cap_board *
cap_board_new(uint32_t slots, int *fd)
{
    if (slots == 0 || slots > CAP_BOARD_SLOTS_MAX) {
        errno = EINVAL;
        return NULL;
    }
    int made = anonymous();
    if (made < 0)
        return NULL;
    cap_board *b = NULL;
    if (ftruncate(made, (off_t)size_of(slots)) < 0 || (b = map(made, size_of(slots))) == NULL) {
        int err = errno;
        close(made);
        errno = err;
        return NULL;
    }
    b->magic = CAP_BOARD_MAGIC;
    b->version = CAP_BOARD_VERSION;
    b->slots = slots; /* the slots are zeros: free */
    *fd = made;
    return b;
}

cap_board *
cap_board_open(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return NULL;
    if (st.st_size < (off_t)sizeof(cap_board)) {
        errno = EINVAL;
        return NULL;
    }
    cap_board *b = map(fd, (size_t)st.st_size);
    if (b == NULL)
        return NULL;
    if (b->magic != CAP_BOARD_MAGIC || b->version != CAP_BOARD_VERSION || b->slots == 0 ||
        b->slots > CAP_BOARD_SLOTS_MAX || size_of(b->slots) != (size_t)st.st_size) {
        munmap(b, (size_t)st.st_size);
        errno = EINVAL;
        return NULL;
    }
    return b;
}

void
cap_board_close(cap_board *b)
{
    munmap(b, size_of(b->slots));
}

void
cap_board_take(cap_board *b, uint32_t index, cap_slot_state state)
{
    cap_slot *s = &b->slot[index];
    atomic_store(&s->state, CAP_SLOT_FREE);
    atomic_store(&s->pid, 0);
    atomic_store(&s->beat, 0);
    atomic_store(&s->started, state == CAP_SLOT_FREE ? 0 : cap_board_now());
    atomic_store(&s->connections, 0);
    atomic_store(&s->requests, 0);
    atomic_store(&s->total_requests, 0);
    atomic_store(&s->total_connections, 0);
    atomic_store(&s->threads, 0);
    atomic_store(&s->threads_busy, 0);
    atomic_store(&s->threads_queued, 0);
    atomic_store(&s->late, 0);
    if (state != CAP_SLOT_FREE && atomic_load(&b->used) <= index)
        atomic_store(&b->used, index + 1);
    atomic_store(&s->state, state);
}

static bool
is_free(const cap_slot *s, uint64_t now)
{
    return atomic_load_explicit(&s->late, memory_order_relaxed) == 0 &&
           atomic_load_explicit(&s->beat, memory_order_relaxed) + CAP_BOARD_ABSENT_MS >= now;
}

static bool
serves(const cap_slot *s)
{
    return atomic_load_explicit(&s->state, memory_order_relaxed) == CAP_SLOT_SERVING;
}

bool
cap_board_sibling_free(const cap_board *b, uint32_t index, uint64_t now)
{
    uint32_t used = atomic_load_explicit(&b->used, memory_order_relaxed);
    for (uint32_t i = 0; i < used && i < b->slots; i++)
        if (i != index && serves(&b->slot[i]) && is_free(&b->slot[i], now))
            return true;
    return false;
}

bool
cap_board_has_siblings(const cap_board *b, uint32_t index)
{
    uint32_t used = atomic_load_explicit(&b->used, memory_order_relaxed);
    for (uint32_t i = 0; i < used && i < b->slots; i++)
        if (i != index && serves(&b->slot[i]))
            return true;
    return false;
}

bool
cap_board_may_accept(const cap_board *b, uint32_t index, uint64_t now)
{
    uint32_t used = atomic_load_explicit(&b->used, memory_order_relaxed);
    uint64_t own = 0, sum = 0, serving = 0;
    for (uint32_t i = 0; i < used && i < b->slots; i++) {
        const cap_slot *s = &b->slot[i];
        if (!serves(s))
            continue;
        uint64_t n = atomic_load_explicit(&s->connections, memory_order_relaxed);
        if (i == index)
            own = n;
        else if (!is_free(s, now))
            continue;
        sum += n;
        serving++;
    }
    if (serving <= 1)
        return true;
    if (index < b->slots && atomic_load_explicit(&b->slot[index].late, memory_order_relaxed) != 0)
        return false;
    uint64_t mean = sum / serving;
    return own < mean + CAP_BOARD_SLACK(mean);
}
