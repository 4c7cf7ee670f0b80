/* Base 64 (RFC 4648 section 4, the alphabet with + and /, padded). Plain memory,
   any thread. */
#ifndef CAP_BASE_BASE64_H
#define CAP_BASE_BASE64_H

#include <stddef.h>

/* Octets that `len` octets become. */
#define CAP_BASE64_LEN(len) (((len) + 2) / 3 * 4)

/* Writes CAP_BASE64_LEN(len) octets, no NUL. */
void cap_base64_encode(char *out, const void *data, size_t len);

/* How many octets this decodes to; (size_t)-1 when it is not padded base 64: other
   characters, white space, a wrong length. Bits that padding leaves over may be
   anything. With `out` other than NULL they are written there (len / 4 * 3 of room
   is always enough). */
size_t cap_base64_decode(void *out, const char *data, size_t len);

#endif
