/* RFC 6455 4.2.1: what a client's handshake has to have; 4.2.2: the answer's key. */
#include "http/ws_handshake.h"

#include <string.h>

#include "base/base64.h"
#include "base/sha1.h"
#include "http/h1_syntax.h"

#define GUID    "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" /* 1.3 */
#define KEY_LEN 24                                     /* base 64 of 16 octets */

static int
refuse(cap_ws_handshake *out, int status, const char *reason)
{
    out->status = status;
    out->reason = reason;
    return status;
}

static bool
list_has(const char *value, size_t len, const char *lower)
{
    size_t pos = 0, n;
    const char *element;
    while (cap_h1_list_next(value, len, &pos, &element, &n))
        if (cap_h1_equal(element, n, lower))
            return true;
    return false;
}

static bool
is_token(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!cap_h1_is(s[i], CAP_CH_TOKEN))
            return false;
    return len > 0;
}

static void
make_accept(const char *key, char out[CAP_WS_ACCEPT_LEN])
{
    char text[KEY_LEN + sizeof GUID - 1];
    uint8_t digest[CAP_SHA1_LEN];
    memcpy(text, key, KEY_LEN);
    memcpy(text + KEY_LEN, GUID, sizeof GUID - 1);
    cap_sha1(text, sizeof text, digest);
    _Static_assert(CAP_BASE64_LEN(CAP_SHA1_LEN) == CAP_WS_ACCEPT_LEN, "28 octets");
    cap_base64_encode(out, digest, sizeof digest);
}

int
cap_ws_handshake_check(const cap_h1_head *head, const char *base,
                       const cap_ws_deflate_config *config, cap_ws_handshake *out)
{
    memset(out, 0, sizeof *out);
    bool upgrade = false, connection = false, version_ok = false;
    unsigned keys = 0, versions = 0;
    const char *key = NULL;
    size_t key_len = 0;

    for (uint32_t i = 0; i < head->nfields; i++) {
        const cap_h1_field *f = &head->fields[i];
        const char *value = base + f->value.off;
        size_t len = f->value.len;
        switch (f->id) {
        case CAP_HDR_UPGRADE:
            upgrade |= list_has(value, len, "websocket");
            break;
        case CAP_HDR_CONNECTION:
            connection |= list_has(value, len, "upgrade");
            break;
        case CAP_HDR_SEC_WEBSOCKET_KEY:
            key = value;
            key_len = len;
            keys++;
            break;
        case CAP_HDR_SEC_WEBSOCKET_VERSION:
            version_ok = len == 2 && memcmp(value, CAP_WS_VERSION, 2) == 0;
            versions++;
            break;
        case CAP_HDR_SEC_WEBSOCKET_EXTENSIONS:
            if (config != NULL && !out->deflate)
                out->deflate = cap_ws_deflate_negotiate(config, value, len, &out->params);
            break;
        }
    }

    if (head->method.len != 3 || memcmp(base + head->method.off, "GET", 3) != 0)
        return refuse(out, 400, "A WebSocket handshake is a GET request");
    if (head->minor < 1)
        return refuse(out, 400, "A WebSocket handshake needs HTTP/1.1");
    /* Content would stand where the first frame is read. */
    if ((head->flags & CAP_H1_CHUNKED) != 0 ||
        ((head->flags & CAP_H1_HAS_LENGTH) != 0 && head->content_length > 0))
        return refuse(out, 400, "A WebSocket handshake has no content");
    if (!upgrade)
        return refuse(out, 400, "Upgrade does not name websocket");
    if (!connection)
        return refuse(out, 400, "Connection does not name upgrade");
    if (versions == 0)
        return refuse(out, 400, "Sec-WebSocket-Version is missing");
    if (versions > 1)
        return refuse(out, 400, "Sec-WebSocket-Version came more than once");
    if (!version_ok)
        return refuse(out, 426, "Only version 13 of the WebSocket protocol is spoken here");
    if (keys == 0)
        return refuse(out, 400, "Sec-WebSocket-Key is missing");
    if (keys > 1)
        return refuse(out, 400, "Sec-WebSocket-Key came more than once");
    if (key_len != KEY_LEN || cap_base64_decode(NULL, key, key_len) != 16)
        return refuse(out, 400, "Sec-WebSocket-Key is not base 64 of 16 octets");

    cap_ws_protocol_cursor cursor = {0, 0};
    const char *name;
    size_t len;
    while (cap_ws_protocol_next(head, base, &cursor, &name, &len))
        if (!is_token(name, len))
            return refuse(out, 400, "Sec-WebSocket-Protocol has an element that is no token");

    make_accept(key, out->accept);
    return out->status = 101;
}

bool
cap_ws_protocol_next(const cap_h1_head *head, const char *base, cap_ws_protocol_cursor *cursor,
                     const char **name, size_t *len)
{
    for (; cursor->field < head->nfields; cursor->field++, cursor->pos = 0) {
        const cap_h1_field *f = &head->fields[cursor->field];
        if (f->id != CAP_HDR_SEC_WEBSOCKET_PROTOCOL)
            continue;
        while (cap_h1_list_next(base + f->value.off, f->value.len, &cursor->pos, name, len))
            if (*len > 0)
                return true;
    }
    return false;
}

bool
cap_ws_protocol_offered(const cap_h1_head *head, const char *base, const char *name, size_t len)
{
    cap_ws_protocol_cursor cursor = {0, 0};
    const char *offered;
    size_t n;
    while (cap_ws_protocol_next(head, base, &cursor, &offered, &n))
        if (n == len && memcmp(offered, name, n) == 0)
            return true;
    return false;
}
