/* Access-log lines as JSON (RFC 8259), octets above 0x7e escaped. */
#include "asgi/access_text.h"

#include <string.h>
#include <time.h>

#define LIT(out, text) cap_text_put(out, text, sizeof text - 1)

static int
json_escape(cap_buffer *out, Py_UCS4 c)
{
    char text[16];
    int n;
    if (c == '"' || c == '\\')
        n = PyOS_snprintf(text, sizeof text, "\\%c", (int)c);
    else if (c < 0x10000)
        n = PyOS_snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
    else
        n = PyOS_snprintf(text, sizeof text, "\\u%04x\\u%04x",
                          (unsigned)(0xd800 + ((c - 0x10000) >> 10)),
                          (unsigned)(0xdc00 + ((c - 0x10000) & 0x3ff)));
    return cap_text_put(out, text, (size_t)n);
}

/* Octets as latin-1, without the quotes around it. */
static int
json_octets(cap_buffer *out, const char *text, size_t len)
{
    for (size_t i = 0, from = 0; i <= len; i++) {
        if (i < len && (cap_text_plain((unsigned char)text[i]) & CAP_PLAIN_TEXT))
            continue;
        if (cap_text_put(out, text + from, i - from) < 0)
            return -1;
        if (i < len && json_escape(out, (unsigned char)text[i]) < 0)
            return -1;
        from = i + 1;
    }
    return 0;
}

static int
json_str(cap_buffer *out, PyObject *text)
{
    if (!PyUnicode_Check(text))
        return 0;
    for (Py_ssize_t i = 0; i < PyUnicode_GET_LENGTH(text); i++) {
        Py_UCS4 c = PyUnicode_READ_CHAR(text, i);
        char one = (char)c;
        int rc = c < 0x80 && (cap_text_plain((unsigned char)c) & CAP_PLAIN_TEXT)
                     ? cap_text_put(out, &one, 1)
                     : json_escape(out, c);
        if (rc < 0)
            return -1;
    }
    return 0;
}

static int
json_field(cap_buffer *out, const char *name, size_t len, PyObject *headers)
{
    Py_ssize_t from = 0;
    PyObject *value = cap_text_field(headers, name, len, &from);
    if (value == NULL)
        return LIT(out, "null");
    if (cap_text_put(out, "\"", 1) < 0)
        return -1;
    while (value != NULL) {
        if (json_octets(out, PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value)) < 0)
            return -1;
        value = cap_text_field(headers, name, len, &from);
        if (value != NULL && cap_text_put(out, ", ", 2) < 0)
            return -1;
    }
    return cap_text_put(out, "\"", 1);
}

static int
json_client(cap_buffer *out, PyObject *client)
{
    const char *host;
    size_t len;
    long port;
    if (!cap_text_client(client, &host, &len, &port))
        return LIT(out, "\"client\": null, \"client_port\": null");
    if (LIT(out, "\"client\": \"") < 0 || json_str(out, PyTuple_GET_ITEM(client, 0)) < 0 ||
        LIT(out, "\", \"client_port\": ") < 0)
        return -1;
    return port < 0 ? LIT(out, "null") : cap_text_number(out, (uint64_t)port);
}

int
cap_access_json_line(cap_text_clock *clock, const cap_access_record *rec, cap_buffer *out)
{
    struct timespec ts = cap_text_clock_look(clock);
    char ms[8];
    PyOS_snprintf(ms, sizeof ms, ".%03dZ", (int)(ts.tv_nsec / 1000000));
    size_t path = cap_text_path_len(rec);
    size_t query = path < rec->target_len ? path + 1 : path; /* behind the mark */
    if (LIT(out, "{\"time\": \"") < 0 ||
        cap_text_put(out, clock->utc, strlen(clock->utc)) < 0 || cap_text_put(out, ms, 5) < 0 ||
        LIT(out, "\", ") < 0 || json_client(out, rec->client) < 0 ||
        LIT(out, ", \"method\": \"") < 0 || json_str(out, rec->method) < 0 ||
        LIT(out, "\", \"path\": \"") < 0 ||
        json_octets(out, rec->root_path, strlen(rec->root_path)) < 0 ||
        json_octets(out, rec->target, path) < 0 || LIT(out, "\", \"query\": \"") < 0 ||
        json_octets(out, rec->target + query, rec->target_len - query) < 0 ||
        LIT(out, "\", \"protocol\": \"") < 0 || cap_text_protocol(out, rec) < 0 ||
        LIT(out, "\", \"status\": ") < 0 ||
        cap_text_number(out, rec->status < 0 ? 0 : (uint64_t)rec->status) < 0 ||
        LIT(out, ", \"bytes\": ") < 0 || cap_text_number(out, rec->body_octets) < 0 ||
        LIT(out, ", \"duration_ms\": ") < 0 ||
        cap_text_fraction(out, rec->duration_ns / 1000, 3) < 0 ||
        LIT(out, ", \"referer\": ") < 0 ||
        json_field(out, "referer", 7, rec->request_headers) < 0 ||
        LIT(out, ", \"user_agent\": ") < 0 ||
        json_field(out, "user-agent", 10, rec->request_headers) < 0 ||
        LIT(out, ", \"request_id\": ") < 0 ||
        json_field(out, "x-request-id", 12, rec->request_headers) < 0)
        return -1;
    return LIT(out, "}");
}
