/* http/ws_extension and ws_deflate: negotiation as a table; messages there and back with
   every window, with and without context, in pieces, with engines taken away between
   messages; the RFC's own examples; what is not DEFLATE; bombs; failing memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "http/ws_deflate.h"
#include "http/ws_frame.h"

static int failures;
#define CHECK(cond)                                           \
    do {                                                      \
        if (!(cond)) {                                        \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #cond); \
            failures++;                                       \
        }                                                     \
    } while (0)

static const cap_ws_deflate_config standard = {.enabled = true,
                                               .server_max_window_bits = 12,
                                               .client_max_window_bits = 12,
                                               .level = 6,
                                               .mem_level = 5};

static void
test_negotiation(void)
{
    static const struct {
        const char *offers;
        const char *response; /* NULL: declined */
    } cases[] = {
        {"permessage-deflate", "permessage-deflate"},
        {"permessage-deflate; client_max_window_bits", /* browsers */
         "permessage-deflate; client_max_window_bits=12"},
        {"permessage-deflate;client_max_window_bits=10",
         "permessage-deflate; client_max_window_bits=10"},
        {"permessage-deflate; client_max_window_bits=15",
         "permessage-deflate; client_max_window_bits=12"},
        {"permessage-deflate; client_max_window_bits=\"9\"",
         "permessage-deflate; client_max_window_bits=9"},
        {"permessage-deflate; client_max_window_bits=\"1\\1\"",
         "permessage-deflate; client_max_window_bits=11"},
        {"permessage-deflate; client_max_window_bits=8",
         "permessage-deflate; client_max_window_bits=8"},
        {"permessage-deflate; server_max_window_bits=10",
         "permessage-deflate; server_max_window_bits=10"},
        {"permessage-deflate; server_max_window_bits=15",
         "permessage-deflate; server_max_window_bits=12"},
        {"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
         "permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
        {" permessage-deflate ; server_no_context_takeover ;\tclient_max_window_bits = 9 ",
         "permessage-deflate; server_no_context_takeover; client_max_window_bits=9"},
        {"x-webkit-deflate-frame, permessage-deflate", "permessage-deflate"},
        {"foo; bar=\"a\"; baz, , permessage-deflate", "permessage-deflate"},
        /* RFC 7692 5.2: the second when the first cannot be met */
        {"permessage-deflate; server_max_window_bits=8, permessage-deflate", "permessage-deflate"},
        {"permessage-deflate; unknown, permessage-deflate; client_max_window_bits",
         "permessage-deflate; client_max_window_bits=12"},
        {"permessage-deflate; server_max_window_bits", NULL},
        {"permessage-deflate; server_max_window_bits=7", NULL},
        {"permessage-deflate; server_max_window_bits=16", NULL},
        {"permessage-deflate; server_max_window_bits=08", NULL},
        {"permessage-deflate; server_max_window_bits=010", NULL},
        {"permessage-deflate; client_max_window_bits=+9", NULL},
        {"permessage-deflate; client_max_window_bits=a", NULL},
        {"permessage-deflate; client_max_window_bits; client_max_window_bits", NULL},
        {"permessage-deflate; server_max_window_bits=9; server_max_window_bits=9", NULL},
        {"permessage-deflate; server_no_context_takeover=1", NULL},
        {"permessage-deflate; client_no_context_takeover; client_no_context_takeover", NULL},
        {"permessage-deflate; server_no_context_takeover; server_no_context_takeover", NULL},
        {"permessage-deflate; x=\"9", NULL},
        {"permessage-deflate; x=\"\"", NULL},
        {"permessage-deflate; x=\"\\", NULL},
        {"permessage-deflate; x=\"a b\"", NULL},
        {"permessage-deflate; x=", NULL},
        {"permessage-deflate;", NULL},
        {"permessage-deflate; ; x", NULL},
        {"permessage-deflate x", NULL},
        {"permessage-deflate=1", NULL},
        {"permessage-deflate2", NULL},
        {"(), permessage-deflate", NULL},
        {",", NULL},
        {"", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len = strlen(cases[i].offers);
        char *copy = malloc(len + 1), out[CAP_WS_DEFLATE_RESPONSE];
        char *exact = malloc(len > 0 ? len : 1);
        memcpy(exact, cases[i].offers, len);
        cap_ws_deflate_params params;
        bool good = cap_ws_deflate_negotiate(&standard, exact, len, &params);
        if (good != (cases[i].response != NULL)) {
            printf("%s: %s\n", cases[i].offers, good ? "accepted" : "declined");
            failures++;
        } else if (good) {
            size_t n = cap_ws_deflate_response(&params, out);
            if (n != strlen(cases[i].response) || memcmp(out, cases[i].response, n) != 0) {
                printf("%s: %.*s\n", cases[i].offers, (int)n, out);
                failures++;
            }
        }
        /* Cut anywhere it is still only read to its end. */
        for (size_t cut = 0; cut < len; cut++) {
            memcpy(copy, cases[i].offers, cut);
            char *piece = realloc(copy, cut + 1);
            if (piece != NULL)
                copy = piece;
            (void)cap_ws_deflate_negotiate(&standard, exact, cut, &params);
        }
        free(copy);
        free(exact);
    }
    cap_ws_deflate_params p;
    cap_ws_deflate_config off = standard, strict = standard;
    off.enabled = false;
    CHECK(!cap_ws_deflate_negotiate(&off, "permessage-deflate", 18, &p));
    strict.server_no_context_takeover = strict.client_no_context_takeover = true;
    CHECK(cap_ws_deflate_negotiate(&strict, "permessage-deflate", 18, &p));
    CHECK(p.server_no_context_takeover && p.client_no_context_takeover);
    CHECK(p.client_max_window_bits == 15 && p.server_max_window_bits == 12);
    char out[CAP_WS_DEFLATE_RESPONSE];
    p.say_client_bits = p.say_server_bits = true;
    CHECK(cap_ws_deflate_response(&p, out) <= sizeof out);
}

/* --- messages --- */

static cap_ws_deflate *
new_end(cap_ws_pool *pool, const cap_ws_deflate_config *config, uint8_t bits, bool no_context)
{
    cap_ws_deflate_params params = {no_context, no_context, bits, bits, true, true};
    cap_ws_deflate *d = cap_ws_deflate_new(pool, config, &params);
    CHECK(d != NULL);
    return d;
}

static void
make_message(char *to, size_t len, unsigned kind, uint32_t seed)
{
    static const char *const words[] = {"{\"id\": ", "\"name\"", "true, ", "\xC3\xA4 ", "[1, 2]"};
    for (size_t i = 0; i < len;) {
        seed = seed * 1664525 + 1013904223;
        if (kind == 0)
            to[i++] = (char)(seed >> 24);
        else {
            const char *w = words[(seed >> 16) % 5];
            for (; *w != 0 && i < len; w++)
                to[i++] = *w;
        }
    }
}

static void
there_and_back(uint8_t bits, bool no_context, uint8_t level, unsigned keep, int disturb)
{
    cap_ws_deflate_config config = standard;
    config.level = level;
    long before = cap_mem_blocks();
    cap_ws_pool *pool = cap_ws_pool_new(keep);
    cap_ws_deflate *end[3];
    for (int i = 0; i < 3; i++)
        end[i] = new_end(pool, &config, bits, no_context);
    static const size_t lengths[] = {1, 5, 100, 1000, 5000, 0, 40000, 3, 70000, 100, 100};
    static char message[70000];
    size_t sent = 0, packed = 0;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (unsigned kind = 0; kind < 2; kind++)
            for (int who = 0; who < 3; who++) {
                size_t len = lengths[i];
                make_message(message, len, kind, (uint32_t)(kind ? 7 : i));
                cap_buffer coded = {NULL, 0, 0}, plain = {NULL, 0, 0};
                int rc = cap_ws_compress(end[who], message, len, &coded);
                CHECK(rc == 1 || (rc == 0 && no_context && (kind == 0 || len < 100)));
                if (rc == 1) {
                    sent += len;
                    packed += coded.len;
                    cap_ws_inflate_result result = CAP_WS_INFLATE_OK;
                    size_t step = i % 3 == 0 ? coded.len : i % 3 == 1 ? 1 : 999;
                    for (size_t at = 0; at < coded.len && result == CAP_WS_INFLATE_OK; at += step) {
                        size_t n = coded.len - at < step ? coded.len - at : step;
                        char *exact = malloc(n);
                        memcpy(exact, coded.data + at, n);
                        result = cap_ws_inflate(end[who], exact, n, at + n == coded.len, len, NULL,
                                                &plain);
                        free(exact);
                    }
                    CHECK(result == CAP_WS_INFLATE_OK);
                    CHECK(plain.len == len && (len == 0 || memcmp(plain.data, message, len) == 0));
                }
                cap_buffer_free(&coded);
                cap_buffer_free(&plain);
                if (disturb == 1)
                    cap_ws_deflate_idle(end[who]);
                if (disturb == 2)
                    cap_ws_pool_trim(pool);
            }
    CHECK(packed < sent);
    for (int i = 0; i < 3; i++)
        cap_ws_deflate_free(end[i]);
    cap_ws_pool_free(pool);
    CHECK(cap_mem_blocks() == before);
}

static void
test_there_and_back(void)
{
    for (uint8_t bits = 9; bits <= 15; bits++)
        for (int no_context = 0; no_context < 2; no_context++)
            for (uint8_t level = 1; level <= 9; level += bits == 12 ? 1 : 5)
                for (int disturb = 0; disturb < 3; disturb++)
                    there_and_back(bits, no_context, level, disturb == 0 ? 1 : 8, disturb);
}

/* Inflates with a context of 15 bits, in one piece and octet by octet. */
static void
inflates_to(const char *name, const char *data, size_t len, cap_ws_inflate_result wanted,
            const char *text, size_t times)
{
    for (int by_octet = 0; by_octet < 2; by_octet++) {
        cap_ws_pool *pool = cap_ws_pool_new(4);
        cap_ws_deflate *d = new_end(pool, &standard, 15, false);
        cap_ws_inflate_result result = CAP_WS_INFLATE_OK;
        for (size_t k = 0; k < times && result == CAP_WS_INFLATE_OK; k++) {
            cap_buffer out = {NULL, 0, 0};
            if (!by_octet || len == 0)
                result = cap_ws_inflate(d, data, len, true, 0, NULL, &out);
            else
                for (size_t i = 0; i < len && result == CAP_WS_INFLATE_OK; i++)
                    result = cap_ws_inflate(d, data + i, 1, i + 1 == len, 0, NULL, &out);
            if (wanted == CAP_WS_INFLATE_OK && result == wanted &&
                (out.len != strlen(text) ||
                 (out.len > 0 && memcmp(out.data, text, out.len) != 0))) {
                printf("%s: %.*s\n", name, (int)out.len, out.data);
                failures++;
            }
            cap_buffer_free(&out);
        }
        if (result != wanted) {
            printf("%s: %d\n", name, result);
            failures++;
        }
        cap_ws_deflate_free(d);
        cap_ws_pool_free(pool);
    }
}

static void
test_examples(void)
{
#define OK(name, bytes, text, times) \
    inflates_to(name, bytes, sizeof(bytes) - 1, CAP_WS_INFLATE_OK, text, times)
#define BAD(name, bytes) inflates_to(name, bytes, sizeof(bytes) - 1, CAP_WS_INFLATE_BAD, "", 2)
    OK("7.2.3.1", "\xF2\x48\xCD\xC9\xC9\x07\x00", "Hello", 3);
    OK("7.2.3.3: no compression", "\x00\x05\x00\xFA\xFF\x48\x65\x6C\x6C\x6F\x00", "Hello", 3);
    OK("7.2.3.4: BFINAL", "\xF3\x48\xCD\xC9\xC9\x07\x00\x00", "Hello", 3);
    OK("BFINAL without the octet", "\xF3\x48\xCD\xC9\xC9\x07\x00", "Hello", 3);
    OK("7.2.3.5: two blocks", "\xF2\x48\x05\x00\x00\x00\xFF\xFF\xCA\xC9\xC9\x07\x00", "Hello", 3);
    OK("7.2.3.6: empty", "\x00", "", 3);
    OK("no octets at all", "", "", 3);
    OK("many BFINAL", "\x03\x00\x03\x00\x03\x00\xF3\x48\xCD\xC9\xC9\x07\x00\x00", "Hello", 2);
    BAD("reserved block type", "\x07\x00");
    BAD("stored block with a wrong complement", "\x00\x05\x00\xFA\x00");
    BAD("ends inside a block", "\xF2\x48\xCD\xC9");
    BAD("ends inside a stored block", "\x00\x0A\x00\xF5\xFF\x48");
    BAD("nothing but ones", "\xFF\xFF\xFF\xFF");
    /* 7.2.3.2: the second message refers to the first one's window */
    cap_ws_pool *pool = cap_ws_pool_new(1);
    for (int no_context = 0; no_context < 2; no_context++) {
        cap_ws_deflate *d = new_end(pool, &standard, 12, no_context);
        cap_buffer out = {NULL, 0, 0};
        CHECK(cap_ws_inflate(d, "\xF2\x48\xCD\xC9\xC9\x07\x00", 7, true, 0, NULL, &out) ==
              CAP_WS_INFLATE_OK);
        out.len = 0;
        cap_ws_inflate_result second =
            cap_ws_inflate(d, "\xF2\x00\x11\x00\x00", 5, true, 0, NULL, &out);
        if (no_context)
            CHECK(second == CAP_WS_INFLATE_BAD);
        else
            CHECK(second == CAP_WS_INFLATE_OK && out.len == 5 && memcmp(out.data, "Hello", 5) == 0);
        cap_buffer_free(&out);
        cap_ws_deflate_free(d);
    }
    cap_ws_pool_free(pool);
}

static void
test_limits_and_text(void)
{
    cap_ws_pool *pool = cap_ws_pool_new(2);
    size_t size = 10u << 20;
    char *zeros = calloc(1, size);
    cap_buffer bomb = {NULL, 0, 0};
    cap_ws_deflate *d = new_end(pool, &standard, 12, true);
    CHECK(cap_ws_compress(d, zeros, size, &bomb) == 1 && bomb.len < size / 100);
    static const uint64_t limits[] = {1, 1000, 65536, (10u << 20) - 1, 10u << 20};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        cap_buffer out = {NULL, 0, 0};
        cap_ws_deflate *e = new_end(pool, &standard, 12, true);
        cap_ws_inflate_result r =
            cap_ws_inflate(e, bomb.data, bomb.len, true, limits[i], NULL, &out);
        CHECK(r == (limits[i] < size ? CAP_WS_INFLATE_TOO_BIG : CAP_WS_INFLATE_OK));
        CHECK(out.len <= limits[i] + 1 && out.cap <= limits[i] * 2 + 4096);
        cap_buffer_free(&out);
        cap_ws_deflate_free(e);
    }
    /* Bad text is noticed before the rest is inflated. */
    zeros[100] = (char)0xFF;
    bomb.len = 0;
    CHECK(cap_ws_compress(d, zeros, size, &bomb) == 1);
    cap_buffer out = {NULL, 0, 0};
    uint8_t text = CAP_UTF8_START;
    CHECK(cap_ws_inflate(d, bomb.data, bomb.len, true, 0, &text, &out) == CAP_WS_INFLATE_BAD_TEXT);
    CHECK(out.len < size / 10);
    cap_buffer_free(&out);
    cap_buffer_free(&bomb);
    free(zeros);
    cap_ws_deflate_free(d);

    cap_ws_deflate_config config = standard;
    config.threshold = 10;
    d = new_end(pool, &config, 12, false);
    CHECK(cap_ws_compress(d, "123456789", 9, &out) == 0 && out.cap == 0);
    CHECK(cap_ws_compress(d, "1234567890", 10, &out) == 1);
    cap_buffer_free(&out);
    cap_ws_deflate_free(d);
    cap_ws_pool_free(pool);
}

static void
test_memory_of_idle_connections(void)
{
    long before = cap_mem_blocks();
    cap_ws_pool *pool = cap_ws_pool_new(4);
    enum {
        N = 200
    };
    cap_ws_deflate *many[N];
    for (int i = 0; i < N; i++)
        many[i] = new_end(pool, &standard, 12, false);
    CHECK(cap_mem_blocks() == before + N + 1);
    for (int i = 0; i < N; i++) {
        cap_buffer coded = {NULL, 0, 0}, plain = {NULL, 0, 0};
        CHECK(cap_ws_compress(many[i], "some text to keep", 17, &coded) == 1);
        CHECK(cap_ws_inflate(many[i], coded.data, coded.len, true, 0, NULL, &plain) ==
              CAP_WS_INFLATE_OK);
        cap_buffer_free(&coded);
        cap_buffer_free(&plain);
    }
    /* Each keeps two windows of 17 octets; four engines of each kind are two blocks each. */
    CHECK(cap_mem_blocks() <= before + 1 + N * 3 + 4 * 2 * 2);
    for (int i = 0; i < N; i++)
        cap_ws_deflate_idle(many[i]);
    CHECK(cap_mem_blocks() <= before + 1 + N * 2 + 4 * 2 * 2);
    cap_ws_pool_trim(pool);
    CHECK(cap_mem_blocks() == before + 1 + N * 2);
    for (int i = 0; i < N; i++)
        cap_ws_deflate_free(many[i]);
    cap_ws_pool_free(pool);
    CHECK(cap_mem_blocks() == before);
}

static void
test_failing_memory(void)
{
    long before = cap_mem_blocks();
    for (long n = 1; n < 60; n++) {
        cap_ws_pool *pool = cap_ws_pool_new(1);
        cap_ws_deflate *a = new_end(pool, &standard, 12, false),
                       *b = new_end(pool, &standard, 10, false);
        static char message[3000];
        make_message(message, sizeof message, 1, 1);
        cap_ws_deflate *turns[] = {a, b, a, b};
        bool dead[2] = {false, false};
        cap_mem_fail(n, 1);
        for (int i = 0; i < 4; i++) {
            cap_buffer coded = {NULL, 0, 0}, plain = {NULL, 0, 0};
            int rc = cap_ws_compress(turns[i], message, sizeof message, &coded);
            if (rc < 0) {
                CHECK(coded.len == 0 && coded.cap == 0);
                rc = cap_ws_compress(turns[i], message, sizeof message, &coded); /* it goes on */
            }
            CHECK(rc == 1);
            if (!dead[i & 1]) {
                cap_ws_inflate_result r =
                    cap_ws_inflate(turns[i], coded.data, coded.len, true, 0, NULL, &plain);
                CHECK(r == CAP_WS_INFLATE_OK || r == CAP_WS_INFLATE_NO_MEMORY);
                if (r == CAP_WS_INFLATE_OK)
                    CHECK(plain.len == sizeof message &&
                          memcmp(plain.data, message, plain.len) == 0);
                else
                    dead[i & 1] = true;
            }
            cap_buffer_free(&coded);
            cap_buffer_free(&plain);
        }
        cap_mem_fail(0, 0);
        cap_ws_deflate_free(a);
        cap_ws_deflate_free(b);
        cap_ws_pool_free(pool);
        CHECK(cap_mem_blocks() == before);
    }
}

/* --- through the frame parser --- */

static cap_ws_event
feed(cap_ws_parser *p, const char *frames, size_t len, size_t piece, cap_ws_out *out, char *copy)
{
    cap_ws_event event = CAP_WS_MORE;
    size_t used;
    for (size_t at = 0; at < len && event == CAP_WS_MORE; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        memcpy(copy, frames + at, n);
        event = cap_ws_next(p, copy, n, &used, out);
    }
    return event;
}

static void
test_frames(void)
{
    static const struct {
        const char *name;
        const char *frames;
        size_t len;
        cap_ws_event event;
        int code;
        const char *text;
    } cases[] = {
#define RAW(bytes) bytes, sizeof(bytes) - 1
        {"one frame", RAW("\xC1\x87\0\0\0\0\xF2\x48\xCD\xC9\xC9\x07\x00"), CAP_WS_TEXT, 0, "Hello"},
        {"two fragments", RAW("\x41\x83\0\0\0\0\xF2\x48\xCD\x80\x84\0\0\0\0\xC9\xC9\x07\x00"),
         CAP_WS_TEXT, 0, "Hello"},
        {"an empty last fragment",
         RAW("\x42\x87\0\0\0\0\xF2\x48\xCD\xC9\xC9\x07\x00\x80\x80\0\0\0\0"), CAP_WS_BINARY, 0,
         "Hello"},
        {"not compressed", RAW("\x81\x85\0\0\0\0Hello"), CAP_WS_TEXT, 0, "Hello"},
        {"empty", RAW("\xC1\x81\0\0\0\0\x00"), CAP_WS_TEXT, 0, ""},
        {"of no octets", RAW("\xC1\x80\0\0\0\0"), CAP_WS_TEXT, 0, ""},
        {"6.1: RSV1 on a continuation", RAW("\x41\x83\0\0\0\0\xF2\x48\xCD\xC0\x84"), CAP_WS_ERROR,
         1002, ""},
        {"RSV1 on a Ping", RAW("\xC9\x80"), CAP_WS_ERROR, 1002, ""},
        {"RSV2", RAW("\xE1\x80"), CAP_WS_ERROR, 1002, ""},
        {"broken", RAW("\xC1\x82\0\0\0\0\x07\x00"), CAP_WS_ERROR, 1007, ""},
        {"bad text", RAW("\xC1\x87\0\0\0\0\x00\x01\x00\xFE\xFF\xFF\x00"), CAP_WS_ERROR, 1007, ""},
        {"text cut in a character", RAW("\xC1\x87\0\0\0\0\x00\x01\x00\xFE\xFF\xE2\x00"),
         CAP_WS_ERROR, 1007, ""},
        {"too big",
         RAW("\xC1\x8C\0\0\0\0\x00\x06\x00\xF9\xFF"
             "Hello!\x00"),
         CAP_WS_ERROR, 1009, ""},
    };
    cap_ws_pool *pool = cap_ws_pool_new(2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t piece = 1; piece <= cases[i].len; piece++) {
            long before = cap_mem_blocks();
            cap_ws_deflate *d = new_end(pool, &standard, 15, false);
            cap_ws_parser p;
            cap_ws_out out;
            char copy[64];
            cap_ws_init(&p, 5, d);
            cap_ws_event event = feed(&p, cases[i].frames, cases[i].len, piece, &out, copy);
            bool same = event == cases[i].event;
            if (same && event == CAP_WS_ERROR)
                same = out.code == cases[i].code;
            else if (same)
                same = out.len == strlen(cases[i].text) &&
                       memcmp(out.data, cases[i].text, out.len) == 0 &&
                       (event != CAP_WS_TEXT || out.ascii);
            if (!same) {
                printf("%s in pieces of %zu: event %d\n", cases[i].name, piece, event);
                failures++;
            }
            cap_ws_free(&p);
            cap_ws_deflate_free(d);
            cap_ws_pool_trim(pool);
            CHECK(cap_mem_blocks() == before);
        }
    cap_ws_pool_free(pool);
}

int
main(void)
{
    if (!cap_ws_deflate_available()) {
        cap_ws_deflate_params params;
        CHECK(!cap_ws_deflate_negotiate(&standard, "permessage-deflate", 18, &params));
        return failures != 0;
    }
    test_negotiation();
    test_there_and_back();
    test_examples();
    test_limits_and_text();
    test_memory_of_idle_connections();
    test_failing_memory();
    test_frames();
    return failures != 0;
}
