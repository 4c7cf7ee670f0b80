#include "http/h1_response.h"

#include <string.h>

#include "check.h"

static void
test_status_lines(void)
{
    size_t len;
    for (int status = -1; status < 1100; status++) {
        const char *line = cap_h1_status_line(status, &len);
        if (status < 100 || status > 999) {
            REQUIRE(line == NULL && strcmp(cap_h1_reason_phrase(status), "") == 0);
            continue;
        }
        char want[100];
        snprintf(want, sizeof(want), "HTTP/1.1 %d %s\r\n", status, cap_h1_reason_phrase(status));
        REQUIRE(len == strlen(want) && memcmp(line, want, len) == 0);
    }
    REQUIRE(strcmp(cap_h1_reason_phrase(200), "OK") == 0);
    REQUIRE(strcmp(cap_h1_reason_phrase(431), "Request Header Fields Too Large") == 0);
    REQUIRE(strcmp(cap_h1_reason_phrase(511), "Network Authentication Required") == 0);
    REQUIRE(strcmp(cap_h1_reason_phrase(299), "") == 0);
    REQUIRE(memcmp(cap_h1_status_line(299, &len), "HTTP/1.1 299 \r\n", 15) == 0 && len == 15);
}

static void
test_octets(void)
{
    for (int c = 0; c < 256; c++) {
        char s[3] = {'a', (char)c, 'b'};
        bool letter = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        bool token = letter || (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
        bool value = c == '\t' || (c >= ' ' && c != 0x7f);
        REQUIRE(cap_h1_name_ok(s, 3) == token);
        REQUIRE(cap_h1_value_ok(s, 3) == value);
        cap_h1_lower(s, s, 3);
        REQUIRE((unsigned char)s[1] == (c >= 'A' && c <= 'Z' ? c + 32 : c));
    }
    REQUIRE(!cap_h1_name_ok("", 0) && cap_h1_value_ok("", 0));
}

static void
test_numbers(void)
{
    static const size_t sizes[] = {0, 1, 9, 10, 15, 16, 255, 256, 65535, 65536, 0xabcdef, INT64_MAX};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char got[CAP_H1_CHUNK_LINE], want[40];
        snprintf(want, sizeof(want), "%zx\r\n", sizes[i]);
        REQUIRE(cap_h1_chunk_line(got, sizes[i]) == strlen(want));
        REQUIRE(memcmp(got, want, strlen(want)) == 0);
        char digits[20];
        snprintf(want, sizeof(want), "%zu", sizes[i]);
        REQUIRE(cap_h1_decimal(digits, sizes[i]) == strlen(want));
        REQUIRE(memcmp(digits, want, strlen(want)) == 0);
        uint64_t back;
        REQUIRE(cap_h1_parse_length(want, strlen(want), &back) && back == sizes[i]);
    }
    static const char *const bad[] = {"", "+1", "-1", " 1", "1 ", "1,1", "0x1", "a", "1a",
                                      "9223372036854775808", "18446744073709551615",
                                      "18446744073709551616", "99999999999999999999999"};
    uint64_t n;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        REQUIRE(!cap_h1_parse_length(bad[i], strlen(bad[i]), &n));
    REQUIRE(cap_h1_parse_length("9223372036854775807", 19, &n) && n == INT64_MAX);
    REQUIRE(cap_h1_parse_length("00000000000000000000000007", 26, &n) && n == 7);
}

static void
test_lists(void)
{
    static const char *const has[] = {"close", "CLOSE", " close\t", "a,close", "a ,\tClose ,b",
                                      ",,close,"};
    static const char *const has_not[] = {"", "clos", "closed", "xclose", "clo se", "close;q",
                                          "\"close\"", ",", "keep-alive"};
    for (size_t i = 0; i < sizeof(has) / sizeof(has[0]); i++)
        REQUIRE(cap_h1_list_has(has[i], strlen(has[i]), "close"));
    for (size_t i = 0; i < sizeof(has_not) / sizeof(has_not[0]); i++)
        REQUIRE(!cap_h1_list_has(has_not[i], strlen(has_not[i]), "close"));
}

static void
test_dates(void)
{
    static const struct {
        int64_t t;
        const char *text;
    } dates[] = {
        {0, "Thu, 01 Jan 1970 00:00:00 GMT"},
        {784111777, "Sun, 06 Nov 1994 08:49:37 GMT"},
        {951782400, "Tue, 29 Feb 2000 00:00:00 GMT"},
        {-1, "Wed, 31 Dec 1969 23:59:59 GMT"},
        {2147483647, "Tue, 19 Jan 2038 03:14:07 GMT"},
        {4107542400, "Mon, 01 Mar 2100 00:00:00 GMT"},
        {-62167219200, "Sat, 01 Jan 0000 00:00:00 GMT"},
        {253402300799, "Fri, 31 Dec 9999 23:59:59 GMT"},
        {253402300800, "Fri, 31 Dec 9999 23:59:59 GMT"},
        {INT64_MIN, "Sat, 01 Jan 0000 00:00:00 GMT"},
    };
    char got[CAP_HTTP_DATE];
    for (size_t i = 0; i < sizeof(dates) / sizeof(dates[0]); i++) {
        if ((time_t)dates[i].t != dates[i].t)
            continue;
        cap_http_date(got, (time_t)dates[i].t);
        REQUIRE(memcmp(got, dates[i].text, CAP_HTTP_DATE) == 0);
    }
    /* each day of four centuries, by the C library (whose locale here is "C") */
    for (int64_t t = 43200; t < (int64_t)86400 * 146097 && (time_t)t == t; t += 86400) {
        time_t when = (time_t)t;
        struct tm tm;
        char want[40];
        REQUIRE(gmtime_r(&when, &tm) != NULL);
        strftime(want, sizeof(want), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        cap_http_date(got, when);
        REQUIRE(memcmp(got, want, CAP_HTTP_DATE) == 0);
    }
}

int
main(void)
{
    test_status_lines();
    test_octets();
    test_numbers();
    test_lists();
    test_dates();
    return 0;
}
