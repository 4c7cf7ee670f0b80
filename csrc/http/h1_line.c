/* The request line (RFC 9112 3): our own reading, octet by octet and once. */
#include "http/h1_parser.h"

#include <string.h>

#include "http/h1_syntax.h"

static const char *
split_query(cap_h1_head *h, const char *data, uint32_t off, uint32_t len)
{
    const char *question = len == 0 ? NULL : memchr(data + off, '?', len);
    h->path = (cap_span){off, len};
    h->query = (cap_span){off + len, 0};
    if (question != NULL) {
        h->path.len = (uint32_t)(question - data) - off;
        h->query.off = h->path.off + h->path.len + 1;
        h->query.len = off + len - h->query.off;
    }
    return NULL;
}

static const char *
read_absolute(cap_h1_head *h, const char *data)
{
    const char *t = data + h->target.off;
    uint32_t len = h->target.len;
    uint32_t i;
    if (len >= 7 && cap_h1_equal(t, 7, "http://"))
        i = 7;
    else if (len >= 8 && cap_h1_equal(t, 8, "https://"))
        i = 8;
    else
        return "the request target is neither a path nor an http URI (RFC 9112 3.2)";
    uint32_t start = i;
    while (i < len && t[i] != '/' && t[i] != '?')
        i++;
    const char *wrong = cap_h1_check_authority(t + start, i - start, false);
    if (wrong != NULL)
        return wrong;
    h->form = CAP_H1_ABSOLUTE;
    h->authority = (cap_span){h->target.off + start, i - start};
    return split_query(h, data, h->target.off + i, len - i);
}

/* RFC 9112 3.2: the four forms. NULL, or what is wrong. */
static const char *
read_target(cap_h1_head *h, const char *data)
{
    const char *t = data + h->target.off;
    /* Without a tunnel to open, CONNECT with a path is one more method of the application's. */
    if (t[0] != '/' && h->method.len == 7 && memcmp(data + h->method.off, "CONNECT", 7) == 0) {
        const char *wrong = cap_h1_check_authority(t, h->target.len, true);
        if (wrong != NULL)
            return "the target of CONNECT is not host:port (RFC 9112 3.2.3)";
        h->form = CAP_H1_AUTHORITY;
        h->authority = h->target;
        h->path = h->query = (cap_span){h->target.off + h->target.len, 0};
        return NULL;
    }
    h->authority = (cap_span){0, 0};
    if (t[0] == '/') {
        h->form = CAP_H1_ORIGIN;
        return split_query(h, data, h->target.off, h->target.len);
    }
    if (h->target.len == 1 && t[0] == '*') {
        if (h->method.len != 7 || memcmp(data + h->method.off, "OPTIONS", 7) != 0)
            return "the target * is for OPTIONS only (RFC 9112 3.2.4)";
        h->form = CAP_H1_ASTERISK;
        h->path = h->target;
        h->query = (cap_span){h->target.off + 1, 0};
        return NULL;
    }
    return read_absolute(h, data);
}

static cap_h1_event
line_too_long(cap_h1_parser *p)
{
    return cap_h1_refuse(p, 414, "the request line is too long (RFC 9112 3)");
}

static cap_h1_event
bad_line_char(cap_h1_parser *p, char c)
{
    if (c == '\n')
        return cap_h1_refuse(p, 400, "bare LF as line end, CRLF is required (RFC 9112 2.2)");
    if (p->stage == METHOD)
        return cap_h1_refuse(p, 400, "the method is not a token (RFC 9112 3.1)");
    if (c == '\r')
        return cap_h1_refuse(p, 400, "the request line has no HTTP version (RFC 9112 3)");
    if (c == '#')
        return cap_h1_refuse(p, 400, "the request target has a fragment (RFC 9112 3.2)");
    return cap_h1_refuse(p, 400, "invalid character in the request target (RFC 9112 3.2)");
}

/* HTTP-version and line end, `at` octets behind the space. MORE, HEAD (the line is
   complete) or ERROR. */
static cap_h1_event
read_version(cap_h1_parser *p, cap_h1_head *h, const char *data, uint32_t have, uint32_t limit)
{
    static const char pattern[] = "HTTP/0.0\r\n";
    uint32_t start = h->target.off + h->target.len + 1;
    for (; p->scanned < have; p->scanned++) {
        uint32_t i = p->scanned - start;
        char c = data[p->scanned];
        if (p->scanned >= limit && i < 8)
            return line_too_long(p);
        if (i == 8 && data[start + 5] != '1')
            return cap_h1_refuse(p, 505,
                                 "only HTTP/1.0 and HTTP/1.1 are spoken here (RFC 9110 2.5)");
        if (pattern[i] == '0' ? cap_h1_is_digit(c) : c == pattern[i]) {
            if (i < 9)
                continue;
            p->scanned++;
            /* a higher minor version is read as the highest that we know (9110 2.5) */
            h->minor = data[start + 7] != '0';
            const char *wrong = read_target(h, data);
            return wrong == NULL ? CAP_H1_HEAD : cap_h1_refuse(p, 400, wrong);
        }
        if (c == '\n' && i >= 8)
            return bad_line_char(p, c);
        if (i == 9)
            return cap_h1_refuse(p, 400, "bare CR in the request line (RFC 9112 2.2)");
        if (i == 8)
            return cap_h1_refuse(p, 400, "extra characters behind the HTTP version (RFC 9112 3)");
        return cap_h1_refuse(p, 400, "the HTTP version is malformed (RFC 9112 2.3)");
    }
    return CAP_H1_MORE;
}

cap_h1_event
cap_h1_read_line(cap_h1_parser *p, cap_h1_head *h, const char *data, uint32_t have)
{
    uint32_t limit = cap_h1_limit(p->limits->request_line);
    uint32_t i = p->scanned;
    if (p->stage == METHOD) {
        for (; i < have && cap_h1_is(data[i], CAP_CH_TOKEN); i++) {
            /* Every method is the application's, so none is too long for us by itself. */
            if (i >= limit)
                return line_too_long(p);
        }
        p->scanned = i;
        if (i == have)
            return CAP_H1_MORE;
        if (i >= limit)
            return line_too_long(p);
        if (data[i] != ' ' || i == 0)
            return bad_line_char(p, data[i]);
        h->method = (cap_span){0, i};
        h->target = (cap_span){++i, 0};
        p->stage = TARGET;
    }
    if (p->stage == TARGET) {
        uint32_t stop = have < limit ? have : limit;
        while (i < stop && cap_h1_is(data[i], CAP_CH_TARGET))
            i++;
        p->scanned = i;
        if (i == have)
            return CAP_H1_MORE;
        if (i >= limit)
            return line_too_long(p);
        if (data[i] != ' ')
            return bad_line_char(p, data[i]);
        h->target.len = i - h->target.off;
        if (h->target.len == 0)
            return cap_h1_refuse(p, 400, "more than one space in the request line (RFC 9112 3)");
        p->scanned = i + 1;
        p->stage = VERSION;
    }
    return read_version(p, h, data, have, limit);
}

size_t
cap_h1_request_line(const cap_http_limits *limits, cap_h1_head *h, const char *data, size_t len)
{
    uint32_t limit = cap_h1_limit(limits->request_line);
    uint32_t have = len > limit ? limit : (uint32_t)len;
    uint32_t i = 0;
    while (i < have && cap_h1_is(data[i], CAP_CH_TOKEN))
        i++;
    if (i == 0 || have - i < 2 || data[i] != ' ' || data[i + 1] != '/')
        return 0;
    uint32_t start = i + 1;
    for (i = start + 1; i < have && cap_h1_is(data[i], CAP_CH_TARGET);)
        i++;
    /* behind it: " HTTP/1.1" within the limit, then CRLF */
    if (have - i < 9 || len - i < 11 || memcmp(data + i, " HTTP/1.", 8) != 0 ||
        (data[i + 8] != '1' && data[i + 8] != '0') || data[i + 9] != '\r' || data[i + 10] != '\n')
        return 0;
    h->method = (cap_span){0, start - 1};
    if (start == 8 && memcmp(data, "CONNECT", 7) == 0)
        return 0;
    h->target = (cap_span){start, i - start};
    h->authority = (cap_span){0, 0};
    h->form = CAP_H1_ORIGIN;
    h->minor = data[i + 8] == '1';
    split_query(h, data, start, i - start);
    return i + 11;
}
