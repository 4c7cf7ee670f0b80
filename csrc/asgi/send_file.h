/* Files in responses: the ASGI extensions http.response.pathsend and
   http.response.zerocopysend. Loop thread, GIL held. */
#ifndef CAP_ASGI_SEND_FILE_H
#define CAP_ASGI_SEND_FILE_H

#include "asgi/conn.h"

/* A file, or a part of one, that is on its way: request->file. */
typedef struct cap_file {
    int fd;          /* owned */
    off_t offset;    /* of the next octet */
    uint64_t left;
    bool last;       /* the response ends with it */
    bool in_chunk;   /* its octets are one chunk, whose end is still to be written */
} cap_file;

/* Closes it. */
void cap_file_free(cap_file *f);
/* Send on, as far as the client takes it. May end the request or the connection. */
void cap_file_pump(cap_request *r);

/* The messages. 0, or -1 with an exception that the application gets. */
int cap_send_path(cap_request *r, PyObject *message);
int cap_send_part(cap_request *r, PyObject *message);

#endif
