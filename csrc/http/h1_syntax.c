#include "http/h1_syntax.h"

#include <string.h>

/* Sums of CAP_CH_TOKEN ... CAP_CH_QDTEXT. */
const uint8_t cap_h1_class[256] = {
     0,  0,  0,  0,  0,  0,  0,  0,  0, 36,  0,  0,  0,  0,  0,  0,
     0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
    36, 47,  6, 37, 47, 39, 47, 47, 46, 46, 47, 47, 38, 47, 47, 38,
    63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 38, 46, 38, 46, 38, 38,
    38, 63, 63, 63, 63, 63, 63, 47, 47, 47, 47, 47, 47, 47, 47, 47,
    47, 47, 47, 47, 47, 47, 47, 47, 47, 47, 47, 38,  6, 38, 39, 47,
    39, 63, 63, 63, 63, 63, 63, 47, 47, 47, 47, 47, 47, 47, 47, 47,
    47, 47, 47, 47, 47, 47, 47, 47, 47, 47, 47, 38, 39, 38, 47,  0,
    36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36,
    36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36,
    36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36,
    36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36,
    36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36,
    36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36,
    36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36,
    36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36,
};

const unsigned char cap_h1_lowered[256] = {
      0,   1,   2,   3,   4,   5,   6,   7,   8,   9,  10,  11,  12,  13,  14,  15,
     16,  17,  18,  19,  20,  21,  22,  23,  24,  25,  26,  27,  28,  29,  30,  31,
     32,  33,  34,  35,  36,  37,  38,  39,  40,  41,  42,  43,  44,  45,  46,  47,
     48,  49,  50,  51,  52,  53,  54,  55,  56,  57,  58,  59,  60,  61,  62,  63,
     64,  97,  98,  99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111,
    112, 113, 114, 115, 116, 117, 118, 119, 120, 121, 122,  91,  92,  93,  94,  95,
     96,  97,  98,  99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111,
    112, 113, 114, 115, 116, 117, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127,
    128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139, 140, 141, 142, 143,
    144, 145, 146, 147, 148, 149, 150, 151, 152, 153, 154, 155, 156, 157, 158, 159,
    160, 161, 162, 163, 164, 165, 166, 167, 168, 169, 170, 171, 172, 173, 174, 175,
    176, 177, 178, 179, 180, 181, 182, 183, 184, 185, 186, 187, 188, 189, 190, 191,
    192, 193, 194, 195, 196, 197, 198, 199, 200, 201, 202, 203, 204, 205, 206, 207,
    208, 209, 210, 211, 212, 213, 214, 215, 216, 217, 218, 219, 220, 221, 222, 223,
    224, 225, 226, 227, 228, 229, 230, 231, 232, 233, 234, 235, 236, 237, 238, 239,
    240, 241, 242, 243, 244, 245, 246, 247, 248, 249, 250, 251, 252, 253, 254, 255,
};

bool
cap_h1_equal(const char *s, size_t len, const char *lower)
{
    if (strlen(lower) != len)
        return false;
    for (size_t i = 0; i < len; i++)
        if (cap_h1_lowered[(unsigned char)s[i]] != (unsigned char)lower[i])
            return false;
    return true;
}

static bool
ipv4_ok(const char *s, size_t len)
{
    size_t i = 0;
    for (int part = 0; part < 4; part++) {
        if (part > 0 && (i == len || s[i++] != '.'))
            return false;
        size_t start = i;
        unsigned n = 0;
        while (i < len && i - start < 3 && cap_h1_is_digit(s[i]))
            n = n * 10 + (unsigned)(s[i++] - '0');
        if (i == start || n > 255 || (s[start] == '0' && i - start > 1))
            return false;
    }
    return i == len;
}

/* RFC 3986 3.2.2, IPv6address. No zone: it means something on the sender's machine
   only. */
static bool
ipv6_ok(const char *s, size_t len)
{
    size_t i = 0;
    int groups = 0;
    bool gap = false;
    if (len >= 2 && s[0] == ':' && s[1] == ':') {
        gap = true;
        i = 2;
        if (i == len)
            return true;
    }
    for (;;) {
        size_t start = i;
        while (i < len && i - start < 4 && cap_h1_is(s[i], CAP_CH_HEX))
            i++;
        if (i == start)
            return false;
        if (i < len && s[i] == '.') {
            groups += 2;
            return ipv4_ok(s + start, len - start) && (gap ? groups <= 7 : groups == 8);
        }
        groups++;
        if (i == len)
            break;
        if (s[i++] != ':')
            return false;
        if (i < len && s[i] == ':') {
            if (gap)
                return false;
            gap = true;
            i++;
            if (i == len)
                break;
        }
        if (groups == 8)
            return false;
    }
    return gap ? groups <= 7 : groups == 8;
}

/* RFC 3986 3.2.2, IPvFuture: "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" ) */
static bool
ipvfuture_ok(const char *s, size_t len)
{
    size_t i = 1;
    if (len == 0 || (s[0] | 32) != 'v')
        return false;
    while (i < len && cap_h1_is(s[i], CAP_CH_HEX))
        i++;
    if (i == 1 || i + 1 >= len || s[i++] != '.')
        return false;
    while (i < len && (s[i] == ':' || cap_h1_is(s[i], CAP_CH_REG_NAME)))
        i++;
    return i == len;
}

const char *
cap_h1_check_authority(const char *s, size_t len, bool need_port)
{
    size_t i = 0;
    if (len > 0 && s[0] == '[') {
        const char *end = memchr(s, ']', len);
        size_t inside = end != NULL ? (size_t)(end - s) - 1 : 0;
        if (end == NULL || (!ipv6_ok(s + 1, inside) && !ipvfuture_ok(s + 1, inside)))
            return "not an IPv6 address between the brackets of the host (RFC 3986 3.2.2)";
        i = (size_t)(end - s) + 1;
    } else {
        while (i < len && s[i] != ':') {
            if (s[i] == '%') {
                if (len - i < 3 || !cap_h1_is(s[i + 1], CAP_CH_HEX) ||
                    !cap_h1_is(s[i + 2], CAP_CH_HEX))
                    return "broken percent-encoding in the host (RFC 3986 2.1)";
                i += 3;
            } else if (s[i] == '@') {
                return "user information before the host (RFC 9110 4.2.4)";
            } else if (cap_h1_is(s[i], CAP_CH_REG_NAME)) {
                i++;
            } else {
                return "invalid character in the host (RFC 9110 7.2)";
            }
        }
        if (i == 0)
            return "the host is empty (RFC 9110 4.2.1)";
    }
    if (i == len)
        return need_port ? "the port is missing (RFC 9110 9.3.6)" : NULL;
    if (s[i++] != ':')
        return "invalid character behind the host (RFC 9110 7.2)";
    unsigned port = 0;
    bool digits = i < len;
    for (; i < len; i++) {
        if (s[i] == '@')
            return "user information before the host (RFC 9110 4.2.4)";
        if (!cap_h1_is_digit(s[i]))
            return "the port is not a number (RFC 3986 3.2.3)";
        /* As a Host it is any run of digits; only a tunnel has to be opened there. */
        port = port > 65535 ? port : port * 10 + (unsigned)(s[i] - '0');
        if (need_port && port > 65535)
            return "the port is above 65535 (RFC 9110 9.3.6)";
    }
    if (need_port && (!digits || port == 0))
        return "the port is missing (RFC 9110 9.3.6)";
    return NULL;
}

bool
cap_h1_list_next(const char *value, size_t len, size_t *pos, const char **element,
                 size_t *element_len)
{
    if (*pos > len)
        return false;
    const char *start = value + *pos;
    const char *end = memchr(start, ',', len - *pos);
    if (end == NULL)
        end = value + len;
    *pos = (size_t)(end - value) + 1;
    while (start < end && (*start == ' ' || *start == '\t'))
        start++;
    while (end > start && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    *element = start;
    *element_len = (size_t)(end - start);
    return true;
}
