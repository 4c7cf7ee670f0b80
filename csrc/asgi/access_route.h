/* Which way an access-log line goes: not at all (the level is off), straight to the
   descriptor, or through `logging` because somebody wants the records: other or more
   handlers, filters, propagation, a changed formatter, a patched method. Part of an
   AccessLog. Loop thread, GIL held. */
#ifndef CAP_ASGI_ACCESS_ROUTE_H
#define CAP_ASGI_ACCESS_ROUTE_H

#include "py/state.h"

typedef enum cap_access_way {
    CAP_ACCESS_NONE,
    CAP_ACCESS_DIRECT,
    CAP_ACCESS_LOGGER,
} cap_access_way;

typedef struct cap_access_route {
    cap_state *st;
    PyObject *logger;
    PyObject *handler;      /* whose output is replaced; NULL: always through the logger */
    PyObject *logger_dict;  /* their __dict__; NULL: unlike logging's own classes */
    PyObject *handler_dict;
    PyObject *formatter;    /* the handler's when we began */
    PyObject *stream;
    PyObject *logging_dict; /* logging.__dict__ */
    PyObject *level;        /* 20, logging.INFO */
    /* What `plain` was found for. */
    unsigned int type_tag;
    Py_ssize_t logger_size;
    Py_ssize_t handler_size;
    bool plain; /* the logger's methods are those of logging */
} cap_access_route;

/* Imports logging. `handler` may be NULL. 0, or -1 with an exception; clear it in
   either case. */
int cap_access_route_init(cap_access_route *r, cap_state *st, PyObject *logger,
                          PyObject *handler);
int cap_access_route_traverse(cap_access_route *r, visitproc visit, void *arg);
void cap_access_route_clear(cap_access_route *r);

/* For the next line. Looked up each time, a few hundredths of a microsecond: nobody
   has to tell us, and nothing is stale, when logging is configured while requests
   run. May run Python. */
cap_access_way cap_access_route_choose(cap_access_route *r);

#endif
