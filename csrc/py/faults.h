/* CPython's fallible functions behind fault points (base/fault.h). Included at the end of
   py/compat.h, so that the functions which CPython's own headers define stay as they are. */
#ifndef CAP_PY_FAULTS_H
#define CAP_PY_FAULTS_H

#include "base/fault.h"

static inline int
cap_fail_resize(PyObject **bytes)
{
    Py_CLEAR(*bytes);
    PyErr_NoMemory();
    return -1;
}

#define CAP_FAIL(bad, call) (CAP_FAULT() ? ((void)PyErr_NoMemory(), (bad)) : (call))

/* Before 3.13 PY_SSIZE_T_CLEAN makes macros of them. */
#if PY_VERSION_HEX < 0x030D0000
#define CAP_SIZED(f) _##f##_SizeT
#else
#define CAP_SIZED(f) f
#endif
#undef PyObject_CallFunction
#undef PyObject_CallMethod
#undef Py_BuildValue
#define PyObject_CallFunction(...) CAP_FAIL(NULL, CAP_SIZED(PyObject_CallFunction)(__VA_ARGS__))
#define PyObject_CallMethod(...) CAP_FAIL(NULL, CAP_SIZED(PyObject_CallMethod)(__VA_ARGS__))
#define Py_BuildValue(...) CAP_FAIL(NULL, CAP_SIZED(Py_BuildValue)(__VA_ARGS__))

#undef PyObject_New
#undef PyObject_GC_New
#define PyObject_New(type, t) CAP_FAIL(NULL, (type *)_PyObject_New(t))
#define PyObject_GC_New(type, t) CAP_FAIL(NULL, (type *)_PyObject_GC_New(t))

#define PyObject_CallMethodNoArgs(...) CAP_FAIL(NULL, PyObject_CallMethodNoArgs(__VA_ARGS__))
#define PyObject_CallMethodOneArg(...) CAP_FAIL(NULL, PyObject_CallMethodOneArg(__VA_ARGS__))
#define PyObject_CallNoArgs(...) CAP_FAIL(NULL, PyObject_CallNoArgs(__VA_ARGS__))
#define PyObject_CallOneArg(...) CAP_FAIL(NULL, PyObject_CallOneArg(__VA_ARGS__))
#define PyObject_Call(...) CAP_FAIL(NULL, PyObject_Call(__VA_ARGS__))
#define PyObject_Vectorcall(...) CAP_FAIL(NULL, PyObject_Vectorcall(__VA_ARGS__))
#define PyObject_VectorcallMethod(...) CAP_FAIL(NULL, PyObject_VectorcallMethod(__VA_ARGS__))
#define PyObject_GetAttr(...) CAP_FAIL(NULL, PyObject_GetAttr(__VA_ARGS__))
#define PyObject_GetAttrString(...) CAP_FAIL(NULL, PyObject_GetAttrString(__VA_ARGS__))
#define PyObject_IsTrue(...) CAP_FAIL(-1, PyObject_IsTrue(__VA_ARGS__))
#define PyObject_GetBuffer(...) CAP_FAIL(-1, PyObject_GetBuffer(__VA_ARGS__))
#define PyObject_Str(...) CAP_FAIL(NULL, PyObject_Str(__VA_ARGS__))
#define PyObject_Repr(...) CAP_FAIL(NULL, PyObject_Repr(__VA_ARGS__))

#define PyBytes_FromStringAndSize(...) CAP_FAIL(NULL, PyBytes_FromStringAndSize(__VA_ARGS__))
#define _PyBytes_Resize(p, size) (CAP_FAULT() ? cap_fail_resize(p) : _PyBytes_Resize(p, size))
#define PyContext_Copy(...) CAP_FAIL(NULL, PyContext_Copy(__VA_ARGS__))
#define PyContext_CopyCurrent() CAP_FAIL(NULL, PyContext_CopyCurrent())
#define PyContext_New() CAP_FAIL(NULL, PyContext_New())
#define PyDict_Copy(...) CAP_FAIL(NULL, PyDict_Copy(__VA_ARGS__))
#define PyDict_GetItemWithError(...) CAP_FAIL(NULL, PyDict_GetItemWithError(__VA_ARGS__))
#define PyDict_New() CAP_FAIL(NULL, PyDict_New())
#define PyDict_SetItem(...) CAP_FAIL(-1, PyDict_SetItem(__VA_ARGS__))
#define PyDict_SetItemString(...) CAP_FAIL(-1, PyDict_SetItemString(__VA_ARGS__))
#define PyFloat_FromDouble(...) CAP_FAIL(NULL, PyFloat_FromDouble(__VA_ARGS__))
#define PyList_Append(...) CAP_FAIL(-1, PyList_Append(__VA_ARGS__))
#define PyList_New(...) CAP_FAIL(NULL, PyList_New(__VA_ARGS__))
#define PyLong_FromLong(...) CAP_FAIL(NULL, PyLong_FromLong(__VA_ARGS__))
#define PyLong_FromLongLong(...) CAP_FAIL(NULL, PyLong_FromLongLong(__VA_ARGS__))
#define PyLong_FromSize_t(...) CAP_FAIL(NULL, PyLong_FromSize_t(__VA_ARGS__))
#define PyLong_FromSsize_t(...) CAP_FAIL(NULL, PyLong_FromSsize_t(__VA_ARGS__))
#define PyLong_FromUnsignedLong(...) CAP_FAIL(NULL, PyLong_FromUnsignedLong(__VA_ARGS__))
#define PyLong_FromUnsignedLongLong(...) CAP_FAIL(NULL, PyLong_FromUnsignedLongLong(__VA_ARGS__))
#define PyMemoryView_FromMemory(...) CAP_FAIL(NULL, PyMemoryView_FromMemory(__VA_ARGS__))
#define PyMemoryView_FromObject(...) CAP_FAIL(NULL, PyMemoryView_FromObject(__VA_ARGS__))
#define PySequence_Fast(...) CAP_FAIL(NULL, PySequence_Fast(__VA_ARGS__))
#define PySequence_List(...) CAP_FAIL(NULL, PySequence_List(__VA_ARGS__))
#define PySequence_Tuple(...) CAP_FAIL(NULL, PySequence_Tuple(__VA_ARGS__))
#define PySet_Add(...) CAP_FAIL(-1, PySet_Add(__VA_ARGS__))
#define PySet_New(...) CAP_FAIL(NULL, PySet_New(__VA_ARGS__))
#define PyTuple_New(...) CAP_FAIL(NULL, PyTuple_New(__VA_ARGS__))
#define PyTuple_Pack(...) CAP_FAIL(NULL, PyTuple_Pack(__VA_ARGS__))
#define PyUnicode_Concat(...) CAP_FAIL(NULL, PyUnicode_Concat(__VA_ARGS__))
#define PyUnicode_DecodeASCII(...) CAP_FAIL(NULL, PyUnicode_DecodeASCII(__VA_ARGS__))
#define PyUnicode_DecodeLatin1(...) CAP_FAIL(NULL, PyUnicode_DecodeLatin1(__VA_ARGS__))
#define PyUnicode_DecodeUTF8(...) CAP_FAIL(NULL, PyUnicode_DecodeUTF8(__VA_ARGS__))
#define PyUnicode_FromFormat(...) CAP_FAIL(NULL, PyUnicode_FromFormat(__VA_ARGS__))
#define PyUnicode_FromFormatV(...) CAP_FAIL(NULL, PyUnicode_FromFormatV(__VA_ARGS__))
#define PyUnicode_FromString(...) CAP_FAIL(NULL, PyUnicode_FromString(__VA_ARGS__))
#define PyUnicode_FromStringAndSize(...) CAP_FAIL(NULL, PyUnicode_FromStringAndSize(__VA_ARGS__))
#define PyUnicode_InternFromString(...) CAP_FAIL(NULL, PyUnicode_InternFromString(__VA_ARGS__))
#define PyUnicode_New(...) CAP_FAIL(NULL, PyUnicode_New(__VA_ARGS__))

#endif
