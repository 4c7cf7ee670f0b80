/* The order of work: h1_line.c reads the request line, octet by octet, once. Field lines
   are cut here (at LF and at the first colon) and each octet of them goes through
   llhttp, which decides whether they are well-formed. When the head is complete,
   h1_framing.c judges the fields that frame the message. Content with a length is
   counted here; of a chunked one llhttp reads sizes, line ends and trailers
   (h1_chunked.c).

   Whatever the input is cut into, the events are the same: a limit counts as broken
   at the first octet beyond it, and llhttp gets the octets before that one first. */
#include "http/h1_parser.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "http/h1_syntax.h"

#define MAX_BLANK_LINES 4

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
       Whether the codings are good is decided in h1_framing.c, by a stricter rule. */
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
        if (cap_h1_is_ows(data[i]))
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
        return cap_h1_is_ows(data[i]) ? "white space in or behind a field name (RFC 9112 5.1)"
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
    return cap_h1_refuse(p, 400, why_bad_field(p, h, data, end));
}

/* A limit is broken: `beyond` is the first octet that is too much. What llhttp has
   to say about the octets before it comes first. */
static cap_h1_event
too_large(cap_h1_parser *p, const cap_h1_head *h, const char *data, uint32_t beyond,
          const char *reason)
{
    if (feed_fields(p, h, data, beyond) == CAP_H1_ERROR)
        return CAP_H1_ERROR;
    return cap_h1_refuse(p, 431, reason);
}

/* The octets from p->line to `end` (without their line end, when they have one) are
   no empty line: within the limits? */
static cap_h1_event
check_limits(cap_h1_parser *p, const cap_h1_head *h, const char *data, uint32_t end,
             uint32_t end_with_crlf)
{
    uint32_t head = cap_h1_limit(p->limits->head);
    uint32_t size = cap_h1_limit(p->limits->field_size);
    if (h->nfields >= cap_h1_limit(p->limits->fields))
        return too_large(p, h, data, p->line, "too many field lines (RFC 6585 5)");
    bool too_big = end - p->line > size;
    bool too_much = end_with_crlf - h->block.off > head;
    if (too_big && (!too_much || p->line + size < h->block.off + head))
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
    for (i++; i < end && cap_h1_is_ows(data[i]);)
        i++;
    while (end > i && cap_h1_is_ows(data[end - 1]))
        end--;
    f->value = (cap_span){i, end - i};
    f->id = (uint16_t)cap_header_find(data + f->name.off, f->name.len);
    return 0;
}

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
                return cap_h1_refuse(p, 400, "the field section is malformed (RFC 9112 5)");
            h->block.len = next - h->block.off;
            return cap_h1_judge(p, h, data);
        }
        if (check_limits(p, h, data, end, next) == CAP_H1_ERROR)
            return CAP_H1_ERROR;
        if (add_field(p, h, data, end) < 0) {
            if (feed_fields(p, h, data, next) == CAP_H1_ERROR)
                return CAP_H1_ERROR;
            return cap_h1_refuse(p, 500, "out of memory");
        }
        p->line = from = next;
    }
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
cap_h1_fresh(const cap_h1_parser *p)
{
    return p->stage == START && p->blank == 0;
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

uint64_t
cap_h1_content_left(const cap_h1_parser *p)
{
    return p->stage == LENGTH || p->stage == CHUNK_DATA ? p->left : 0;
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
            return cap_h1_refuse(p, 400, "bare LF as line end, CRLF is required (RFC 9112 2.2)");
        if (data[*used] != '\r')
            return CAP_H1_HEAD;
        if (p->blank == MAX_BLANK_LINES)
            return cap_h1_refuse(p, 400, "too many empty lines before a request (RFC 9112 2.2)");
        if (len - *used < 2)
            break;
        if (data[*used + 1] != '\n')
            return cap_h1_refuse(p, 400, "bare CR before a request (RFC 9112 2.2)");
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
            ev = cap_h1_read_line(p, h, start, have);
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
    if (p->stage == CHUNK_DATA && cap_h1_feed_chunk(p, data + *used, n) < 0)
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
            ev = cap_h1_read_chunk_line(p, data, len, used);
            break;
        case CHUNK_END:
            ev = cap_h1_read_chunk_end(p, data, len, used);
            break;
        case TRAILERS:
            ev = cap_h1_read_trailers(p, data, len, used);
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
