/* HTTP/1.0 and 1.1 requests, read strictly (RFC 9110, 9112). Bytes in, events
   out: no socket, no Python, no clock. The request line is read by us (any
   method token is good, and so is each form of target), field lines and body
   framing by llhttp with no leniency, and what llhttp lets pass and two parsers
   could disagree on is refused here.

   The caller presents input until it is consumed:

       while ((ev = cap_h1_next(&p, data, len, &used, &out)) != CAP_H1_MORE) {
           data += used; len -= used; ...
       }

   Input that was not consumed has to be presented again, at the front, together
   with what came since. Empty lines before a request are consumed, but nothing of an
   incomplete head is, and of content everything is at once: the parser
   remembers how far it has looked, so this costs no second scan; the bytes may
   meanwhile have moved in memory (spans are offsets).

   One parser for each connection, used for request after request. One thread. */
#ifndef CAP_HTTP_H1_REQUEST_H
#define CAP_HTTP_H1_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/header_table.h"
#include "http/limits.h"
#include <llhttp.h>

typedef struct cap_span {
    uint32_t off; /* from the first octet of the head (leading CRLFs not counted in) */
    uint32_t len;
} cap_span;

typedef struct cap_h1_field {
    cap_span name;  /* as sent */
    cap_span value; /* without surrounding white space */
    uint16_t id;    /* cap_header */
} cap_h1_field;

typedef enum cap_h1_form {
    CAP_H1_ORIGIN,   /* /path?query */
    CAP_H1_ABSOLUTE, /* http://host/path?query: `authority` replaces Host (9112 3.2.2) */
    CAP_H1_ASTERISK, /* OPTIONS *: path is the asterisk */
    CAP_H1_AUTHORITY /* CONNECT host:port: path is empty, `authority` is set */
} cap_h1_form;

/* What the framing fields said. */
enum {
    CAP_H1_KEEP_ALIVE = 1 << 0,     /* the connection can go on after this message */
    CAP_H1_CHUNKED = 1 << 1,
    CAP_H1_HAS_LENGTH = 1 << 2,     /* Content-Length was there */
    CAP_H1_EXPECT_CONTINUE = 1 << 3,
    CAP_H1_UPGRADE = 1 << 4,        /* Connection: upgrade and Upgrade: something */
    CAP_H1_UPGRADE_WEBSOCKET = 1 << 5, /* ... and `websocket` is among its protocols */
    CAP_H1_FORWARDED = 1 << 6,      /* an X-Forwarded-For or -Proto or Forwarded is there */
    CAP_H1_SAID_KEEP_ALIVE = 1 << 7 /* an explicit Connection: keep-alive */
};

/* One request's head. Lent by the caller to the parser for the time between the
   first octet of a request and CAP_H1_HEAD; then it is the caller's to read. The
   memory of `fields` grows and is kept for the next request. */
typedef struct cap_h1_head {
    cap_h1_field *fields;
    uint32_t nfields;
    uint32_t cap;
    cap_span method;    /* a token */
    cap_span target;    /* as sent */
    cap_span path;      /* inside target, before `?`; empty: the path is "/" */
    cap_span query;     /* after `?`; empty when there is none */
    cap_span authority; /* ABSOLUTE and AUTHORITY */
    cap_span block;     /* all field lines and the empty line that ends them */
    uint8_t minor;      /* HTTP/1.minor: 0 or 1 */
    uint8_t form;       /* cap_h1_form */
    uint16_t flags;     /* CAP_H1_KEEP_ALIVE ... */
    uint64_t content_length; /* with HAS_LENGTH */
} cap_h1_head;

void cap_h1_head_init(cap_h1_head *h);
void cap_h1_head_free(cap_h1_head *h); /* gives `fields` back */

typedef enum cap_h1_event {
    CAP_H1_MORE,  /* all that can be done with this input is done */
    CAP_H1_HEAD,  /* the head is complete; `used` octets hold it, leading CRLFs included,
                     and out->head_off says where in them its first octet is */
    CAP_H1_BODY,  /* out->body is a piece of the content (never empty), inside the input */
    CAP_H1_END,   /* the message is complete, trailers and all; the next call begins
                     another one. Comes for every request, also without a body. */
    CAP_H1_ERROR  /* refused; the parser is dead: only free it */
} cap_h1_event;

typedef struct cap_h1_out {
    size_t head_off;
    const char *body;
    size_t body_len;
    int status;         /* ERROR: 400, 413, 414, 417, 431, 500, 501, 505 */
    const char *reason; /* ERROR: a sentence for log and response body; static memory */
} cap_h1_out;

typedef struct cap_h1_parser cap_h1_parser; /* complete below: embed it, do not look in */

/* `limits` has to outlive the parser. */
void cap_h1_init(cap_h1_parser *p, const cap_http_limits *limits);

/* The next event; see on top. `head` is needed while no request is being read
   (cap_h1_at_start or in_head); otherwise it may be NULL.
   `*used`: octets of the input that are done with (on MORE too).
   Failure of memory is an ERROR with status 500. */
cap_h1_event cap_h1_next(cap_h1_parser *p, cap_h1_head *head, const char *data, size_t len,
                         size_t *used, cap_h1_out *out);

/* Between two requests: nothing of the next one has been seen. */
bool cap_h1_at_start(const cap_h1_parser *p);
/* As if just made: no empty line was seen either. */
bool cap_h1_fresh(const cap_h1_parser *p);
/* In a head that is not complete yet. */
bool cap_h1_in_head(const cap_h1_parser *p);
/* After HEAD (or cap_h1_skip_head) and before END. */
bool cap_h1_in_body(const cap_h1_parser *p);

/* So many octets of content come next, and nothing else: of the message, or of its chunk. */
uint64_t cap_h1_content_left(const cap_h1_parser *p);

/* The caller knows a head that equals an earlier one's: jump over it. `head` has
   been filled by the caller from that earlier parse. Only at the start of a
   request, and only for a head with neither Content-Length, Transfer-Encoding,
   Expect nor Upgrade. The next call gives END. Empty lines before it are not the
   caller's to skip: then use cap_h1_next. */
void cap_h1_skip_head(cap_h1_parser *p);

/* Read the request line alone, for that caller: octets up to and with its CRLF,
   0 when it is incomplete or anything about it is unusual (then use cap_h1_next).
   Fills method, target, path, query, minor and form of `head`. */
size_t cap_h1_request_line(const cap_http_limits *limits, cap_h1_head *head, const char *data,
                           size_t len);

struct cap_h1_parser {
    llhttp_t ll; /* field lines, chunks and trailers of one message at a time */
    const cap_http_limits *limits;
    uint64_t left;         /* octets of the content, or of this chunk, still to come */
    uint64_t body_octets;  /* of all chunks so far */
    uint32_t scanned;      /* octets of the head that have been looked at */
    uint32_t line;         /* where in the head the field line begins that is being read */
    uint16_t ext_octets;   /* chunk extensions so far */
    uint16_t trailer_octets;
    uint8_t stage;
    uint8_t chunk;         /* where in a chunk's first line */
    uint8_t size_digits;   /* of this chunk */
    uint8_t blank;         /* empty lines before the request line */
    bool complete;         /* llhttp has seen the end of the field section */
    int status;
    const char *reason;
};

#endif
