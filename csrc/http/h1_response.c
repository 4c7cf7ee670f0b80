#include "http/h1_response.h"

#include <string.h>

#include "http/h1_syntax.h"

/* IANA, HTTP Status Code Registry. */
#define REGISTERED(X)                                                          \
    X(100, "Continue")                                                         \
    X(101, "Switching Protocols")                                              \
    X(102, "Processing")                                                       \
    X(103, "Early Hints")                                                      \
    X(104, "Upload Resumption Supported")                                      \
    X(200, "OK")                                                               \
    X(201, "Created")                                                          \
    X(202, "Accepted")                                                         \
    X(203, "Non-Authoritative Information")                                    \
    X(204, "No Content")                                                       \
    X(205, "Reset Content")                                                    \
    X(206, "Partial Content")                                                  \
    X(207, "Multi-Status")                                                     \
    X(208, "Already Reported")                                                 \
    X(226, "IM Used")                                                          \
    X(300, "Multiple Choices")                                                 \
    X(301, "Moved Permanently")                                                \
    X(302, "Found")                                                            \
    X(303, "See Other")                                                        \
    X(304, "Not Modified")                                                     \
    X(305, "Use Proxy")                                                        \
    X(306, "Switch Proxy")                                                     \
    X(307, "Temporary Redirect")                                               \
    X(308, "Permanent Redirect")                                               \
    X(400, "Bad Request")                                                      \
    X(401, "Unauthorized")                                                     \
    X(402, "Payment Required")                                                 \
    X(403, "Forbidden")                                                        \
    X(404, "Not Found")                                                        \
    X(405, "Method Not Allowed")                                               \
    X(406, "Not Acceptable")                                                   \
    X(407, "Proxy Authentication Required")                                    \
    X(408, "Request Timeout")                                                  \
    X(409, "Conflict")                                                         \
    X(410, "Gone")                                                             \
    X(411, "Length Required")                                                  \
    X(412, "Precondition Failed")                                              \
    X(413, "Content Too Large")                                                \
    X(414, "URI Too Long")                                                     \
    X(415, "Unsupported Media Type")                                           \
    X(416, "Range Not Satisfiable")                                            \
    X(417, "Expectation Failed")                                               \
    X(418, "I'm a Teapot")                                                     \
    X(421, "Misdirected Request")                                              \
    X(422, "Unprocessable Content")                                            \
    X(423, "Locked")                                                           \
    X(424, "Failed Dependency")                                                \
    X(425, "Too Early")                                                        \
    X(426, "Upgrade Required")                                                 \
    X(428, "Precondition Required")                                            \
    X(429, "Too Many Requests")                                                \
    X(431, "Request Header Fields Too Large")                                  \
    X(451, "Unavailable For Legal Reasons")                                    \
    X(500, "Internal Server Error")                                            \
    X(501, "Not Implemented")                                                  \
    X(502, "Bad Gateway")                                                      \
    X(503, "Service Unavailable")                                              \
    X(504, "Gateway Timeout")                                                  \
    X(505, "HTTP Version Not Supported")                                       \
    X(506, "Variant Also Negotiates")                                          \
    X(507, "Insufficient Storage")                                             \
    X(508, "Loop Detected")                                                    \
    X(510, "Not Extended")                                                     \
    X(511, "Network Authentication Required")

#define FIRST 100
#define LAST 999

static const struct {
    const char *line;
    const char *phrase;
    size_t len;
} registered[512 - FIRST] = {
#define X(code, phrase)                                                        \
    [code - FIRST] = {"HTTP/1.1 " #code " " phrase "\r\n", phrase,             \
                      sizeof("HTTP/1.1 " #code " " phrase "\r\n") - 1},
    REGISTERED(X)
#undef X
};

/* All others: the space behind the code stays when the phrase is empty (RFC 9112 4). */
#define PLAIN_LEN 15
static const char plain[LAST - FIRST + 1][PLAIN_LEN + 1] = {
#define ONE(h, t, o) "HTTP/1.1 " #h #t #o " \r\n",
#define TEN(h, t)                                                              \
    ONE(h, t, 0) ONE(h, t, 1) ONE(h, t, 2) ONE(h, t, 3) ONE(h, t, 4)           \
    ONE(h, t, 5) ONE(h, t, 6) ONE(h, t, 7) ONE(h, t, 8) ONE(h, t, 9)
#define HUNDRED(h)                                                             \
    TEN(h, 0) TEN(h, 1) TEN(h, 2) TEN(h, 3) TEN(h, 4)                          \
    TEN(h, 5) TEN(h, 6) TEN(h, 7) TEN(h, 8) TEN(h, 9)
    HUNDRED(1) HUNDRED(2) HUNDRED(3) HUNDRED(4) HUNDRED(5)
    HUNDRED(6) HUNDRED(7) HUNDRED(8) HUNDRED(9)
#undef HUNDRED
#undef TEN
#undef ONE
};

static bool
is_registered(int status)
{
    size_t i = (size_t)status - FIRST;
    return i < sizeof(registered) / sizeof(registered[0]) && registered[i].line != NULL;
}

const char *
cap_h1_status_line(int status, size_t *len)
{
    if (status < FIRST || status > LAST)
        return NULL;
    if (is_registered(status)) {
        *len = registered[status - FIRST].len;
        return registered[status - FIRST].line;
    }
    *len = PLAIN_LEN;
    return plain[status - FIRST];
}

const char *
cap_h1_reason_phrase(int status)
{
    return is_registered(status) ? registered[status - FIRST].phrase : "";
}

bool
cap_h1_name_ok(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!cap_h1_is(name[i], CAP_CH_TOKEN))
            return false;
    return len > 0;
}

bool
cap_h1_value_ok(const char *value, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!cap_h1_is(value[i], CAP_CH_VALUE))
            return false;
    return true;
}

void
cap_h1_lower(char *out, const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        out[i] = (char)cap_h1_lowered[(unsigned char)name[i]];
}

size_t
cap_h1_chunk_line(char *out, size_t chunk_len)
{
    static const char hex[] = "0123456789abcdef";
    size_t digits = 1;
    while (digits < 16 && (uint64_t)chunk_len >> (4 * digits) != 0)
        digits++;
    for (size_t i = 0; i < digits; i++)
        out[i] = hex[(uint64_t)chunk_len >> (4 * (digits - 1 - i)) & 15];
    out[digits] = '\r';
    out[digits + 1] = '\n';
    return digits + 2;
}

bool
cap_h1_parse_length(const char *value, size_t len, uint64_t *out)
{
    uint64_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (!cap_h1_is_digit(value[i]))
            return false;
        unsigned digit = (unsigned)(value[i] - '0');
        if (n > ((uint64_t)INT64_MAX - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    *out = n;
    return len > 0;
}

bool
cap_h1_list_has(const char *value, size_t len, const char *token)
{
    size_t pos = 0, n;
    const char *element;
    while (cap_h1_list_next(value, len, &pos, &element, &n))
        if (cap_h1_equal(element, n, token))
            return true;
    return false;
}

static char *
two_digits(char *out, unsigned n)
{
    out[0] = (char)('0' + n / 10 % 10);
    out[1] = (char)('0' + n % 10);
    return out + 2;
}

/* Days since 1970-01-01 to the civil calendar. Years are counted from March, so that
   the leap day is the last of its year, in eras of 400 years (146,097 days). */
void
cap_http_date(char out[CAP_HTTP_DATE], time_t t)
{
    static const char day_names[] = "SunMonTueWedThuFriSat";
    static const char month_names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    const int64_t first = -62167219200, last = 253402300799; /* years 0000 to 9999 */
    int64_t when = (int64_t)t < first ? first : (int64_t)t > last ? last : (int64_t)t;
    int64_t days = when / 86400;
    int64_t rest = when % 86400;
    if (rest < 0) {
        rest += 86400;
        days--;
    }
    unsigned second = (unsigned)rest;
    unsigned weekday = (unsigned)(((days + 4) % 7 + 7) % 7);
    int64_t z = days + 719468; /* since 0000-03-01; 60 less than 0 in January of year 0 */
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    unsigned doe = (unsigned)(z - era * 146097);
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned mp = (5 * doy + 2) / 153;
    unsigned day = doy - (153 * mp + 2) / 5 + 1;
    unsigned month = mp < 10 ? mp + 2 : mp - 10; /* 0: January */
    unsigned year = (unsigned)((int64_t)yoe + era * 400 + (month <= 1));

    char *p = out;
    memcpy(p, day_names + 3 * weekday, 3);
    memcpy(p + 3, ", ", 2);
    p = two_digits(p + 5, day);
    *p++ = ' ';
    memcpy(p, month_names + 3 * month, 3);
    p[3] = ' ';
    p = two_digits(p + 4, year / 100);
    p = two_digits(p, year % 100);
    *p++ = ' ';
    p = two_digits(p, second / 3600);
    *p++ = ':';
    p = two_digits(p, second / 60 % 60);
    *p++ = ':';
    p = two_digits(p, second % 60);
    memcpy(p, " GMT", 4);
}

size_t
cap_h1_decimal(char *out, uint64_t n)
{
    char digits[20];
    size_t len = 0;
    do {
        digits[sizeof(digits) - ++len] = (char)('0' + n % 10);
        n /= 10;
    } while (n != 0);
    memcpy(out, digits + sizeof(digits) - len, len);
    return len;
}
