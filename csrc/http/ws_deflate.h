/* permessage-deflate (RFC 7692): what is negotiated, and messages in and out of
   it. Bytes only: no socket, no Python. Compression itself is zlib-ng's.

   A compressor takes 200 KiB and a decompressor 45, so connections do not own
   them: a pool for each thread lends them and takes the one that was longest
   unused away from its connection when `keep` are out. What a connection needs to
   go on later is its window, at most 2^bits octets (4 KiB with 12 bits) for each
   direction, and only with context takeover. So 10,000 open sockets cost no more
   than those that talk.

   One thread for a pool and all that was made with it. */
#ifndef CAP_HTTP_WS_DEFLATE_H
#define CAP_HTTP_WS_DEFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

/* Was this built with the library? Without it nothing is ever negotiated. */
bool cap_ws_deflate_available(void);

/* What the server wants. Plain numbers, set once. */
typedef struct cap_ws_deflate_config {
    bool enabled;
    bool server_no_context_takeover; /* forget between messages that we send: no window is
                                        kept, similar messages compress less */
    bool client_no_context_takeover; /* ask the client for the same */
    uint8_t server_max_window_bits;  /* 9..15: the most that we compress with */
    uint8_t client_max_window_bits;  /* 8..15: asked of clients that let themselves be asked */
    uint8_t level;                   /* 1..9 */
    uint8_t mem_level;               /* 1..9 */
    uint32_t threshold;              /* shorter messages are sent as they are, octets */
} cap_ws_deflate_config;

/* 12 bits as uvicorn and websockets have it. */
#define CAP_WS_DEFLATE_DEFAULT {true, false, false, 12, 12, 1, 5, 64}

/* What was agreed upon for one connection. */
typedef struct cap_ws_deflate_params {
    bool server_no_context_takeover;
    bool client_no_context_takeover;
    uint8_t server_max_window_bits; /* 9..15 */
    uint8_t client_max_window_bits; /* 8..15 */
    bool say_server_bits;           /* goes into the response */
    bool say_client_bits;
} cap_ws_deflate_params;

/* Reads one Sec-WebSocket-Extensions field (RFC 6455 9.1: a list of offers in order
   of preference) and takes the first permessage-deflate offer that can be met (RFC
   7692 5.1, 7.1). An offer with an unknown or repeated parameter or a bad value is
   passed over; so is, to its end, a field that breaks the grammar. False: nothing
   there to accept. Ask for each such field of a request until one is true. */
bool cap_ws_deflate_negotiate(const cap_ws_deflate_config *config, const char *value, size_t len,
                              cap_ws_deflate_params *out);

/* The field value for the response, at most CAP_WS_DEFLATE_RESPONSE octets, no NUL. */
#define CAP_WS_DEFLATE_RESPONSE 144
size_t cap_ws_deflate_response(const cap_ws_deflate_params *params,
                               char out[CAP_WS_DEFLATE_RESPONSE]);

/* Compressors and decompressors of one thread. */
typedef struct cap_ws_pool cap_ws_pool;

/* At most `keep` of each kind live on between messages (at least 1). NULL: no
   memory. */
cap_ws_pool *cap_ws_pool_new(unsigned keep);
/* Every cap_ws_deflate made with it was freed before. NULL is fine. */
void cap_ws_pool_free(cap_ws_pool *pool);
/* Gives back what is lent or spare and not needed in this moment: call it when the
   loop has had nothing to do for a while. Windows are kept. */
void cap_ws_pool_trim(cap_ws_pool *pool);

/* One connection's two contexts. About 100 octets while nothing is compressed. */
typedef struct cap_ws_deflate cap_ws_deflate;

/* `pool` and `config` outlive it. NULL: no memory. */
cap_ws_deflate *cap_ws_deflate_new(cap_ws_pool *pool, const cap_ws_deflate_config *config,
                                   const cap_ws_deflate_params *params);
void cap_ws_deflate_free(cap_ws_deflate *d); /* NULL is fine */

typedef enum cap_ws_inflate_result {
    CAP_WS_INFLATE_OK,
    CAP_WS_INFLATE_BAD,    /* not DEFLATE, or it points before its window */
    CAP_WS_INFLATE_TOO_BIG,
    CAP_WS_INFLATE_NO_MEMORY,
    CAP_WS_INFLATE_BAD_TEXT /* from `text`, see there */
} cap_ws_inflate_result;

/* Appends to `out` what `len` more octets of a message's payload inflate to; `last`
   with the message's last octets (also with len 0), which ends it (7.2.2). As soon
   as `out` would hold more than `max` octets, 0 for no limit, it is TOO_BIG and
   nothing more is inflated. `text` is NULL or the state of cap_utf8_feed, that the
   new octets are run through piece by piece: BAD_TEXT stops there. After anything
   but OK only cap_ws_deflate_free may follow. */
cap_ws_inflate_result cap_ws_inflate(cap_ws_deflate *d, const char *data, size_t len, bool last,
                                     uint64_t max, uint8_t *text, cap_buffer *out);

/* Appends the payload of a compressed message to `out`: 1 (send it with RSV1), 0
   when it goes out as it is, because it is short or, without context, does not shrink,
   -1 for no memory (the connection goes on). After 0 and -1 `out` holds what it held
   before; when that was nothing, it owns no memory. */
int cap_ws_compress(cap_ws_deflate *d, const char *data, size_t len, cap_buffer *out);

/* This connection will be quiet: gives its compressor and, between two messages, its
   decompressor back to the pool. Keeps the window that the client's next message may
   refer to; ours begins anew. */
void cap_ws_deflate_idle(cap_ws_deflate *d);

#endif
