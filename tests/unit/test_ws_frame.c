/* http/ws_frame: tables of frames and what they have to give, each cut at every octet,
   in pieces of every size, and with every allocation failing once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "http/ws_frame.h"

static int failures;
#define CHECK(cond)                                           \
    do {                                                      \
        if (!(cond)) {                                        \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #cond); \
            failures++;                                       \
        }                                                     \
    } while (0)

/* --- frames as a client makes them --- */

typedef struct stream {
    char data[300000];
    size_t len;
} stream;

static void
put_raw(stream *s, const void *data, size_t len)
{
    memcpy(s->data + s->len, data, len);
    s->len += len;
}

static const uint8_t key[4] = {0x37, 0xFA, 0x21, 0x3D};

static void
put_header(stream *s, int first, uint64_t len, bool masked)
{
    char header[CAP_WS_HEADER_MAX];
    size_t n = cap_ws_header(header, first, len);
    if (masked)
        header[1] = (char)(header[1] | 0x80);
    put_raw(s, header, n);
    if (masked)
        put_raw(s, key, 4);
}

static void
put(stream *s, int first, const char *payload, size_t len)
{
    put_header(s, first, len, true);
    for (size_t i = 0; i < len; i++)
        s->data[s->len++] = (char)(payload[i] ^ key[i & 3]);
}

#define FIN                 CAP_WS_FIN
#define TEXT                CAP_WS_OP_TEXT
#define BIN                 CAP_WS_OP_BINARY
#define CONT                CAP_WS_OP_CONTINUATION
#define PUT(s, first, text) put(s, first, text, sizeof(text) - 1)

/* --- events as text, so that runs can be compared --- */

typedef struct record {
    char *text; /* "T:hello|P:|C1000:bye|E1002|" */
    size_t len, cap;
} record;

static void
note(record *r, const char *data, size_t len)
{
    if (r->len + len + 1 > r->cap) {
        r->cap = (r->len + len + 1) * 2;
        r->text = realloc(r->text, r->cap);
    }
    if (len > 0)
        memcpy(r->text + r->len, data, len);
    r->len += len;
    r->text[r->len] = 0;
}

static void
note_event(record *r, cap_ws_event event, const cap_ws_out *out)
{
    char head[32];
    static const char letter[] = "?TBpoCE";
    int n = event == CAP_WS_CLOSE || event == CAP_WS_ERROR
                ? snprintf(head, sizeof head, "%c%d:", letter[event], out->code)
                : snprintf(head, sizeof head, "%c:", letter[event]);
    note(r, head, (size_t)n);
    if (event != CAP_WS_ERROR) {
        CHECK(out->data != NULL);
        note(r, out->data, out->len);
    } else
        CHECK(out->reason != NULL && strlen(out->reason) <= 123);
    if (event == CAP_WS_TEXT) {
        bool ascii = true;
        for (size_t i = 0; i < out->len; i++)
            ascii &= (uint8_t)out->data[i] < 0x80;
        CHECK(out->ascii == ascii);
    }
    note(r, "|", 1);
}

/* Presents one piece, in memory of its exact size. */
static void
present(cap_ws_parser *p, const char *data, size_t len, record *r)
{
    char *copy = malloc(len > 0 ? len : 1), *at = copy;
    if (len > 0)
        memcpy(copy, data, len);
    size_t used;
    cap_ws_out out;
    cap_ws_event event;
    while ((event = cap_ws_next(p, at, len, &used, &out)) != CAP_WS_MORE) {
        note_event(r, event, &out);
        CHECK(used <= len);
        at += used;
        len -= used;
    }
    CHECK(used == len);
    free(copy);
}

static char *
run(const stream *s, uint64_t max, size_t piece, size_t first_cut)
{
    record r = {NULL, 0, 0};
    note(&r, "", 0);
    cap_ws_parser p;
    cap_ws_init(&p, max, NULL);
    size_t at = 0;
    if (first_cut > 0) {
        present(&p, s->data, first_cut, &r);
        at = first_cut;
    }
    while (at < s->len) {
        size_t n = s->len - at < piece ? s->len - at : piece;
        present(&p, s->data + at, n, &r);
        at += n;
    }
    if (cap_ws_between_messages(&p))
        CHECK(p.message.cap == 0 && cap_ws_held(&p) == 0);
    cap_ws_free(&p);
    return r.text;
}

/* Whatever way it is cut, the same events. */
static void
expect_stream(const char *name, const stream *s, uint64_t max, const char *wanted)
{
    long before = cap_mem_blocks();
    for (size_t cut = 0; cut < s->len && cut < 600; cut++) {
        char *got = run(s, max, s->len, cut);
        if (strcmp(got, wanted) != 0) {
            printf("%s, cut at %zu: got %.200s, wanted %.200s\n", name, cut, got, wanted);
            failures++;
            free(got);
            return;
        }
        free(got);
    }
    for (size_t piece = 1; piece < 40 && piece <= s->len; piece++) {
        char *got = run(s, max, piece, 0);
        if (strcmp(got, wanted) != 0) {
            printf("%s, in pieces of %zu: got %.200s, wanted %.200s\n", name, piece, got, wanted);
            failures++;
        }
        free(got);
    }
    CHECK(cap_mem_blocks() == before);
}

static stream s; /* big: not on the stack */

#define EXPECT(name, wanted) (expect_stream(name, &s, 0, wanted), s.len = 0)

static void
test_messages(void)
{
    static const uint8_t hello[] = {0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D,
                                    0x7F, 0x9F, 0x4D, 0x51, 0x58};
    put_raw(&s, hello, sizeof hello);
    EXPECT("RFC 6455 5.7: a single-frame masked text message", "T:Hello|");
    PUT(&s, FIN | TEXT, "");
    PUT(&s, FIN | BIN, "");
    PUT(&s, FIN | TEXT, "a");
    EXPECT("empty messages", "T:|B:|T:a|");
    PUT(&s, TEXT, "Hel");
    PUT(&s, CONT, "");
    PUT(&s, FIN | CONT, "lo");
    PUT(&s, FIN | BIN, "\xFF\xFE");
    EXPECT("fragments, then a message", "T:Hello|B:\xFF\xFE|");
    PUT(&s, TEXT, "");
    PUT(&s, CONT, "");
    PUT(&s, FIN | CONT, "");
    EXPECT("empty fragments", "T:|");
    PUT(&s, TEXT, "");
    PUT(&s, FIN | CONT, "late");
    EXPECT("all in the last fragment", "T:late|");
    PUT(&s, BIN, "ab");
    PUT(&s, FIN | CAP_WS_OP_PING, "in the middle");
    PUT(&s, FIN | CAP_WS_OP_PONG, "");
    PUT(&s, FIN | CONT, "cd");
    EXPECT("5.4: control frames between fragments", "p:in the middle|o:|B:abcd|");
    PUT(&s, FIN | TEXT,
        "\xE2\x82\xAC\xF0\x9F\x98\x80 text that is not only ASCII, longer than 64 octets");
    EXPECT("UTF-8",
           "T:\xE2\x82\xAC\xF0\x9F\x98\x80 text that is not only ASCII, longer than 64 octets|");
    PUT(&s, TEXT, "\xE2");
    PUT(&s, CONT, "\x82");
    PUT(&s, FIN | CONT, "\xAC");
    EXPECT("a character cut by fragments", "T:\xE2\x82\xAC|");
    char long_ping[125];
    memset(long_ping, 'x', sizeof long_ping);
    put(&s, FIN | CAP_WS_OP_PING, long_ping, sizeof long_ping);
    char wanted[130] = "p:";
    memset(wanted + 2, 'x', 125);
    wanted[127] = '|';
    EXPECT("a Ping of 125", wanted);
}

static void
test_close(void)
{
    PUT(&s, FIN | CAP_WS_OP_CLOSE, "");
    EXPECT("Close without a code", "C1005:|");
    PUT(&s, FIN | CAP_WS_OP_CLOSE, "\x03\xE8");
    PUT(&s, FIN | TEXT, "unseen");
    EXPECT("5.5.1: nothing after Close", "C1000:|");
    PUT(&s, FIN | CAP_WS_OP_CLOSE, "\x03\xE9going \xC3\xA4way");
    put_raw(&s, "\xFF\xFF\xFF", 3);
    EXPECT("Close with a reason", "C1001:going \xC3\xA4way|");
    PUT(&s, TEXT, "unfinished");
    PUT(&s, FIN | CAP_WS_OP_CLOSE, "\x0F\xA0");
    EXPECT("Close inside a message", "C4000:|");
    PUT(&s, FIN | CAP_WS_OP_CLOSE, "\x03");
    EXPECT("5.5.1: Close with one octet", "E1002:|");
    PUT(&s, FIN | CAP_WS_OP_CLOSE, "\x03\xE8\xC3");
    EXPECT("a reason cut inside a character", "E1007:|");
    PUT(&s, FIN | CAP_WS_OP_CLOSE, "\x03\xE8\xED\xA0\x80");
    EXPECT("a surrogate in the reason", "E1007:|");
    static const int good[] = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010,
                               1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999};
    static const int bad[] = {0,    1,    999,  1004, 1005, 1006, 1015,
                              1016, 1100, 2000, 2999, 5000, 65535};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char payload[2] = {(char)(good[i] >> 8), (char)good[i]}, wanted[16];
        put(&s, FIN | CAP_WS_OP_CLOSE, payload, 2);
        snprintf(wanted, sizeof wanted, "C%d:|", good[i]);
        EXPECT("7.4: valid codes", wanted);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char payload[2] = {(char)(bad[i] >> 8), (char)bad[i]};
        put(&s, FIN | CAP_WS_OP_CLOSE, payload, 2);
        EXPECT("7.4: invalid codes", "E1002:|");
    }
}

static void
test_refused(void)
{
    static const struct {
        const char *name;
        const char *frame;
        size_t len;
        const char *wanted;
    } cases[] = {
#define RAW(bytes) bytes, sizeof(bytes) - 1
        {"5.1: not masked", RAW("\x81\x05Hello"), "E1002:|"},
        {"5.1: not masked, empty", RAW("\x81\x00"), "E1002:|"},
        {"5.2: RSV1 without an extension", RAW("\xC1\x80"), "E1002:|"},
        {"5.2: RSV2", RAW("\xA1\x80"), "E1002:|"},
        {"5.2: RSV3", RAW("\x91\x80"), "E1002:|"},
        {"5.2: RSV on a Ping", RAW("\xC9\x80"), "E1002:|"},
        {"5.2: opcode 3", RAW("\x83\x80"), "E1002:|"},
        {"5.2: opcode 7", RAW("\x87\x80"), "E1002:|"},
        {"5.2: opcode 11", RAW("\x8B\x80"), "E1002:|"},
        {"5.2: opcode 15", RAW("\x8F\x80"), "E1002:|"},
        {"5.5: fragmented Ping", RAW("\x09\x80"), "E1002:|"},
        {"5.5: Ping of 126", RAW("\x89\xFE"), "E1002:|"},
        {"5.5: Close of 64 bit length", RAW("\x88\xFF"), "E1002:|"},
        {"5.4: continuation of nothing", RAW("\x80\x80"), "E1002:|"},
        {"5.4: fragment of nothing", RAW("\x00\x80"), "E1002:|"},
        {"5.4: text inside a message", RAW("\x01\x80\0\0\0\0\x81\x80"), "E1002:|"},
        {"5.4: binary inside a message", RAW("\x02\x80\0\0\0\0\x02\x80"), "E1002:|"},
        {"5.2: 125 in 16 bits", RAW("\x82\xFE\x00\x7D\0\0\0\0"), "E1002:|"},
        {"5.2: 65535 in 64 bits", RAW("\x82\xFF\0\0\0\0\0\0\xFF\xFF\0\0\0\0"), "E1002:|"},
        {"5.2: the 64th bit", RAW("\x82\xFF\x80\0\0\0\0\1\0\0\0\0\0\0"), "E1002:|"},
        {"8.1: bad text, the frame unfinished", RAW("\x81\xFD\0\0\0\0text\xFF"), "E1007:|"},
        {"8.1: a surrogate", RAW("\x81\x83\0\0\0\0\xED\xA0\x80"), "E1007:|"},
        {"8.1: text ends inside a character", RAW("\x81\x81\0\0\0\0\xE2"), "E1007:|"},
        {"8.1: in the second fragment", RAW("\x01\x81\0\0\0\0\xE2\x00\x81\0\0\0\0\x28"), "E1007:|"},
        {"after an error nothing", RAW("\x81\x05Hello\x81\x80\0\0\0\0"), "E1002:|"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_raw(&s, cases[i].frame, cases[i].len);
        EXPECT(cases[i].name, cases[i].wanted);
    }
}

static void
test_sizes(void)
{
    static char payload[140000], wanted[140010];
    static const size_t lengths[] = {125,  126,   127,   128,   4095,  4096,
                                     4097, 65535, 65536, 65537, 140000};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        size_t n = lengths[i];
        for (int text = 0; text < 2; text++) {
            for (size_t k = 0; k < n; k++)
                payload[k] = text ? (char)('a' + k % 26) : (char)(1 + k % 255);
            if (text && n > 5000)
                memcpy(payload + 4094, "\xE2\x82\xAC", 3); /* over the end of a piece */
            put(&s, FIN | (text ? TEXT : BIN), payload, n);
            wanted[0] = text ? 'T' : 'B';
            wanted[1] = ':';
            memcpy(wanted + 2, payload, n);
            memcpy(wanted + 2 + n, "|", 2);
            size_t pieces[] = {s.len, 1000, 16384, 65536, 7};
            for (size_t k = 0; k < sizeof pieces / sizeof *pieces; k++) {
                char *got = run(&s, n, pieces[k], k == 1 ? 3 : 0); /* just as big as allowed */
                CHECK(strcmp(got, wanted) == 0);
                free(got);
                got = run(&s, n - 1, pieces[k], 0);
                CHECK(strcmp(got, "E1009:|") == 0);
                free(got);
            }
            s.len = 0;
        }
    }
    PUT(&s, BIN, "12345");
    PUT(&s, CONT, "67890");
    PUT(&s, FIN | CONT, "1");
    expect_stream("10 allowed, 11 in fragments", &s, 10, "E1009:|");
    s.len = 0;
    put_header(&s, FIN | BIN, UINT64_MAX >> 1, true);
    expect_stream("2^63 - 1 octets are too many", &s, 1 << 20, "E1009:|");
    put_raw(&s, "abc", 3);
    expect_stream("... unless there is no limit", &s, 0, "");
    s.len = 0;
}

static void
test_a_claimed_length_reserves_little(void)
{
    cap_ws_parser p;
    cap_ws_init(&p, 1 << 30, NULL);
    put_header(&s, FIN | BIN, 1 << 29, true);
    put_raw(&s, "abc", 3);
    record r = {NULL, 0, 0};
    present(&p, s.data, s.len, &r);
    CHECK(r.text == NULL && p.message.cap <= 65536 && cap_ws_held(&p) == 3);
    CHECK(!cap_ws_between_messages(&p));
    cap_ws_free(&p);
    s.len = 0;
}

static void
test_whole_messages_are_handed_out_in_the_input(void)
{
    PUT(&s, FIN | TEXT, "zero copy");
    cap_ws_parser p;
    cap_ws_out out;
    size_t used;
    cap_ws_init(&p, 0, NULL);
    CHECK(cap_ws_next(&p, s.data, s.len, &used, &out) == CAP_WS_TEXT);
    CHECK(out.data == s.data + 6 && used == s.len && p.message.cap == 0);
    cap_ws_free(&p);
    s.len = 0;
}

static void
test_failing_memory(void)
{
    PUT(&s, BIN, "abcdef");
    PUT(&s, FIN | CAP_WS_OP_PING, "ping");
    PUT(&s, FIN | CONT, "ghi");
    long before = cap_mem_blocks();
    for (long n = 1;; n++) {
        cap_mem_fail(n, 1);
        char *got = run(&s, 0, 3, 0);
        cap_mem_fail(0, 0);
        bool whole = strcmp(got, "p:ping|B:abcdefghi|") == 0;
        CHECK(whole || strstr(got, "E1011:|") != NULL);
        free(got);
        CHECK(cap_mem_blocks() == before);
        if (whole) {
            CHECK(n > 2);
            break;
        }
    }
    s.len = 0;
}

static void
test_writing(void)
{
    char out[CAP_WS_CONTROL_FRAME];
    CHECK(cap_ws_header(out, FIN | TEXT, 125) == 2 && memcmp(out, "\x81\x7D", 2) == 0);
    CHECK(cap_ws_header(out, BIN, 126) == 4 && memcmp(out, "\x02\x7E\x00\x7E", 4) == 0);
    CHECK(cap_ws_header(out, FIN | CAP_WS_RSV1 | BIN, 65535) == 4 &&
          memcmp(out, "\xC2\x7E\xFF\xFF", 4) == 0);
    CHECK(cap_ws_header(out, FIN, 65536) == 10 && memcmp(out, "\x80\x7F\0\0\0\0\0\1\0\0", 10) == 0);
    CHECK(cap_ws_control(out, CAP_WS_OP_PONG, "ab", 2) == 4 && memcmp(out,
                                                                      "\x8A\x02"
                                                                      "ab",
                                                                      4) == 0);
    CHECK(cap_ws_close(out, CAP_WS_NO_CODE, NULL, 0) == 2 && memcmp(out, "\x88\x00", 2) == 0);
    CHECK(cap_ws_close(out, 1000, NULL, 0) == 4 && memcmp(out, "\x88\x02\x03\xE8", 4) == 0);
    char reason[200];
    for (size_t i = 0; i < 66; i++)
        memcpy(reason + 3 * i, "\xE2\x82\xAC", 3);
    CHECK(cap_ws_close(out, 1011, reason, 198) == 2 + 2 + 123);
    CHECK(cap_ws_close(out, 1011, reason + 1, 197) == 2 + 2 + 122); /* a stray tail first */
}

int
main(void)
{
    test_messages();
    test_close();
    test_refused();
    test_sizes();
    test_a_claimed_length_reserves_little();
    test_whole_messages_are_handed_out_in_the_input();
    test_failing_memory();
    test_writing();
    return failures != 0;
}
