/* Chunked content (RFC 9112 7.1). llhttp reads sizes, line ends and trailers; here is
   where it may stop, how much there may be, and the grammar of chunk extensions. */
#include "http/h1_parser.h"

#include "http/h1_syntax.h"

#define MAX_SIZE_DIGITS 16

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

int
cap_h1_feed_chunk(cap_h1_parser *p, const char *data, size_t len)
{
    if (len == 0)
        return 0;
    if (llhttp_execute(&p->ll, data, len) == HPE_OK)
        return 0;
    cap_h1_refuse(p, 400, why_bad_chunk(p));
    return -1;
}

/* One octet of a chunk extension, or the one behind it: where we are then, or -1. */
static int
step_extension(enum cap_h1_chunk at, char c)
{
    bool ows = cap_h1_is_ows(c);
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
        return cap_h1_refuse(p, 400, "a chunk size is too large (RFC 9112 7.1)");
    p->body_octets += size;
    if (p->limits->body != 0 && p->body_octets > p->limits->body)
        return cap_h1_refuse(p, 413, "the chunked content is above the limit (RFC 9110 15.5.14)");
    p->left = size;
    p->stage = CHUNK_DATA;
    return CAP_H1_MORE;
}

void
cap_h1_begin_chunk_line(cap_h1_parser *p)
{
    p->stage = CHUNK_LINE;
    p->chunk = SIZE;
    p->size_digits = 0;
}

/* llhttp reads CRLF behind a chunk and then waits for the next size. */
cap_h1_event
cap_h1_read_chunk_end(cap_h1_parser *p, const char *data, size_t len, size_t *used)
{
    while (*used < len) {
        char c = data[*used];
        if (cap_h1_feed_chunk(p, &c, 1) < 0)
            return CAP_H1_ERROR;
        (*used)++;
        if (c == '\n') {
            cap_h1_begin_chunk_line(p);
            break;
        }
    }
    return CAP_H1_MORE;
}

/* A chunk's first line. llhttp reads size and line end; the extension is read here,
   by the grammar, and llhttp does not see it. */
cap_h1_event
cap_h1_read_chunk_line(cap_h1_parser *p, const char *data, size_t len, size_t *used)
{
    size_t i = *used;
    while (i < len) {
        char c = data[i];
        if (p->chunk == SIZE && cap_h1_is(c, CAP_CH_HEX)) {
            if (p->size_digits++ == MAX_SIZE_DIGITS)
                return cap_h1_refuse(p, 400, "a chunk size has too many digits (RFC 9112 7.1)");
            if (cap_h1_feed_chunk(p, data + i, 1) < 0)
                return CAP_H1_ERROR;
            i++;
            continue;
        }
        if (p->chunk == LINE_END) {
            if (c != '\n')
                return cap_h1_refuse(p, 400, "bare CR in a chunk's first line (RFC 9112 7.1)");
            if (cap_h1_feed_chunk(p, "\r\n", 2) < 0)
                return CAP_H1_ERROR;
            *used = i + 1;
            return begin_chunk(p);
        }
        if (c == '\n')
            return cap_h1_refuse(p, 400, "bare LF in a chunk's first line (RFC 9112 7.1)");
        if (p->chunk == SIZE) {
            if (p->size_digits == 0 || (c != '\r' && c != ';' && !cap_h1_is_ows(c)))
                return cap_h1_refuse(p, 400, "a chunk size is malformed (RFC 9112 7.1)");
            p->chunk = c == '\r' ? LINE_END : c == ';' ? EXT_NAME0 : EXT_BEFORE;
        } else {
            int next = step_extension((enum cap_h1_chunk)p->chunk, c);
            if (next < 0)
                return cap_h1_refuse(p, 400, "a chunk extension is malformed (RFC 9112 7.1.1)");
            p->chunk = (uint8_t)next;
        }
        if (p->chunk != LINE_END && p->ext_octets++ == CAP_HTTP_MAX_CHUNK_EXTENSIONS)
            return cap_h1_refuse(p, 400, "the chunk extensions are too long (RFC 9112 7.1.1)");
        i++;
    }
    *used = i;
    return CAP_H1_MORE;
}

cap_h1_event
cap_h1_read_trailers(cap_h1_parser *p, const char *data, size_t len, size_t *used)
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
            return cap_h1_refuse(p, 400, why_bad_chunk(p));
    }
    *used += n;
    p->trailer_octets = (uint16_t)(p->trailer_octets + n);
    if (*used < len)
        return cap_h1_refuse(p, 431, "the trailer section is too long (RFC 9112 7.1.2)");
    return CAP_H1_MORE;
}
