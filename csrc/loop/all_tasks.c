/* asyncio's set of all tasks before CPython 3.14, a weakref.WeakSet: its add() and what
   it calls when a task goes, in C.

   The C code of asyncio calls both for every task that is entered there, and they are
   Python: a tenth of the instructions that a small request takes outside of the kernel.
   The set stays what it is; the two functions do what Lib/_weakrefset.py does, with the
   same sets and the same list. */
#include "loop/loop.h"

#ifdef CAP_WEAKSET_OF_TASKS

#include <string.h>

/* What the two functions have as self. */
enum { DATA, ITERATING, PENDING, REMOVE, MEMBERS };

/* WeakSet.__init__._remove(ref): not while somebody iterates. */
static PyObject *
weak_remove(PyObject *members, PyObject *ref)
{
    PyObject *data = PyTuple_GET_ITEM(members, DATA);
    if (PySet_GET_SIZE(PyTuple_GET_ITEM(members, ITERATING)) != 0) {
        if (PyList_Append(PyTuple_GET_ITEM(members, PENDING), ref) < 0)
            return NULL;
    }
    else if (PySet_Discard(data, ref) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* WeakSet._commit_removals() */
static int
commit_removals(PyObject *data, PyObject *pending)
{
    Py_ssize_t n;
    while ((n = PyList_GET_SIZE(pending)) != 0) {
        PyObject *ref = Py_NewRef(PyList_GET_ITEM(pending, n - 1));
        int rc = PyList_SetSlice(pending, n - 1, n, NULL);
        if (rc == 0)
            rc = PySet_Discard(data, ref);
        Py_DECREF(ref);
        if (rc < 0)
            return -1;
    }
    return 0;
}

/* WeakSet.add(item) */
static PyObject *
weak_add(PyObject *members, PyObject *item)
{
    PyObject *data = PyTuple_GET_ITEM(members, DATA);
    PyObject *pending = PyTuple_GET_ITEM(members, PENDING);
    if (PyList_GET_SIZE(pending) != 0 && commit_removals(data, pending) < 0)
        return NULL;
    PyObject *ref = PyWeakref_NewRef(item, PyTuple_GET_ITEM(members, REMOVE));
    int rc = ref != NULL ? PySet_Add(data, ref) : -1;
    Py_XDECREF(ref);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef remove_def = {"_remove", weak_remove, METH_O, NULL};
static PyMethodDef add_def = {"add", weak_add, METH_O, NULL};

/* The attribute NAME of the set, when it is of that type. A new reference, or NULL. */
static PyObject *
member(PyObject *set, const char *name, PyTypeObject *type)
{
    PyObject *value = PyObject_GetAttrString(set, name);
    if (value != NULL && !Py_IS_TYPE(value, type))
        Py_CLEAR(value);
    return value;
}

static int
speed_up(PyObject *set)
{
    PyObject *data = member(set, "data", &PySet_Type), *add = NULL;
    PyObject *iterating = member(set, "_iterating", &PySet_Type);
    PyObject *pending = member(set, "_pending_removals", &PyList_Type);
    PyObject *three = NULL, *four = NULL, *remove = NULL;
    int rc = -1;
    if (data != NULL && iterating != NULL && pending != NULL &&
        (three = PyTuple_Pack(3, data, iterating, pending)) != NULL &&
        (remove = PyCFunction_New(&remove_def, three)) != NULL &&
        (four = PyTuple_Pack(MEMBERS, data, iterating, pending, remove)) != NULL &&
        (add = PyCFunction_New(&add_def, four)) != NULL)
        rc = PyObject_SetAttrString(set, "add", add);
    Py_XDECREF(data);
    Py_XDECREF(iterating);
    Py_XDECREF(pending);
    Py_XDECREF(three);
    Py_XDECREF(four);
    Py_XDECREF(remove);
    Py_XDECREF(add);
    return rc;
}

void
cap_all_tasks_speed_up(void)
{
    PyObject *tasks = PyImport_ImportModule("asyncio.tasks");
    PyObject *set = tasks != NULL ? PyObject_GetAttrString(tasks, CAP_WEAKSET_OF_TASKS) : NULL;
    PyObject *dict = set != NULL ? PyObject_GenericGetDict(set, NULL) : NULL;
    /* Somebody else's, or done already: it stays as it is. */
    if (dict != NULL && strcmp(Py_TYPE(set)->tp_name, "WeakSet") == 0 &&
        PyMapping_HasKeyString(dict, "_remove") && !PyMapping_HasKeyString(dict, "add"))
        (void)speed_up(set);
    PyErr_Clear();
    Py_XDECREF(dict);
    Py_XDECREF(set);
    Py_XDECREF(tasks);
}

#else

void
cap_all_tasks_speed_up(void)
{
}

#endif
