/* SHA-1 (RFC 3174), for the one use that is left: the accept value of a WebSocket
   handshake (RFC 6455 4.2.2), where nothing depends on its strength. In one call;
   plain memory, any thread. */
#ifndef CAP_BASE_SHA1_H
#define CAP_BASE_SHA1_H

#include <stddef.h>
#include <stdint.h>

#define CAP_SHA1_LEN 20

void cap_sha1(const void *data, size_t len, uint8_t out[CAP_SHA1_LEN]);

#endif
