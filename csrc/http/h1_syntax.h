/* The alphabet of HTTP/1 (RFC 9110 5.6, 9112, 3986) as a table, and checks of those
   pieces of a request that llhttp does not look into. For h1_request.c and
   h1_response.c. */
#ifndef CAP_HTTP_H1_SYNTAX_H
#define CAP_HTTP_H1_SYNTAX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CAP_CH_TOKEN = 1 << 0,    /* tchar */
    CAP_CH_TARGET = 1 << 1,   /* visible US-ASCII but "#", which begins a fragment */
    CAP_CH_VALUE = 1 << 2,    /* field-content: HTAB, SP, VCHAR, obs-text */
    CAP_CH_REG_NAME = 1 << 3, /* unreserved and sub-delims of 3986 but "," */
    CAP_CH_HEX = 1 << 4,
    CAP_CH_QDTEXT = 1 << 5    /* inside a quoted-string, no backslash before it */
};

extern const uint8_t cap_h1_class[256];
extern const unsigned char cap_h1_lowered[256];

static inline bool
cap_h1_is(char c, unsigned classes)
{
    return (cap_h1_class[(unsigned char)c] & classes) != 0;
}

static inline bool
cap_h1_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Equal to `lower`, which is lower-case, in any case? */
bool cap_h1_equal(const char *s, size_t len, const char *lower);

/* uri-host [ ":" port ] (RFC 9110 4.2, 3986 3.2.2). No userinfo, no empty host.
   With `need_port` the port has to be there and may not be 0 (9110 9.3.6). NULL, or
   a sentence that says what is wrong. */
const char *cap_h1_check_authority(const char *s, size_t len, bool need_port);

/* The next element of a comma-separated list (RFC 9110 5.6.1), without white space
   around it; may be empty. `*pos` starts at 0. False behind the last one. */
bool cap_h1_list_next(const char *value, size_t len, size_t *pos, const char **element,
                      size_t *element_len);

#endif
