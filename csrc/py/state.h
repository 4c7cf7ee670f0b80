/* The module's state: everything that is made once per interpreter. No static
   PyObject anywhere else. Set in module/core.c, released by its m_clear.
   Reached as PyType_GetModuleState(type), or through a pointer that an object
   of ours keeps (the module outlives its types, and those their objects). */
#ifndef CAP_PY_STATE_H
#define CAP_PY_STATE_H

#include "py/compat.h"
#include "py/strings.h"

/* Heap types by name, so that C can make and recognise them. X(field) */
#define CAP_TYPES(X)                                                           \
    /* loop */                                                                 \
    X(Loop)                                                                    \
    X(Handle)                                                                  \
    X(TimerHandle)                                                             \
    X(ForeignDriver)                                                           \
    X(ThreadPool)                                                              \
    /* asgi */                                                                 \
    X(HTTPServer)                                                              \
    X(Connection)                                                              \
    X(Request)                                                                 \
    X(Receive)                                                                 \
    X(Send)                                                                    \
    X(ReceiveAwaitable)                                                        \
    X(SendAwaitable)                                                           \
    X(Done)                                                                    \
    X(AccessLog)                                                               \
    /* module */                                                               \
    X(Scoreboard)                                                              \
    X(Guard)

/* Objects of other modules that C calls. X(field, "module", "attribute") */
#define CAP_IMPORTS(X)                                                         \
    X(asyncio_Task, "asyncio", "Task")                                         \
    X(asyncio_Future, "asyncio", "Future")                                     \
    X(asyncio_CancelledError, "asyncio", "CancelledError")                     \
    X(socket_gaierror, "socket", "gaierror")                                   \
    X(socket_socket, "socket", "socket")

typedef struct cap_state {
#define X(field, text) PyObject *field;
    struct cap_strings { CAP_STRINGS(X) } str;
#undef X
#define X(field) PyTypeObject *field;
    struct { CAP_TYPES(X) } type;
#undef X
#define X(field, module, attribute) PyObject *field;
    struct { CAP_IMPORTS(X) } imp;
#undef X
    void *asgi; /* owned by csrc/asgi: header objects, freelists */
    void *loop; /* owned by csrc/loop */
} cap_state;

/* Each area adds its types and functions to the module; 0, or -1 with an
   exception. Called once from core.c's exec slot, in this order. */
int cap_loop_init(PyObject *module, cap_state *st);
int cap_asgi_init(PyObject *module, cap_state *st);
int cap_scoreboard_type_init(PyObject *module, cap_state *st);
int cap_guard_type_init(PyObject *module, cap_state *st);

/* Releases what hangs on st->loop and st->asgi. May be called twice. */
void cap_loop_clear(cap_state *st);
void cap_asgi_clear(cap_state *st);

/* m_traverse's part for what hangs there; 0 or what visit said. */
int cap_loop_traverse(cap_state *st, visitproc visit, void *arg);
int cap_asgi_traverse(cap_state *st, visitproc visit, void *arg);

/* Object counters for _core._counts(): created and not yet freed, by kind. A
   test's end compares them. Changed by the owning thread under the GIL. */
#define CAP_COUNTS(X)                                                          \
    X(connections)                                                             \
    X(requests)                                                                \
    X(handles)                                                                 \
    X(uv_handles)                                                              \
    X(thread_calls)                                                            \
    X(write_requests)

typedef struct cap_counts {
#define X(field) long field;
    CAP_COUNTS(X)
#undef X
} cap_counts;
extern cap_counts cap_count;

#endif
