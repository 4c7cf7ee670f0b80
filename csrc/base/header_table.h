/* Field names that requests carry all the time, by number. Lower-case. The
   number indexes ready-made name objects in asgi/ and tells the parser which
   field it has to look at. */
#ifndef CAP_BASE_HEADER_TABLE_H
#define CAP_BASE_HEADER_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* X(ID, "name") */
#define CAP_HEADERS(X)                                                         \
    X(ACCEPT, "accept")                                                        \
    X(ACCEPT_CHARSET, "accept-charset")                                        \
    X(ACCEPT_ENCODING, "accept-encoding")                                      \
    X(ACCEPT_LANGUAGE, "accept-language")                                      \
    X(ACCESS_CONTROL_REQUEST_HEADERS, "access-control-request-headers")        \
    X(ACCESS_CONTROL_REQUEST_METHOD, "access-control-request-method")          \
    X(AUTHORIZATION, "authorization")                                          \
    X(CACHE_CONTROL, "cache-control")                                          \
    X(CONNECTION, "connection")                                                \
    X(CONTENT_DISPOSITION, "content-disposition")                              \
    X(CONTENT_ENCODING, "content-encoding")                                    \
    X(CONTENT_LENGTH, "content-length")                                        \
    X(CONTENT_TYPE, "content-type")                                            \
    X(COOKIE, "cookie")                                                        \
    X(DATE, "date")                                                            \
    X(DNT, "dnt")                                                              \
    X(EXPECT, "expect")                                                        \
    X(FORWARDED, "forwarded")                                                  \
    X(FROM, "from")                                                            \
    X(HOST, "host")                                                            \
    X(IF_MATCH, "if-match")                                                    \
    X(IF_MODIFIED_SINCE, "if-modified-since")                                  \
    X(IF_NONE_MATCH, "if-none-match")                                          \
    X(IF_RANGE, "if-range")                                                    \
    X(IF_UNMODIFIED_SINCE, "if-unmodified-since")                              \
    X(KEEP_ALIVE, "keep-alive")                                                \
    X(MAX_FORWARDS, "max-forwards")                                            \
    X(ORIGIN, "origin")                                                        \
    X(PRAGMA, "pragma")                                                        \
    X(PRIORITY, "priority")                                                    \
    X(PROXY_AUTHORIZATION, "proxy-authorization")                              \
    X(PROXY_CONNECTION, "proxy-connection")                                    \
    X(RANGE, "range")                                                          \
    X(REFERER, "referer")                                                      \
    X(SEC_CH_UA, "sec-ch-ua")                                                  \
    X(SEC_CH_UA_MOBILE, "sec-ch-ua-mobile")                                    \
    X(SEC_CH_UA_PLATFORM, "sec-ch-ua-platform")                                \
    X(SEC_FETCH_DEST, "sec-fetch-dest")                                        \
    X(SEC_FETCH_MODE, "sec-fetch-mode")                                        \
    X(SEC_FETCH_SITE, "sec-fetch-site")                                        \
    X(SEC_FETCH_USER, "sec-fetch-user")                                        \
    X(SEC_WEBSOCKET_EXTENSIONS, "sec-websocket-extensions")                    \
    X(SEC_WEBSOCKET_KEY, "sec-websocket-key")                                  \
    X(SEC_WEBSOCKET_PROTOCOL, "sec-websocket-protocol")                        \
    X(SEC_WEBSOCKET_VERSION, "sec-websocket-version")                          \
    X(SERVER, "server")                                                        \
    X(TE, "te")                                                                \
    X(TRACEPARENT, "traceparent")                                              \
    X(TRACESTATE, "tracestate")                                                \
    X(TRAILER, "trailer")                                                      \
    X(TRANSFER_ENCODING, "transfer-encoding")                                  \
    X(UPGRADE, "upgrade")                                                      \
    X(UPGRADE_INSECURE_REQUESTS, "upgrade-insecure-requests")                  \
    X(USER_AGENT, "user-agent")                                                \
    X(VIA, "via")                                                              \
    X(X_FORWARDED_FOR, "x-forwarded-for")                                      \
    X(X_FORWARDED_HOST, "x-forwarded-host")                                    \
    X(X_FORWARDED_PORT, "x-forwarded-port")                                    \
    X(X_FORWARDED_PREFIX, "x-forwarded-prefix")                                \
    X(X_FORWARDED_PROTO, "x-forwarded-proto")                                  \
    X(X_REAL_IP, "x-real-ip")                                                  \
    X(X_REQUEST_ID, "x-request-id")                                            \
    X(X_REQUESTED_WITH, "x-requested-with")

typedef enum cap_header {
    CAP_HDR_OTHER = 0,
#define X(id, name) CAP_HDR_##id,
    CAP_HEADERS(X)
#undef X
    CAP_HDR_COUNT
} cap_header;

/* The number of a field name in any case; CAP_HDR_OTHER when it is not listed. */
cap_header cap_header_find(const char *name, size_t len);
/* The lower-case name of a number other than CAP_HDR_OTHER, NUL-terminated. */
const char *cap_header_name(cap_header id, size_t *len);

#endif
