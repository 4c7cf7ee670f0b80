/* The text of access-log lines other than uvicorn's: a format string of gunicorn's
   atoms, compiled once, or a JSON object.

   Any thread that holds the GIL; runs no Python but in *_new. */
#ifndef CAP_ASGI_ACCESS_FORMAT_H
#define CAP_ASGI_ACCESS_FORMAT_H

#include "asgi/access_text.h"

typedef struct cap_access_format cap_access_format;

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
int cap_access_format_line(cap_access_format *f, const cap_text_phrases *phrases,
                           const cap_access_record *rec, cap_buffer *out);

#endif
