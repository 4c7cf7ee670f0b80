/* The text of access-log lines other than uvicorn's: a format string of
   gunicorn's atoms, compiled once, or a JSON object; and the pieces that all
   lines share (client, escapes, status phrases).

   No control character and no octet above 0x7e of a request ever reaches a line:
   terminals obey such (CVE-2020-7694) and parsers stumble. Text is escaped as
   \xNN, as Apache and nginx do; so a backslash in a line is always an escape.

   Any thread that holds the GIL; runs no Python but in *_new and *_load. */
#ifndef CAP_ASGI_ACCESS_FORMAT_H
#define CAP_ASGI_ACCESS_FORMAT_H

#include "asgi/access_log.h"
#include "base/buffer.h"

typedef struct cap_access_format cap_access_format;

/* The phrases of http.HTTPStatus, which differ between versions of CPython. */
typedef struct cap_access_phrases {
    char *text;
    struct {
        uint16_t at;
        uint16_t len; /* 0: no such status */
    } of[500];        /* 100 to 599 */
} cap_access_phrases;

/* Imports http. 0, or -1 with an exception. */
int cap_access_phrases_load(cap_access_phrases *p);
void cap_access_phrases_free(cap_access_phrases *p);
static inline size_t
cap_access_phrase(const cap_access_phrases *p, int status, const char **text)
{
    if (status < 100 || status > 599)
        return 0;
    *text = p->text + p->of[status - 100].at;
    return p->of[status - 100].len;
}

/* A client: host and port (-1: none). False when there is none (a unix socket). */
bool cap_access_client(PyObject *client, const char **host, size_t *len, long *port);

/* Writes at most 4 octets for each of `len`; returns the end. Request targets and
   hosts: visible ASCII as it is, but " and \ as %22 and %5C, which mean the same
   in a URL; anything else as \xNN. */
char *cap_access_escape(char *to, const char *text, size_t len);
/* Decimal digits, at most 20; returns the end. */
char *cap_access_decimal(char *to, uint64_t n);
/* Octets of the target before its '?', and of what follows. */
size_t cap_access_path_len(const cap_access_record *rec);

/* Compile a format (UTF-8). NULL with ValueError that names what is wrong, or
   MemoryError. */
cap_access_format *cap_access_format_new(const char *text, size_t len);
/* One JSON object a line. Its keys, in this order: time (RFC 3339, UTC, ms), client,
   client_port, method, path, query, protocol, status, bytes, duration_ms, referer,
   user_agent, request_id. Strings, but numbers for client_port, status, bytes and
   duration_ms; null where there is nothing. Octets are read as latin-1. */
cap_access_format *cap_access_format_new_json(void);
void cap_access_format_free(cap_access_format *f);

/* Needs nothing that only a response's end knows. */
bool cap_access_format_at_start(const cap_access_format *f);

/* Append the line's text, without a line end. 0, or -1 (no memory, no exception
   set; `out` may hold a part). */
int cap_access_format_line(cap_access_format *f, const cap_access_phrases *phrases,
                           const cap_access_record *rec, cap_buffer *out);

#endif
