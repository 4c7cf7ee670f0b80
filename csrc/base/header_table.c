#include "base/header_table.h"

#include <stdbool.h>

static const struct {
    const char *text;
    size_t len;
} names[CAP_HDR_COUNT] = {
#define X(id, name) [CAP_HDR_##id] = {name, sizeof(name) - 1},
    CAP_HEADERS(X)
#undef X
};

static const unsigned char lower[256] = {
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

/* A perfect hash of length and four characters: no two names of CAP_HEADERS share
   a slot. The factors were found by trial; a name added to CAP_HEADERS needs its
   line here, and other factors when its slot is taken (the unit test looks every
   name up). */
static const uint8_t slots[256] = {
    [3] = CAP_HDR_SEC_WEBSOCKET_VERSION,
    [6] = CAP_HDR_SEC_CH_UA,
    [11] = CAP_HDR_CONTENT_DISPOSITION,
    [12] = CAP_HDR_ACCEPT,
    [17] = CAP_HDR_HOST,
    [21] = CAP_HDR_TRACESTATE,
    [26] = CAP_HDR_PRAGMA,
    [28] = CAP_HDR_VIA,
    [31] = CAP_HDR_PRIORITY,
    [35] = CAP_HDR_X_FORWARDED_PREFIX,
    [39] = CAP_HDR_X_FORWARDED_HOST,
    [43] = CAP_HDR_AUTHORIZATION,
    [47] = CAP_HDR_DATE,
    [54] = CAP_HDR_SEC_WEBSOCKET_KEY,
    [55] = CAP_HDR_CONTENT_ENCODING,
    [59] = CAP_HDR_MAX_FORWARDS,
    [63] = CAP_HDR_IF_MATCH,
    [72] = CAP_HDR_FROM,
    [77] = CAP_HDR_SEC_WEBSOCKET_EXTENSIONS,
    [79] = CAP_HDR_SEC_FETCH_DEST,
    [81] = CAP_HDR_SEC_CH_UA_PLATFORM,
    [83] = CAP_HDR_SEC_FETCH_USER,
    [84] = CAP_HDR_X_REQUESTED_WITH,
    [91] = CAP_HDR_X_FORWARDED_FOR,
    [95] = CAP_HDR_SEC_WEBSOCKET_PROTOCOL,
    [106] = CAP_HDR_IF_UNMODIFIED_SINCE,
    [111] = CAP_HDR_SEC_CH_UA_MOBILE,
    [117] = CAP_HDR_ACCEPT_CHARSET,
    [119] = CAP_HDR_EXPECT,
    [124] = CAP_HDR_TRACEPARENT,
    [128] = CAP_HDR_RANGE,
    [129] = CAP_HDR_FORWARDED,
    [133] = CAP_HDR_CONTENT_TYPE,
    [135] = CAP_HDR_SEC_FETCH_MODE,
    [136] = CAP_HDR_CONTENT_LENGTH,
    [140] = CAP_HDR_COOKIE,
    [141] = CAP_HDR_IF_NONE_MATCH,
    [147] = CAP_HDR_UPGRADE,
    [149] = CAP_HDR_CACHE_CONTROL,
    [151] = CAP_HDR_SEC_FETCH_SITE,
    [157] = CAP_HDR_ACCESS_CONTROL_REQUEST_HEADERS,
    [161] = CAP_HDR_TE,
    [163] = CAP_HDR_X_REQUEST_ID,
    [165] = CAP_HDR_X_REAL_IP,
    [171] = CAP_HDR_TRAILER,
    [181] = CAP_HDR_PROXY_CONNECTION,
    [184] = CAP_HDR_IF_MODIFIED_SINCE,
    [187] = CAP_HDR_TRANSFER_ENCODING,
    [190] = CAP_HDR_IF_RANGE,
    [194] = CAP_HDR_USER_AGENT,
    [198] = CAP_HDR_X_FORWARDED_PORT,
    [199] = CAP_HDR_REFERER,
    [205] = CAP_HDR_SERVER,
    [207] = CAP_HDR_UPGRADE_INSECURE_REQUESTS,
    [208] = CAP_HDR_DNT,
    [213] = CAP_HDR_KEEP_ALIVE,
    [218] = CAP_HDR_ACCEPT_LANGUAGE,
    [221] = CAP_HDR_ACCESS_CONTROL_REQUEST_METHOD,
    [233] = CAP_HDR_CONNECTION,
    [235] = CAP_HDR_ORIGIN,
    [237] = CAP_HDR_ACCEPT_ENCODING,
    [243] = CAP_HDR_X_FORWARDED_PROTO,
    [251] = CAP_HDR_PROXY_AUTHORIZATION,
};

static inline uint8_t
slot_of(const unsigned char *s, size_t len)
{
    return (uint8_t)(len * 30 + lower[s[0]] * 22U + lower[s[len - 1]] * 87U +
                     lower[s[len / 2]] * 46U + lower[s[len > 1 ? len - 2 : 0]] * 97U);
}

cap_header
cap_header_find(const char *name, size_t len)
{
    if (len == 0)
        return CAP_HDR_OTHER;
    const unsigned char *s = (const unsigned char *)name;
    uint8_t id = slots[slot_of(s, len)];
    if (id == CAP_HDR_OTHER || names[id].len != len)
        return CAP_HDR_OTHER;
    const unsigned char *t = (const unsigned char *)names[id].text;
    for (size_t i = 0; i < len; i++)
        if (lower[s[i]] != t[i])
            return CAP_HDR_OTHER;
    return (cap_header)id;
}

const char *
cap_header_name(cap_header id, size_t *len)
{
    *len = names[id].len;
    return names[id].text;
}
