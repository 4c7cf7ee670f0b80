/* Base 64, a few short strings a second. */
#include "base/base64.h"

#include <stdint.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void
cap_base64_encode(char *out, const void *data, size_t len)
{
    const uint8_t *p = data;
    for (; len >= 3; len -= 3, p += 3, out += 4) {
        out[0] = alphabet[p[0] >> 2];
        out[1] = alphabet[(p[0] & 3) << 4 | p[1] >> 4];
        out[2] = alphabet[(p[1] & 15) << 2 | p[2] >> 6];
        out[3] = alphabet[p[2] & 63];
    }
    if (len > 0) {
        unsigned second = len == 2 ? p[1] : 0;
        out[0] = alphabet[p[0] >> 2];
        out[1] = alphabet[(p[0] & 3) << 4 | second >> 4];
        out[2] = len == 2 ? alphabet[(second & 15) << 2] : '=';
        out[3] = '=';
    }
}

static int
digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

size_t
cap_base64_decode(void *out, const char *data, size_t len)
{
    if (len % 4 != 0)
        return (size_t)-1;
    size_t digits = len;
    if (len > 0 && data[len - 1] == '=')
        digits -= data[len - 2] == '=' ? 2 : 1;
    uint8_t *to = out;
    uint32_t bits = 0;
    size_t n = 0;
    for (size_t i = 0; i < digits; i++) {
        int d = digit(data[i]);
        if (d < 0)
            return (size_t)-1;
        bits = bits << 6 | (uint32_t)d;
        if (i % 4 != 0) {
            if (to != NULL)
                to[n] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
            n++;
        }
    }
    return n;
}
