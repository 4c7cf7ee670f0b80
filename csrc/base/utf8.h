/* UTF-8 (RFC 3629), checked as it arrives: text may be cut anywhere, also inside
   a character, and the first octet that can never become valid is noticed in the
   call that brings it. Surrogates, overlong forms and what lies beyond U+10FFFF
   are invalid. Plain memory, no allocation, any thread. */
#ifndef CAP_BASE_UTF8_H
#define CAP_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The state between two pieces. Begin with CAP_UTF8_START; only hand it back. */
typedef uint8_t cap_utf8_state;
#define CAP_UTF8_BAD 0   /* stays bad whatever follows */
#define CAP_UTF8_START 6 /* also: between two characters */

/* The state after `len` more octets. CAP_UTF8_BAD as soon as they cannot be the
   beginning of valid text; CAP_UTF8_START when text could end here. */
cap_utf8_state cap_utf8_feed(cap_utf8_state state, const char *data, size_t len);

/* Is this whole text valid? */
static inline bool
cap_utf8_valid(const char *data, size_t len)
{
    return cap_utf8_feed(CAP_UTF8_START, data, len) == CAP_UTF8_START;
}

/* Is each octet below 0x80? */
bool cap_ascii(const char *data, size_t len);

/* The most octets of data[0..len) that end between two characters, at most `max`:
   where to cut valid text. */
size_t cap_utf8_cut(const char *data, size_t len, size_t max);

#endif
