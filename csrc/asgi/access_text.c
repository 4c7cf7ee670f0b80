#include "asgi/access_text.h"

#include "base/mem.h"

#include <string.h>

static const char hex[] = "0123456789abcdef";

static inline char *
put_hex(char *to, unsigned char c)
{
    *to++ = '\\';
    *to++ = 'x';
    *to++ = hex[c >> 4];
    *to++ = hex[c & 15];
    return to;
}

char *
cap_text_escape(char *to, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (cap_text_plain(c) & CAP_PLAIN_TARGET)
            *to++ = (char)c;
        else if (c == '"' || c == '\\') {
            memcpy(to, c == '"' ? "%22" : "%5C", 3);
            to += 3;
        }
        else
            to = put_hex(to, c);
    }
    return to;
}

char *
cap_text_decimal(char *to, uint64_t n)
{
    char digits[20];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + n % 10);
    while ((n /= 10) != 0);
    memcpy(to, digits + at, sizeof digits - at);
    return to + (sizeof digits - at);
}

size_t
cap_text_path_len(const cap_access_record *rec)
{
    if (rec->target_len == 0)
        return 0;
    const char *mark = memchr(rec->target, '?', rec->target_len);
    return mark != NULL ? (size_t)(mark - rec->target) : rec->target_len;
}

bool
cap_text_client(PyObject *client, const char **host, size_t *len, long *port)
{
    if (client == NULL || !PyTuple_Check(client) || PyTuple_GET_SIZE(client) < 1)
        return false;
    PyObject *name = PyTuple_GET_ITEM(client, 0);
    Py_ssize_t n = 0;
    const char *text = PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, &n) : NULL;
    if (text == NULL) {
        PyErr_Clear(); /* lone surrogates */
        text = "?";
        n = 1;
    }
    *host = text;
    *len = (size_t)n;
    *port = -1;
    if (PyTuple_GET_SIZE(client) > 1) {
        PyObject *number = PyTuple_GET_ITEM(client, 1);
        int overflow = 0;
        if (PyLong_Check(number))
            *port = PyLong_AsLongAndOverflow(number, &overflow);
    }
    return true;
}

int
cap_text_target(cap_buffer *out, const char *text, size_t len)
{
    if (cap_buffer_reserve(out, 4 * len + 1) < 0)
        return -1;
    out->len = (size_t)(cap_text_escape(out->data + out->len, text, len) - out->data);
    return 0;
}

int
cap_text_quoted(cap_buffer *out, const char *text, size_t len)
{
    if (cap_buffer_reserve(out, 4 * len + 1) < 0)
        return -1;
    char *to = out->data + out->len;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (cap_text_plain(c) & CAP_PLAIN_TEXT)
            *to++ = (char)c;
        else
            to = put_hex(to, c);
    }
    out->len = (size_t)(to - out->data);
    return 0;
}

int
cap_text_number(cap_buffer *out, uint64_t n)
{
    char digits[20];
    return cap_text_put(out, digits, (size_t)(cap_text_decimal(digits, n) - digits));
}

int
cap_text_fraction(cap_buffer *out, uint64_t n, unsigned digits)
{
    uint64_t unit = 1;
    for (unsigned i = 0; i < digits; i++)
        unit *= 10;
    char text[48];
    char *to = cap_text_decimal(text, n / unit);
    if (digits != 0) {
        *to++ = '.';
        for (uint64_t rest = n % unit, u = unit / 10; u != 0; u /= 10)
            *to++ = (char)('0' + rest / u % 10);
    }
    return cap_text_put(out, text, (size_t)(to - text));
}

const char *
cap_text_method(const cap_access_record *rec, size_t *len)
{
    Py_ssize_t n = 0;
    const char *text = PyUnicode_AsUTF8AndSize(rec->method, &n);
    if (text == NULL) {
        PyErr_Clear();
        text = "?";
        n = 1;
    }
    *len = (size_t)n;
    return text;
}

static bool
same_name(PyObject *name, const char *lower, size_t len)
{
    if (!PyBytes_Check(name) || (size_t)PyBytes_GET_SIZE(name) != len)
        return false;
    const char *s = PyBytes_AS_STRING(name);
    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        if (c >= 'A' && c <= 'Z')
            c = (char)(c + 32);
        if (c != lower[i])
            return false;
    }
    return true;
}

PyObject *
cap_text_field(PyObject *headers, const char *name, size_t len, Py_ssize_t *from)
{
    if (headers == NULL || !(PyList_Check(headers) || PyTuple_Check(headers)))
        return NULL;
    for (Py_ssize_t i = *from; i < PySequence_Fast_GET_SIZE(headers); i++) {
        PyObject *pair = PySequence_Fast_GET_ITEM(headers, i);
        if (!(PyTuple_Check(pair) || PyList_Check(pair)) || PySequence_Fast_GET_SIZE(pair) != 2)
            continue;
        PyObject *value = PySequence_Fast_GET_ITEM(pair, 1);
        if (PyBytes_Check(value) && same_name(PySequence_Fast_GET_ITEM(pair, 0), name, len)) {
            *from = i + 1;
            return value;
        }
    }
    return NULL;
}

int
cap_text_protocol(cap_buffer *out, const cap_access_record *rec)
{
    return cap_text_put(out, "HTTP/1.", 7) < 0 ? -1 : cap_text_number(out, (uint64_t)rec->minor);
}

int
cap_text_phrases_load(cap_text_phrases *p, const cap_state *st)
{
    PyObject *module = PyImport_ImportModule("http");
    PyObject *statuses = NULL, *members = NULL, *list = NULL;
    cap_buffer text = {0};
    int rc = -1;
    if (module == NULL || (statuses = PyObject_GetAttrString(module, "HTTPStatus")) == NULL ||
        (members = PyObject_GetAttrString(statuses, "__members__")) == NULL ||
        (list = PyMapping_Values(members)) == NULL)
        goto done;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *status = PyList_GET_ITEM(list, i);
        long code = PyLong_AsLong(status);
        if (code == -1 && PyErr_Occurred())
            goto done;
        PyObject *phrase = PyObject_GetAttr(status, st->str.phrase);
        if (phrase == NULL)
            goto done;
        Py_ssize_t len;
        const char *words = PyUnicode_AsUTF8AndSize(phrase, &len);
        if (words == NULL) {
            Py_DECREF(phrase);
            goto done;
        }
        if (code >= 100 && code <= 599 && len < 100) {
            p->of[code - 100].at = (uint16_t)text.len;
            p->of[code - 100].len = (uint16_t)len;
            if (cap_text_put(&text, words, (size_t)len) < 0) {
                PyErr_NoMemory();
                Py_DECREF(phrase);
                goto done;
            }
        }
        Py_DECREF(phrase);
    }
    p->text = text.data;
    text.data = NULL;
    rc = 0;
done:
    if (rc < 0)
        cap_buffer_free(&text);
    Py_XDECREF(list);
    Py_XDECREF(members);
    Py_XDECREF(statuses);
    Py_XDECREF(module);
    return rc;
}

void
cap_text_phrases_free(cap_text_phrases *p)
{
    cap_free(p->text);
    p->text = NULL;
}

static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec"; /* in any locale */

struct timespec
cap_text_clock_look(cap_text_clock *clock)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (ts.tv_sec == clock->at)
        return ts;
    struct tm tm;
    gmtime_r(&ts.tv_sec, &tm);
    PyOS_snprintf(clock->utc, sizeof clock->utc, "%04d-%02d-%02dT%02d:%02d:%02d",
                  tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
    localtime_r(&ts.tv_sec, &tm);
    long away = tm.tm_gmtoff / 60;
    char sign = away < 0 ? '-' : '+';
    away = away < 0 ? -away : away;
    PyOS_snprintf(clock->clf, sizeof clock->clf, "[%02d/%.3s/%04d:%02d:%02d:%02d %c%02ld%02ld]",
                  tm.tm_mday, months + 3 * tm.tm_mon, tm.tm_year + 1900, tm.tm_hour, tm.tm_min,
                  tm.tm_sec, sign, away / 60, away % 60);
    PyOS_snprintf(clock->local, sizeof clock->local, "%04d-%02d-%02d %02d:%02d:%02d %c%02ld%02ld",
                  tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
                  sign, away / 60, away % 60);
    clock->at = ts.tv_sec;
    return ts;
}
