/* Negotiation of permessage-deflate: Sec-WebSocket-Extensions (RFC 6455 9.1) read
   strictly, offers judged by RFC 7692 7.1, the response written. No compression
   library is needed here. */
#include <string.h>

#include "http/h1_syntax.h"
#include "http/ws_deflate.h"

/* What is left of a field value. */
typedef struct reader {
    const char *at, *end;
} reader;

typedef struct word {
    const char *s;
    size_t len;
} word;

static void
skip_space(reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t'))
        r->at++;
}

/* Skips white space, then one `c` when it is there. */
static bool
read_char(reader *r, char c)
{
    skip_space(r);
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

static bool
read_token(reader *r, word *w)
{
    skip_space(r);
    w->s = r->at;
    while (r->at < r->end && cap_h1_is(*r->at, CAP_CH_TOKEN))
        r->at++;
    w->len = (size_t)(r->at - w->s);
    return w->len > 0;
}

/* token, or a quoted-string whose content is a token (9.1). Backslashes are taken off
   into `room`, of which the values that mean something to us need two octets: a
   longer one with a backslash is taken as it is, and then no number. */
static bool
read_value(reader *r, word *w, char *room, size_t size)
{
    if (!read_char(r, '"'))
        return read_token(r, w);
    size_t n = 0;
    w->s = r->at;
    for (;;) {
        if (r->at == r->end)
            return false;
        char c = *r->at++;
        if (c == '"')
            break;
        if (c == '\\') {
            if (r->at == r->end)
                return false;
            c = *r->at++;
        }
        if (!cap_h1_is(c, CAP_CH_TOKEN))
            return false;
        if (n < size)
            room[n] = c;
        n++;
    }
    if (n <= size)
        w->s = room;
    w->len = n;
    return n > 0;
}

static bool
is(const word *w, const char *text)
{
    return w->len == strlen(text) && memcmp(w->s, text, w->len) == 0;
}

/* 8..15 in decimal without leading zeros (7.1.2.1); 0 for all else. */
static uint8_t
window_bits(const word *w)
{
    if (w->len == 1 && (w->s[0] == '8' || w->s[0] == '9'))
        return (uint8_t)(w->s[0] - '0');
    if (w->len == 2 && w->s[0] == '1' && w->s[1] >= '0' && w->s[1] <= '5')
        return (uint8_t)(10 + w->s[1] - '0');
    return 0;
}

/* One offer's parameters as they came. */
typedef struct offer {
    bool good;
    bool server_no_takeover, client_no_takeover, client_bits_said;
    uint8_t server_bits, client_bits; /* 0: no value came */
} offer;

static void
take_parameter(offer *o, const word *name, const word *value)
{
    bool repeated = false;
    if (is(name, "server_no_context_takeover")) {
        repeated = o->server_no_takeover;
        o->server_no_takeover = true;
        o->good &= value == NULL;
    } else if (is(name, "client_no_context_takeover")) {
        repeated = o->client_no_takeover;
        o->client_no_takeover = true;
        o->good &= value == NULL;
    } else if (is(name, "server_max_window_bits")) {
        repeated = o->server_bits != 0;
        o->server_bits = value != NULL ? window_bits(value) : 0;
        o->good &= o->server_bits != 0;
    } else if (is(name, "client_max_window_bits")) {
        repeated = o->client_bits_said;
        o->client_bits_said = true;
        if (value != NULL) {
            o->client_bits = window_bits(value);
            o->good &= o->client_bits != 0;
        }
    } else
        o->good = false;
    o->good &= !repeated;
}

static bool
accept_offer(const cap_ws_deflate_config *config, const offer *o, cap_ws_deflate_params *out)
{
    /* A window of 256 octets cannot be compressed for: zlib has none for raw DEFLATE. */
    if (!o->good || o->server_bits == 8)
        return false;
    *out = (cap_ws_deflate_params){
        .server_no_context_takeover = config->server_no_context_takeover || o->server_no_takeover,
        .client_no_context_takeover = config->client_no_context_takeover || o->client_no_takeover,
        .server_max_window_bits = config->server_max_window_bits,
        .client_max_window_bits = 15,
        .say_server_bits = o->server_bits != 0,
        .say_client_bits = o->client_bits_said,
    };
    if (o->server_bits != 0 && o->server_bits < out->server_max_window_bits)
        out->server_max_window_bits = o->server_bits;
    if (o->client_bits_said) {
        out->client_max_window_bits = config->client_max_window_bits;
        if (o->client_bits != 0 && o->client_bits < out->client_max_window_bits)
            out->client_max_window_bits = o->client_bits;
    }
    return true;
}

bool
cap_ws_deflate_negotiate(const cap_ws_deflate_config *config, const char *value, size_t len,
                         cap_ws_deflate_params *out)
{
    if (!config->enabled || !cap_ws_deflate_available())
        return false;
    reader r = {value, value + len};
    for (;;) {
        word name, text;
        char room[2];
        while (read_char(&r, ','))
            ; /* empty elements are allowed (RFC 9110 5.6.1) */
        if (r.at == r.end || !read_token(&r, &name))
            return false;
        offer o = {.good = is(&name, "permessage-deflate")};
        while (read_char(&r, ';')) {
            word key;
            if (!read_token(&r, &key))
                return false;
            bool has_value = read_char(&r, '=');
            if (has_value && !read_value(&r, &text, room, sizeof room))
                return false;
            take_parameter(&o, &key, has_value ? &text : NULL);
        }
        skip_space(&r);
        if (r.at < r.end && *r.at != ',')
            return false;
        if (accept_offer(config, &o, out))
            return true;
    }
}

static size_t
put(char *out, const char *text)
{
    size_t n = strlen(text);
    memcpy(out, text, n);
    return n;
}

static size_t
put_bits(char *out, const char *name, uint8_t bits)
{
    size_t n = put(out, name);
    if (bits >= 10)
        out[n++] = '1';
    out[n++] = (char)('0' + bits % 10);
    return n;
}

size_t
cap_ws_deflate_response(const cap_ws_deflate_params *params, char out[CAP_WS_DEFLATE_RESPONSE])
{
    size_t n = put(out, "permessage-deflate");
    if (params->server_no_context_takeover)
        n += put(out + n, "; server_no_context_takeover");
    if (params->client_no_context_takeover)
        n += put(out + n, "; client_no_context_takeover");
    if (params->say_server_bits)
        n += put_bits(out + n, "; server_max_window_bits=", params->server_max_window_bits);
    if (params->say_client_bits)
        n += put_bits(out + n, "; client_max_window_bits=", params->client_max_window_bits);
    return n;
}
