/* How much of a request we take before we refuse it. 0 means no limit where that
   is allowed. Plain numbers; set once before the first parser is made. */
#ifndef CAP_HTTP_LIMITS_H
#define CAP_HTTP_LIMITS_H

#include <stdint.h>

typedef struct cap_http_limits {
    uint32_t request_line;  /* octets of the request line without its CRLF: 414 */
    uint32_t head;          /* octets of all field lines together: 431 */
    uint32_t fields;        /* number of field lines: 431 */
    uint32_t field_size;    /* octets of one field line; 0: only `head` counts: 431 */
    uint64_t body;          /* octets of the content; 0: no limit: 413 */
} cap_http_limits;

#define CAP_HTTP_LIMITS_DEFAULT {16384, 65536, 128, 0, 0}

/* Of a chunked body, always: octets of chunk extensions over the whole message
   and of the trailer section (RFC 9112 7.1.1: a recipient ought to limit them). */
#define CAP_HTTP_MAX_CHUNK_EXTENSIONS 4096
#define CAP_HTTP_MAX_TRAILERS 8192

#endif
