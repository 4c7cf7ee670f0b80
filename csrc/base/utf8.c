/* UTF-8 as an automaton whose states are shift counts: a table row (one for each
   octet value) holds for every state, at the bit position that is the state's
   number, the number of the next state. So a step is one load that does not wait
   for the step before it, and one shift that does: about one cycle an octet, with
   no branch. Runs of ASCII are skipped 32 octets at a time. Longer text is looked at
   16 octets at a time where the processor can (SSSE3); the automaton then sees only
   its end. */
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
#define TAIL         (GO(TAIL1, START) | GO(TAIL2, TAIL1) | GO(TAIL3, TAIL2))
#define R80          (TAIL | GO(AFTER_ED, TAIL1) | GO(AFTER_F4, TAIL2))
#define R90          (TAIL | GO(AFTER_ED, TAIL1) | GO(AFTER_F0, TAIL2))
#define RA0          (TAIL | GO(AFTER_E0, TAIL1) | GO(AFTER_F0, TAIL2))
#define ASC          GO(START, START)
#define L2           GO(START, TAIL1)
#define L3           GO(START, TAIL2)
#define X4(r)        r, r, r, r
#define X16(r)       X4(r), X4(r), X4(r), X4(r)

/* clang-format off */
static const uint64_t table[256] = {
    X16(ASC), X16(ASC), X16(ASC), X16(ASC), X16(ASC), X16(ASC), X16(ASC), X16(ASC),
    X16(R80), X16(R90), X16(RA0), X16(RA0),
    /* C0 */ 0, 0, L2, L2, X4(L2), X4(L2), X4(L2),
    /* D0 */ X16(L2),
    /* E0 */ GO(START, AFTER_E0), L3, L3, L3, X4(L3), X4(L3),
    /* EC */ L3, GO(START, AFTER_ED), L3, L3,
    /* F0 */ GO(START, AFTER_F0), GO(START, TAIL3), GO(START, TAIL3), GO(START, TAIL3),
    /* F4 */ GO(START, AFTER_F4), 0, 0, 0, X4(0), X4(0)};
/* clang-format on */

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

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_BLOCKS 1
/* Shorter text is not worth the setting up. */
#define BLOCKS_MIN 64

#include <tmmintrin.h>

/* Keiser and Lemire, "Validating UTF-8 in less than one instruction per byte" (2021): three
   tables, of the high and low half of an octet and the high half of the next, say which
   faults are still possible; what all three have in common is one. A second and third
   tail octet looks like TWO_TAILS, and is one unless a lead octet two or three before
   asks for it. */
enum {
    TOO_SHORT = 1 << 0, /* a lead octet without a tail */
    TOO_LONG = 1 << 1,  /* ASCII with a tail */
    OVERLONG_3 = 1 << 2,
    TOO_LARGE = 1 << 3, /* F4 90 and more */
    SURROGATE = 1 << 4,
    OVERLONG_2 = 1 << 5,
    OVERLONG_4 = 1 << 6, /* and F5 80 and more */
    TWO_TAILS = 1 << 7,
    ANY_LOW = TOO_SHORT | TOO_LONG | TWO_TAILS,
    ANY_F5 = ANY_LOW | TOO_LARGE | OVERLONG_4
};
#define V(x)  (char)(x)
#define V2(x) V(x), V(x)
#define V4(x) V2(x), V2(x)

/* BAD, or START and in *end how far text is whole that began between two characters: at
   most 34 octets before its end. `len` >= 32. */
__attribute__((target("ssse3"))) static cap_utf8_state
feed_blocks(const uint8_t *p, size_t len, const uint8_t **end)
{
    const __m128i first_high = _mm_setr_epi8(
        V4(TOO_LONG), V4(TOO_LONG), V4(TWO_TAILS), V(TOO_SHORT | OVERLONG_2), V(TOO_SHORT),
        V(TOO_SHORT | OVERLONG_3 | SURROGATE), V(TOO_SHORT | TOO_LARGE | OVERLONG_4));
    const __m128i first_low =
        _mm_setr_epi8(V(ANY_LOW | OVERLONG_2 | OVERLONG_3 | OVERLONG_4), V(ANY_LOW | OVERLONG_2),
                      V2(ANY_LOW), V(ANY_LOW | TOO_LARGE), V4(ANY_F5), V4(ANY_F5),
                      V(ANY_F5 | SURROGATE), V2(ANY_F5));
#define TAILED (TOO_LONG | OVERLONG_2 | TWO_TAILS)
    const __m128i second_high = _mm_setr_epi8(
        V4(TOO_SHORT), V4(TOO_SHORT), V(TAILED | OVERLONG_3 | OVERLONG_4),
        V(TAILED | OVERLONG_3 | TOO_LARGE), V2(TAILED | SURROGATE | TOO_LARGE), V4(TOO_SHORT));
    /* A lead octet at the end of a block whose character goes on behind it. */
    const __m128i whole =
        _mm_setr_epi8(V4(0xFF), V4(0xFF), V4(0xFF), V(0xFF), V(0xEF), V(0xDF), V(0xBF));
    const __m128i low_half = _mm_set1_epi8(0x0F), high_bit = _mm_set1_epi8(V(0x80));
    __m128i before = _mm_setzero_si128(), wrong = before;
    for (; len >= 32; len -= 32) {
        __m128i block[2] = {_mm_loadu_si128((const __m128i *)p),
                            _mm_loadu_si128((const __m128i *)(p + 16))};
        p += 32;
        if (_mm_movemask_epi8(_mm_or_si128(block[0], block[1])) == 0) {
            wrong = _mm_or_si128(wrong, _mm_subs_epu8(before, whole));
            before = block[1];
            continue;
        }
        for (int i = 0; i < 2; i++) {
            __m128i now = block[i], one = _mm_alignr_epi8(now, before, 15);
            __m128i high = _mm_and_si128(_mm_srli_epi16(one, 4), low_half);
            __m128i next = _mm_and_si128(_mm_srli_epi16(now, 4), low_half);
            __m128i fault = _mm_and_si128(
                _mm_and_si128(_mm_shuffle_epi8(first_high, high),
                              _mm_shuffle_epi8(first_low, _mm_and_si128(one, low_half))),
                _mm_shuffle_epi8(second_high, next));
            /* Only E0 and more, F0 and more, keep their high bit. */
            __m128i third = _mm_subs_epu8(_mm_alignr_epi8(now, before, 14), _mm_set1_epi8(0x60));
            __m128i fourth = _mm_subs_epu8(_mm_alignr_epi8(now, before, 13), _mm_set1_epi8(0x70));
            __m128i tail = _mm_and_si128(_mm_or_si128(third, fourth), high_bit);
            wrong = _mm_or_si128(wrong, _mm_xor_si128(tail, fault));
            before = now;
        }
    }
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(wrong, _mm_setzero_si128())) != 0xFFFF)
        return BAD;
    /* Back to the last lead octet, when its character may end behind. */
    for (int i = 1; i <= 3; i++)
        if (p[-i] >= 0xC0) {
            p -= i;
            break;
        } else if (p[-i] < 0x80)
            break;
    *end = p;
    return START;
}
#endif

cap_utf8_state
cap_utf8_feed(cap_utf8_state state, const char *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    uint64_t s = state;
#ifdef HAVE_BLOCKS
    if (len >= BLOCKS_MIN && __builtin_cpu_supports("ssse3")) {
        for (; s != START; len--) {
            if ((s = table[*p++] >> (s & 63) & 63) == BAD)
                return BAD;
        }
        const uint8_t *end = p;
        if (feed_blocks(p, len, &end) == BAD)
            return BAD;
        len -= (size_t)(end - p);
        p = end;
    }
#endif
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
