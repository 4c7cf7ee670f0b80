/* WebSocket frames as a server reads and writes them (RFC 6455 section 5). Bytes
   in, events out: no socket, no Python, no clock.

   The caller presents each piece of input once, cut anywhere, until it is consumed:

       while ((ev = cap_ws_next(&p, data, len, &used, &out)) != CAP_WS_MORE) {
           data += used; len -= used; ...
       }

   MORE consumes all: what belongs to an unfinished frame or message is in the
   parser then, unmasked, and inflated and checked as far as it came. After another
   event the rest of the input may also be kept and presented later: reading can
   stop between any two events.

   Input is unmasked where it lies, so it is written to. A message that came in one
   frame and lies in the input as a whole is handed out there without a copy. What
   is handed out is valid until the next call with this parser, and while the input
   is left alone. So call until MORE, also when an event consumed all (len is 0 then):
   that is when the memory of the message handed out last goes; between two messages
   the parser owns none.

   One parser for each connection. One thread. */
#ifndef CAP_HTTP_WS_FRAME_H
#define CAP_HTTP_WS_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "http/ws_deflate.h"

/* RFC 6455 11.8 */
enum {
    CAP_WS_OP_CONTINUATION = 0x0,
    CAP_WS_OP_TEXT = 0x1,
    CAP_WS_OP_BINARY = 0x2,
    CAP_WS_OP_CLOSE = 0x8,
    CAP_WS_OP_PING = 0x9,
    CAP_WS_OP_PONG = 0xA
};

/* Close codes that this layer itself speaks of (7.4.1). */
enum {
    CAP_WS_NORMAL = 1000,
    CAP_WS_PROTOCOL_ERROR = 1002,
    CAP_WS_NO_CODE = 1005,      /* never sent: a Close frame without a code came */
    CAP_WS_BAD_DATA = 1007,
    CAP_WS_TOO_BIG = 1009,
    CAP_WS_INTERNAL_ERROR = 1011
};

#define CAP_WS_CONTROL_MAX 125 /* octets of a control frame's payload (5.5) */

typedef enum cap_ws_event {
    CAP_WS_MORE,   /* all input is consumed */
    CAP_WS_TEXT,   /* a whole message, valid UTF-8: data, len, ascii */
    CAP_WS_BINARY, /* a whole message: data, len */
    CAP_WS_PING,   /* data, len: answer with a Pong that carries the same */
    CAP_WS_PONG,   /* data, len */
    CAP_WS_CLOSE,  /* code (1005: none), and data, len, the reason, valid UTF-8. What
                      comes after it is consumed unseen (5.5.1) */
    CAP_WS_ERROR   /* fail the connection with `code` (7.1.7): `reason` says why. What
                      comes after it is consumed unseen */
} cap_ws_event;

typedef struct cap_ws_out {
    char *data;         /* not NULL, also when len is 0; no NUL behind it */
    size_t len;
    int code;           /* CLOSE; ERROR: 1002, 1007, 1009, or 1011 for no memory */
    bool ascii;         /* TEXT: each octet is below 0x80 */
    const char *reason; /* ERROR: a short sentence, ASCII, static memory, fit for a Close frame */
} cap_ws_out;

typedef struct cap_ws_parser cap_ws_parser; /* complete below: embed it, do not look in */

/* `max_size`: octets of a message after inflation, 0 for no limit. `deflate`: the
   connection's, when permessage-deflate was agreed upon, else NULL; it stays the
   caller's and outlives the parser. */
void cap_ws_init(cap_ws_parser *p, uint64_t max_size, cap_ws_deflate *deflate);
/* Gives memory back; the parser is dead then. */
void cap_ws_free(cap_ws_parser *p);

/* The next event; see on top. */
cap_ws_event cap_ws_next(cap_ws_parser *p, char *data, size_t len, size_t *used, cap_ws_out *out);

/* Neither in a frame nor between two fragments of a message: the end of the stream
   here cuts nothing off. */
bool cap_ws_between_messages(const cap_ws_parser *p);
/* Octets of an unfinished message that the parser holds. */
size_t cap_ws_held(const cap_ws_parser *p);

/* --- writing --- */

#define CAP_WS_HEADER_MAX 10
enum {
    CAP_WS_FIN = 0x80, /* the last (or only) frame of its message */
    CAP_WS_RSV1 = 0x40 /* the first frame of a compressed message (RFC 7692 6) */
};
/* A server's frame header, unmasked and of minimal length: 2, 4 or 10 octets.
   `first` is CAP_WS_FIN, CAP_WS_RSV1 and the opcode, or-ed. */
static inline size_t
cap_ws_header(char out[CAP_WS_HEADER_MAX], int first, uint64_t len)
{
    out[0] = (char)first;
    if (len < 126) {
        out[1] = (char)len;
        return 2;
    }
    int octets = len <= 0xFFFF ? 2 : 8;
    out[1] = octets == 2 ? 126 : 127;
    for (int i = 0; i < octets; i++)
        out[2 + i] = (char)(len >> (8 * (octets - 1 - i)));
    return 2 + (size_t)octets;
}

/* A whole control frame; at most 2 + CAP_WS_CONTROL_MAX octets. Of a longer payload
   only that much is sent. */
#define CAP_WS_CONTROL_FRAME (2 + CAP_WS_CONTROL_MAX)
size_t cap_ws_control(char out[CAP_WS_CONTROL_FRAME], int opcode, const char *data, size_t len);

/* A whole Close frame. `code` CAP_WS_NO_CODE makes one without a payload. `reason` is
   valid UTF-8; when it is longer than 123 octets it is cut between two characters. */
size_t cap_ws_close(char out[CAP_WS_CONTROL_FRAME], int code, const char *reason, size_t len);

/* May this code stand in a Close frame (7.4, and what IANA has registered since)? */
bool cap_ws_close_code_ok(int code);

struct cap_ws_parser {
    cap_ws_deflate *deflate;
    uint64_t max_size;
    uint64_t left;        /* octets of the frame's payload that are still to come */
    cap_buffer message;   /* of an unfinished message, or the one handed out last */
    char *control;        /* payload of a control frame that came in pieces, or NULL */
    uint8_t key[4];       /* masking key, turned so that key[0] is for the next octet */
    uint8_t header[14];   /* a frame header that came in pieces */
    uint8_t header_len;
    uint8_t control_len;
    uint8_t stage;
    uint8_t opcode;       /* of the frame that is being read */
    uint8_t kind;         /* opcode of the unfinished message; 0: there is none */
    bool fin;
    bool compressed;      /* the unfinished message */
    bool non_ascii;       /* an octet of it was not ASCII */
    uint8_t text;         /* cap_utf8_state */
};

#endif
