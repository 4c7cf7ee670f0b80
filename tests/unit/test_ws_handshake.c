/* http/ws_handshake: request heads and what becomes of them (RFC 6455 4.2.1). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "http/ws_handshake.h"

static int failures;
#define CHECK(cond)                                           \
    do {                                                      \
        if (!(cond)) {                                        \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #cond); \
            failures++;                                       \
        }                                                     \
    } while (0)

static const cap_http_limits limits = CAP_HTTP_LIMITS_DEFAULT;
static const cap_ws_deflate_config config = CAP_WS_DEFLATE_DEFAULT;

/* Parses `text` and checks it. The head lives in `head` and `*base` until the next. */
static int
check(const char *text, cap_h1_head *head, char **base, cap_ws_handshake *out)
{
    cap_h1_parser p;
    cap_h1_out event;
    size_t len = strlen(text), used;
    *base = malloc(len);
    memcpy(*base, text, len);
    cap_h1_init(&p, &limits);
    if (cap_h1_next(&p, head, *base, len, &used, &event) != CAP_H1_HEAD)
        return -1;
    return cap_ws_handshake_check(head, *base + event.head_off, &config, out);
}

#define START "GET /chat?x=1 HTTP/1.1\r\nHost: example.com\r\n"
#define UP    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
#define KEY   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define V13   "Sec-WebSocket-Version: 13\r\n"
#define END   "\r\n"

static void
test_table(void)
{
    static const struct {
        const char *name, *request;
        int status;
    } cases[] = {
        {"RFC 6455 1.3", START UP KEY V13 END, 101},
        {"names and tokens in any case",
         START "UPGRADE: WebSocket\r\nconnection: keep-alive, UPGRADE\r\n" KEY V13 END, 101},
        {"lists in several fields",
         START
         "Upgrade: h2c, websocket\r\nConnection: keep-alive\r\nConnection: upgrade\r\n" KEY V13 END,
         101},
        {"Content-Length: 0", START UP KEY V13 "Content-Length: 0\r\n" END, 101},
        {"4.2.1 1: POST", "POST / HTTP/1.1\r\nHost: a\r\n" UP KEY V13 END, 400},
        {"4.2.1 1: HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\n" UP KEY V13 END, 400},
        {"4.2.1 3: no Upgrade", START "Connection: Upgrade\r\n" KEY V13 END, 400},
        {"4.2.1 3: another protocol",
         START "Upgrade: websockets\r\nConnection: Upgrade\r\n" KEY V13 END, 400},
        {"4.2.1 4: no Connection", START "Upgrade: websocket\r\n" KEY V13 END, 400},
        {"4.2.1 4: Connection: keep-alive",
         START "Upgrade: websocket\r\nConnection: keep-alive\r\n" KEY V13 END, 400},
        {"4.2.1 5: no key", START UP V13 END, 400},
        {"4.2.1 5: two keys", START UP KEY KEY V13 END, 400},
        {"4.2.1 5: 15 octets", START UP "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n" V13 END, 400},
        {"4.2.1 5: 17 octets", START UP "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWU=\r\n" V13 END,
         400},
        {"4.2.1 5: not base 64", START UP "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!g==\r\n" V13 END,
         400},
        {"4.2.1 5: without padding",
         START UP "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n" V13 END, 400},
        {"4.2.1 5: empty", START UP "Sec-WebSocket-Key: \r\n" V13 END, 400},
        {"4.2.1 6: no version", START UP KEY END, 400},
        {"4.2.1 6: two versions", START UP KEY V13 V13 END, 400},
        {"4.4: version 8", START UP KEY "Sec-WebSocket-Version: 8\r\n" END, 426},
        {"4.4: version 013", START UP KEY "Sec-WebSocket-Version: 013\r\n" END, 426},
        {"4.4: version 1", START UP KEY "Sec-WebSocket-Version: 1\r\n" END, 426},
        {"content", START UP KEY V13 "Content-Length: 3\r\n" END, 400},
        {"chunked content", START UP KEY V13 "Transfer-Encoding: chunked\r\n" END, 400},
        {"a subprotocol that is no token",
         START UP KEY V13 "Sec-WebSocket-Protocol: a, b c\r\n" END, 400},
        {"a subprotocol beyond ASCII", START UP KEY V13 "Sec-WebSocket-Protocol: \xC3\xA4\r\n" END,
         400},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cap_h1_head head;
        cap_ws_handshake out;
        char *base;
        cap_h1_head_init(&head);
        int status = check(cases[i].request, &head, &base, &out);
        if (status != cases[i].status) {
            printf("%s: %d\n", cases[i].name, status);
            failures++;
        } else if (status == 101)
            CHECK(memcmp(out.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 28) == 0 && !out.deflate);
        else
            CHECK(out.status == status && out.reason != NULL);
        cap_h1_head_free(&head);
        free(base);
    }
}

static void
test_subprotocols_and_extensions(void)
{
    cap_h1_head head;
    cap_ws_handshake out;
    char *base;
    cap_h1_head_init(&head);
    int status = check(
        "\r\n" START UP KEY V13 "Sec-WebSocket-Protocol: chat,\t superchat ,,\r\nCookie: a=b\r\n"
        "Sec-WebSocket-Extensions: foo\r\nsec-websocket-protocol: v2.x\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" END,
        &head, &base, &out);
    CHECK(status == 101);
    const char *start = base + 2, *name;
    size_t len, n = 0;
    char all[64] = "";
    cap_ws_protocol_cursor cursor = {0, 0};
    while (cap_ws_protocol_next(&head, start, &cursor, &name, &len)) {
        memcpy(all + n, name, len);
        n += len;
        all[n++] = '|';
    }
    CHECK(strcmp(all, "chat|superchat|v2.x|") == 0);
    CHECK(!cap_ws_protocol_next(&head, start, &cursor, &name, &len));
    CHECK(cap_ws_protocol_offered(&head, start, "superchat", 9));
    CHECK(cap_ws_protocol_offered(&head, start, "v2.x", 4));
    CHECK(!cap_ws_protocol_offered(&head, start, "Chat", 4));
    CHECK(!cap_ws_protocol_offered(&head, start, "", 0));
    CHECK(out.deflate == cap_ws_deflate_available());
    if (out.deflate)
        CHECK(out.params.client_max_window_bits == 12 && out.params.say_client_bits);
    CHECK(cap_ws_handshake_check(&head, start, NULL, &out) == 101 && !out.deflate);
    cap_h1_head_free(&head);
    free(base);
}

int
main(void)
{
    long before = cap_mem_blocks();
    test_table();
    test_subprotocols_and_extensions();
    CHECK(cap_mem_blocks() == before);
    return failures != 0;
}
