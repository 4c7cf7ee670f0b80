#include "asgi/header_memo.h"

#include <string.h>

#include "base/mem.h"

/* Eight octets at a time; the table is small and an entry is compared in full, so
   all that is asked of the hash is to tell clients apart. */
static uint32_t
hash_of(const char *data, size_t len)
{
    uint64_t h = 0x9E3779B97F4A7C15u ^ len;
    for (; len >= 8; data += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        h = (h ^ word) * 0xFF51AFD7ED558CCDu;
        h ^= h >> 32;
    }
    uint64_t rest = 0;
    memcpy(&rest, data, len);
    h = (h ^ rest) * 0xC4CEB9FE1A85EC53u;
    return (uint32_t)(h ^ (h >> 32));
}

bool
cap_memo_fits(const cap_h1_head *h)
{
    const unsigned special = CAP_H1_CHUNKED | CAP_H1_HAS_LENGTH | CAP_H1_EXPECT_CONTINUE |
                             CAP_H1_UPGRADE | CAP_H1_FORWARDED;
    return h->form == CAP_H1_ORIGIN && (h->flags & special) == 0 &&
           h->block.len <= CAP_MEMO_BLOCK_MAX;
}

int
cap_memo_find(const cap_header_memo *m, const char *block, size_t len, uint8_t minor,
              uint32_t *hash)
{
    *hash = hash_of(block, len);
    int i = (int)(*hash % CAP_MEMO_ENTRIES);
    const cap_memo_entry *e = &m->entry[i];
    if (e->block == NULL || e->hash != *hash || e->len != len || e->minor != minor ||
        memcmp(e->block, block, len) != 0)
        return -1;
    return i;
}

int
cap_memo_put(cap_header_memo *m, const cap_h1_head *h, const char *block, uint32_t hash,
             PyObject *fields)
{
    PyObject *tuple = PyList_AsTuple(fields);
    char *copy = tuple != NULL ? cap_malloc(h->block.len) : NULL;
    if (copy == NULL) {
        PyErr_Clear(); /* it is only a memo */
        Py_XDECREF(tuple);
        cap_free(copy);
        return -1;
    }
    memcpy(copy, block, h->block.len);
    int i = (int)(hash % CAP_MEMO_ENTRIES);
    cap_memo_entry *e = &m->entry[i];
    PyObject *old = e->fields;
    cap_free(e->block);
    *e = (cap_memo_entry){.block = copy,
                          .len = h->block.len,
                          .hash = hash,
                          .flags = h->flags,
                          .minor = h->minor,
                          .fields = tuple};
    Py_XDECREF(old); /* bytes only: runs no Python */
    return i;
}

PyObject *
cap_memo_list(const cap_header_memo *m, int i)
{
    /* Making an object may run the collector, and that Python, which may close the server. */
    PyObject *fields = Py_XNewRef(m->entry[i].fields);
    if (fields == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the HTTP server is closed");
        return NULL;
    }
    Py_ssize_t n = PyTuple_GET_SIZE(fields);
    PyObject *list = PyList_New(n);
    if (list != NULL)
        for (Py_ssize_t k = 0; k < n; k++)
            PyList_SET_ITEM(list, k, Py_NewRef(PyTuple_GET_ITEM(fields, k)));
    Py_DECREF(fields);
    return list;
}

void
cap_memo_clear(cap_header_memo *m)
{
    for (int i = 0; i < CAP_MEMO_ENTRIES; i++) {
        cap_memo_entry *e = &m->entry[i];
        cap_free(e->block);
        e->block = NULL;
        Py_CLEAR(e->fields);
    }
}

int
cap_memo_traverse(cap_header_memo *m, visitproc visit, void *arg)
{
    for (int i = 0; i < CAP_MEMO_ENTRIES; i++)
        Py_VISIT(m->entry[i].fields);
    return 0;
}
