/* Differences between the CPython versions that we build for (3.11 to 3.15).
   Everything in csrc that knows Python includes this first. No code of ours
   tests PY_VERSION_HEX outside this folder. */
#ifndef CAP_PY_COMPAT_H
#define CAP_PY_COMPAT_H

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>
#include <structmember.h>

#include <stdbool.h>
#include <stdint.h>

/* asyncio.Task(..., eager_start=True) exists */
#define CAP_HAVE_EAGER_TASKS (PY_VERSION_HEX >= 0x030C0000)
/* The weakref.WeakSet of asyncio.tasks in which tasks are entered: all of them, from 3.12 on
   those that did not end in an eager first step. 3.14 has a list in C instead. */
#if PY_VERSION_HEX < 0x030C0000
#define CAP_WEAKSET_OF_TASKS "_all_tasks"
#elif PY_VERSION_HEX < 0x030E0000
#define CAP_WEAKSET_OF_TASKS "_scheduled_tasks"
#endif
/* the slot Py_mod_multiple_interpreters exists */
#define CAP_HAVE_MOD_INTERPRETERS (PY_VERSION_HEX >= 0x030C0000)

/* Is the exception that is set KeyboardInterrupt or SystemExit: not for those who ask, but on its way
   out of run_forever? */
static inline int
cap_err_is_exit(void)
{
    return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
           PyErr_ExceptionMatches(PyExc_SystemExit);
}

/* One exception object instead of type, value, traceback (3.12). Both steal and
   return a new reference; NULL when no error is set. */
static inline PyObject *
cap_err_take(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    if (type == NULL)
        return NULL;
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb != NULL) {
        (void)PyException_SetTraceback(value, tb);
        Py_DECREF(tb);
    }
    Py_DECREF(type);
    return value;
#endif
}

static inline void
cap_err_restore(PyObject *exc)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exc);
#else
    if (exc == NULL) {
        PyErr_Clear();
        return;
    }
    PyObject *type = Py_NewRef((PyObject *)Py_TYPE(exc));
    PyErr_Restore(type, exc, PyException_GetTraceback(exc));
#endif
}

#ifdef CAP_FAULTS
#include "py/faults.h"
#endif

#endif
