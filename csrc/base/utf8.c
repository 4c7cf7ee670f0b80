/* UTF-8 as an automaton whose states are shift counts: a table row (one for each
   octet value) holds for every state, at the bit position that is the state's
   number, the number of the next state. So a step is one load that does not wait
   for the step before it, and one shift that does: about one cycle an octet, with
   no branch. Runs of ASCII are skipped 32 octets at a time. */
#include "base/utf8.h"

#include <string.h>

enum {
    BAD = CAP_UTF8_BAD,
    START = CAP_UTF8_START,
    TAIL1 = 12, /* one more octet 80..BF */
    TAIL2 = 18,
    TAIL3 = 24,
    AFTER_E0 = 30, /* A0..BF, then one more (RFC 3629 4: UTF8-3) */
    AFTER_ED = 36, /* 80..9F, then one more: no surrogates */
    AFTER_F0 = 42, /* 90..BF, then two more (UTF8-4) */
    AFTER_F4 = 48  /* 80..8F, then two more */
};

/* In state `from`, go to `to`; from where a row says nothing the way leads to BAD. */
#define GO(from, to) ((uint64_t)(to) << (from))
#define TAIL (GO(TAIL1, START) | GO(TAIL2, TAIL1) | GO(TAIL3, TAIL2))
#define R80 (TAIL | GO(AFTER_ED, TAIL1) | GO(AFTER_F4, TAIL2))
#define R90 (TAIL | GO(AFTER_ED, TAIL1) | GO(AFTER_F0, TAIL2))
#define RA0 (TAIL | GO(AFTER_E0, TAIL1) | GO(AFTER_F0, TAIL2))
#define ASC GO(START, START)
#define L2 GO(START, TAIL1)
#define L3 GO(START, TAIL2)
#define X4(r) r, r, r, r
#define X16(r) X4(r), X4(r), X4(r), X4(r)

static const uint64_t table[256] = {
    X16(ASC), X16(ASC), X16(ASC), X16(ASC), X16(ASC), X16(ASC), X16(ASC), X16(ASC),
    X16(R80), X16(R90), X16(RA0), X16(RA0),
    /* C0 */ 0, 0, L2, L2, X4(L2), X4(L2), X4(L2),
    /* D0 */ X16(L2),
    /* E0 */ GO(START, AFTER_E0), L3, L3, L3, X4(L3), X4(L3),
    /* EC */ L3, GO(START, AFTER_ED), L3, L3,
    /* F0 */ GO(START, AFTER_F0), GO(START, TAIL3), GO(START, TAIL3), GO(START, TAIL3),
    /* F4 */ GO(START, AFTER_F4), 0, 0, 0, X4(0), X4(0)};

#define HIGH_BITS UINT64_C(0x8080808080808080)

static inline uint64_t
word(const uint8_t *p)
{
    uint64_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

static inline bool
ascii32(const uint8_t *p)
{
    return ((word(p) | word(p + 8) | word(p + 16) | word(p + 24)) & HIGH_BITS) == 0;
}

cap_utf8_state
cap_utf8_feed(cap_utf8_state state, const char *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    uint64_t s = state;
    while (len >= 32) {
        if (s != START || !ascii32(p)) {
            for (int i = 0; i < 32; i++)
                s = table[p[i]] >> (s & 63);
            s &= 63;
            if (s == BAD)
                return BAD;
        }
        p += 32;
        len -= 32;
    }
    while (len >= 8) {
        if (s != START || (word(p) & HIGH_BITS) != 0) {
            for (int i = 0; i < 8; i++)
                s = table[p[i]] >> (s & 63);
            s &= 63;
        }
        p += 8;
        len -= 8;
    }
    for (; len > 0; len--)
        s = table[*p++] >> (s & 63);
    return (cap_utf8_state)(s & 63);
}

bool
cap_ascii(const char *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    for (; len >= 32; len -= 32, p += 32)
        if (!ascii32(p))
            return false;
    for (; len >= 8; len -= 8, p += 8)
        if ((word(p) & HIGH_BITS) != 0)
            return false;
    uint8_t any = 0;
    for (; len > 0; len--)
        any |= *p++;
    return any < 0x80;
}

size_t
cap_utf8_cut(const char *data, size_t len, size_t max)
{
    if (len <= max)
        return len;
    while (max > 0 && ((uint8_t)data[max] & 0xC0) == 0x80)
        max--;
    return max;
}
