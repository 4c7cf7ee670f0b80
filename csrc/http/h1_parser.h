/* The request parser's inside, shared by the files that it is made of: h1_request.c
   (events, field lines), h1_line.c, h1_framing.c and h1_chunked.c. For nobody else. */
#ifndef CAP_HTTP_H1_PARSER_H
#define CAP_HTTP_H1_PARSER_H

#include "http/h1_request.h"

#define CAP_H1_NO_LIMIT 0x40000000U /* spans are 32 bits */

enum cap_h1_stage {
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
enum cap_h1_chunk {
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

static inline uint32_t
cap_h1_limit(uint32_t limit)
{
    return limit == 0 || limit > CAP_H1_NO_LIMIT ? CAP_H1_NO_LIMIT : limit;
}

static inline bool
cap_h1_is_ows(char c)
{
    return c == ' ' || c == '\t';
}

/* The request ends here. `reason` is static. */
static inline cap_h1_event
cap_h1_refuse(cap_h1_parser *p, int status, const char *reason)
{
    p->stage = DEAD;
    p->status = status;
    p->reason = reason;
    return CAP_H1_ERROR;
}

/* The request line; p->stage is METHOD, TARGET or VERSION. MORE; HEAD, then p->scanned
   is behind the line; or ERROR. */
cap_h1_event cap_h1_read_line(cap_h1_parser *p, cap_h1_head *h, const char *data, uint32_t have);

/* The fields of `h` are complete and well-formed: what do they say about the message?
   Sets flags, content_length and the next stage. HEAD or ERROR. */
cap_h1_event cap_h1_judge(cap_h1_parser *p, cap_h1_head *h, const char *data);

/* llhttp reads `len` octets of chunked content; 0 or -1 (refused). */
int cap_h1_feed_chunk(cap_h1_parser *p, const char *data, size_t len);
/* From *used on, the rest of the stage or what is there of it. MORE or ERROR. */
void cap_h1_begin_chunk_line(cap_h1_parser *p);
cap_h1_event cap_h1_read_chunk_line(cap_h1_parser *p, const char *data, size_t len, size_t *used);
cap_h1_event cap_h1_read_chunk_end(cap_h1_parser *p, const char *data, size_t len, size_t *used);
cap_h1_event cap_h1_read_trailers(cap_h1_parser *p, const char *data, size_t len, size_t *used);

#endif
