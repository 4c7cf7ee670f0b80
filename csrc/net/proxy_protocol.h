/* The PROXY protocol, versions 1 and 2 (HAProxy, doc/proxy-protocol.txt): what a proxy
   says of the client in front of everything else. Bytes in, addresses out; nothing is kept
   between calls, and nothing here reads from a socket. */
#ifndef CAP_NET_PROXY_PROTOCOL_H
#define CAP_NET_PROXY_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

/* The longest header that is taken: 16 octets and a length of two (2.2). */
#define CAP_PROXY_MAX (16 + 65535)

typedef enum cap_proxy_result {
    CAP_PROXY_MORE,  /* a beginning; call again with more behind it */
    CAP_PROXY_DONE,
    CAP_PROXY_ERROR, /* `reason` says what is wrong */
} cap_proxy_result;

typedef struct cap_proxy_header {
    size_t len;       /* DONE: octets of the header; the client's own begin behind them */
    int version;      /* 1 or 2 */
    bool known;       /* source and destination are told; else (LOCAL, UNKNOWN, UNSPEC, unix sockets)
                         the connection's own addresses count */
    struct sockaddr_storage source;      /* AF_INET or AF_INET6 */
    struct sockaddr_storage destination;
    const char *reason; /* ERROR: static text without a full stop */
} cap_proxy_header;

cap_proxy_result cap_proxy_parse(const void *data, size_t len, cap_proxy_header *out);

#endif
