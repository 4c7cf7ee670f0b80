/* The pieces that all access-log lines share: escapes, numbers, the client, header
   fields, status phrases, the time of day.

   No control character and no octet above 0x7e of a request ever reaches a line:
   terminals obey such (CVE-2020-7694) and parsers stumble. Text is escaped as
   \xNN, as Apache and nginx do; so a backslash in a line is always an escape.

   Any thread that holds the GIL; runs no Python but in cap_text_phrases_load.
   Functions that append to a buffer return 0, or -1 (no memory, no exception set;
   the buffer may hold a part). */
#ifndef CAP_ASGI_ACCESS_TEXT_H
#define CAP_ASGI_ACCESS_TEXT_H

#include "asgi/access_log.h"
#include "base/buffer.h"

#include <time.h>

enum {
    CAP_PLAIN_TARGET = 1, /* visible ASCII other than " and \ */
    CAP_PLAIN_TEXT = 2,   /* that, and the space */
};

static inline unsigned
cap_text_plain(unsigned char c)
{
    if (c > 0x20 && c < 0x7f && c != '"' && c != '\\')
        return CAP_PLAIN_TARGET | CAP_PLAIN_TEXT;
    return c == 0x20 ? CAP_PLAIN_TEXT : 0;
}

/* Writes at most 4 octets for each of `len`; returns the end. Request targets and
   hosts: visible ASCII as it is, but " and \ as %22 and %5C, which mean the same
   in a URL; anything else as \xNN. */
char *cap_text_escape(char *to, const char *text, size_t len);
/* Decimal digits, at most 20; returns the end. */
char *cap_text_decimal(char *to, uint64_t n);

static inline int
cap_text_put(cap_buffer *out, const char *text, size_t len)
{
    return cap_buffer_append(out, text, len);
}
/* As cap_text_escape does it. */
int cap_text_target(cap_buffer *out, const char *text, size_t len);
/* Text that may hold spaces (field values, user names): " and \ as \xNN too. */
int cap_text_quoted(cap_buffer *out, const char *text, size_t len);
int cap_text_number(cap_buffer *out, uint64_t n);
/* n / 10**digits, with `digits` behind the point. */
int cap_text_fraction(cap_buffer *out, uint64_t n, unsigned digits);
/* HTTP/1.minor */
int cap_text_protocol(cap_buffer *out, const cap_access_record *rec);

/* A client's host (UTF-8, its own memory) and port (-1: none). False when there is no
   client (a unix socket). */
bool cap_text_client(PyObject *client, const char **host, size_t *len, long *port);
/* UTF-8, the str's own memory. */
const char *cap_text_method(const cap_access_record *rec, size_t *len);
/* Octets of the target before its '?'. */
size_t cap_text_path_len(const cap_access_record *rec);
/* The value (bytes, borrowed) of the field with this lower-case name in a list or
   tuple of pairs, from *from on; the place behind it is left in *from. NULL: no more.
   Headers that an application gave as something else than a list (an iterator is
   used up by now) have none. */
PyObject *cap_text_field(PyObject *headers, const char *name, size_t len, Py_ssize_t *from);

/* The phrases of http.HTTPStatus, which differ between versions of CPython. */
typedef struct cap_text_phrases {
    char *text;
    struct {
        uint16_t at;
        uint16_t len; /* 0: no such status */
    } of[500];        /* 100 to 599 */
} cap_text_phrases;

/* Imports http. 0, or -1 with an exception. */
int cap_text_phrases_load(cap_text_phrases *p, const cap_state *st);
void cap_text_phrases_free(cap_text_phrases *p);
static inline size_t
cap_text_phrase(const cap_text_phrases *p, int status, const char **text)
{
    if (status < 100 || status > 599)
        return 0;
    *text = p->text + p->of[status - 100].at;
    return p->of[status - 100].len;
}

/* The time of day in the forms that lines have it, made once a second. Begin with
   zeros. */
typedef struct cap_text_clock {
    time_t at;
    char clf[40];   /* [23/Nov/2026:15:47:17 +0000] */
    char local[40]; /* 2026-11-23 15:47:17 +0000 */
    char utc[40];   /* 2026-11-23T15:47:17 */
} cap_text_clock;

/* Brings it up to date; the time of now. */
struct timespec cap_text_clock_look(cap_text_clock *clock);

/* Appends a JSON object (access_format.h says which). */
int cap_access_json_line(cap_text_clock *clock, const cap_access_record *rec, cap_buffer *out);

#endif
