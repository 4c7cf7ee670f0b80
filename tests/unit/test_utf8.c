/* base/utf8: against a decoder written from RFC 3629's table, at every split; SHA-1 and
   base 64 against the RFCs' vectors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/sha1.h"
#include "base/utf8.h"

static int failures;
#define CHECK(cond)                                           \
    do {                                                      \
        if (!(cond)) {                                        \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #cond); \
            failures++;                                       \
        }                                                     \
    } while (0)

/* How many octets of the front are valid characters; *partial: what follows is the
   beginning of one (or nothing). */
static size_t
reference(const uint8_t *s, size_t len, bool *partial)
{
    size_t i = 0;
    for (;;) {
        *partial = true;
        if (i == len)
            return i;
        uint8_t b = s[i], low = 0x80, high = 0xBF;
        size_t n = b < 0x80                 ? 1
                   : b >= 0xC2 && b <= 0xDF ? 2
                   : b >= 0xE0 && b <= 0xEF ? 3
                   : b >= 0xF0 && b <= 0xF4 ? 4
                                            : 0;
        if (n == 0) {
            *partial = false;
            return i;
        }
        if (b == 0xE0)
            low = 0xA0;
        if (b == 0xED)
            high = 0x9F;
        if (b == 0xF0)
            low = 0x90;
        if (b == 0xF4)
            high = 0x8F;
        for (size_t k = 1; k < n; k++, low = 0x80, high = 0xBF) {
            if (i + k == len)
                return i;
            if (s[i + k] < low || s[i + k] > high) {
                *partial = false;
                return i;
            }
        }
        i += n;
    }
}

static cap_utf8_state
expect(const uint8_t *s, size_t len, bool *complete)
{
    bool partial;
    size_t n = reference(s, len, &partial);
    *complete = n == len;
    return partial;
}

/* All of it at once, and cut in two and at every octet. */
static void
compare(const uint8_t *s, size_t len)
{
    char *copy = malloc(len > 0 ? len : 1); /* exact size: nothing is read beyond it */
    if (len > 0)
        memcpy(copy, s, len);
    bool complete;
    bool good = expect(s, len, &complete);
    for (size_t cut = 0; cut <= len; cut++) {
        cap_utf8_state state = cap_utf8_feed(CAP_UTF8_START, copy, cut);
        state = cap_utf8_feed(state, copy + cut, len - cut);
        if ((state != CAP_UTF8_BAD) != good || (state == CAP_UTF8_START) != complete) {
            printf("length %zu cut at %zu: state %u\n", len, cut, state);
            failures++;
        }
    }
    cap_utf8_state state = CAP_UTF8_START;
    for (size_t i = 0; i < len; i++) {
        bool whole;
        state = cap_utf8_feed(state, copy + i, 1);
        /* The first octet that cannot go on is noticed with it. */
        if ((state != CAP_UTF8_BAD) != expect(s, i + 1, &whole)) {
            printf("length %zu: octet %zu judged wrongly\n", len, i);
            failures++;
            break;
        }
    }
    free(copy);
}

static void
test_every_short_sequence(void)
{
    uint8_t s[4];
    for (unsigned a = 0; a < 256; a++) {
        s[0] = (uint8_t)a;
        compare(s, 1);
        for (unsigned b = 0; b < 256; b++) {
            s[1] = (uint8_t)b;
            bool complete;
            cap_utf8_state state = cap_utf8_feed(CAP_UTF8_START, (char *)s, 2);
            CHECK((state != CAP_UTF8_BAD) == expect(s, 2, &complete));
            for (unsigned c = 0x70; c < 256 && state != CAP_UTF8_BAD; c++) {
                s[2] = (uint8_t)c;
                cap_utf8_state third = cap_utf8_feed(state, (char *)s + 2, 1);
                CHECK((third != CAP_UTF8_BAD) == expect(s, 3, &complete));
                CHECK((third == CAP_UTF8_START) == complete);
                for (unsigned d = 0x70; d < 256 && third != CAP_UTF8_BAD; d++) {
                    s[3] = (uint8_t)d;
                    cap_utf8_state fourth = cap_utf8_feed(third, (char *)s + 3, 1);
                    CHECK((fourth != CAP_UTF8_BAD) == expect(s, 4, &complete));
                    CHECK((fourth == CAP_UTF8_START) == complete);
                }
            }
        }
    }
}

static void
test_mixed_text_of_every_length(void)
{
    static const char *const pieces[] = {"a",
                                         "plain ascii text that is longer than a block of 32",
                                         "\xC3\xA4",
                                         "\xE2\x82\xAC",
                                         "\xF0\x9F\x98\x80",
                                         "\xED\x9F\xBF",
                                         "\xEE\x80\x80",
                                         "\xF4\x8F\xBF\xBF"};
    static const char *const wrong[] = {"\x80",
                                        "\xC0\xAF",
                                        "\xE0\x9F\xBF",
                                        "\xED\xA0\x80",
                                        "\xF0\x8F\xBF\xBF",
                                        "\xF4\x90\x80\x80",
                                        "\xF5\x80",
                                        "\xFF",
                                        "\xE2\x82"};
    uint32_t seed = 1;
    uint8_t s[400];
    for (int round = 0; round < 400; round++) {
        size_t len = 0;
        while (len < (size_t)round / 2) {
            seed = seed * 1664525 + 1013904223;
            const char *piece = pieces[(seed >> 16) % 8];
            memcpy(s + len, piece, strlen(piece));
            len += strlen(piece);
        }
        compare(s, len);
        const char *bad = wrong[round % 9];
        memmove(s + len / 2 + strlen(bad), s + len / 2, len - len / 2);
        memcpy(s + len / 2, bad, strlen(bad));
        compare(s, len + strlen(bad));
    }
}

/* The way by blocks against the way by octets: every two octets, with what may follow them,
   inside text, over the end of a block and of all. */
static void
test_every_pair_inside_long_text(void)
{
    static const uint8_t after[][2] = {
        {0x80, 0x80}, {0xBF, 0xBF}, {0x80, 'a'}, {'a', 0x80}, {0x90, 0xA0}};
    static const size_t places[] = {15, 31, 93};
    uint8_t s[96];
    memset(s, 'a', sizeof s);
    for (size_t place = 0; place < sizeof places / sizeof *places; place++)
        for (unsigned pair = 0x8080; pair < 0x10000; pair++)
            for (size_t k = 0; k < sizeof after / sizeof *after; k++) {
                size_t at = places[place];
                const uint8_t four[] = {(uint8_t)(pair >> 8), (uint8_t)pair, after[k][0],
                                        after[k][1]};
                size_t n = sizeof s - at < 4 ? sizeof s - at : 4;
                memcpy(s + at, four, n);
                cap_utf8_state wanted = cap_utf8_feed(CAP_UTF8_START, (char *)four, n);
                if (n == 4 && wanted != CAP_UTF8_START && at + 4 < sizeof s)
                    wanted = CAP_UTF8_BAD; /* ASCII follows */
                if (cap_utf8_feed(CAP_UTF8_START, (char *)s, sizeof s) != wanted) {
                    printf("%02x %02x %02x %02x at %zu\n", four[0], four[1], four[2], four[3], at);
                    failures++;
                }
                memset(s + at, 'a', n);
            }
}

static void
test_ascii_and_cut(void)
{
    char text[100];
    memset(text, 'x', sizeof text);
    for (size_t len = 0; len <= sizeof text; len++) {
        CHECK(cap_ascii(text, len));
        for (size_t i = 0; i < len; i++) {
            text[i] = (char)0x80;
            CHECK(!cap_ascii(text, len));
            text[i] = 'x';
        }
    }
    const char *euro = "a\xE2\x82\xAC\xE2\x82\xAC";
    CHECK(cap_utf8_cut(euro, 7, 7) == 7 && cap_utf8_cut(euro, 7, 100) == 7);
    CHECK(cap_utf8_cut(euro, 7, 6) == 4 && cap_utf8_cut(euro, 7, 5) == 4);
    CHECK(cap_utf8_cut(euro, 7, 4) == 4 && cap_utf8_cut(euro, 7, 3) == 1);
    CHECK(cap_utf8_cut(euro, 7, 1) == 1 && cap_utf8_cut(euro, 7, 0) == 0);
}

static void
sha1_is(const char *text, size_t len, const char *hex)
{
    uint8_t out[CAP_SHA1_LEN];
    char shown[2 * CAP_SHA1_LEN + 1];
    cap_sha1(text, len, out);
    for (int i = 0; i < CAP_SHA1_LEN; i++)
        snprintf(shown + 2 * i, 3, "%02x", out[i]);
    CHECK(strcmp(shown, hex) == 0);
}

static void
test_sha1(void)
{
    /* RFC 3174 7.3, and the lengths around a block's end */
    sha1_is("abc", 3, "a9993e364706816aba3e25717850c26c9cd0d89d");
    sha1_is("", 0, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    sha1_is("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
            "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    char a[200];
    memset(a, 'a', sizeof a);
    sha1_is(a, 55, "c1c8bbdc22796e28c0e15163d20899b65621d65a");
    sha1_is(a, 63, "03f09f5b158a7a8cdad920bddc29b81c18a551f5");
    sha1_is(a, 64, "0098ba824b5c16427bd7a1122a5a442a25ec644d");
    sha1_is(a, 200, "e61cfffe0d9195a525fc6cf06ca2d77119c24a40");
}

static void
test_base64(void)
{
    /* RFC 4648 10 */
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
    char out[32];
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        size_t plain = strlen(pairs[i][0]), coded = strlen(pairs[i][1]);
        CHECK(CAP_BASE64_LEN(plain) == coded);
        cap_base64_encode(out, pairs[i][0], plain);
        CHECK(memcmp(out, pairs[i][1], coded) == 0);
        CHECK(cap_base64_decode(out, pairs[i][1], coded) == plain);
        CHECK(memcmp(out, pairs[i][0], plain) == 0);
    }
    static const char *const bad[] = {"Zg=",      "Zg",   "Z===", "====", "Zm9v!mFy",
                                      "Zm9v Zg=", "=Zm9", "Zm=v", "-_-_"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(cap_base64_decode(NULL, bad[i], strlen(bad[i])) == (size_t)-1);
}

int
main(void)
{
    test_every_short_sequence();
    test_mixed_text_of_every_length();
    test_every_pair_inside_long_text();
    test_ascii_and_cut();
    test_sha1();
    test_base64();
    return failures != 0;
}
