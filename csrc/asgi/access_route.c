#include "asgi/access_route.h"

/* Is this function of a class logging's own? Tools that watch every record replace
   Logger.callHandlers or Logger.handle, and have to get ours too. */
static bool
is_original(cap_access_route *r, const char *name)
{
    PyObject *f = PyObject_GetAttrString((PyObject *)Py_TYPE(r->logger), name);
    if (f == NULL) {
        PyErr_Clear();
        return false;
    }
    bool yes = PyFunction_Check(f) && PyFunction_GetGlobals(f) == r->logging_dict;
    Py_DECREF(f);
    return yes;
}

static const char *const logger_methods[] = {
    "info", "isEnabledFor", "_log", "makeRecord", "handle", "filter", "callHandlers",
};

static void
look_at_methods(cap_access_route *r)
{
    r->plain = true;
    for (size_t i = 0; i < sizeof logger_methods / sizeof *logger_methods && r->plain; i++) {
        PyObject *own = PyDict_GetItemString(r->logger_dict, logger_methods[i]);
        r->plain = own == NULL && is_original(r, logger_methods[i]);
    }
    if (r->plain && r->handler_dict != NULL)
        r->plain = PyDict_GetItemString(r->handler_dict, "emit") == NULL &&
                     PyDict_GetItemString(r->handler_dict, "handle") == NULL;
    r->logger_size = PyDict_GET_SIZE(r->logger_dict);
    r->handler_size = r->handler_dict != NULL ? PyDict_GET_SIZE(r->handler_dict) : 0;
    r->type_tag = Py_TYPE(r->logger)->tp_version_tag; /* 0: changed since; look again */
}

/* Borrowed, NULL when missing. The keys are str, so that no Python runs. */
static inline PyObject *
item(PyObject *dict, PyObject *key)
{
    PyObject *value = PyDict_GetItemWithError(dict, key);
    if (value == NULL && PyErr_Occurred())
        PyErr_Clear();
    return value;
}

static inline bool
is_false(PyObject *value)
{
    return value == Py_False || (value != NULL && value != Py_True && PyObject_Not(value) == 1);
}

static inline bool
is_empty_list(PyObject *value)
{
    return value != NULL && PyList_Check(value) && PyList_GET_SIZE(value) == 0;
}

/* Ask in Python; it fills the cache that the next line looks at. */
static bool
ask_enabled(cap_access_route *r)
{
    PyObject *args[] = {r->logger, r->level};
    PyObject *answer = PyObject_VectorcallMethod(r->st->str.isEnabledFor, args, 2, NULL);
    int yes = answer != NULL ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    if (yes < 0)
        PyErr_WriteUnraisable(r->logger);
    return yes > 0;
}

cap_access_way
cap_access_route_choose(cap_access_route *r)
{
    PyObject *d = r->logger_dict;
    if (d == NULL)
        return ask_enabled(r) ? CAP_ACCESS_LOGGER : CAP_ACCESS_NONE;
    unsigned int tag = Py_TYPE(r->logger)->tp_version_tag;
    if (tag == 0 || tag != r->type_tag || PyDict_GET_SIZE(d) != r->logger_size ||
        (r->handler_dict != NULL && PyDict_GET_SIZE(r->handler_dict) != r->handler_size))
        look_at_methods(r);
    if (!r->plain)
        return ask_enabled(r) ? CAP_ACCESS_LOGGER : CAP_ACCESS_NONE;

    const cap_state *st = r->st;
    /* Logger._cache: {level: enabled}, emptied by logging when a level changes */
    PyObject *cache = item(d, st->str.cache_);
    PyObject *enabled = cache != NULL && PyDict_Check(cache) ? item(cache, r->level) : NULL;
    if (!is_false(item(d, st->str.disabled)))
        return CAP_ACCESS_NONE;
    if (enabled == NULL ? !ask_enabled(r) : enabled != Py_True)
        return CAP_ACCESS_NONE;
    PyObject *h = r->handler_dict;
    if (h == NULL)
        return CAP_ACCESS_LOGGER;
    PyObject *handlers = item(d, st->str.handlers);
    if (handlers == NULL || !PyList_Check(handlers) || PyList_GET_SIZE(handlers) != 1 ||
        PyList_GET_ITEM(handlers, 0) != r->handler)
        return CAP_ACCESS_LOGGER;
    if (!is_empty_list(item(d, st->str.filters)) || !is_false(item(d, st->str.propagate)))
        return CAP_ACCESS_LOGGER;
    if (!is_empty_list(item(h, st->str.filters)) ||
        item(h, st->str.formatter) != r->formatter || item(h, st->str.stream) != r->stream)
        return CAP_ACCESS_LOGGER;
    PyObject *level = item(h, st->str.level);
    int overflow;
    if (level == NULL || !PyLong_Check(level) || PyLong_AsLongAndOverflow(level, &overflow) > 20)
        return CAP_ACCESS_LOGGER;
    return CAP_ACCESS_DIRECT;
}

/* What logging's own objects look like now; anything else goes through the logger. */
int
cap_access_route_init(cap_access_route *r, cap_state *st, PyObject *logger, PyObject *handler)
{
    PyObject *logging = PyImport_ImportModule("logging");
    PyObject *class = NULL;
    int rc = -1;
    r->st = st;
    r->logger = Py_NewRef(logger);
    r->handler = Py_XNewRef(handler);
    if (logging == NULL || (r->level = PyLong_FromLong(20)) == NULL)
        goto done;
    r->logging_dict = Py_XNewRef(PyModule_GetDict(logging));
    class = PyObject_GetAttrString(logging, "Logger");
    if (r->logging_dict == NULL || class == NULL)
        goto done;
    int is = PyObject_IsInstance(logger, class);
    if (is < 0)
        goto done;
    if (is && (r->logger_dict = PyObject_GenericGetDict(logger, NULL)) == NULL)
        goto done;
    if (is && handler != NULL) {
        r->handler_dict = PyObject_GenericGetDict(handler, NULL);
        if (r->handler_dict == NULL)
            PyErr_Clear(); /* no handler of logging's: its own way, then */
    }
    if (r->handler_dict != NULL) {
        r->formatter = Py_XNewRef(item(r->handler_dict, st->str.formatter));
        r->stream = Py_XNewRef(item(r->handler_dict, st->str.stream));
    }
    rc = 0;
done:
    Py_XDECREF(class);
    Py_XDECREF(logging);
    return rc;
}

int
cap_access_route_traverse(cap_access_route *r, visitproc visit, void *arg)
{
    Py_VISIT(r->logger);
    Py_VISIT(r->handler);
    Py_VISIT(r->logger_dict);
    Py_VISIT(r->handler_dict);
    Py_VISIT(r->formatter);
    Py_VISIT(r->stream);
    Py_VISIT(r->logging_dict);
    return 0;
}

void
cap_access_route_clear(cap_access_route *r)
{
    Py_CLEAR(r->logger);
    Py_CLEAR(r->handler);
    Py_CLEAR(r->logger_dict);
    Py_CLEAR(r->handler_dict);
    Py_CLEAR(r->formatter);
    Py_CLEAR(r->stream);
    Py_CLEAR(r->logging_dict);
    Py_CLEAR(r->level);
}
