/* The access log: one line for each response, formatted and buffered in C while
   nobody has put Python handlers or filters on the logger; then through
   `logging`, as uvicorn does it. The type is capicorn._core.AccessLog. */
#ifndef CAP_ASGI_ACCESS_LOG_H
#define CAP_ASGI_ACCESS_LOG_H

#include "py/state.h"

typedef struct cap_access_log cap_access_log; /* a Python object */

/* What there is to say of one response. Everything is borrowed for the call. */
typedef struct cap_access_record {
    PyObject *client;       /* (host, port) or None, the scope's, so after proxy headers */
    PyObject *method;       /* str */
    const char *target;     /* path with query as it came, not NUL-terminated */
    size_t target_len;
    const char *root_path;  /* prefix of the path that is logged; "" */
    int minor;              /* HTTP/1.minor */
    int status;
    uint64_t body_octets;   /* content sent (0 when written at the response's start) */
    uint64_t duration_ns;   /* since the head was complete (0 likewise) */
    PyObject *request_headers;  /* list of (bytes, bytes), or NULL */
    PyObject *response_headers; /* iterable of (bytes, bytes) as the app gave it, or NULL */
} cap_access_record;

/* Adds AccessLog to the module. 0, or -1 with an exception. */
int cap_access_log_init(PyObject *module, cap_state *st);

/* Is this an AccessLog? */
bool cap_access_log_check(cap_state *st, PyObject *obj);

/* uvicorn's line is written when a response starts; a format with duration, size
   or response headers has to wait for its end. */
bool cap_access_log_at_start(const cap_access_log *log);

/* Loop thread, GIL held. May run Python (logging, the loop's call_later), so what
   `rec` points at has to be kept alive until it returns. Never fails: an error goes
   to sys.unraisablehook, a line that cannot be written is counted. */
void cap_access_log_write(cap_access_log *log, const cap_access_record *rec);

#endif
