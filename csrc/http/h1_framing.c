/* What the fields mean for the message and the connection (RFC 9112 6 and 9, 9110 7):
   where parsers disagree, requests are smuggled, so everything here is refused that is
   not plain. */
#include "http/h1_parser.h"

#include "http/h1_response.h"
#include "http/h1_syntax.h"

typedef struct codings {
    uint32_t lines;
    bool malformed; /* an element that is empty or more than a token */
    bool other;     /* a coding that is not chunked */
    bool after;     /* something behind chunked */
    bool chunked;
} codings;

static void
add_codings(codings *c, const char *value, uint32_t len)
{
    size_t pos = 0, n;
    const char *element;
    c->lines++;
    while (cap_h1_list_next(value, len, &pos, &element, &n)) {
        c->after |= c->chunked;
        if (!cap_h1_name_ok(element, n))
            c->malformed = true;
        else if (cap_h1_equal(element, n, "chunked"))
            c->chunked = true;
        else
            c->other = true;
    }
}

static cap_h1_event
judge_codings(cap_h1_parser *p, cap_h1_head *h, const codings *c)
{
    if (h->flags & CAP_H1_HAS_LENGTH)
        return cap_h1_refuse(p, 400,
                             "Content-Length and Transfer-Encoding together (RFC 9112 6.3)");
    if (h->minor == 0)
        return cap_h1_refuse(p, 400, "Transfer-Encoding in HTTP/1.0 (RFC 9112 6.1)");
    if (c->malformed)
        return cap_h1_refuse(p, 400, "Transfer-Encoding is malformed (RFC 9112 6.1)");
    if (!c->chunked || c->after)
        return cap_h1_refuse(p, 400, "Transfer-Encoding does not end with chunked (RFC 9112 6.3)");
    if (c->other)
        return cap_h1_refuse(p, 501, "a transfer coding other than chunked (RFC 9112 6.1)");
    h->flags |= CAP_H1_CHUNKED;
    return CAP_H1_HEAD;
}

static void
add_connection(uint32_t *said, const char *value, uint32_t len)
{
    size_t pos = 0, n;
    const char *element;
    while (cap_h1_list_next(value, len, &pos, &element, &n)) {
        if (n == 5 && cap_h1_equal(element, n, "close"))
            *said |= 1;
        else if (n == 10 && cap_h1_equal(element, n, "keep-alive"))
            *said |= 2;
        else if (n == 7 && cap_h1_equal(element, n, "upgrade"))
            *said |= 4;
    }
}

cap_h1_event
cap_h1_judge(cap_h1_parser *p, cap_h1_head *h, const char *data)
{
    codings te = {0};
    uint32_t said = 0; /* Connection: 1 close, 2 keep-alive, 4 upgrade */
    uint32_t hosts = 0;
    bool upgrade = false, websocket = false;
    h->flags = 0;
    h->content_length = 0;
    for (uint32_t i = 0; i < h->nfields; i++) {
        const cap_h1_field *f = &h->fields[i];
        const char *value = data + f->value.off;
        switch (f->id) {
        case CAP_HDR_HOST: {
            if (hosts++ > 0)
                return cap_h1_refuse(p, 400, "Host is repeated (RFC 9112 3.2)");
            const char *wrong = NULL;
            if (f->value.len > 0) /* empty is what a target without authority gets */
                wrong = cap_h1_check_authority(value, f->value.len, false);
            if (wrong != NULL)
                return cap_h1_refuse(p, 400, "Host is not host or host:port (RFC 9112 3.2)");
            break;
        }
        case CAP_HDR_CONTENT_LENGTH:
            if (h->flags & CAP_H1_HAS_LENGTH)
                return cap_h1_refuse(p, 400, "Content-Length is repeated (RFC 9112 6.3)");
            if (!cap_h1_parse_length(value, f->value.len, &h->content_length))
                return cap_h1_refuse(p, 400, "Content-Length is not a number (RFC 9110 8.6)");
            h->flags |= CAP_H1_HAS_LENGTH;
            break;
        case CAP_HDR_TRANSFER_ENCODING:
            add_codings(&te, value, f->value.len);
            break;
        case CAP_HDR_CONNECTION:
            add_connection(&said, value, f->value.len);
            break;
        case CAP_HDR_EXPECT:
            if (h->minor == 0) /* RFC 9110 10.1.1: ignore it there */
                break;
            if (!cap_h1_equal(value, f->value.len, "100-continue"))
                return cap_h1_refuse(p, 417,
                                     "an expectation other than 100-continue (RFC 9110 10.1.1)");
            h->flags |= CAP_H1_EXPECT_CONTINUE;
            break;
        case CAP_HDR_UPGRADE:
            upgrade |= f->value.len > 0;
            websocket |= cap_h1_list_has(value, f->value.len, "websocket");
            break;
        case CAP_HDR_FORWARDED:
        case CAP_HDR_X_FORWARDED_FOR:
        case CAP_HDR_X_FORWARDED_PROTO:
            h->flags |= CAP_H1_FORWARDED;
            break;
        default:
            break;
        }
    }
    if (hosts == 0 && h->minor == 1)
        return cap_h1_refuse(p, 400, "Host is missing (RFC 9112 3.2)");
    if (te.lines > 0 && judge_codings(p, h, &te) == CAP_H1_ERROR)
        return CAP_H1_ERROR;
    if (said & 2)
        h->flags |= CAP_H1_SAID_KEEP_ALIVE;
    if (!(said & 1) && (h->minor == 1 || (said & 2)))
        h->flags |= CAP_H1_KEEP_ALIVE;
    if (h->minor == 1 && upgrade && (said & 4))
        h->flags |= (uint16_t)(CAP_H1_UPGRADE | (websocket ? CAP_H1_UPGRADE_WEBSOCKET : 0));

    if (h->flags & CAP_H1_CHUNKED) {
        p->ext_octets = p->trailer_octets = 0;
        p->body_octets = 0;
        cap_h1_begin_chunk_line(p);
    } else if (h->content_length > 0) {
        if (p->limits->body != 0 && h->content_length > p->limits->body)
            return cap_h1_refuse(p, 413, "Content-Length is above the limit (RFC 9110 15.5.14)");
        p->left = h->content_length;
        p->stage = LENGTH;
    } else {
        p->stage = DONE;
    }
    return CAP_H1_HEAD;
}
