#include "net/proxy_protocol.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

static const char signature[] = {'\r', '\n', '\r', '\n', '\0', '\r', '\n',
                                 'Q',  'U',  'I',  'T',  '\n'}; /* 2.2 */

/* "The worst case ... is 107 chars", CRLF included (2.1). */
#define LINE_MAX_1 107

static cap_proxy_result
wrong(cap_proxy_header *out, const char *reason)
{
    out->reason = reason;
    return CAP_PROXY_ERROR;
}

/* --- version 1 --------------------------------------------------------------------- */

/* The next word, up to a single blank or the line's end; NULL when it is empty. */
static const char *
word(const char **at, const char *end, size_t *len)
{
    const char *begin = *at, *blank = memchr(begin, ' ', (size_t)(end - begin));
    *len = (size_t)((blank != NULL ? blank : end) - begin);
    *at = blank != NULL ? blank + 1 : end;
    return *len != 0 ? begin : NULL;
}

static bool
parse_address(const char *text, size_t len, int family, void *out)
{
    char copy[INET6_ADDRSTRLEN];
    if (text == NULL || len >= sizeof copy || memchr(text, 0, len) != NULL)
        return false;
    memcpy(copy, text, len);
    copy[len] = 0;
    return inet_pton(family, copy, out) == 1;
}

static bool
parse_port(const char *text, size_t len, in_port_t *out)
{
    unsigned port = 0;
    if (text == NULL || len > 5 || (len > 1 && text[0] == '0'))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        port = port * 10 + (unsigned)(text[i] - '0');
    }
    *out = htons((uint16_t)port);
    return port <= 65535;
}

/* The address and port fields of a sockaddr of that family. */
static void
fields_of(struct sockaddr_storage *addr, int family, void **ip, in_port_t **port)
{
    memset(addr, 0, sizeof *addr);
    addr->ss_family = (sa_family_t)family;
    if (family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)addr;
        *ip = &in->sin_addr;
        *port = &in->sin_port;
    } else {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)addr;
        *ip = &in6->sin6_addr;
        *port = &in6->sin6_port;
    }
}

static cap_proxy_result
parse_1(const char *data, size_t len, cap_proxy_header *out)
{
    const char *lf = memchr(data, '\n', len < LINE_MAX_1 ? len : LINE_MAX_1);
    if (lf == NULL)
        return len < LINE_MAX_1 ? CAP_PROXY_MORE
                                : wrong(out, "The PROXY line is longer than 107 octets");
    if (lf[-1] != '\r') /* "PROXY " is in front of it */
        return wrong(out, "The PROXY line does not end in CRLF");
    const char *at = data + 6, *end = lf - 1;
    size_t n[5];
    const char *protocol = word(&at, end, &n[0]);
    out->version = 1;
    out->len = (size_t)(lf - data) + 1;
    if (protocol != NULL && n[0] == 7 && memcmp(protocol, "UNKNOWN", 7) == 0)
        return CAP_PROXY_DONE; /* the rest of the line is to be ignored */
    int family;
    if (protocol != NULL && n[0] == 4 && memcmp(protocol, "TCP4", 4) == 0)
        family = AF_INET;
    else if (protocol != NULL && n[0] == 4 && memcmp(protocol, "TCP6", 4) == 0)
        family = AF_INET6;
    else
        return wrong(out, "The PROXY line names neither TCP4, TCP6 nor UNKNOWN");
    const char *text[4];
    for (int i = 0; i < 4; i++)
        text[i] = word(&at, end, &n[i + 1]);
    if (at != end || end[-1] == ' ')
        return wrong(out, "The PROXY line has more than five parameters");
    void *source, *destination;
    in_port_t *source_port, *destination_port;
    fields_of(&out->source, family, &source, &source_port);
    fields_of(&out->destination, family, &destination, &destination_port);
    if (!parse_address(text[0], n[1], family, source) ||
        !parse_address(text[1], n[2], family, destination))
        return wrong(out, "An address in the PROXY line is not one of its family");
    if (!parse_port(text[2], n[3], source_port) || !parse_port(text[3], n[4], destination_port))
        return wrong(out, "A port in the PROXY line is not a number up to 65535");
    out->known = true;
    return CAP_PROXY_DONE;
}

/* --- version 2 --------------------------------------------------------------------- */

static cap_proxy_result
parse_2(const char *data, size_t len, cap_proxy_header *out)
{
    const unsigned char *d = (const unsigned char *)data;
    if (len > 12 && d[12] >> 4 != 2)
        return wrong(out, "The PROXY header's version is not 2");
    if (len < 16)
        return CAP_PROXY_MORE;
    unsigned command = d[12] & 15, family = d[13] >> 4, transport = d[13] & 15;
    size_t rest = (size_t)d[14] << 8 | d[15];
    if (command > 1)
        return wrong(out, "The PROXY header's command is neither LOCAL nor PROXY");
    if (family > 3 || transport > 2)
        return wrong(out, "The PROXY header's family or transport does not exist");
    out->version = 2;
    out->len = 16 + rest;
    bool tells = command == 1 && transport == 1 && (family == 1 || family == 2);
    size_t size = family == 1 ? 4 : 16;
    if (tells && rest < 2 * size + 4)
        return wrong(out, "The PROXY header is shorter than its addresses");
    if (len < out->len)
        return CAP_PROXY_MORE;
    if (!tells)
        return CAP_PROXY_DONE;
    void *source, *destination;
    in_port_t *source_port, *destination_port;
    fields_of(&out->source, family == 1 ? AF_INET : AF_INET6, &source, &source_port);
    fields_of(&out->destination, family == 1 ? AF_INET : AF_INET6, &destination, &destination_port);
    memcpy(source, d + 16, size);
    memcpy(destination, d + 16 + size, size);
    memcpy(source_port, d + 16 + 2 * size, 2);
    memcpy(destination_port, d + 18 + 2 * size, 2);
    out->known = true; /* what follows are TLVs, which we have no use for */
    return CAP_PROXY_DONE;
}

cap_proxy_result
cap_proxy_parse(const void *data, size_t len, cap_proxy_header *out)
{
    memset(out, 0, sizeof *out);
    size_t n = len < 6 ? len : 6;
    if (len == 0)
        return CAP_PROXY_MORE;
    if (memcmp(data, "PROXY ", n) == 0)
        return len < 6 ? CAP_PROXY_MORE : parse_1(data, len, out);
    n = len < sizeof signature ? len : sizeof signature;
    if (memcmp(data, signature, n) == 0)
        return len < sizeof signature ? CAP_PROXY_MORE : parse_2(data, len, out);
    return wrong(out, "The connection does not begin with a PROXY header");
}
