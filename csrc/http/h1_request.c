/* The order of work: the request line is read here, octet by octet, once. Field lines
   are cut here (at LF and at the first colon) and each octet of them goes through
   llhttp, which decides whether they are well-formed. When the head is complete, the
   fields that frame the message are judged here. Content with a length is counted
   here; of a chunked one llhttp reads sizes, line ends and trailers.

   Whatever the input is cut into, the events are the same: a limit counts as broken
   at the first octet beyond it, and llhttp gets the octets before that one first. */
#include "http/h1_request.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "http/h1_response.h"
#include "http/h1_syntax.h"

#define MAX_METHOD 64
#define MAX_BLANK_LINES 4
#define MAX_SIZE_DIGITS 16
#define NO_LIMIT 0x40000000U /* spans are 32 bits */

enum stage {
    START,      /* nothing but empty lines */
    METHOD,
    TARGET,
    VERSION,    /* `scanned` is behind the space before it */
    FIELDS,
    LENGTH,     /* content, `left` octets */
    CHUNK_LINE,
    CHUNK_DATA,
    CHUNK_END,  /* CRLF behind a chunk */
    TRAILERS,
    DONE,       /* END is to be reported */
    DEAD
};

/* Where in a chunk's first line (RFC 9112 7.1.1). */
enum chunk {
    SIZE,
    EXT_BEFORE, /* white space before ";" */
    EXT_NAME0,  /* behind ";" */
    EXT_NAME,
    EXT_EQUALS, /* white space behind a name */
    EXT_VALUE0, /* behind "=" */
    EXT_VALUE,
    EXT_QUOTED,
    EXT_QUOTED_PAIR,
    EXT_QUOTE_END,
    LINE_END    /* LF */
};

static uint32_t
limit_or(uint32_t limit)
{
    return limit == 0 || limit > NO_LIMIT ? NO_LIMIT : limit;
}

static cap_h1_event
refuse(cap_h1_parser *p, int status, const char *reason)
{
    p->stage = DEAD;
    p->status = status;
    p->reason = reason;
    return CAP_H1_ERROR;
}

/* ---- llhttp ---------------------------------------------------------------------- */

static int
on_headers_complete(llhttp_t *ll)
{
    /* `ll` is the first member; the state that is kept as a model never comes here */
    ((cap_h1_parser *)ll)->complete = true;
    /* An upgrade is the caller's to decide on. Until then the message is framed like
       any other (RFC 9110 7.8), so llhttp must not stop at its head. */
    ll->upgrade = 0;
    /* llhttp does not recognise "chunked" with HTAB behind it, which RFC 9110 5.5 allows.
       Whether the codings are good is decided in judge(), by a stricter rule. */
    if (ll->flags & F_TRANSFER_ENCODING)
        ll->flags |= F_CHUNKED;
    return 0;
}

static int
on_message_complete(llhttp_t *ll)
{
    (void)ll;
    return HPE_PAUSED; /* leave what follows alone */
}

static const llhttp_settings_t settings = {
    .on_headers_complete = on_headers_complete,
    .on_message_complete = on_message_complete,
};

/* llhttp's state behind a request line, made once and then copied for each request:
   our own reading of the request line stands for llhttp's. Its method and version
   change nothing in how it reads fields and framing of requests, except for CONNECT,
   which we do not want to be special. */
static llhttp_t after_line;
static atomic_int after_line_state; /* 0: not made, 1: being made, 2: ready */

static void
make_after_line(llhttp_t *ll)
{
    static const char line[] = "POST / HTTP/1.1\r\n";
    llhttp_init(ll, HTTP_REQUEST, &settings);
    llhttp_errno_t e = llhttp_execute(ll, line, sizeof(line) - 1);
    assert(e == HPE_OK);
    (void)e;
}

static void
begin_fields(cap_h1_parser *p)
{
    if (atomic_load_explicit(&after_line_state, memory_order_acquire) == 2) {
        p->ll = after_line;
    } else {
        make_after_line(&p->ll);
        int none = 0;
        if (atomic_compare_exchange_strong(&after_line_state, &none, 1)) {
            after_line = p->ll;
            atomic_store_explicit(&after_line_state, 2, memory_order_release);
        }
    }
    p->complete = false;
}

/* ---- Request line (RFC 9112 3) --------------------------------------------------- */

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
    if (h->method.len == 7 && memcmp(data + h->method.off, "CONNECT", 7) == 0) {
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
    return refuse(p, 414, "the request line is too long (RFC 9112 3)");
}

static cap_h1_event
bad_line_char(cap_h1_parser *p, char c)
{
    if (c == '\n')
        return refuse(p, 400, "bare LF as line end, CRLF is required (RFC 9112 2.2)");
    if (p->stage == METHOD)
        return refuse(p, 400, "the method is not a token (RFC 9112 3.1)");
    if (c == '\r')
        return refuse(p, 400, "the request line has no HTTP version (RFC 9112 3)");
    if (c == '#')
        return refuse(p, 400, "the request target has a fragment (RFC 9112 3.2)");
    return refuse(p, 400, "invalid character in the request target (RFC 9112 3.2)");
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
            return refuse(p, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here (RFC 9110 2.5)");
        if (pattern[i] == '0' ? cap_h1_is_digit(c) : c == pattern[i]) {
            if (i < 9)
                continue;
            p->scanned++;
            /* a higher minor version is read as the highest that we know (9110 2.5) */
            h->minor = data[start + 7] != '0';
            const char *wrong = read_target(h, data);
            return wrong == NULL ? CAP_H1_HEAD : refuse(p, 400, wrong);
        }
        if (c == '\n' && i >= 8)
            return bad_line_char(p, c);
        if (i == 9)
            return refuse(p, 400, "bare CR in the request line (RFC 9112 2.2)");
        if (i == 8)
            return refuse(p, 400, "extra characters behind the HTTP version (RFC 9112 3)");
        return refuse(p, 400, "the HTTP version is malformed (RFC 9112 2.3)");
    }
    return CAP_H1_MORE;
}

/* As read_version. */
static cap_h1_event
read_line(cap_h1_parser *p, cap_h1_head *h, const char *data, uint32_t have)
{
    uint32_t limit = limit_or(p->limits->request_line);
    uint32_t i = p->scanned;
    if (p->stage == METHOD) {
        for (; i < have && cap_h1_is(data[i], CAP_CH_TOKEN); i++) {
            if (i >= limit)
                return line_too_long(p);
            if (i >= MAX_METHOD)
                return refuse(p, 501, "the method is longer than any that exists (RFC 9112 3)");
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
            return refuse(p, 400, "more than one space in the request line (RFC 9112 3)");
        p->scanned = i + 1;
        p->stage = VERSION;
    }
    return read_version(p, h, data, have, limit);
}

size_t
cap_h1_request_line(const cap_http_limits *limits, cap_h1_head *h, const char *data, size_t len)
{
    uint32_t limit = limit_or(limits->request_line);
    uint32_t have = len > limit ? limit : (uint32_t)len;
    uint32_t i = 0;
    while (i < have && cap_h1_is(data[i], CAP_CH_TOKEN))
        i++;
    if (i == 0 || i > MAX_METHOD || have - i < 2 || data[i] != ' ' || data[i + 1] != '/')
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

/* ---- Field lines (RFC 9112 5) ---------------------------------------------------- */

void
cap_h1_head_init(cap_h1_head *h)
{
    *h = (cap_h1_head){0};
}

void
cap_h1_head_free(cap_h1_head *h)
{
    cap_free(h->fields);
    *h = (cap_h1_head){0};
}

static int
grow(cap_h1_head *h)
{
    uint32_t cap = h->cap == 0 ? 16 : h->cap * 2;
    cap_h1_field *fields = cap_realloc(h->fields, cap * sizeof(*fields));
    if (fields == NULL)
        return -1;
    h->fields = fields;
    h->cap = cap;
    return 0;
}

static bool
is_ows(char c)
{
    return c == ' ' || c == '\t';
}

/* llhttp has refused something before `end`: find it and say what it is. */
static const char *
why_bad_field(const cap_h1_parser *p, const cap_h1_head *h, const char *data, uint32_t end)
{
    if (strstr(llhttp_get_error_reason(&p->ll), "can't be present with") != NULL)
        return "Content-Length and Transfer-Encoding together (RFC 9112 6.3)";
    switch (llhttp_get_errno(&p->ll)) {
    case HPE_INVALID_CONTENT_LENGTH:
        return "Content-Length is not a number (RFC 9110 8.6)";
    case HPE_UNEXPECTED_CONTENT_LENGTH:
        return "Content-Length is repeated (RFC 9112 6.3)";
    case HPE_INVALID_TRANSFER_ENCODING:
        return "Transfer-Encoding does not end with chunked (RFC 9112 6.3)";
    default:
        break;
    }
    for (uint32_t i = h->block.off; i < end;) {
        uint32_t line = i;
        if (is_ows(data[i]))
            return i == h->block.off
                       ? "white space before the first field line (RFC 9112 2.2)"
                       : "a field line is folded (obs-fold, RFC 9112 5.2)";
        while (i < end && cap_h1_is(data[i], CAP_CH_TOKEN))
            i++;
        bool named = i < end && data[i] == ':';
        if (named && i == line)
            return "a field name is empty (RFC 9110 5.1)";
        while (named && i < end && cap_h1_is(data[i], CAP_CH_VALUE))
            i++;
        if (i == end)
            break;
        if (data[i] == '\n')
            return "bare LF as line end, CRLF is required (RFC 9112 2.2)";
        if (data[i] == '\r') {
            if (!named && i > line)
                return "a field line has no colon (RFC 9112 5)";
            if (i + 1 < end && data[i + 1] != '\n')
                return "bare CR in a field line (RFC 9112 2.2)";
            i += 2;
            continue;
        }
        if (named)
            return "invalid character in a field value (RFC 9110 5.5)";
        return is_ows(data[i]) ? "white space in or behind a field name (RFC 9112 5.1)"
                               : "invalid character in a field name (RFC 9110 5.1)";
    }
    return "a field line is malformed (RFC 9112 5)";
}

/* Give llhttp what it has not seen, up to `end`. */
static cap_h1_event
feed_fields(cap_h1_parser *p, const cap_h1_head *h, const char *data, uint32_t end)
{
    uint32_t start = p->scanned;
    p->scanned = end;
    if (start >= end)
        return CAP_H1_MORE;
    llhttp_errno_t e = llhttp_execute(&p->ll, data + start, end - start);
    /* paused: the message ends with its head */
    if (e == HPE_OK || (e == HPE_PAUSED && llhttp_get_error_pos(&p->ll) == data + end))
        return CAP_H1_MORE;
    return refuse(p, 400, why_bad_field(p, h, data, end));
}

/* A limit is broken: `beyond` is the first octet that is too much. What llhttp has
   to say about the octets before it comes first. */
static cap_h1_event
too_large(cap_h1_parser *p, const cap_h1_head *h, const char *data, uint32_t beyond,
          const char *reason)
{
    if (feed_fields(p, h, data, beyond) == CAP_H1_ERROR)
        return CAP_H1_ERROR;
    return refuse(p, 431, reason);
}

/* The octets from p->line to `end` (without their line end, when they have one) are
   no empty line: within the limits? */
static cap_h1_event
check_limits(cap_h1_parser *p, const cap_h1_head *h, const char *data, uint32_t end,
             uint32_t end_with_crlf)
{
    uint32_t head = limit_or(p->limits->head);
    uint32_t size = limit_or(p->limits->field_size);
    if (h->nfields >= limit_or(p->limits->fields))
        return too_large(p, h, data, p->line, "too many field lines (RFC 6585 5)");
    bool too_big = end - p->line > size;
    bool too_much = end_with_crlf - h->block.off > head;
    if (too_big && (!too_much || p->line + size <= h->block.off + head))
        return too_large(p, h, data, p->line + size, "a field line is too long (RFC 6585 5)");
    if (too_much)
        return too_large(p, h, data, h->block.off + head,
                         "the field lines together are too long (RFC 6585 5)");
    return CAP_H1_MORE;
}

/* Note the field of the line from p->line to `end`. What is no field is left out:
   llhttp will refuse it. */
static int
add_field(cap_h1_parser *p, cap_h1_head *h, const char *data, uint32_t end)
{
    uint32_t i = p->line;
    while (i < end && cap_h1_is(data[i], CAP_CH_TOKEN))
        i++;
    if (i == end || data[i] != ':')
        return 0;
    if (h->nfields == h->cap && grow(h) < 0)
        return -1;
    cap_h1_field *f = &h->fields[h->nfields++];
    f->name = (cap_span){p->line, i - p->line};
    for (i++; i < end && is_ows(data[i]);)
        i++;
    while (end > i && is_ows(data[end - 1]))
        end--;
    f->value = (cap_span){i, end - i};
    f->id = (uint16_t)cap_header_find(data + f->name.off, f->name.len);
    return 0;
}

static cap_h1_event judge(cap_h1_parser *p, cap_h1_head *h, const char *data);

/* MORE, HEAD or ERROR. */
static cap_h1_event
read_fields(cap_h1_parser *p, cap_h1_head *h, const char *data, uint32_t have)
{
    uint32_t from = p->scanned; /* no LF between p->line and here */
    for (;;) {
        const char *lf = from < have ? memchr(data + from, '\n', have - from) : NULL;
        if (lf == NULL) {
            /* whether CR ends a line, or even the head, shows in the next octet */
            uint32_t end = have - (have > p->line && data[have - 1] == '\r');
            if (end > p->line && check_limits(p, h, data, end, have) == CAP_H1_ERROR)
                return CAP_H1_ERROR;
            return feed_fields(p, h, data, end);
        }
        uint32_t next = (uint32_t)(lf - data) + 1;
        uint32_t end = next - 1;
        if (end > p->line && data[end - 1] == '\r')
            end--;
        if (end == p->line && next == end + 2) {
            if (feed_fields(p, h, data, next) == CAP_H1_ERROR)
                return CAP_H1_ERROR;
            if (!p->complete)
                return refuse(p, 400, "the field section is malformed (RFC 9112 5)");
            h->block.len = next - h->block.off;
            return judge(p, h, data);
        }
        if (check_limits(p, h, data, end, next) == CAP_H1_ERROR)
            return CAP_H1_ERROR;
        if (add_field(p, h, data, end) < 0) {
            if (feed_fields(p, h, data, next) == CAP_H1_ERROR)
                return CAP_H1_ERROR;
            return refuse(p, 500, "out of memory");
        }
        p->line = from = next;
    }
}

/* ---- What the fields mean for the framing (RFC 9112 6, 9110 7) ------------------- */

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
        return refuse(p, 400, "Content-Length and Transfer-Encoding together (RFC 9112 6.3)");
    if (h->minor == 0)
        return refuse(p, 400, "Transfer-Encoding in HTTP/1.0 (RFC 9112 6.1)");
    if (c->malformed)
        return refuse(p, 400, "Transfer-Encoding is malformed (RFC 9112 6.1)");
    if (!c->chunked || c->after)
        return refuse(p, 400, "Transfer-Encoding does not end with chunked (RFC 9112 6.3)");
    if (c->other)
        return refuse(p, 501, "a transfer coding other than chunked (RFC 9112 6.1)");
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

static cap_h1_event
judge(cap_h1_parser *p, cap_h1_head *h, const char *data)
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
                return refuse(p, 400, "Host is repeated (RFC 9112 3.2)");
            const char *wrong = NULL;
            if (f->value.len > 0) /* empty is what a target without authority gets */
                wrong = cap_h1_check_authority(value, f->value.len, false);
            if (wrong != NULL)
                return refuse(p, 400, "Host is not host or host:port (RFC 9112 3.2)");
            break;
        }
        case CAP_HDR_CONTENT_LENGTH:
            if (h->flags & CAP_H1_HAS_LENGTH)
                return refuse(p, 400, "Content-Length is repeated (RFC 9112 6.3)");
            if (!cap_h1_parse_length(value, f->value.len, &h->content_length))
                return refuse(p, 400, "Content-Length is not a number (RFC 9110 8.6)");
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
                return refuse(p, 417, "an expectation other than 100-continue (RFC 9110 10.1.1)");
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
        return refuse(p, 400, "Host is missing (RFC 9112 3.2)");
    if (te.lines > 0 && judge_codings(p, h, &te) == CAP_H1_ERROR)
        return CAP_H1_ERROR;
    if (said & 2)
        h->flags |= CAP_H1_SAID_KEEP_ALIVE;
    if (!(said & 1) && (h->minor == 1 || (said & 2)))
        h->flags |= CAP_H1_KEEP_ALIVE;
    if (h->minor == 1 && upgrade && (said & 4))
        h->flags |= (uint16_t)(CAP_H1_UPGRADE | (websocket ? CAP_H1_UPGRADE_WEBSOCKET : 0));

    if (h->flags & CAP_H1_CHUNKED) {
        p->stage = CHUNK_LINE;
        p->chunk = SIZE;
        p->size_digits = 0;
        p->ext_octets = p->trailer_octets = 0;
        p->body_octets = 0;
    } else if (h->content_length > 0) {
        if (p->limits->body != 0 && h->content_length > p->limits->body)
            return refuse(p, 413, "Content-Length is above the limit (RFC 9110 15.5.14)");
        p->left = h->content_length;
        p->stage = LENGTH;
    } else {
        p->stage = DONE;
    }
    return CAP_H1_HEAD;
}

/* ---- Chunked content (RFC 9112 7.1) ---------------------------------------------- */

static const char *
why_bad_chunk(const cap_h1_parser *p)
{
    switch (p->stage) {
    case CHUNK_LINE:
        return "a chunk size is malformed (RFC 9112 7.1)";
    case CHUNK_END:
        return "a chunk is not followed by CRLF (RFC 9112 7.1)";
    case TRAILERS:
        return "a trailer field line is malformed (RFC 9112 7.1.2)";
    default:
        return "the chunked content is malformed (RFC 9112 7.1)";
    }
}

/* llhttp reads `len` octets; 0 or -1 (refused). */
static int
feed_chunk(cap_h1_parser *p, const char *data, size_t len)
{
    if (len == 0)
        return 0;
    if (llhttp_execute(&p->ll, data, len) == HPE_OK)
        return 0;
    refuse(p, 400, why_bad_chunk(p));
    return -1;
}

/* One octet of a chunk extension, or the one behind it: where we are then, or -1. */
static int
step_extension(enum chunk at, char c)
{
    bool ows = is_ows(c);
    switch (at) {
    case EXT_BEFORE:
        return ows ? EXT_BEFORE : c == ';' ? EXT_NAME0 : -1;
    case EXT_NAME0:
        return ows ? EXT_NAME0 : cap_h1_is(c, CAP_CH_TOKEN) ? EXT_NAME : -1;
    case EXT_NAME:
        if (cap_h1_is(c, CAP_CH_TOKEN))
            return EXT_NAME;
        return ows ? EXT_EQUALS : c == '=' ? EXT_VALUE0
                              : c == ';'   ? EXT_NAME0
                              : c == '\r'  ? LINE_END
                                           : -1;
    case EXT_EQUALS: /* BWS, so "=" or ";" has to follow */
        return ows ? EXT_EQUALS : c == '=' ? EXT_VALUE0 : c == ';' ? EXT_NAME0 : -1;
    case EXT_VALUE0:
        if (c == '"')
            return EXT_QUOTED;
        return ows ? EXT_VALUE0 : cap_h1_is(c, CAP_CH_TOKEN) ? EXT_VALUE : -1;
    case EXT_VALUE:
        if (cap_h1_is(c, CAP_CH_TOKEN))
            return EXT_VALUE;
        return ows ? EXT_BEFORE : c == ';' ? EXT_NAME0 : c == '\r' ? LINE_END : -1;
    case EXT_QUOTED:
        if (c == '"')
            return EXT_QUOTE_END;
        return c == '\\' ? EXT_QUOTED_PAIR : cap_h1_is(c, CAP_CH_QDTEXT) ? EXT_QUOTED : -1;
    case EXT_QUOTED_PAIR:
        return cap_h1_is(c, CAP_CH_VALUE) ? EXT_QUOTED : -1;
    case EXT_QUOTE_END:
        return ows ? EXT_BEFORE : c == ';' ? EXT_NAME0 : c == '\r' ? LINE_END : -1;
    default:
        return -1;
    }
}

/* The size is complete, llhttp has it. MORE or ERROR; sets the stage. */
static cap_h1_event
begin_chunk(cap_h1_parser *p)
{
    uint64_t size = p->ll.content_length;
    if (size == 0) {
        /* Framing fields have no business here and no effect (RFC 9110 6.5.1), but
           llhttp compares them with the head's when it knows of those. */
        p->ll.flags &= (uint16_t)~(F_CHUNKED | F_TRANSFER_ENCODING);
        p->stage = TRAILERS;
        return CAP_H1_MORE;
    }
    if (size > INT64_MAX || p->body_octets > INT64_MAX - size)
        return refuse(p, 400, "a chunk size is too large (RFC 9112 7.1)");
    p->body_octets += size;
    if (p->limits->body != 0 && p->body_octets > p->limits->body)
        return refuse(p, 413, "the chunked content is above the limit (RFC 9110 15.5.14)");
    p->left = size;
    p->stage = CHUNK_DATA;
    return CAP_H1_MORE;
}

/* A chunk's first line. llhttp reads size and line end; the extension is read here,
   by the grammar, and llhttp does not see it. */
static cap_h1_event
read_chunk_line(cap_h1_parser *p, const char *data, size_t len, size_t *used)
{
    size_t i = *used;
    while (i < len) {
        char c = data[i];
        if (p->chunk == SIZE && cap_h1_is(c, CAP_CH_HEX)) {
            if (p->size_digits++ == MAX_SIZE_DIGITS)
                return refuse(p, 400, "a chunk size has too many digits (RFC 9112 7.1)");
            if (feed_chunk(p, data + i, 1) < 0)
                return CAP_H1_ERROR;
            i++;
            continue;
        }
        if (p->chunk == LINE_END) {
            if (c != '\n')
                return refuse(p, 400, "bare CR in a chunk's first line (RFC 9112 7.1)");
            if (feed_chunk(p, "\r\n", 2) < 0)
                return CAP_H1_ERROR;
            *used = i + 1;
            return begin_chunk(p);
        }
        if (c == '\n')
            return refuse(p, 400, "bare LF in a chunk's first line (RFC 9112 7.1)");
        if (p->chunk == SIZE) {
            if (p->size_digits == 0 || (c != '\r' && c != ';' && !is_ows(c)))
                return refuse(p, 400, "a chunk size is malformed (RFC 9112 7.1)");
            p->chunk = c == '\r' ? LINE_END : c == ';' ? EXT_NAME0 : EXT_BEFORE;
        } else {
            int next = step_extension((enum chunk)p->chunk, c);
            if (next < 0)
                return refuse(p, 400, "a chunk extension is malformed (RFC 9112 7.1.1)");
            p->chunk = (uint8_t)next;
        }
        if (p->chunk != LINE_END && p->ext_octets++ == CAP_HTTP_MAX_CHUNK_EXTENSIONS)
            return refuse(p, 400, "the chunk extensions are too long (RFC 9112 7.1.1)");
        i++;
    }
    *used = i;
    return CAP_H1_MORE;
}

static cap_h1_event
read_trailers(cap_h1_parser *p, const char *data, size_t len, size_t *used)
{
    size_t room = CAP_HTTP_MAX_TRAILERS - p->trailer_octets;
    size_t n = len - *used;
    if (n > room)
        n = room;
    if (n > 0) {
        llhttp_errno_t e = llhttp_execute(&p->ll, data + *used, n);
        if (e == HPE_PAUSED) {
            *used = (size_t)(llhttp_get_error_pos(&p->ll) - data);
            p->stage = DONE;
            return CAP_H1_MORE;
        }
        if (e != HPE_OK)
            return refuse(p, 400, why_bad_chunk(p));
    }
    *used += n;
    p->trailer_octets = (uint16_t)(p->trailer_octets + n);
    if (*used < len)
        return refuse(p, 431, "the trailer section is too long (RFC 9112 7.1.2)");
    return CAP_H1_MORE;
}

/* ---- Events ---------------------------------------------------------------------- */

void
cap_h1_init(cap_h1_parser *p, const cap_http_limits *limits)
{
    *p = (cap_h1_parser){.limits = limits, .stage = START};
}

bool
cap_h1_at_start(const cap_h1_parser *p)
{
    return p->stage == START;
}

bool
cap_h1_in_head(const cap_h1_parser *p)
{
    return p->stage >= METHOD && p->stage <= FIELDS;
}

bool
cap_h1_in_body(const cap_h1_parser *p)
{
    return p->stage >= LENGTH && p->stage <= DONE;
}

void
cap_h1_skip_head(cap_h1_parser *p)
{
    assert(p->stage == START);
    p->blank = 0;
    p->stage = DONE;
}

/* Empty lines before a request line (RFC 9112 2.2). MORE: all there is is done with;
   HEAD: a request begins at *used. */
static cap_h1_event
skip_blank(cap_h1_parser *p, const char *data, size_t len, size_t *used)
{
    while (*used < len) {
        if (data[*used] == '\n')
            return refuse(p, 400, "bare LF as line end, CRLF is required (RFC 9112 2.2)");
        if (data[*used] != '\r')
            return CAP_H1_HEAD;
        if (p->blank == MAX_BLANK_LINES)
            return refuse(p, 400, "too many empty lines before a request (RFC 9112 2.2)");
        if (len - *used < 2)
            break;
        if (data[*used + 1] != '\n')
            return refuse(p, 400, "bare CR before a request (RFC 9112 2.2)");
        p->blank++;
        *used += 2;
    }
    return CAP_H1_MORE;
}

static cap_h1_event
next_head(cap_h1_parser *p, cap_h1_head *h, const char *data, size_t len, size_t *used,
          cap_h1_out *out)
{
    cap_h1_event ev;
    assert(h != NULL);
    if (p->stage == START) {
        ev = skip_blank(p, data, len, used);
        if (ev != CAP_H1_HEAD)
            return ev;
        h->nfields = 0;
        p->scanned = 0;
        p->blank = 0;
        p->stage = METHOD;
    }
    const char *start = data + *used;
    uint32_t have = len - *used > UINT32_MAX ? UINT32_MAX : (uint32_t)(len - *used);
    if (p->stage < FIELDS) {
        size_t n = p->scanned == 0 ? cap_h1_request_line(p->limits, h, start, have) : 0;
        if (n != 0) {
            p->scanned = (uint32_t)n;
        } else {
            ev = read_line(p, h, start, have);
            if (ev != CAP_H1_HEAD)
                return ev;
        }
        h->block = (cap_span){p->scanned, 0};
        p->line = p->scanned;
        p->stage = FIELDS;
        begin_fields(p);
    }
    ev = read_fields(p, h, start, have);
    if (ev == CAP_H1_HEAD) {
        out->head_off = *used;
        *used += h->block.off + h->block.len;
    }
    return ev;
}

/* `*used`: a piece of content begins there. */
static cap_h1_event
body_piece(cap_h1_parser *p, const char *data, size_t len, size_t *used, cap_h1_out *out)
{
    size_t n = len - *used;
    if (n == 0)
        return CAP_H1_MORE;
    if (n > p->left)
        n = (size_t)p->left;
    if (p->stage == CHUNK_DATA && feed_chunk(p, data + *used, n) < 0)
        return CAP_H1_ERROR;
    out->body = data + *used;
    out->body_len = n;
    *used += n;
    p->left -= n;
    if (p->left == 0)
        p->stage = p->stage == LENGTH ? DONE : CHUNK_END;
    return CAP_H1_BODY;
}

static cap_h1_event
next_event(cap_h1_parser *p, cap_h1_head *head, const char *data, size_t len, size_t *used,
           cap_h1_out *out)
{
    for (;;) {
        uint8_t stage = p->stage;
        cap_h1_event ev = CAP_H1_MORE;
        switch (stage) {
        case LENGTH:
        case CHUNK_DATA:
            return body_piece(p, data, len, used, out);
        case CHUNK_LINE:
            ev = read_chunk_line(p, data, len, used);
            break;
        case CHUNK_END:
            /* llhttp reads CRLF and then waits for the next size */
            if (*used == len)
                return CAP_H1_MORE;
            if (feed_chunk(p, data + *used, 1) < 0)
                return CAP_H1_ERROR;
            if (data[(*used)++] == '\n') {
                p->stage = CHUNK_LINE;
                p->chunk = SIZE;
                p->size_digits = 0;
            }
            continue;
        case TRAILERS:
            ev = read_trailers(p, data, len, used);
            break;
        case DONE:
            p->stage = START;
            return CAP_H1_END;
        case DEAD:
            return CAP_H1_ERROR;
        default:
            return next_head(p, head, data, len, used, out);
        }
        if (ev != CAP_H1_MORE || p->stage == stage)
            return ev;
    }
}

cap_h1_event
cap_h1_next(cap_h1_parser *p, cap_h1_head *head, const char *data, size_t len, size_t *used,
            cap_h1_out *out)
{
    *used = 0;
    *out = (cap_h1_out){0};
    cap_h1_event ev = next_event(p, head, data, len, used, out);
    if (ev == CAP_H1_ERROR) {
        out->status = p->status;
        out->reason = p->reason;
    }
    return ev;
}
