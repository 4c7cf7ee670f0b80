/* permessage-deflate: messages through zlib-ng (RFC 7692 sections 6 and 7.2). What is
   negotiated is in ws_extension.c. */
#include "http/ws_deflate.h"

#include "base/mem.h"

#ifdef CAP_HAVE_ZLIB_NG

#include <assert.h>
#include <string.h>
#include <zlib-ng.h>

#include "base/utf8.h"

/* Room that inflate gets at least: its fast loop wants 260 octets and more. */
#define ROOM_MIN 1024
#define ROOM_MAX (1u << 30)
#define TAIL     "\x00\x00\xff\xff"
#define TAIL_LEN 4

enum {
    INFLATER,
    DEFLATER,
    KINDS
};

typedef struct engine {
    zng_stream z;
    struct engine *prev, *next; /* its pool's list of the kind, the last used first */
    cap_ws_deflate *owner;      /* NULL: spare; then it stands at the list's end */
    uint8_t bits;
    uint8_t level;
    uint8_t mem_level;
} engine;

typedef struct engine_list {
    engine *first, *last;
    unsigned count;
} engine_list;

struct cap_ws_pool {
    engine_list list[KINDS];
    unsigned keep;
};

typedef struct window {
    uint8_t *data; /* NULL: empty */
    uint32_t len;
} window;

struct cap_ws_deflate {
    cap_ws_pool *pool;
    const cap_ws_deflate_config *config;
    cap_ws_deflate_params params;
    bool in_message;  /* octets of an incoming message were inflated: the engine cannot go */
    bool final_block; /* ... and the last of them ended a block with BFINAL */
    engine *lent[KINDS];
    window kept[KINDS]; /* what a lost engine knew */
};

bool
cap_ws_deflate_available(void)
{
    return true;
}

static void *
z_alloc(void *opaque, unsigned items, unsigned size)
{
    (void)opaque;
    return cap_malloc((size_t)items * size);
}

static void
z_free(void *opaque, void *p)
{
    (void)opaque;
    cap_free(p);
}

/* --- the pool --- */

static void
list_remove(engine_list *l, engine *e)
{
    *(e->prev != NULL ? &e->prev->next : &l->first) = e->next;
    *(e->next != NULL ? &e->next->prev : &l->last) = e->prev;
    l->count--;
}

static void
list_put_first(engine_list *l, engine *e)
{
    e->prev = NULL;
    e->next = l->first;
    *(l->first != NULL ? &l->first->prev : &l->last) = e;
    l->first = e;
    l->count++;
}

static void
list_put_last(engine_list *l, engine *e)
{
    e->next = NULL;
    e->prev = l->last;
    *(l->last != NULL ? &l->last->next : &l->first) = e;
    l->last = e;
    l->count++;
}

static bool
engine_open(engine *e, int kind, const cap_ws_deflate *d)
{
    e->z = (zng_stream){.zalloc = z_alloc, .zfree = z_free};
    int rc;
    if (kind == INFLATER) {
        e->bits = d->params.client_max_window_bits;
        /* Compressors that are asked for 8 bits use 9 (zlib since 1.2.9). */
        rc = zng_inflateInit2(&e->z, e->bits < 9 ? -9 : -(int)e->bits);
    } else {
        e->bits = d->params.server_max_window_bits;
        e->level = d->config->level;
        e->mem_level = d->config->mem_level;
        rc = zng_deflateInit2(&e->z, e->level, Z_DEFLATED, -(int)e->bits, e->mem_level,
                              Z_DEFAULT_STRATEGY);
    }
    return rc == Z_OK;
}

static void
engine_close(engine *e, int kind)
{
    (void)(kind == INFLATER ? zng_inflateEnd(&e->z) : zng_deflateEnd(&e->z));
}

static void
engine_destroy(engine_list *l, engine *e, int kind)
{
    list_remove(l, e);
    engine_close(e, kind);
    cap_free(e);
}

/* An engine as new for `d`. False: no memory; the engine is closed then. */
static bool
engine_reset(engine *e, int kind, const cap_ws_deflate *d)
{
    if (kind == INFLATER) {
        e->bits = d->params.client_max_window_bits;
        return zng_inflateReset2(&e->z, e->bits < 9 ? -9 : -(int)e->bits) == Z_OK;
    }
    if (e->bits == d->params.server_max_window_bits && e->level == d->config->level &&
        e->mem_level == d->config->mem_level)
        return zng_deflateReset(&e->z) == Z_OK;
    engine_close(e, kind);
    return engine_open(e, kind, d);
}

static bool
takes_over(const cap_ws_deflate *d, int kind)
{
    return kind == INFLATER ? !d->params.client_no_context_takeover
                            : !d->params.server_no_context_takeover;
}

static void
drop_window(window *w)
{
    cap_free(w->data);
    *w = (window){NULL, 0};
}

/* Takes an engine from its connection, which keeps the window. False: no memory for
   that, and all is as it was. */
static bool
engine_take(engine *e, int kind)
{
    cap_ws_deflate *d = e->owner;
    window *w = &d->kept[kind];
    assert(w->data == NULL && !(kind == INFLATER && d->in_message));
    if (takes_over(d, kind)) {
        uint32_t len = 0;
        if (kind == INFLATER)
            (void)zng_inflateGetDictionary(&e->z, NULL, &len);
        else
            (void)zng_deflateGetDictionary(&e->z, NULL, &len);
        if (len > 0) {
            if ((w->data = cap_malloc(len)) == NULL)
                return false;
            w->len = len;
            if (kind == INFLATER)
                (void)zng_inflateGetDictionary(&e->z, w->data, &len);
            else
                (void)zng_deflateGetDictionary(&e->z, w->data, &len);
        }
    }
    d->lent[kind] = NULL;
    e->owner = NULL;
    return true;
}

/* Nobody's now: it waits at the list's end, or goes when there are enough. */
static void
engine_spare(cap_ws_pool *pool, engine *e, int kind)
{
    engine_list *l = &pool->list[kind];
    if (l->count > pool->keep) {
        engine_destroy(l, e, kind);
        return;
    }
    list_remove(l, e);
    list_put_last(l, e);
}

/* The connection's engine goes, and with it what it knew. */
static void
engine_give_back(cap_ws_deflate *d, int kind)
{
    engine *e = d->lent[kind];
    if (e == NULL)
        return;
    d->lent[kind] = NULL;
    e->owner = NULL;
    engine_spare(d->pool, e, kind);
}

/* The connection's engine, with its window. NULL: no memory. */
static engine *
engine_get(cap_ws_deflate *d, int kind)
{
    engine_list *l = &d->pool->list[kind];
    engine *e = d->lent[kind];
    if (e != NULL) {
        if (l->first != e) {
            list_remove(l, e);
            list_put_first(l, e);
        }
        return e;
    }
    e = l->last;
    if (e != NULL && e->owner != NULL) {
        if (l->count < d->pool->keep)
            e = NULL;
        else
            while (e != NULL &&
                   ((kind == INFLATER && e->owner->in_message) || !engine_take(e, kind)))
                e = e->prev;
    }
    if (e != NULL) {
        list_remove(l, e);
        if (!engine_reset(e, kind, d)) {
            engine_close(e, kind);
            cap_free(e);
            return NULL;
        }
    } else {
        if ((e = cap_malloc(sizeof *e)) == NULL)
            return NULL;
        if (!engine_open(e, kind, d)) {
            cap_free(e);
            return NULL;
        }
    }
    list_put_first(l, e);
    e->owner = d;
    d->lent[kind] = e;
    window *w = &d->kept[kind];
    if (w->data != NULL) {
        int rc = kind == INFLATER ? zng_inflateSetDictionary(&e->z, w->data, w->len)
                                  : zng_deflateSetDictionary(&e->z, w->data, w->len);
        assert(rc == Z_OK);
        (void)rc;
        drop_window(w);
    }
    return e;
}

cap_ws_pool *
cap_ws_pool_new(unsigned keep)
{
    cap_ws_pool *pool = cap_calloc(1, sizeof *pool);
    if (pool != NULL)
        pool->keep = keep > 0 ? keep : 1;
    return pool;
}

void
cap_ws_pool_free(cap_ws_pool *pool)
{
    if (pool == NULL)
        return;
    for (int kind = 0; kind < KINDS; kind++) {
        engine_list *l = &pool->list[kind];
        while (l->first != NULL) {
            assert(l->first->owner == NULL);
            engine_destroy(l, l->first, kind);
        }
    }
    cap_free(pool);
}

void
cap_ws_pool_trim(cap_ws_pool *pool)
{
    for (int kind = 0; kind < KINDS; kind++) {
        engine *next;
        for (engine *e = pool->list[kind].first; e != NULL; e = next) {
            next = e->next;
            if (e->owner != NULL && kind == INFLATER && e->owner->in_message)
                continue;
            if (e->owner == NULL || engine_take(e, kind))
                engine_destroy(&pool->list[kind], e, kind);
        }
    }
}

/* --- one connection --- */

cap_ws_deflate *
cap_ws_deflate_new(cap_ws_pool *pool, const cap_ws_deflate_config *config,
                   const cap_ws_deflate_params *params)
{
    cap_ws_deflate *d = cap_calloc(1, sizeof *d);
    if (d != NULL) {
        d->pool = pool;
        d->config = config;
        d->params = *params;
    }
    return d;
}

void
cap_ws_deflate_free(cap_ws_deflate *d)
{
    if (d == NULL)
        return;
    for (int kind = 0; kind < KINDS; kind++) {
        engine_give_back(d, kind);
        if (d->kept[kind].data != NULL)
            drop_window(&d->kept[kind]);
    }
    cap_free(d);
}

void
cap_ws_deflate_idle(cap_ws_deflate *d)
{
    engine *e = d->lent[INFLATER];
    if (e != NULL && !d->in_message && engine_take(e, INFLATER))
        engine_spare(d->pool, e, INFLATER);
    /* A compressor may forget whenever it likes (7.1.1.1 binds only its window's size). */
    engine_give_back(d, DEFLATER);
    if (d->kept[DEFLATER].data != NULL)
        drop_window(&d->kept[DEFLATER]);
}

/* Inflates all of `data`. */
static cap_ws_inflate_result
inflate_piece(cap_ws_deflate *d, zng_stream *z, const char *data, size_t len, uint64_t max,
              uint8_t *text, cap_buffer *out)
{
    z->next_in = (const uint8_t *)data;
    z->avail_in = 0; /* something is left there after a message that failed */
    for (;;) {
        if (z->avail_in == 0 && len > 0) {
            z->avail_in = len < ROOM_MAX ? (uint32_t)len : ROOM_MAX;
            len -= z->avail_in;
        }
        /* One octet more than is allowed shows that there is more. */
        uint64_t allowed = max == 0 ? UINT64_MAX : max - out->len + 1;
        size_t room = out->cap - out->len;
        if (room < ROOM_MIN && room < allowed) {
            size_t more = out->len < ROOM_MAX ? out->len : ROOM_MAX;
            if (more < (size_t)z->avail_in * 3)
                more = (size_t)z->avail_in * 3;
            if (more < ROOM_MIN)
                more = ROOM_MIN;
            if (more > allowed)
                more = (size_t)allowed;
            if (cap_buffer_reserve(out, more) < 0)
                return CAP_WS_INFLATE_NO_MEMORY;
            room = out->cap - out->len;
        }
        if (room > allowed)
            room = (size_t)allowed;
        if (room > ROOM_MAX)
            room = ROOM_MAX;
        z->next_out = (uint8_t *)out->data + out->len;
        z->avail_out = (uint32_t)room;
        int rc = zng_inflate(z, Z_SYNC_FLUSH);
        size_t made = room - z->avail_out;
        const char *start = out->data + out->len;
        out->len += made;
        if (max != 0 && out->len > max)
            return CAP_WS_INFLATE_TOO_BIG;
        if (text != NULL && made > 0 && (*text = cap_utf8_feed(*text, start, made)) == CAP_UTF8_BAD)
            return CAP_WS_INFLATE_BAD_TEXT;
        if (rc == Z_STREAM_END) {
            /* A block with BFINAL ends no message (7.2.3.4): the next block follows, and
               refers to the same window. */
            (void)zng_inflateResetKeep(z);
            d->final_block = z->avail_in == 0 && len == 0;
            if (d->final_block)
                return CAP_WS_INFLATE_OK;
        } else if (rc == Z_MEM_ERROR)
            return CAP_WS_INFLATE_NO_MEMORY;
        else if (rc != Z_OK && rc != Z_BUF_ERROR)
            return CAP_WS_INFLATE_BAD;
        else if (z->avail_in == 0 && len == 0 && z->avail_out > 0)
            return CAP_WS_INFLATE_OK;
    }
}

cap_ws_inflate_result
cap_ws_inflate(cap_ws_deflate *d, const char *data, size_t len, bool last, uint64_t max,
               uint8_t *text, cap_buffer *out)
{
    cap_ws_inflate_result result;
    /* A message of no octets at all is not what 7.2.3.6 wants, but it is clear. */
    if (len == 0 && !d->in_message)
        return CAP_WS_INFLATE_OK;
    engine *e = engine_get(d, INFLATER);
    if (e == NULL)
        return CAP_WS_INFLATE_NO_MEMORY;
    d->in_message = true;
    if (len > 0) {
        d->final_block = false;
        result = inflate_piece(d, &e->z, data, len, max, text, out);
        if (result != CAP_WS_INFLATE_OK)
            return result;
    }
    if (!last)
        return CAP_WS_INFLATE_OK;
    /* After a block with BFINAL there ought to be one octet that the tail completes;
       without it there is nothing to complete. */
    if (!d->final_block) {
        result = inflate_piece(d, &e->z, TAIL, TAIL_LEN, max, text, out);
        if (result != CAP_WS_INFLATE_OK)
            return result;
        /* The tail must have been an empty stored block, not the inside of another. 128:
           between two blocks; the low bits: bits not used yet. */
        if ((e->z.data_type & 128) == 0 || (e->z.data_type & 63) != 0)
            return CAP_WS_INFLATE_BAD;
    }
    d->in_message = false;
    if (d->params.client_no_context_takeover)
        engine_give_back(d, INFLATER);
    return CAP_WS_INFLATE_OK;
}

/* A buffer that came empty goes empty: nobody has to think of freeing it. */
static void
take_back(cap_buffer *out, size_t len)
{
    out->len = len;
    if (len == 0)
        cap_buffer_free(out);
}

int
cap_ws_compress(cap_ws_deflate *d, const char *data, size_t len, cap_buffer *out)
{
    if (len < d->config->threshold)
        return 0;
    if (len == 0)
        return cap_buffer_append(out, "", 1) < 0 ? -1 : 1; /* 7.2.3.6 */
    engine *e = engine_get(d, DEFLATER);
    if (e == NULL)
        return -1;
    zng_stream *z = &e->z;
    size_t before = out->len, left = len;
    z->next_in = (const uint8_t *)data;
    z->avail_in = 0;
    do {
        if (z->avail_in == 0 && left > 0) {
            z->avail_in = left < ROOM_MAX ? (uint32_t)left : ROOM_MAX;
            left -= z->avail_in;
        }
        if (cap_buffer_reserve(out, z->avail_in / 2 + 256) < 0)
            goto no_memory;
        size_t room = out->cap - out->len;
        if (room > ROOM_MAX)
            room = ROOM_MAX;
        z->next_out = (uint8_t *)out->data + out->len;
        z->avail_out = (uint32_t)room;
        int rc = zng_deflate(z, left == 0 ? Z_SYNC_FLUSH : Z_NO_FLUSH);
        assert(rc == Z_OK || rc == Z_BUF_ERROR);
        (void)rc;
        out->len += room - z->avail_out;
    } while (z->avail_in > 0 || left > 0 || z->avail_out == 0);
    assert(out->len - before >= TAIL_LEN);
    out->len -= TAIL_LEN; /* 7.2.1 */
    assert(memcmp(out->data + out->len, TAIL, TAIL_LEN) == 0);
    if (d->params.server_no_context_takeover) {
        engine_give_back(d, DEFLATER);
        if (out->len - before >= len) {
            take_back(out, before);
            return 0;
        }
    }
    return 1;
no_memory:
    /* The client will not see what was compressed: forget it. */
    take_back(out, before);
    engine_give_back(d, DEFLATER);
    return -1;
}

#else /* no zlib-ng */

bool
cap_ws_deflate_available(void)
{
    return false;
}

/* Negotiation never comes to a result, so nobody has parameters to call these with. */
cap_ws_pool *
cap_ws_pool_new(unsigned keep)
{
    (void)keep;
    return cap_calloc(1, 1);
}

void
cap_ws_pool_free(cap_ws_pool *pool)
{
    if (pool != NULL)
        cap_free(pool);
}

void
cap_ws_pool_trim(cap_ws_pool *pool)
{
    (void)pool;
}

cap_ws_deflate *
cap_ws_deflate_new(cap_ws_pool *pool, const cap_ws_deflate_config *config,
                   const cap_ws_deflate_params *params)
{
    (void)pool;
    (void)config;
    (void)params;
    return NULL;
}

void
cap_ws_deflate_free(cap_ws_deflate *d)
{
    (void)d;
}

cap_ws_inflate_result
cap_ws_inflate(cap_ws_deflate *d, const char *data, size_t len, bool last, uint64_t max,
               uint8_t *text, cap_buffer *out)
{
    (void)d;
    (void)data;
    (void)len;
    (void)last;
    (void)max;
    (void)text;
    (void)out;
    return CAP_WS_INFLATE_BAD;
}

int
cap_ws_compress(cap_ws_deflate *d, const char *data, size_t len, cap_buffer *out)
{
    (void)d;
    (void)data;
    (void)len;
    (void)out;
    return 0;
}

void
cap_ws_deflate_idle(cap_ws_deflate *d)
{
    (void)d;
}

#endif
