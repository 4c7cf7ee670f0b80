/* From a request's head to the ASGI scope (https://asgi.readthedocs.io, HTTP
   connection scope), with the keys and types that uvicorn gives them. */
#include "asgi/scope.h"

#include <string.h>

#include "base/mem.h"

static int
hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decoded, then UTF-8, as urllib.parse.unquote does it: what is no valid
   escape stays, what is no valid UTF-8 becomes U+FFFD. The octets are visible ASCII. */
static PyObject *
unquoted(const char *path, size_t len)
{
    if (memchr(path, '%', len) == NULL) {
        PyObject *str = PyUnicode_New((Py_ssize_t)len, 127);
        if (str != NULL)
            memcpy(PyUnicode_1BYTE_DATA(str), path, len);
        return str;
    }
    char *out = cap_malloc(len);
    if (out == NULL)
        return PyErr_NoMemory();
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        int hi, lo;
        if (path[i] == '%' && i + 2 < len && (hi = hex(path[i + 1])) >= 0 &&
            (lo = hex(path[i + 2])) >= 0) {
            out[n++] = (char)(hi << 4 | lo);
            i += 2;
        } else {
            out[n++] = path[i];
        }
    }
    PyObject *str = PyUnicode_DecodeUTF8(out, (Py_ssize_t)n, "replace");
    cap_free(out);
    return str;
}

static PyObject *
header_pair(const cap_objects *o, const cap_h1_field *f, const char *base)
{
    PyObject *name;
    if (f->id != CAP_HDR_OTHER) {
        name = Py_NewRef(o->header_name[f->id]);
    } else {
        name = PyBytes_FromStringAndSize(NULL, f->name.len);
        if (name == NULL)
            return NULL;
        cap_h1_lower(PyBytes_AS_STRING(name), base + f->name.off, f->name.len);
    }
    PyObject *value = PyBytes_FromStringAndSize(base + f->value.off, f->value.len);
    PyObject *pair = value != NULL ? PyTuple_New(2) : NULL;
    if (pair == NULL) {
        Py_DECREF(name);
        Py_XDECREF(value);
        return NULL;
    }
    PyTuple_SET_ITEM(pair, 0, name);
    PyTuple_SET_ITEM(pair, 1, value);
    /* Bytes cannot refer back: nothing for the collector to look at. */
    PyObject_GC_UnTrack(pair);
    return pair;
}

/* RFC 9112 3.2.2: with a target in absolute form the received Host is ignored and
   the target's authority takes its place. */
static PyObject *
header_list(const cap_objects *o, const cap_h1_head *h, const char *base)
{
    PyObject *list = PyList_New(h->nfields);
    if (list == NULL)
        return NULL;
    for (uint32_t i = 0; i < h->nfields; i++) {
        cap_h1_field f = h->fields[i];
        if (f.id == CAP_HDR_HOST && h->form == CAP_H1_ABSOLUTE)
            f.value = h->authority;
        PyObject *pair = header_pair(o, &f, base);
        if (pair == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, pair);
    }
    return list;
}

static PyObject *
headers_of(cap_conn *c, const cap_h1_head *h, const char *base, int memo)
{
    cap_server *s = c->server;
    if (memo >= 0)
        return cap_memo_list(&s->memo, memo);
    if (!cap_memo_fits(h))
        return header_list(s->objects, h, base);
    uint32_t hash;
    memo = cap_memo_find(&s->memo, base + h->block.off, h->block.len, h->minor, &hash);
    PyObject *list = memo >= 0 ? cap_memo_list(&s->memo, memo)
                               : header_list(s->objects, h, base);
    if (list != NULL && memo < 0)
        memo = cap_memo_put(&s->memo, h, base + h->block.off, hash, list);
    c->memo = (int16_t)memo;
    return list;
}

/* raw_path and path, each behind root_path (uvicorn since 0.26). */
static int
fill_path(cap_request *r, cap_server *s, const char *path, size_t len, PyObject **decoded)
{
    PyObject *tail = unquoted(path, len);
    if (tail == NULL)
        return -1;
    if (s->root_path_len == 0) {
        *decoded = tail;
        r->raw_path = PyBytes_FromStringAndSize(path, (Py_ssize_t)len);
        return r->raw_path != NULL ? 0 : -1;
    }
    *decoded = PyUnicode_Concat(s->root_path, tail);
    Py_DECREF(tail);
    if (*decoded == NULL)
        return -1;
    r->raw_path = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(s->root_path_len + len));
    if (r->raw_path == NULL)
        return -1;
    memcpy(PyBytes_AS_STRING(r->raw_path), s->root_path_utf8, s->root_path_len);
    memcpy(PyBytes_AS_STRING(r->raw_path) + s->root_path_len, path, len);
    return 0;
}

static int
set_new(PyObject *dict, PyObject *key, PyObject *value)
{
    if (value == NULL)
        return -1;
    int rc = PyDict_SetItem(dict, key, value);
    Py_DECREF(value);
    return rc;
}

/* What we offer beside the messages of the core; with TLS also what is known of it
   (ASGI, TLS extension). */
static PyObject *
extensions_of(cap_conn *c)
{
    cap_server *s = c->server;
    PyObject *extensions = cap_dict_like(s->extensions);
    cap_stream_tls *t = cap_conn_tls(c);
    if (extensions == NULL || t == NULL || s->tls_info == NULL)
        return extensions;
    if (t->info == NULL) {
        PyObject *object = Py_NewRef(t->object);
        PyObject *info = PyObject_CallOneArg(s->tls_info, object);
        Py_DECREF(object);
        if (info == NULL)
            goto fail;
        Py_XSETREF(t->info, info);
    }
    PyObject *info = PyDict_Check(t->info) ? cap_dict_like(t->info) : Py_NewRef(t->info);
    if (set_new(extensions, s->st->str.tls, info) == 0)
        return extensions;
fail:
    Py_DECREF(extensions);
    return NULL;
}

/* "server" of the scope. Most servers have one address, which the prototype then has. */
static int
set_server(PyObject *scope, cap_conn *c)
{
    cap_server *s = c->server;
    PyObject *key = s->st->str.server, *address = cap_conn_server_address(c);
    int rc = 0;
    if (address == NULL || address == s->proto_server) {
        Py_XDECREF(address);
        return address != NULL ? 0 : -1;
    }
    if (s->proto_server == Py_None && (rc = PyDict_SetItem(s->scope_proto, key, address)) == 0)
        s->proto_server = address;
    if (rc == 0)
        rc = PyDict_SetItem(scope, key, address);
    Py_DECREF(address);
    return rc;
}

int
cap_scope_fill(cap_request *r, cap_conn *c, const cap_h1_head *h, const char *base, int memo)
{
    cap_server *s = c->server;
    cap_state *st = s->st;
    cap_objects *o = s->objects;
    PyObject *path = NULL;
    PyObject *scope = cap_dict_like(s->scope_proto);
    if (scope == NULL)
        return -1;
    r->minor = h->minor;
    r->method = cap_method_object(o, base + h->method.off, h->method.len);
    r->is_head = r->method == o->head;
    r->headers = headers_of(c, h, base, memo);
    r->query = h->query.len != 0
                   ? PyBytes_FromStringAndSize(base + h->query.off, h->query.len)
                   : Py_NewRef(o->empty_bytes);
    if (r->method == NULL || r->headers == NULL || r->query == NULL)
        goto fail;
    bool root = h->path.len == 0 && h->form != CAP_H1_AUTHORITY;
    if (fill_path(r, s, root ? "/" : base + h->path.off, root ? 1 : h->path.len, &path) < 0)
        goto fail;
    r->client = cap_conn_client(c);
    if (r->client == NULL || set_server(scope, c) < 0 ||
        set_new(scope, st->str.extensions, extensions_of(c)) < 0 ||
        set_new(scope, st->str.asgi, cap_dict_like(s->asgi_proto)) < 0 ||
        PyDict_SetItem(scope, st->str.client, r->client) < 0 ||
        PyDict_SetItem(scope, st->str.headers, r->headers) < 0 ||
        (r->method != o->get && PyDict_SetItem(scope, st->str.method, r->method) < 0) ||
        PyDict_SetItem(scope, st->str.path, path) < 0 ||
        PyDict_SetItem(scope, st->str.raw_path, r->raw_path) < 0)
        goto fail;
    if (h->minor == 0 && PyDict_SetItem(scope, st->str.http_version, o->http_1_0) < 0)
        goto fail;
    if (h->query.len != 0 && PyDict_SetItem(scope, st->str.query_string, r->query) < 0)
        goto fail;
    if (set_new(scope, st->str.state,
                s->state != NULL ? cap_dict_like(s->state) : PyDict_New()) < 0)
        goto fail;
    Py_CLEAR(path);

    if (s->proxy_headers != NULL && (h->flags & CAP_H1_FORWARDED) != 0) {
        PyObject *rc = PyObject_CallOneArg(s->proxy_headers, scope);
        if (rc == NULL)
            goto fail;
        Py_DECREF(rc);
        PyObject *client = PyDict_GetItemWithError(scope, st->str.client); /* borrowed */
        if (client == NULL && PyErr_Occurred())
            goto fail;
        if (client != NULL)
            Py_SETREF(r->client, Py_NewRef(client)); /* the log shows it */
    }
    r->scope = scope;
    return 0;

fail:
    Py_XDECREF(path);
    Py_DECREF(scope);
    return -1;
}
