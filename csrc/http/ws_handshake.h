/* The opening handshake of a WebSocket, the server's side (RFC 6455 4.2), over a
   request head that cap_h1_next has read. No socket, no Python, no memory. */
#ifndef CAP_HTTP_WS_HANDSHAKE_H
#define CAP_HTTP_WS_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http/h1_request.h"
#include "http/ws_deflate.h"

#define CAP_WS_ACCEPT_LEN 28
#define CAP_WS_VERSION "13" /* Sec-WebSocket-Version, of a 426 too */

typedef struct cap_ws_handshake {
    int status;         /* 101: all is well. 400, or 426, which has to carry Upgrade: websocket
                           and Sec-WebSocket-Version: 13 (4.2.2) */
    const char *reason; /* not 101: a sentence without its full stop, for log and response body;
                           static memory */
    char accept[CAP_WS_ACCEPT_LEN]; /* Sec-WebSocket-Accept, no NUL */
    bool deflate;                   /* permessage-deflate was agreed upon: */
    cap_ws_deflate_params params;
} cap_ws_handshake;

/* Looks at the whole handshake. `base` is the first octet of the head, that spans
   count from. `config` NULL: no compression. Does not judge Origin and Host.
   Returns out->status. */
int cap_ws_handshake_check(const cap_h1_head *head, const char *base,
                           const cap_ws_deflate_config *config, cap_ws_handshake *out);

/* The client's subprotocols in its order of preference, from all
   Sec-WebSocket-Protocol fields. A handshake that passed the check has only tokens
   there. Begin with a zeroed cursor; false behind the last one. */
typedef struct cap_ws_protocol_cursor {
    uint32_t field;
    size_t pos;
} cap_ws_protocol_cursor;
bool cap_ws_protocol_next(const cap_h1_head *head, const char *base,
                          cap_ws_protocol_cursor *cursor, const char **name, size_t *len);

/* Did the client name this subprotocol (in this case)? */
bool cap_ws_protocol_offered(const cap_h1_head *head, const char *base, const char *name,
                             size_t len);

#endif
