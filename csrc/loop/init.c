/* The loop's part of the module: its types, and what they share. */
#include "loop/loop.h"
#include "loop/thread_pool.h"
#include "loop/transport.h"

#include "base/mem.h"

static int
make_kwnames(cap_state *st, cap_loop_state *ls)
{
#if CAP_HAVE_EAGER_TASKS
    ls->task_kwnames = PyTuple_Pack(3, st->str.loop, st->str.context, st->str.eager_start);
#else
    ls->task_kwnames = PyTuple_Pack(3, st->str.loop, st->str.context, st->str.name);
#endif
    ls->create_kwnames = PyTuple_Pack(1, st->str.context);
    ls->future_kwnames = PyTuple_Pack(1, st->str.loop);
    return ls->task_kwnames != NULL && ls->create_kwnames != NULL && ls->future_kwnames != NULL
               ? 0
               : -1;
}

static int
borrow_tasks(cap_loop_state *ls)
{
    PyObject *base = PyImport_ImportModule("asyncio.base_events"), *type = NULL, *events = NULL;
    int rc = -1;
    if (base == NULL || (type = PyObject_GetAttrString(base, "BaseEventLoop")) == NULL ||
        (events = PyImport_ImportModule("asyncio.events")) == NULL)
        goto done;
    if ((ls->create_task = PyObject_GetAttrString(type, "create_task")) == NULL ||
        (ls->get_running_loop = PyObject_GetAttrString(events, "_get_running_loop")) == NULL ||
        (ls->tasks = PyImport_ImportModule("asyncio.tasks")) == NULL ||
        (ls->task_name = PyUnicode_InternFromString("Task")) == NULL)
        goto done;
    rc = 0;
done:
    Py_XDECREF(base);
    Py_XDECREF(type);
    Py_XDECREF(events);
    return rc;
}

int
cap_loop_init(PyObject *module, cap_state *st)
{
    cap_loop_state *ls = cap_calloc(1, sizeof *ls);
    if (ls == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    st->loop = ls;
    if (make_kwnames(st, ls) < 0 || borrow_tasks(ls) < 0 ||
        cap_handle_types_init(module, st) < 0 || cap_loop_type_init(module, st) < 0 ||
        cap_foreign_type_init(module, st) < 0 || cap_transport_type_init(module, st) < 0 ||
        cap_thread_pool_type_init(module, st) < 0)
        return -1;
    return 0;
}

#define OBJECTS(X)                                                             \
    X(handle_class)                                                            \
    X(timer_class)                                                             \
    X(threadsafe_class)                                                        \
    X(handle_repr)                                                             \
    X(handle_repr_info)                                                        \
    X(timer_repr_info)                                                         \
    X(extract_stack)                                                           \
    X(future_kwnames)                                                          \
    X(task_kwnames)                                                            \
    X(create_kwnames)                                                          \
    X(context_only)                                                            \
    X(create_task)                                                             \
    X(tasks)                                                                   \
    X(task_name)                                                               \
    X(get_running_loop)                                                        \
    X(buffered_protocol)                                                       \
    X(protocol)                                                                \
    X(minus_one)                                                               \
    X(data_received)                                                           \
    X(eof_received)                                                            \
    X(get_buffer)                                                              \
    X(buffer_updated)                                                          \
    X(connection_made)                                                         \
    X(connection_lost)                                                         \
    X(maybe_pause)                                                             \
    X(maybe_resume)                                                            \
    X(closed_name)                                                             \
    X(close_name)                                                              \
    X(datagram_received)                                                       \
    X(error_received)

void
cap_loop_clear(cap_state *st)
{
    cap_loop_state *ls = cap_loop_state_of(st);
    if (ls == NULL)
        return;
    st->loop = NULL;
#define X(field) Py_CLEAR(ls->field);
    OBJECTS(X)
#undef X
    for (int k = 0; k < CAP_TRANSPORT_KINDS; k++) {
        for (int i = 0; i < CAP_TRANSPORT_CALLBACKS; i++)
            Py_CLEAR(ls->transport_method[k][i]);
    }
    cap_free(ls);
}

int
cap_loop_traverse(cap_state *st, visitproc visit, void *arg)
{
    cap_loop_state *ls = cap_loop_state_of(st);
    if (ls == NULL)
        return 0;
#define X(field) Py_VISIT(ls->field);
    OBJECTS(X)
#undef X
    for (int k = 0; k < CAP_TRANSPORT_KINDS; k++) {
        for (int i = 0; i < CAP_TRANSPORT_CALLBACKS; i++)
            Py_VISIT(ls->transport_method[k][i]);
    }
    return 0;
}
