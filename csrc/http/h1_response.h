/* Writing HTTP/1 responses: pieces of syntax, no state, no socket, no Python. */
#ifndef CAP_HTTP_H1_RESPONSE_H
#define CAP_HTTP_H1_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* "HTTP/1.1 404 Not Found\r\n" for 100 to 999; a code that nobody has registered
   gets an empty reason phrase ("HTTP/1.1 299 \r\n", RFC 9112 4). Static memory. NULL
   outside 100..999. */
const char *cap_h1_status_line(int status, size_t *len);
/* "Not Found"; "" when unregistered. */
const char *cap_h1_reason_phrase(int status);

/* RFC 9110 5.1: a field name is a token, so not empty. */
bool cap_h1_name_ok(const char *name, size_t len);
/* RFC 9110 5.5: no CR, LF, NUL or other control character but HTAB. */
bool cap_h1_value_ok(const char *value, size_t len);
/* Copy a field name in lower case. `out` has room for len. Octets outside A-Z are
   copied as they are. */
void cap_h1_lower(char *out, const char *name, size_t len);

/* A chunk's first line, "1f4\r\n". At most CAP_H1_CHUNK_LINE octets. */
#define CAP_H1_CHUNK_LINE 18
size_t cap_h1_chunk_line(char *out, size_t chunk_len);

/* Content-Length's value as RFC 9110 8.6 has it: 1*DIGIT. False when it is not
   that, or 2^63 and more, which parsers of others may take for less than nothing. */
bool cap_h1_parse_length(const char *value, size_t len, uint64_t *out);
/* Is `token` (lower-case) an element of this comma-separated list? Any case. */
bool cap_h1_list_has(const char *value, size_t len, const char *token);

/* RFC 9110 5.6.7, IMF-fixdate: "Sun, 06 Nov 1994 08:49:37 GMT", CAP_HTTP_DATE octets,
   no NUL. */
#define CAP_HTTP_DATE 29
void cap_http_date(char out[CAP_HTTP_DATE], time_t t);

/* A number in decimal; returns the octets written, at most 20. */
size_t cap_h1_decimal(char *out, uint64_t n);

#endif
