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

_Static_assert(sizeof(cap_request_slot) == 256, "a request is four cache lines");
_Static_assert(sizeof(cap_worker) % 64 == 0 && sizeof(cap_board) % CAP_SLOT_SIZE == 0, "aligned");
_Static_assert(CAP_BOARD_REQUESTS == 64, "the bits of cap_worker.listed");
_Static_assert(sizeof((uint32_t[]){CAP_TALLY_BOUNDS}) / sizeof(uint32_t) == CAP_TALLY_BUCKETS - 1,
               "bounds of the buckets");

static size_t
size_of(uint32_t slots)
{
    return sizeof(cap_board) + (size_t)slots * (sizeof(cap_slot) + sizeof(cap_worker));
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
    return memfd_create("capicorn scoreboard", MFD_CLOEXEC | MFD_ALLOW_SEALING);
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

/* Its size is final: nobody who has it mapped gets a SIGBUS for that. */
static int
seal(int fd)
{
#ifdef __linux__
    return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
#else
    (void)fd;
    return 0;
#endif
}

static bool
is_sealed(int fd)
{
#ifdef __linux__
    int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK) != 0;
#else
    (void)fd;
    return true;
#endif
}

static cap_board *
map(int fd, size_t size, bool writable)
{
    void *p = mmap(NULL, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
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
    if (ftruncate(made, (off_t)size_of(slots)) < 0 || seal(made) < 0 ||
        (b = map(made, size_of(slots), true)) == NULL) {
        int err = errno;
        close(made);
        errno = err;
        return NULL;
    }
    b->magic = CAP_BOARD_MAGIC;
    b->version = CAP_BOARD_VERSION;
    b->slots = slots; /* the slots are zeros: free */
    atomic_store(&b->pid, (uint32_t)getpid());
    atomic_store(&b->started, cap_board_now());
    *fd = made;
    return b;
}

cap_board *
cap_board_open(int fd, bool writable)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return NULL;
    if (st.st_size < (off_t)sizeof(cap_board) || !is_sealed(fd)) {
        errno = EINVAL;
        return NULL;
    }
    cap_board *b = map(fd, (size_t)st.st_size, writable);
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
cap_board_close(cap_board *b, uint32_t slots)
{
    munmap(b, size_of(slots));
}

/* A writer of what has a sequence number: odd meanwhile, also when another one died here. */
static uint32_t
begin_writing(_Atomic uint32_t *seq)
{
    uint32_t odd = atomic_load_explicit(seq, memory_order_relaxed) | 1;
    atomic_store_explicit(seq, odd, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    return odd;
}

static void
end_writing(_Atomic uint32_t *seq, uint32_t odd)
{
    atomic_store_explicit(seq, odd + 1, memory_order_release);
}

/* Was what was read since `seq` whole? */
static bool
was_whole(const _Atomic uint32_t *at, uint32_t seq)
{
    atomic_thread_fence(memory_order_acquire);
    return (seq & 1) == 0 && atomic_load_explicit(at, memory_order_relaxed) == seq;
}

#define TRIES 64

static void
copy_words(uint64_t *to, const _Atomic uint64_t *from, size_t words)
{
    for (size_t i = 0; i < words; i++)
        to[i] = atomic_load_explicit(&from[i], memory_order_relaxed);
}

static void
clear_worker(cap_worker *w)
{
    atomic_store(&w->listed, 0);
    atomic_store(&w->beat.since, 0);
    atomic_store(&w->beat.wants_gil, 0);
    atomic_store(&w->beat.dozing, 0);
    atomic_store(&w->beat.lengths, 0);
    atomic_store(&w->beat.seq, 0);
    atomic_store(&w->asked, 0);
    atomic_store(&w->answered, 0);
    atomic_store(&w->answer, CAP_ANSWER_NONE);
    atomic_store(&w->place_lengths, 0);
    atomic_store(&w->place_since, 0);
    atomic_store(&w->place_seq, 0);
}

void
cap_board_take(cap_board *b, uint32_t index, cap_slot_state state)
{
    cap_slot *s = &b->slot[index];
    cap_worker *w = cap_board_worker(b, index);
    bool had = atomic_load(&s->state) != CAP_SLOT_FREE;
    if (had || state != CAP_SLOT_FREE) {
        uint32_t odd = begin_writing(&b->gone_seq);
        atomic_store(&s->state, CAP_SLOT_FREE);
        if (had) {
            cap_tally_merge(&b->gone, &w->tally);
            cap_tally_clear(&w->tally);
        }
        if (state != CAP_SLOT_FREE)
            cap_tally_add(&b->starts, 1);
        end_writing(&b->gone_seq, odd);
        clear_worker(w);
    }
    atomic_store(&s->pid, 0);
    atomic_store(&s->beat, 0);
    atomic_store(&s->started, state == CAP_SLOT_FREE ? 0 : cap_board_now());
    atomic_store(&s->connections, 0);
    atomic_store(&s->requests, 0);
    atomic_store(&s->threads, 0);
    atomic_store(&s->threads_busy, 0);
    atomic_store(&s->threads_queued, 0);
    atomic_store(&s->late, 0);
    atomic_store(&s->lag, 0);
    atomic_store(&s->resident, 0);
    if (state != CAP_SLOT_FREE) {
        atomic_fetch_add(&s->generation, 1);
        if (atomic_load(&b->used) <= index)
            atomic_store(&b->used, index + 1);
    }
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

/* ---- requests in flight ---- */

int
cap_worker_list(cap_worker *w, const char *method, size_t method_len, const char *path,
                size_t path_len, uint64_t began, bool websocket)
{
    uint64_t listed = atomic_load_explicit(&w->listed, memory_order_relaxed);
    uint64_t usable = websocket ? UINT32_MAX : UINT64_MAX;
    uint64_t empty = ~listed & usable;
    if (empty == 0)
        return -1;
    int number = __builtin_ctzll(empty);
    cap_request_slot *r = &w->request[number];
    if (method_len > CAP_BOARD_METHOD)
        method_len = CAP_BOARD_METHOD;
    if (path_len > CAP_BOARD_PATH)
        path_len = CAP_BOARD_PATH;
    uint32_t odd = begin_writing(&r->seq);
    atomic_store_explicit(&r->lengths, (uint32_t)(method_len | path_len << 16),
                          memory_order_relaxed);
    atomic_store_explicit(&r->began, began, memory_order_relaxed);
    atomic_store_explicit(&r->websocket, websocket, memory_order_relaxed);
    cap_beat_put(r->text, method, method_len);
    cap_beat_put(r->text + CAP_BOARD_METHOD / 8, path, path_len);
    end_writing(&r->seq, odd);
    atomic_store_explicit(&w->listed, listed | (uint64_t)1 << number, memory_order_release);
    return number;
}

void
cap_worker_unlist(cap_worker *w, int number)
{
    uint64_t listed = atomic_load_explicit(&w->listed, memory_order_relaxed);
    atomic_store_explicit(&w->listed, listed & ~((uint64_t)1 << number), memory_order_release);
}

static uint32_t
at_most(uint32_t n, uint32_t limit)
{
    return n < limit ? n : limit;
}

size_t
cap_worker_requests(const cap_worker *w, cap_seen_request out[CAP_BOARD_REQUESTS])
{
    size_t n = 0;
    for (unsigned i = 0; i < CAP_BOARD_REQUESTS; i++) {
        const cap_request_slot *r = &w->request[i];
        for (int tries = 0; tries < TRIES; tries++) {
            if (!(atomic_load_explicit(&w->listed, memory_order_acquire) >> i & 1))
                break;
            uint32_t seq = atomic_load_explicit(&r->seq, memory_order_acquire);
            uint32_t lengths = atomic_load_explicit(&r->lengths, memory_order_relaxed);
            cap_seen_request *to = &out[n];
            uint64_t text[(CAP_BOARD_METHOD + CAP_BOARD_PATH) / 8];
            copy_words(text, r->text, sizeof text / 8);
            to->began = atomic_load_explicit(&r->began, memory_order_relaxed);
            to->websocket = atomic_load_explicit(&r->websocket, memory_order_relaxed) != 0;
            if (!was_whole(&r->seq, seq))
                continue;
            memcpy(to->text, text, sizeof text);
            to->method_len = at_most(lengths & 0xffff, CAP_BOARD_METHOD);
            to->path_len = at_most(lengths >> 16, CAP_BOARD_PATH);
            n++;
            break;
        }
    }
    return n;
}

/* ---- texts ---- */

void
cap_worker_set_place(cap_worker *w, uint64_t since, const char *request, size_t request_len,
                     const char *place, size_t place_len)
{
    if (request_len > CAP_BOARD_PLACE)
        request_len = CAP_BOARD_PLACE;
    if (place_len > CAP_BOARD_PLACE) { /* the end of a file's path says more */
        place += place_len - CAP_BOARD_PLACE;
        place_len = CAP_BOARD_PLACE;
    }
    uint32_t odd = begin_writing(&w->place_seq);
    atomic_store_explicit(&w->place_lengths, (uint32_t)(request_len | place_len << 16),
                          memory_order_relaxed);
    atomic_store_explicit(&w->place_since, since, memory_order_relaxed);
    cap_beat_put(w->place, request, request_len);
    cap_beat_put(w->place + CAP_BOARD_PLACE / 8, place, place_len);
    end_writing(&w->place_seq, odd);
}

bool
cap_worker_place(const cap_worker *w, cap_seen_place *out)
{
    for (int tries = 0; tries < TRIES; tries++) {
        uint64_t text[2 * CAP_BOARD_PLACE / 8];
        uint32_t seq = atomic_load_explicit(&w->place_seq, memory_order_acquire);
        uint32_t lengths = atomic_load_explicit(&w->place_lengths, memory_order_relaxed);
        out->since = atomic_load_explicit(&w->place_since, memory_order_relaxed);
        copy_words(text, w->place, sizeof text / 8);
        if (!was_whole(&w->place_seq, seq))
            continue;
        out->request_len = at_most(lengths & 0xffff, CAP_BOARD_PLACE);
        out->place_len = at_most(lengths >> 16, CAP_BOARD_PLACE);
        memcpy(out->request, text, CAP_BOARD_PLACE);
        memcpy(out->place, text + CAP_BOARD_PLACE / 8, CAP_BOARD_PLACE);
        return true;
    }
    return false;
}

int
cap_board_set_info(cap_board *b, const char *text, size_t len)
{
    if (len > CAP_BOARD_INFO)
        return -1;
    uint32_t odd = begin_writing(&b->info_seq);
    atomic_store_explicit(&b->info_len, (uint32_t)len, memory_order_relaxed);
    cap_beat_put(b->info, text, len);
    end_writing(&b->info_seq, odd);
    return 0;
}

size_t
cap_board_info(const cap_board *b, char out[CAP_BOARD_INFO])
{
    for (int tries = 0; tries < TRIES; tries++) {
        uint64_t text[CAP_BOARD_INFO / 8];
        uint32_t seq = atomic_load_explicit(&b->info_seq, memory_order_acquire);
        uint32_t len = atomic_load_explicit(&b->info_len, memory_order_relaxed);
        copy_words(text, b->info, sizeof text / 8);
        if (!was_whole(&b->info_seq, seq))
            continue;
        memcpy(out, text, sizeof text);
        return at_most(len, CAP_BOARD_INFO);
    }
    return 0;
}

bool
cap_board_total(cap_board *b, cap_tally *out, uint64_t *starts)
{
    for (int tries = 0; tries < TRIES; tries++) {
        uint32_t seq = atomic_load_explicit(&b->gone_seq, memory_order_acquire);
        uint32_t used = at_most(atomic_load(&b->used), b->slots);
        cap_tally_clear(out);
        cap_tally_merge(out, &b->gone);
        for (uint32_t i = 0; i < used; i++)
            if (atomic_load(&b->slot[i].state) != CAP_SLOT_FREE)
                cap_tally_merge(out, &cap_board_worker(b, i)->tally);
        *starts = atomic_load_explicit(&b->starts, memory_order_relaxed);
        if (was_whole(&b->gone_seq, seq))
            return true;
    }
    return false;
}
