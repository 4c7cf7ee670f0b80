/* WebSocket frames, RFC 6455 section 5. */
#include "http/ws_frame.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

enum {
    STAGE_HEADER,  /* in a frame header, or before one */
    STAGE_PAYLOAD, /* in a data frame's payload */
    STAGE_CONTROL, /* in a control frame's payload */
    STAGE_DEAD     /* a Close frame came, or an error */
};

/* Text is checked in pieces that are still in the first-level cache after they were
   unmasked. */
#define PIECE 4096
/* What is reserved at once for a frame that says that it is long, beyond what came. */
#define RESERVE_AHEAD 16384

#define HIGH_BITS   UINT64_C(0x8080808080808080)
#define CONTROL_BIT 0x8

void
cap_ws_init(cap_ws_parser *p, uint64_t max_size, cap_ws_deflate *deflate)
{
    *p = (cap_ws_parser){.deflate = deflate, .max_size = max_size, .stage = STAGE_HEADER};
}

static void
drop_control(cap_ws_parser *p)
{
    cap_free(p->control);
    p->control = NULL;
}

void
cap_ws_free(cap_ws_parser *p)
{
    cap_buffer_free(&p->message);
    if (p->control != NULL)
        drop_control(p);
    p->stage = STAGE_DEAD;
    p->kind = 0;
}

bool
cap_ws_between_messages(const cap_ws_parser *p)
{
    return p->kind == 0 && p->header_len == 0 &&
           (p->stage == STAGE_HEADER || p->stage == STAGE_DEAD);
}

size_t
cap_ws_held(const cap_ws_parser *p)
{
    return p->kind != 0 ? p->message.len : 0;
}

/* --- unmasking (5.3) --- */

/* Every machine that we build for has registers of this size; the compiler finds them. */
typedef uint64_t wide __attribute__((vector_size(16)));

/* dst[i] = src[i] ^ key[i % 4]; dst is src, or apart from it. Returns all octets of
   the result or-ed, in some order: what `& HIGH_BITS` is 0 of was ASCII. */
static inline uint64_t
unmask(char *dst, const char *src, size_t len, const uint8_t key[4])
{
    uint32_t half;
    memcpy(&half, key, sizeof half);
    uint64_t k = (uint64_t)half << 32 | half;
    uint64_t any = 0;
    if (len >= 64) {
        wide kk = {k, k}, seen = {0, 0};
        do {
            wide a, b, c, d;
            memcpy(&a, src, sizeof a);
            memcpy(&b, src + 16, sizeof b);
            memcpy(&c, src + 32, sizeof c);
            memcpy(&d, src + 48, sizeof d);
            a ^= kk;
            b ^= kk;
            c ^= kk;
            d ^= kk;
            seen |= (a | b) | (c | d);
            memcpy(dst, &a, sizeof a);
            memcpy(dst + 16, &b, sizeof b);
            memcpy(dst + 32, &c, sizeof c);
            memcpy(dst + 48, &d, sizeof d);
            src += 64;
            dst += 64;
            len -= 64;
        } while (len >= 64);
        any = seen[0] | seen[1];
    }
    for (; len >= 8; len -= 8, src += 8, dst += 8) {
        uint64_t w;
        memcpy(&w, src, sizeof w);
        w ^= k;
        any |= w;
        memcpy(dst, &w, sizeof w);
    }
    for (size_t i = 0; i < len; i++) {
        uint8_t octet = (uint8_t)((uint8_t)src[i] ^ key[i & 3]);
        any |= octet;
        dst[i] = (char)octet;
    }
    return any;
}

/* `n` octets of the payload were unmasked: key[0] is the next one's again. */
static inline void
turn_key(cap_ws_parser *p, size_t n)
{
    uint8_t key[4];
    for (size_t i = 0; i < 4; i++)
        key[i] = p->key[(n + i) & 3];
    memcpy(p->key, key, sizeof key);
}

/* --- the end of a frame, a message, a connection --- */

static cap_ws_event
fail(cap_ws_parser *p, cap_ws_out *out, int code, const char *reason)
{
    cap_ws_free(p);
    out->code = code;
    out->reason = reason;
    return CAP_WS_ERROR;
}

#define BAD_TEXT  "text is not UTF-8"
#define TOO_BIG   "message too big"
#define NO_MEMORY "out of memory"

static cap_ws_event
control_done(cap_ws_parser *p, char *data, size_t len, cap_ws_out *out)
{
    out->data = data;
    out->len = len;
    p->stage = STAGE_HEADER;
    if (p->opcode == CAP_WS_OP_PING)
        return CAP_WS_PING;
    if (p->opcode == CAP_WS_OP_PONG)
        return CAP_WS_PONG;
    /* 5.5.1: nothing, or a code of two octets and a reason. */
    if (len == 1)
        return fail(p, out, CAP_WS_PROTOCOL_ERROR, "Close frame with one octet");
    out->code = CAP_WS_NO_CODE;
    if (len >= 2) {
        out->code = (uint8_t)data[0] << 8 | (uint8_t)data[1];
        if (!cap_ws_close_code_ok(out->code))
            return fail(p, out, CAP_WS_PROTOCOL_ERROR, "invalid close code");
        out->data += 2;
        out->len -= 2;
        if (!cap_utf8_valid(out->data, out->len))
            return fail(p, out, CAP_WS_BAD_DATA, "close reason is not UTF-8");
    }
    /* `data` may be p->control: it lives until the next call. */
    cap_buffer_free(&p->message);
    p->kind = 0;
    p->stage = STAGE_DEAD;
    return CAP_WS_CLOSE;
}

static cap_ws_event
message_done(cap_ws_parser *p, char *data, size_t len, cap_ws_out *out)
{
    int kind = p->kind;
    if (kind == CAP_WS_OP_TEXT) {
        if (p->text != CAP_UTF8_START)
            return fail(p, out, CAP_WS_BAD_DATA, BAD_TEXT);
        out->ascii = p->compressed ? cap_ascii(data, len) : !p->non_ascii;
    }
    p->kind = 0;
    p->stage = STAGE_HEADER;
    out->data = data;
    out->len = len;
    return kind == CAP_WS_OP_TEXT ? CAP_WS_TEXT : CAP_WS_BINARY;
}

/* --- headers (5.2) --- */

/* Reads the frame header at the front of h[0..have), have >= 2. Its length; 0 when
   there is more of it to come; -1 when the connection fails, and `out` says so. The
   first two octets are judged at once. */
static inline int
read_header(cap_ws_parser *p, const uint8_t *h, size_t have, cap_ws_out *out)
{
#define REFUSE(code, reason) return (void)fail(p, out, code, reason), -1
    unsigned opcode = h[0] & 0x0F, rsv = h[0] & 0x70, small = h[1] & 0x7F;
    bool fin = (h[0] & CAP_WS_FIN) != 0;
    /* RSV1 is for the first frame of a message, and for no control frame (7692 6). */
    if (rsv != 0 &&
        (rsv != CAP_WS_RSV1 || p->deflate == NULL || opcode == 0 || (opcode & CONTROL_BIT) != 0))
        REFUSE(CAP_WS_PROTOCOL_ERROR, "reserved bit set");
    if (opcode & CONTROL_BIT) {
        if (opcode > CAP_WS_OP_PONG)
            REFUSE(CAP_WS_PROTOCOL_ERROR, "unknown opcode");
        if (!fin)
            REFUSE(CAP_WS_PROTOCOL_ERROR, "fragmented control frame");
        if (small > CAP_WS_CONTROL_MAX)
            REFUSE(CAP_WS_PROTOCOL_ERROR, "control frame too long");
    } else {
        if (opcode > CAP_WS_OP_BINARY)
            REFUSE(CAP_WS_PROTOCOL_ERROR, "unknown opcode");
        if (opcode == CAP_WS_OP_CONTINUATION && p->kind == 0)
            REFUSE(CAP_WS_PROTOCOL_ERROR, "continuation frame without a message");
        if (opcode != CAP_WS_OP_CONTINUATION && p->kind != 0)
            REFUSE(CAP_WS_PROTOCOL_ERROR, "new message inside a fragmented one");
    }
    /* 5.1 */
    if ((h[1] & 0x80) == 0)
        REFUSE(CAP_WS_PROTOCOL_ERROR, "frame is not masked");

    size_t octets = small < 126 ? 0 : small == 126 ? 2 : 8;
    if (have < 2 + octets + 4)
        return 0;
    uint64_t length = small;
    if (octets != 0) {
        length = 0;
        for (size_t i = 0; i < octets; i++)
            length = length << 8 | h[2 + i];
        if (length < 126 || (octets == 8 && length <= 0xFFFF))
            REFUSE(CAP_WS_PROTOCOL_ERROR, "frame length is not minimal");
        if (length >> 63)
            REFUSE(CAP_WS_PROTOCOL_ERROR, "frame length has 64 bits");
    }
    if ((opcode & CONTROL_BIT) == 0) {
        if (opcode != CAP_WS_OP_CONTINUATION) {
            p->kind = (uint8_t)opcode;
            p->compressed = rsv != 0;
            p->non_ascii = false;
            p->text = CAP_UTF8_START;
        }
        /* What a compressed message is going to hold cannot be seen here. */
        if (p->max_size != 0 && !p->compressed && length > p->max_size - p->message.len)
            REFUSE(CAP_WS_TOO_BIG, TOO_BIG);
    }
    p->opcode = (uint8_t)opcode;
    p->fin = fin;
    p->left = length;
    memcpy(p->key, h + 2 + octets, sizeof p->key);
    return (int)(2 + octets + 4);
#undef REFUSE
}

/* --- payload --- */

/* Unmasks a piece of an uncompressed message and checks it. False: bad text. */
static inline bool
take(cap_ws_parser *p, char *dst, const char *src, size_t n)
{
    if (p->kind == CAP_WS_OP_BINARY) {
        (void)unmask(dst, src, n, p->key);
        return true;
    }
    for (;;) {
        /* PIECE is a multiple of four: the key need not turn. */
        size_t piece = n < PIECE ? n : PIECE;
        uint64_t high = unmask(dst, src, piece, p->key) & HIGH_BITS;
        if (high != 0 || p->text != CAP_UTF8_START) {
            p->non_ascii |= high != 0;
            p->text = cap_utf8_feed(p->text, dst, piece);
            if (p->text == CAP_UTF8_BAD)
                return false;
        }
        if ((n -= piece) == 0)
            return true;
        dst += piece;
        src += piece;
    }
}

/* `n` octets of a data frame that cannot be handed out where they lie. MORE when all
   is well. */
static cap_ws_event
keep(cap_ws_parser *p, char *data, size_t n, cap_ws_out *out)
{
    cap_buffer *b = &p->message;
    if (p->compressed) {
        (void)unmask(data, data, n, p->key);
        switch (cap_ws_inflate(p->deflate, data, n, p->fin && n == p->left, p->max_size,
                               p->kind == CAP_WS_OP_TEXT ? &p->text : NULL, b)) {
        case CAP_WS_INFLATE_OK:
            break;
        case CAP_WS_INFLATE_BAD:
            return fail(p, out, CAP_WS_BAD_DATA, "compressed data is invalid");
        case CAP_WS_INFLATE_TOO_BIG:
            return fail(p, out, CAP_WS_TOO_BIG, TOO_BIG);
        case CAP_WS_INFLATE_BAD_TEXT:
            return fail(p, out, CAP_WS_BAD_DATA, BAD_TEXT);
        case CAP_WS_INFLATE_NO_MEMORY:
            return fail(p, out, CAP_WS_INTERNAL_ERROR, NO_MEMORY);
        }
    } else if (n > 0) {
        if (b->cap - b->len < n) {
            /* Ahead for the rest of the frame, but in no proportion to a length that
               was only claimed. */
            size_t ahead = RESERVE_AHEAD + b->len;
            if (ahead > p->left)
                ahead = (size_t)p->left;
            if (cap_buffer_reserve(b, ahead > n ? ahead : n) < 0)
                return fail(p, out, CAP_WS_INTERNAL_ERROR, NO_MEMORY);
        }
        if (!take(p, b->data + b->len, data, n))
            return fail(p, out, CAP_WS_BAD_DATA, BAD_TEXT);
        b->len += n;
    }
    turn_key(p, n);
    p->left -= n;
    return CAP_WS_MORE;
}

cap_ws_event
cap_ws_next(cap_ws_parser *p, char *data, size_t len, size_t *used, cap_ws_out *out)
{
    size_t at = 0;
    cap_ws_event event;
    /* What was handed out last is done with. */
    if (p->kind == 0)
        p->message.len = 0;
    if (p->control != NULL && p->stage != STAGE_CONTROL)
        drop_control(p);

    for (;;) {
        size_t here;
        switch (p->stage) {
        case STAGE_HEADER: {
            int n;
            if (p->header_len == 0) {
                here = len - at;
                n = here >= 2 ? read_header(p, (uint8_t *)data + at, here, out) : 0;
                if (n > 0)
                    at += (size_t)n;
                else if (n == 0 && here > 0) {
                    memcpy(p->header, data + at, here);
                    p->header_len = (uint8_t)here;
                }
                if (n == 0)
                    goto more;
            } else {
                n = 0;
                while (n == 0) {
                    if (at == len)
                        goto more;
                    p->header[p->header_len++] = (uint8_t)data[at++];
                    if (p->header_len >= 2)
                        n = read_header(p, p->header, p->header_len, out);
                }
                p->header_len = 0;
            }
            if (n < 0) {
                event = CAP_WS_ERROR;
                goto done;
            }
            if (p->opcode & CONTROL_BIT) {
                p->control_len = 0;
                p->stage = STAGE_CONTROL;
            } else
                p->stage = STAGE_PAYLOAD;
            continue;
        }
        case STAGE_PAYLOAD:
            here = len - at;
            if (here >= p->left && p->fin && p->message.len == 0 && !p->compressed) {
                here = (size_t)p->left;
                char *start = data + at;
                at += here;
                event = take(p, start, start, here) ? message_done(p, start, here, out)
                                                    : fail(p, out, CAP_WS_BAD_DATA, BAD_TEXT);
                goto done;
            }
            if (here > p->left)
                here = (size_t)p->left;
            event = keep(p, data + at, here, out);
            at += here;
            if (event != CAP_WS_MORE)
                goto done;
            if (p->left > 0)
                goto more;
            p->stage = STAGE_HEADER;
            if (p->fin) {
                bool empty = p->message.len == 0;
                event = message_done(p, empty ? data + at : p->message.data, p->message.len, out);
                goto done;
            }
            continue;
        case STAGE_CONTROL: {
            here = len - at;
            if (here >= p->left && p->control == NULL) {
                here = (size_t)p->left;
                (void)unmask(data + at, data + at, here, p->key);
                event = control_done(p, data + at, here, out);
                at += here;
                goto done;
            }
            if (here == 0)
                goto more;
            if (p->control == NULL && (p->control = cap_malloc(CAP_WS_CONTROL_MAX)) == NULL) {
                event = fail(p, out, CAP_WS_INTERNAL_ERROR, NO_MEMORY);
                goto done;
            }
            if (here > p->left)
                here = (size_t)p->left;
            (void)unmask(p->control + p->control_len, data + at, here, p->key);
            turn_key(p, here);
            p->control_len = (uint8_t)(p->control_len + here);
            p->left -= here;
            at += here;
            if (p->left > 0)
                goto more;
            event = control_done(p, p->control, p->control_len, out);
            goto done;
        }
        default: /* STAGE_DEAD */
            at = len;
            goto more;
        }
    }

more:
    assert(at == len || p->stage == STAGE_HEADER);
    *used = len;
    /* An idle connection keeps nothing. */
    if (p->kind == 0 && p->message.cap != 0)
        cap_buffer_free(&p->message);
    return CAP_WS_MORE;
done:
    *used = at;
    return event;
}

/* --- writing --- */

size_t
cap_ws_control(char out[CAP_WS_CONTROL_FRAME], int opcode, const char *data, size_t len)
{
    if (len > CAP_WS_CONTROL_MAX)
        len = CAP_WS_CONTROL_MAX;
    size_t n = cap_ws_header(out, CAP_WS_FIN | opcode, len);
    if (len > 0)
        memcpy(out + n, data, len);
    return n + len;
}

size_t
cap_ws_close(char out[CAP_WS_CONTROL_FRAME], int code, const char *reason, size_t len)
{
    if (code == CAP_WS_NO_CODE)
        return cap_ws_header(out, CAP_WS_FIN | CAP_WS_OP_CLOSE, 0);
    len = cap_utf8_cut(reason, len, CAP_WS_CONTROL_MAX - 2);
    size_t n = cap_ws_header(out, CAP_WS_FIN | CAP_WS_OP_CLOSE, len + 2);
    out[n++] = (char)(code >> 8);
    out[n++] = (char)code;
    if (len > 0)
        memcpy(out + n, reason, len);
    return n + len;
}

bool
cap_ws_close_code_ok(int code)
{
    /* 1004 is reserved; 1005, 1006 and 1015 are never sent (7.4.1); 1012 to 1014 stand in
       IANA's registry; 3000 to 4999 are for libraries and applications (7.4.2). */
    return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
           (code >= 3000 && code <= 4999);
}
