#include "net/proxy_protocol.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "check.h"

static cap_proxy_header h;

/* In memory of just that size: nothing behind it may be read. */
static cap_proxy_result
parse(const void *data, size_t len)
{
    char *copy = malloc(len + (len == 0));
    REQUIRE(copy != NULL);
    if (len != 0)
        memcpy(copy, data, len);
    cap_proxy_result r = cap_proxy_parse(copy, len, &h);
    free(copy);
    return r;
}

/* Every beginning wants more; with something behind it, it is the same. */
static void
taken(const void *data, size_t len)
{
    char more[1024];
    REQUIRE(len + 8 <= sizeof more);
    for (size_t n = 0; n < len; n++)
        REQUIRE(parse(data, n) == CAP_PROXY_MORE);
    memcpy(more, data, len);
    memcpy(more + len, "GET / HT", 8);
    REQUIRE(parse(more, len + 8) == CAP_PROXY_DONE && h.len == len);
    REQUIRE(parse(data, len) == CAP_PROXY_DONE && h.len == len);
}

static void
is(const struct sockaddr_storage *addr, const char *ip, unsigned port)
{
    char text[INET6_ADDRSTRLEN];
    if (addr->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
        REQUIRE(inet_ntop(AF_INET, &in->sin_addr, text, sizeof text) != NULL);
        REQUIRE(ntohs(in->sin_port) == port);
    } else {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;
        REQUIRE(addr->ss_family == AF_INET6);
        REQUIRE(inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof text) != NULL);
        REQUIRE(ntohs(in6->sin6_port) == port);
    }
    REQUIRE(strcmp(text, ip) == 0);
}

static void
line(const char *text)
{
    taken(text, strlen(text));
    REQUIRE(h.version == 1);
}

static void
wrong(const char *text)
{
    REQUIRE(parse(text, strlen(text)) == CAP_PROXY_ERROR && h.reason != NULL);
}

static void
version_1(void)
{
    line("PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n");
    REQUIRE(h.known);
    is(&h.source, "192.0.2.1", 56324);
    is(&h.destination, "198.51.100.7", 443);
    line("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n");
    REQUIRE(h.known);
    is(&h.source, "2001:db8::1", 0);
    is(&h.destination, "::1", 65535);
    line("PROXY UNKNOWN\r\n");
    REQUIRE(!h.known);
    line("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n");
    REQUIRE(!h.known);
    line("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
         "65535 65535\r\n"); /* 104 octets: the longest of TCP6 */
    REQUIRE(h.known);

    wrong("GET / HTTP/1.1\r\n");
    wrong("PROXY\r\n");
    wrong("PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n");
    wrong("PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n");
    wrong("PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n");
    wrong("PROXY UNKNOWNS\r\n");
    wrong("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n");
    wrong("PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n");
    wrong("PROXY TCP4 1.1.1.1 2.2.2.2 1 \r\n");
    wrong("PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n");
    wrong("PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n");
    wrong("PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n");
    wrong("PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n");
    wrong("PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n");
    wrong("PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n");
    wrong("PROXY TCP4 ::1 2.2.2.2 1 2\r\n");
    wrong("PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n");
    wrong("PROXY TCP6 1.1.1.1 ::1 1 2\r\n");
    wrong("PROXY TCP4\r\n");
    wrong("PROXY \r\n");
    wrong("PROXY \n");
    char long_line[120];
    memset(long_line, 'x', sizeof long_line);
    memcpy(long_line, "PROXY UNKNOWN ", 14);
    REQUIRE(parse(long_line, 106) == CAP_PROXY_MORE);
    REQUIRE(parse(long_line, 107) == CAP_PROXY_ERROR);
    memcpy(long_line + 105, "\r\n", 2);
    REQUIRE(parse(long_line, 107) == CAP_PROXY_DONE && h.len == 107);
}

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

static void
version_2(void)
{
    static const char v4[] = SIGNATURE "\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\7\xdc\4\1\xbb";
    taken(v4, sizeof v4 - 1);
    REQUIRE(h.known && h.version == 2);
    is(&h.source, "192.0.2.1", 56324);
    is(&h.destination, "198.51.100.7", 443);
    static const char v4_tlv[] = SIGNATURE "\x21\x11\0\x13\xc0\0\2\1\xc6\x33\x64\7\xdc\4\1\xbb\3\0\4abcd";
    taken(v4_tlv, sizeof v4_tlv - 1);
    REQUIRE(h.known);
    static const char v6[] = SIGNATURE "\x21\x21\0\x24"
                                       "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
                                       "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\xdc\4\1\xbb";
    taken(v6, sizeof v6 - 1);
    REQUIRE(h.known);
    is(&h.source, "2001:db8::1", 56324);
    is(&h.destination, "::1", 443);
    static const char local[] = SIGNATURE "\x20\0\0\0";
    taken(local, sizeof local - 1);
    REQUIRE(!h.known);
    static const char local_long[] = SIGNATURE "\x20\x11\0\2ab";
    taken(local_long, sizeof local_long - 1);
    REQUIRE(!h.known);
    static const char unspecified[] = SIGNATURE "\x21\0\0\3abc";
    taken(unspecified, sizeof unspecified - 1);
    REQUIRE(!h.known);
    static const char datagram[] = SIGNATURE "\x21\x12\0\x0c\xc0\0\2\1\xc6\x33\x64\7\xdc\4\1\xbb";
    taken(datagram, sizeof datagram - 1);
    REQUIRE(!h.known);
    char unix_socket[16 + 216] = SIGNATURE "\x21\x31\0\xd8";
    taken(unix_socket, sizeof unix_socket);
    REQUIRE(!h.known);

    char bad[sizeof v4];
    memcpy(bad, v4, sizeof v4);
    bad[12] = 0x11;
    REQUIRE(parse(bad, 13) == CAP_PROXY_ERROR);
    bad[12] = 0x22;
    REQUIRE(parse(bad, 28) == CAP_PROXY_ERROR);
    bad[12] = 0x21;
    bad[13] = 0x41;
    REQUIRE(parse(bad, 28) == CAP_PROXY_ERROR);
    bad[13] = 0x13;
    REQUIRE(parse(bad, 28) == CAP_PROXY_ERROR);
    bad[13] = 0x11;
    bad[15] = 11;
    REQUIRE(parse(bad, 28) == CAP_PROXY_ERROR);
    bad[13] = 0x21; /* twelve octets are too few for IPv6 */
    bad[15] = 12;
    REQUIRE(parse(bad, 28) == CAP_PROXY_ERROR);
    REQUIRE(parse("\r\n\r\n\r", 5) == CAP_PROXY_ERROR);
    REQUIRE(parse("\r\n\r\n", 4) == CAP_PROXY_MORE);
}

int
main(void)
{
    version_1();
    version_2();
    return 0;
}
