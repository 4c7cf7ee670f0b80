/* Fuzzes http/ws_frame, ws_deflate and ws_extension. The first octet says what the rest is:
   frames of a client (octets 2 and 3: how the connection was negotiated, how the input is
   cut), a Sec-WebSocket-Extensions field, or messages to compress and inflate. Checked
   beside the sanitizers: the events do not depend on where the input was cut, text that is
   handed out is UTF-8, nothing is bigger than allowed, all memory comes back. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "http/ws_deflate.h"
#include "http/ws_frame.h"

#define MUST(cond)                                                     \
    do {                                                               \
        if (!(cond)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
            abort();                                                   \
        }                                                              \
    } while (0)

typedef struct trace {
    uint64_t hash;
    unsigned events;
    bool failed;
} trace;

static void
mix(trace *t, const void *data, size_t len)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < len; i++)
        t->hash = (t->hash ^ p[i]) * UINT64_C(0x100000001B3);
}

static trace
frames(const uint8_t *data, size_t len, unsigned how, uint32_t cuts)
{
    static const uint64_t limits[] = {0, 10, 300, 70000};
    uint64_t max = limits[how & 3];
    bool compressing = (how & 4) != 0;
    uint8_t bits = (uint8_t)(9 + (how >> 3 & 7) % 7);
    cap_ws_deflate_config config = CAP_WS_DEFLATE_DEFAULT;
    cap_ws_deflate_params params = {(how & 64) != 0, (how & 64) != 0, bits, bits, false, false};
    cap_ws_pool *pool = cap_ws_pool_new(1);
    cap_ws_deflate *d = compressing ? cap_ws_deflate_new(pool, &config, &params) : NULL;
    MUST(!compressing || d != NULL || !cap_ws_deflate_available());

    trace t = {UINT64_C(0xCBF29CE484222325), 0, false};
    cap_ws_parser p;
    cap_ws_init(&p, max, d);
    bool ended = false;
    while (len > 0) {
        size_t n = len;
        if (cuts != 0) {
            cuts = cuts * 1664525 + 1013904223;
            n = 1 + (cuts >> 16) % ((cuts >> 30) == 0 ? 400 : 12);
            if (n > len)
                n = len;
        }
        /* Exact size: a read beyond the piece is seen. */
        char *copy = malloc(n), *at = copy;
        memcpy(copy, data, n);
        size_t left = n, used;
        cap_ws_out out;
        cap_ws_event event;
        while ((event = cap_ws_next(&p, at, left, &used, &out)) != CAP_WS_MORE) {
            MUST(used <= left && !ended);
            uint8_t kind = (uint8_t)event;
            mix(&t, &kind, 1);
            t.events++;
            if (event == CAP_WS_ERROR) {
                ended = t.failed = true;
                MUST(out.code >= 1002 && out.code <= 1011 && strlen(out.reason) <= 123);
                /* Which of two faults of compressed data is seen first depends on the cut. */
                if (!compressing)
                    mix(&t, &out.code, sizeof out.code);
            } else {
                MUST(out.data != NULL);
                mix(&t, &out.len, sizeof out.len);
                mix(&t, out.data, out.len);
            }
            if (event == CAP_WS_TEXT) {
                MUST(cap_utf8_valid(out.data, out.len));
                MUST(out.ascii == cap_ascii(out.data, out.len));
            }
            if (event == CAP_WS_TEXT || event == CAP_WS_BINARY)
                MUST(max == 0 || out.len <= max);
            if (event == CAP_WS_CLOSE) {
                ended = true;
                mix(&t, &out.code, sizeof out.code);
                MUST(out.code == CAP_WS_NO_CODE || cap_ws_close_code_ok(out.code));
                MUST(cap_utf8_valid(out.data, out.len));
            }
            at += used;
            left -= used;
        }
        MUST(used == left);
        MUST(max == 0 || cap_ws_held(&p) <= max);
        MUST(!cap_ws_between_messages(&p) || p.message.cap == 0);
        free(copy);
        data += n;
        len -= n;
        if (d != NULL && cuts % 5 == 1)
            cap_ws_deflate_idle(d);
    }
    cap_ws_free(&p);
    cap_ws_deflate_free(d);
    cap_ws_pool_free(pool);
    return t;
}

static void
extension(const uint8_t *data, size_t len)
{
    cap_ws_deflate_config config = CAP_WS_DEFLATE_DEFAULT;
    cap_ws_deflate_params params, again;
    char *copy = malloc(len > 0 ? len : 1), out[CAP_WS_DEFLATE_RESPONSE];
    if (len > 0)
        memcpy(copy, data, len);
    if (cap_ws_deflate_negotiate(&config, copy, len, &params)) {
        MUST(params.server_max_window_bits >= 9 && params.server_max_window_bits <= 12);
        MUST(params.client_max_window_bits >= 8 && params.client_max_window_bits <= 15);
        /* What we answer is itself an offer that leads to the same. */
        size_t n = cap_ws_deflate_response(&params, out);
        MUST(n <= sizeof out && cap_ws_deflate_negotiate(&config, out, n, &again));
        MUST(again.server_no_context_takeover == params.server_no_context_takeover);
        MUST(again.client_no_context_takeover == params.client_no_context_takeover);
        MUST(again.server_max_window_bits == params.server_max_window_bits);
        MUST(again.client_max_window_bits == params.client_max_window_bits);
    }
    free(copy);
}

/* Messages of 0 to 255 octets, the length before each; two connections in turn. */
static void
there_and_back(const uint8_t *data, size_t len, unsigned how)
{
    cap_ws_deflate_config config = CAP_WS_DEFLATE_DEFAULT;
    config.level = (uint8_t)(1 + how % 9);
    config.threshold = 0;
    uint8_t bits = (uint8_t)(9 + (how >> 3 & 7) % 7);
    cap_ws_deflate_params params = {(how & 64) != 0, (how & 64) != 0, bits, bits, false, false};
    cap_ws_pool *pool = cap_ws_pool_new(1);
    cap_ws_deflate *end[2];
    for (int i = 0; i < 2; i++)
        if ((end[i] = cap_ws_deflate_new(pool, &config, &params)) == NULL) {
            cap_ws_pool_free(pool);
            return;
        }
    for (unsigned turn = 0; len > 0; turn++) {
        size_t n = *data++;
        len--;
        if (n > len)
            n = len;
        cap_buffer coded = {NULL, 0, 0}, plain = {NULL, 0, 0};
        cap_ws_deflate *d = end[turn & how >> 7];
        if (cap_ws_compress(d, (const char *)data, n, &coded) == 1) {
            size_t cut = coded.len / 2;
            MUST(cap_ws_inflate(d, coded.data, cut, false, n, NULL, &plain) == CAP_WS_INFLATE_OK);
            MUST(cap_ws_inflate(d, coded.data + cut, coded.len - cut, true, n, NULL, &plain) ==
                 CAP_WS_INFLATE_OK);
            MUST(plain.len == n && (n == 0 || memcmp(plain.data, data, n) == 0));
        }
        cap_buffer_free(&coded);
        cap_buffer_free(&plain);
        data += n;
        len -= n;
    }
    cap_ws_deflate_free(end[0]);
    cap_ws_deflate_free(end[1]);
    cap_ws_pool_free(pool);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 3)
        return 0;
    long before = cap_mem_blocks();
    if (data[0] % 8 == 6)
        extension(data + 1, len - 1);
    else if (data[0] % 8 == 7)
        there_and_back(data + 2, len - 2, data[1]);
    else {
        trace whole = frames(data + 3, len - 3, data[1], 0);
        trace cut = frames(data + 3, len - 3, data[1], data[2] + 1u);
        MUST(whole.hash == cut.hash && whole.events == cut.events && whole.failed == cut.failed);
    }
    MUST(cap_mem_blocks() == before);
    return 0;
}

#ifdef REPLAY
int
main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        if (f == NULL) {
            perror(argv[i]);
            return 1;
        }
        uint8_t *data = malloc(1 << 20);
        size_t len = fread(data, 1, 1 << 20, f);
        fclose(f);
        uint8_t *exact = malloc(len > 0 ? len : 1);
        memcpy(exact, data, len);
        free(data);
        LLVMFuzzerTestOneInput(exact, len);
        free(exact);
    }
    return 0;
}
#endif
