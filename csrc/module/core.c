/* The extension module capicorn._core: multi-phase initialisation, its state, and
   the few functions that tests ask. The types come from loop/ and asgi/. */
#include "base/mem.h"
#include "py/state.h"

#include <llhttp.h>
#include <uv.h>

cap_counts cap_count;

static cap_state *
state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

static int
make_strings(cap_state *st)
{
#define X(field, text)                                                         \
    if ((st->str.field = PyUnicode_InternFromString(text)) == NULL)            \
        return -1;
    CAP_STRINGS(X)
#undef X
    return 0;
}

static PyObject *
import_attribute(const char *module, const char *attribute)
{
    PyObject *m = PyImport_ImportModule(module);
    if (m == NULL)
        return NULL;
    PyObject *value = PyObject_GetAttrString(m, attribute);
    Py_DECREF(m);
    return value;
}

static int
make_imports(cap_state *st)
{
#define X(field, module, attribute)                                            \
    if ((st->imp.field = import_attribute(module, attribute)) == NULL)         \
        return -1;
    CAP_IMPORTS(X)
#undef X
    return 0;
}

PyDoc_STRVAR(counts_doc,
             "_counts()\n--\n\n"
             "Objects of ours that were made and not yet freed, by kind, and `blocks`, the\n"
             "memory blocks of our own. For tests: the same before and after.");

static PyObject *
core_counts(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    PyObject *out = Py_BuildValue("{s:l}", "blocks", cap_mem_blocks());
    if (out == NULL)
        return NULL;
#define X(field)                                                               \
    {                                                                          \
        PyObject *n = PyLong_FromLong(cap_count.field);                        \
        if (n == NULL || PyDict_SetItemString(out, #field, n) < 0) {           \
            Py_XDECREF(n);                                                     \
            Py_DECREF(out);                                                    \
            return NULL;                                                       \
        }                                                                      \
        Py_DECREF(n);                                                          \
    }
    CAP_COUNTS(X)
#undef X
    return out;
}

PyDoc_STRVAR(mem_fail_doc,
             "_mem_fail(n, count=1, /)\n--\n\n"
             "Make the n-th allocation of our own from now on fail, and `count` in all.\n"
             "0 turns it off. For tests.");

static PyObject *
core_mem_fail(PyObject *Py_UNUSED(module), PyObject *args)
{
    long n, count = 1;
    if (!PyArg_ParseTuple(args, "l|l:_mem_fail", &n, &count))
        return NULL;
    cap_mem_fail(n, count);
    Py_RETURN_NONE;
}

#ifdef CAP_FAULTS
PyDoc_STRVAR(fault_arm_doc,
             "_fault_arm(on, /)\n--\n\n"
             "The next place that never failed fails (base/fault.h). Was the last one still armed?");

static PyObject *
core_fault_arm(PyObject *Py_UNUSED(module), PyObject *on)
{
    bool was = cap_fault_armed();
    cap_fault_arm(false);
    int rc = PyObject_IsTrue(on);
    if (rc < 0)
        return NULL;
    PyObject *result = PyBool_FromLong(was);
    cap_fault_arm(rc != 0);
    return result;
}
#endif

static PyMethodDef core_methods[] = {
#ifdef CAP_FAULTS
    {"_fault_arm", core_fault_arm, METH_O, fault_arm_doc},
#endif
    {"_counts", core_counts, METH_NOARGS, counts_doc},
    {"_mem_fail", core_mem_fail, METH_VARARGS, mem_fail_doc},
    {NULL, NULL, 0, NULL},
};

static int
core_exec(PyObject *module)
{
    cap_state *st = state_of(module);
    if (make_strings(st) < 0 || make_imports(st) < 0)
        return -1;
    if (cap_loop_init(module, st) < 0 || cap_asgi_init(module, st) < 0 ||
        cap_scoreboard_type_init(module, st) < 0 || cap_guard_type_init(module, st) < 0)
        return -1;
    char llhttp[32];
    PyOS_snprintf(llhttp, sizeof llhttp, "%d.%d.%d", LLHTTP_VERSION_MAJOR, LLHTTP_VERSION_MINOR,
                  LLHTTP_VERSION_PATCH);
    if (PyModule_AddStringConstant(module, "LIBUV_VERSION", uv_version_string()) < 0 ||
        PyModule_AddStringConstant(module, "LLHTTP_VERSION", llhttp) < 0)
        return -1;
    return 0;
}

static int
core_traverse(PyObject *module, visitproc visit, void *arg)
{
    cap_state *st = state_of(module);
    if (st == NULL)
        return 0;
#define X(field) Py_VISIT(st->type.field);
    CAP_TYPES(X)
#undef X
#define X(field, m, a) Py_VISIT(st->imp.field);
    CAP_IMPORTS(X)
#undef X
    int rc = cap_loop_traverse(st, visit, arg);
    return rc != 0 ? rc : cap_asgi_traverse(st, visit, arg);
}

static int
core_clear(PyObject *module)
{
    cap_state *st = state_of(module);
    if (st == NULL)
        return 0;
    cap_asgi_clear(st);
    cap_loop_clear(st);
#define X(field) Py_CLEAR(st->type.field);
    CAP_TYPES(X)
#undef X
#define X(field, m, a) Py_CLEAR(st->imp.field);
    CAP_IMPORTS(X)
#undef X
#define X(field, text) Py_CLEAR(st->str.field);
    CAP_STRINGS(X)
#undef X
    return 0;
}

static void
core_free(void *module)
{
    core_clear(module);
}

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
#if CAP_HAVE_MOD_INTERPRETERS
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef core_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "capicorn._core",
    .m_doc = "Capicorn's HTTP protocol and event loop, on libuv and llhttp.",
    .m_size = sizeof(cap_state),
    .m_methods = core_methods,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&core_def);
}
