#include "asgi/access_format.h"

#include "base/base64.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef enum atom {
    A_LITERAL,
    A_HOST,           /* h, addr */
    A_CLIENT_ADDR,    /* client_addr: host:port */
    A_DASH,           /* l */
    A_USER,           /* u */
    A_TIME_CLF,       /* t */
    A_TIME,           /* time */
    A_REQUEST,        /* r, R, request_line */
    A_METHOD,         /* m, method */
    A_PATH,           /* U, path */
    A_QUERY,          /* q, query_string */
    A_FULL_PATH,      /* Uq, full_path */
    A_PROTOCOL,       /* H, protocol */
    A_STATUS,         /* s, status */
    A_PHRASE,         /* st */
    A_STATUS_PHRASE,  /* status_code, as uvicorn's formatter has it: 200 OK */
    A_BYTES,          /* B */
    A_BYTES_CLF,      /* b: "-" for none */
    A_SECONDS,        /* T */
    A_MICROSECONDS,   /* D */
    A_MILLISECONDS,   /* M */
    A_DECIMAL,        /* L: seconds with six digits behind the point */
    A_DT_MS,          /* dt_ms: ms, fractional */
    A_PID,            /* p */
    A_REQUEST_FIELD,  /* {name}i, f, a */
    A_RESPONSE_FIELD, /* {name}o */
} atom;

/* gunicorn's letters; the words of granian, hypercorn (R, st, Uq) and uvicorn. */
static const struct {
    const char *name;
    atom atom;
    const char *field; /* of A_REQUEST_FIELD */
} atoms[] = {
    {"h", A_HOST, NULL},
    {"addr", A_HOST, NULL},
    {"client_addr", A_CLIENT_ADDR, NULL},
    {"l", A_DASH, NULL},
    {"u", A_USER, NULL},
    {"t", A_TIME_CLF, NULL},
    {"time", A_TIME, NULL},
    {"r", A_REQUEST, NULL},
    {"R", A_REQUEST, NULL},
    {"request_line", A_REQUEST, NULL},
    {"m", A_METHOD, NULL},
    {"method", A_METHOD, NULL},
    {"U", A_PATH, NULL},
    {"path", A_PATH, NULL},
    {"q", A_QUERY, NULL},
    {"query_string", A_QUERY, NULL},
    {"Uq", A_FULL_PATH, NULL},
    {"full_path", A_FULL_PATH, NULL},
    {"H", A_PROTOCOL, NULL},
    {"protocol", A_PROTOCOL, NULL},
    {"s", A_STATUS, NULL},
    {"status", A_STATUS, NULL},
    {"st", A_PHRASE, NULL},
    {"status_code", A_STATUS_PHRASE, NULL},
    {"B", A_BYTES, NULL},
    {"b", A_BYTES_CLF, NULL},
    {"f", A_REQUEST_FIELD, "referer"},
    {"a", A_REQUEST_FIELD, "user-agent"},
    {"T", A_SECONDS, NULL},
    {"D", A_MICROSECONDS, NULL},
    {"M", A_MILLISECONDS, NULL},
    {"L", A_DECIMAL, NULL},
    {"dt_ms", A_DT_MS, NULL},
    {"p", A_PID, NULL},
};

/* {name}e is the WSGI environment in gunicorn: what a request has of it. Anything
   else of that spelling is a variable of the process. */
static const struct {
    const char *name;
    atom atom;
} environ_atoms[] = {
    {"remote_addr", A_HOST},      {"request_method", A_METHOD},    {"path_info", A_PATH},
    {"query_string", A_QUERY},    {"server_protocol", A_PROTOCOL}, {"raw_uri", A_FULL_PATH},
    {"request_uri", A_FULL_PATH},
};

typedef struct segment {
    uint8_t atom;
    bool left;         /* pad on the right */
    uint16_t width;    /* pad to this */
    int16_t precision; /* cut to this; of dt_ms: digits; -1: none */
    size_t at, len;    /* literal or field name, in text */
} segment;

struct cap_access_format {
    bool json;
    bool at_start;
    size_t count;
    segment *seg;
    cap_buffer text;
    time_t clock_at; /* the second that is written below; -1: none */
    char clf[40];
    char iso[40]; /* local time for `time`, UTC for JSON */
};

/* ---- text ---- */

enum {
    PLAIN_TARGET = 1, /* visible ASCII other than " and \ */
    PLAIN_TEXT = 2,   /* that, and the space */
};

static inline unsigned
plain(unsigned char c)
{
    if (c > 0x20 && c < 0x7f && c != '"' && c != '\\')
        return PLAIN_TARGET | PLAIN_TEXT;
    return c == 0x20 ? PLAIN_TEXT : 0;
}

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
cap_access_escape(char *to, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (plain(c) & PLAIN_TARGET)
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
cap_access_decimal(char *to, uint64_t n)
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
cap_access_path_len(const cap_access_record *rec)
{
    if (rec->target_len == 0)
        return 0;
    const char *mark = memchr(rec->target, '?', rec->target_len);
    return mark != NULL ? (size_t)(mark - rec->target) : rec->target_len;
}

bool
cap_access_client(PyObject *client, const char **host, size_t *len, long *port)
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

static int
put(cap_buffer *out, const char *text, size_t len)
{
    return len == 0 ? 0 : cap_buffer_append(out, text, len);
}

#define LIT(out, text) put(out, text, sizeof text - 1)

static int
put_target(cap_buffer *out, const char *text, size_t len)
{
    if (cap_buffer_reserve(out, 4 * len + 1) < 0)
        return -1;
    out->len = (size_t)(cap_access_escape(out->data + out->len, text, len) - out->data);
    return 0;
}

/* Text that may hold spaces: field values, user names. */
static int
put_text(cap_buffer *out, const char *text, size_t len)
{
    if (cap_buffer_reserve(out, 4 * len + 1) < 0)
        return -1;
    char *to = out->data + out->len;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (plain(c) & PLAIN_TEXT)
            *to++ = (char)c;
        else
            to = put_hex(to, c);
    }
    out->len = (size_t)(to - out->data);
    return 0;
}

static int
put_number(cap_buffer *out, uint64_t n)
{
    char digits[20];
    return put(out, digits, (size_t)(cap_access_decimal(digits, n) - digits));
}

/* `n` thousandths, millionths, ...: n / 10**digits with `digits` behind the point. */
static int
put_fraction(cap_buffer *out, uint64_t n, unsigned digits)
{
    uint64_t unit = 1;
    for (unsigned i = 0; i < digits; i++)
        unit *= 10;
    char text[48];
    char *to = cap_access_decimal(text, n / unit);
    if (digits != 0) {
        *to++ = '.';
        for (uint64_t rest = n % unit, u = unit / 10; u != 0; u /= 10)
            *to++ = (char)('0' + rest / u % 10);
    }
    return put(out, text, (size_t)(to - text));
}

/* ---- what a record says ---- */

static const char *
method_of(const cap_access_record *rec, size_t *len)
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

/* The value of field `name` in a list or tuple of pairs, from *from on; the place
   behind it is left in *from. NULL: no more. Borrowed. Headers that an application
   gave as something else than a list (an iterator is used up by now) have none. */
static PyObject *
next_field(PyObject *headers, const char *name, size_t len, Py_ssize_t *from)
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

/* A repeated field's values joined by ", " (RFC 9110 section 5.3). */
static int
put_field(cap_buffer *out, PyObject *headers, const char *name, size_t len)
{
    Py_ssize_t from = 0;
    PyObject *value = next_field(headers, name, len, &from);
    if (value == NULL)
        return put(out, "-", 1);
    while (value != NULL) {
        if (put_text(out, PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value)) < 0)
            return -1;
        value = next_field(headers, name, len, &from);
        if (value != NULL && put(out, ", ", 2) < 0)
            return -1;
    }
    return 0;
}

/* The user of Basic credentials (RFC 7617 section 2); never the password. */
static int
put_user(cap_buffer *out, PyObject *headers)
{
    Py_ssize_t from = 0;
    PyObject *value = next_field(headers, "authorization", 13, &from);
    if (value == NULL)
        return put(out, "-", 1);
    const char *text = PyBytes_AS_STRING(value);
    size_t len = (size_t)PyBytes_GET_SIZE(value);
    static const char scheme[] = "basic ";
    if (len < 6)
        return put(out, "-", 1);
    for (size_t i = 0; i < 6; i++) {
        if ((text[i] | 0x20) != (scheme[i] | 0x20))
            return put(out, "-", 1);
    }
    for (text += 6, len -= 6; len != 0 && *text == ' '; len--)
        text++;
    char user[768];
    if (len == 0 || len / 4 * 3 > sizeof user)
        return put(out, "-", 1);
    size_t n = cap_base64_decode(user, text, len);
    const char *colon = n != (size_t)-1 && n != 0 ? memchr(user, ':', n) : NULL;
    if (colon == NULL || colon == user)
        return put(out, "-", 1);
    return put_text(out, user, (size_t)(colon - user));
}

static int
put_path(cap_buffer *out, const cap_access_record *rec, size_t target_len)
{
    if (put_target(out, rec->root_path, strlen(rec->root_path)) < 0)
        return -1;
    return put_target(out, rec->target, target_len);
}

static int
put_protocol(cap_buffer *out, const cap_access_record *rec)
{
    return put(out, "HTTP/1.", 7) < 0 ? -1 : put_number(out, (uint64_t)rec->minor);
}

static int
put_request_line(cap_buffer *out, const cap_access_record *rec)
{
    size_t len;
    const char *method = method_of(rec, &len);
    if (put_target(out, method, len) < 0 || put(out, " ", 1) < 0 ||
        put_path(out, rec, rec->target_len) < 0 || put(out, " ", 1) < 0)
        return -1;
    return put_protocol(out, rec);
}

/* ---- time ---- */

static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec"; /* in any locale */

static void
clock_set(cap_access_format *f, time_t now)
{
    struct tm tm;
    if (f->json) {
        gmtime_r(&now, &tm);
        PyOS_snprintf(f->iso, sizeof f->iso, "%04d-%02d-%02dT%02d:%02d:%02d", tm.tm_year + 1900,
                      tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
    }
    else {
        localtime_r(&now, &tm);
        long away = tm.tm_gmtoff / 60;
        char sign = away < 0 ? '-' : '+';
        away = away < 0 ? -away : away;
        PyOS_snprintf(f->clf, sizeof f->clf, "[%02d/%.3s/%04d:%02d:%02d:%02d %c%02ld%02ld]",
                      tm.tm_mday, months + 3 * tm.tm_mon, tm.tm_year + 1900, tm.tm_hour, tm.tm_min,
                      tm.tm_sec, sign, away / 60, away % 60);
        PyOS_snprintf(f->iso, sizeof f->iso, "%04d-%02d-%02d %02d:%02d:%02d %c%02ld%02ld",
                      tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
                      tm.tm_sec, sign, away / 60, away % 60);
    }
    f->clock_at = now;
}

/* The wall clock; what is written of it is made once a second. */
static struct timespec
clock_look(cap_access_format *f)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (ts.tv_sec != f->clock_at)
        clock_set(f, ts.tv_sec);
    return ts;
}

/* ---- JSON ---- */

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
    return put(out, text, (size_t)n);
}

/* Octets as latin-1, without the quotes around it. */
static int
json_octets(cap_buffer *out, const char *text, size_t len)
{
    for (size_t i = 0, from = 0; i <= len; i++) {
        if (i < len && (plain((unsigned char)text[i]) & PLAIN_TEXT))
            continue;
        if (put(out, text + from, i - from) < 0)
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
        int rc = c < 0x80 && (plain((unsigned char)c) & PLAIN_TEXT) ? put(out, &one, 1)
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
    PyObject *value = next_field(headers, name, len, &from);
    if (value == NULL)
        return LIT(out, "null");
    if (put(out, "\"", 1) < 0)
        return -1;
    while (value != NULL) {
        if (json_octets(out, PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value)) < 0)
            return -1;
        value = next_field(headers, name, len, &from);
        if (value != NULL && put(out, ", ", 2) < 0)
            return -1;
    }
    return put(out, "\"", 1);
}

static int
json_client(cap_buffer *out, PyObject *client)
{
    const char *host;
    size_t len;
    long port;
    if (!cap_access_client(client, &host, &len, &port))
        return LIT(out, "\"client\": null, \"client_port\": null");
    if (LIT(out, "\"client\": \"") < 0 || json_str(out, PyTuple_GET_ITEM(client, 0)) < 0 ||
        LIT(out, "\", \"client_port\": ") < 0)
        return -1;
    return port < 0 ? LIT(out, "null") : put_number(out, (uint64_t)port);
}

static int
json_line(cap_access_format *f, const cap_access_record *rec, cap_buffer *out)
{
    struct timespec ts = clock_look(f);
    char ms[8];
    PyOS_snprintf(ms, sizeof ms, ".%03dZ", (int)(ts.tv_nsec / 1000000));
    size_t path = cap_access_path_len(rec);
    size_t query = path < rec->target_len ? path + 1 : path; /* behind the mark */
    if (LIT(out, "{\"time\": \"") < 0 || put(out, f->iso, strlen(f->iso)) < 0 ||
        put(out, ms, 5) < 0 || LIT(out, "\", ") < 0 || json_client(out, rec->client) < 0 ||
        LIT(out, ", \"method\": \"") < 0 || json_str(out, rec->method) < 0 ||
        LIT(out, "\", \"path\": \"") < 0 ||
        json_octets(out, rec->root_path, strlen(rec->root_path)) < 0 ||
        json_octets(out, rec->target, path) < 0 || LIT(out, "\", \"query\": \"") < 0 ||
        json_octets(out, rec->target + query, rec->target_len - query) < 0 ||
        LIT(out, "\", \"protocol\": \"") < 0 || put_protocol(out, rec) < 0 ||
        LIT(out, "\", \"status\": ") < 0 ||
        put_number(out, rec->status < 0 ? 0 : (uint64_t)rec->status) < 0 ||
        LIT(out, ", \"bytes\": ") < 0 || put_number(out, rec->body_octets) < 0 ||
        LIT(out, ", \"duration_ms\": ") < 0 || put_fraction(out, rec->duration_ns / 1000, 3) < 0 ||
        LIT(out, ", \"referer\": ") < 0 ||
        json_field(out, "referer", 7, rec->request_headers) < 0 ||
        LIT(out, ", \"user_agent\": ") < 0 ||
        json_field(out, "user-agent", 10, rec->request_headers) < 0 ||
        LIT(out, ", \"request_id\": ") < 0 ||
        json_field(out, "x-request-id", 12, rec->request_headers) < 0)
        return -1;
    return LIT(out, "}");
}

/* ---- a compiled format ---- */

static int
put_atom(cap_access_format *f, const segment *s, const cap_access_phrases *phrases,
         const cap_access_record *rec, cap_buffer *out)
{
    const char *text;
    size_t len;
    long port;
    char pid[32];
    switch ((atom)s->atom) {
    case A_LITERAL:
        return put(out, f->text.data + s->at, s->len);
    case A_HOST:
        return cap_access_client(rec->client, &text, &len, &port) ? put_target(out, text, len)
                                                                  : put(out, "-", 1);
    case A_CLIENT_ADDR:
        if (!cap_access_client(rec->client, &text, &len, &port))
            return put(out, "-", 1);
        if (put_target(out, text, len) < 0)
            return -1;
        if (port < 0)
            return 0;
        return put(out, ":", 1) < 0 ? -1 : put_number(out, (uint64_t)port);
    case A_DASH:
        return put(out, "-", 1);
    case A_USER:
        return put_user(out, rec->request_headers);
    case A_TIME_CLF:
        clock_look(f);
        return put(out, f->clf, strlen(f->clf));
    case A_TIME:
        clock_look(f);
        return put(out, f->iso, strlen(f->iso));
    case A_REQUEST:
        return put_request_line(out, rec);
    case A_METHOD:
        text = method_of(rec, &len);
        return put_target(out, text, len);
    case A_PATH:
        return put_path(out, rec, cap_access_path_len(rec));
    case A_QUERY:
        len = cap_access_path_len(rec);
        len = len < rec->target_len ? len + 1 : len;
        return put_target(out, rec->target + len, rec->target_len - len);
    case A_FULL_PATH:
        return put_path(out, rec, rec->target_len);
    case A_PROTOCOL:
        return put_protocol(out, rec);
    case A_STATUS:
        return put_number(out, rec->status < 0 ? 0 : (uint64_t)rec->status);
    case A_PHRASE:
        len = cap_access_phrase(phrases, rec->status, &text);
        return put(out, text, len);
    case A_STATUS_PHRASE:
        if (put_number(out, rec->status < 0 ? 0 : (uint64_t)rec->status) < 0 ||
            put(out, " ", 1) < 0)
            return -1;
        len = cap_access_phrase(phrases, rec->status, &text);
        return put(out, text, len);
    case A_BYTES_CLF:
        if (rec->body_octets == 0)
            return put(out, "-", 1);
        /* fall through */
    case A_BYTES:
        return put_number(out, rec->body_octets);
    case A_SECONDS:
        return put_number(out, rec->duration_ns / 1000000000);
    case A_MICROSECONDS:
        return put_number(out, rec->duration_ns / 1000);
    case A_MILLISECONDS:
        return put_number(out, rec->duration_ns / 1000000);
    case A_DECIMAL:
        return put_fraction(out, rec->duration_ns / 1000, 6);
    case A_DT_MS: {
        unsigned digits = s->precision < 0 || s->precision > 6 ? 6 : (unsigned)s->precision;
        uint64_t unit = 1;
        for (unsigned i = digits; i < 6; i++)
            unit *= 10;
        return put_fraction(out, (rec->duration_ns + unit / 2) / unit, digits);
    }
    case A_PID:
        len = (size_t)PyOS_snprintf(pid, sizeof pid, "<%ld>", (long)getpid());
        return put(out, pid, len);
    case A_REQUEST_FIELD:
        return put_field(out, rec->request_headers, f->text.data + s->at, s->len);
    case A_RESPONSE_FIELD:
        return put_field(out, rec->response_headers, f->text.data + s->at, s->len);
    }
    return 0;
}

int
cap_access_format_line(cap_access_format *f, const cap_access_phrases *phrases,
                       const cap_access_record *rec, cap_buffer *out)
{
    if (f->json)
        return json_line(f, rec, out);
    for (size_t i = 0; i < f->count; i++) {
        const segment *s = &f->seg[i];
        size_t start = out->len;
        if (put_atom(f, s, phrases, rec, out) < 0)
            return -1;
        if (s->precision >= 0 && s->atom != A_DT_MS && out->len - start > (size_t)s->precision)
            out->len = start + (size_t)s->precision;
        size_t len = out->len - start;
        if (len >= s->width)
            continue;
        size_t pad = s->width - len;
        if (cap_buffer_reserve(out, pad) < 0)
            return -1;
        if (!s->left)
            memmove(out->data + start + pad, out->data + start, len);
        memset(out->data + (s->left ? start + len : start), ' ', pad);
        out->len += pad;
    }
    return 0;
}

/* ---- compiling ---- */

static segment *
add_segment(cap_access_format *f, atom a)
{
    segment *grown = cap_realloc(f->seg, (f->count + 1) * sizeof *grown);
    if (grown == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    f->seg = grown;
    segment *s = &grown[f->count++];
    *s = (segment){.atom = (uint8_t)a, .precision = -1, .at = f->text.len};
    return s;
}

static int
add_text(cap_access_format *f, const char *text, size_t len)
{
    segment *s = &f->seg[f->count - 1];
    if (put(&f->text, text, len) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    s->len += len;
    return 0;
}

static int
add_literal(cap_access_format *f, const char *text, size_t len)
{
    const segment *last = f->count != 0 ? &f->seg[f->count - 1] : NULL;
    if (last == NULL || last->atom != A_LITERAL || last->width != 0 || last->precision >= 0) {
        if (add_segment(f, A_LITERAL) == NULL)
            return -1;
    }
    return add_text(f, text, len);
}

static int
refuse(const char *why, const char *text, size_t len)
{
    PyObject *shown = PyUnicode_DecodeUTF8(text, (Py_ssize_t)(len < 80 ? len : 80), "replace");
    if (shown == NULL)
        return -1;
    PyErr_Format(PyExc_ValueError, "access-log format: %s %R", why, shown);
    Py_DECREF(shown);
    return -1;
}

/* {name}i, {name}o, {name}e: `len` without the braces. */
static int
compile_braces(cap_access_format *f, const char *name, size_t len, char kind)
{
    char lower[256];
    if (len == 0 || len >= sizeof lower)
        return refuse("a name of 1 to 255 characters has to stand in the braces of", name, len);
    for (size_t i = 0; i < len; i++)
        lower[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] + 32) : name[i];
    lower[len] = '\0';
    if (kind == 'i' || kind == 'o') {
        if (add_segment(f, kind == 'i' ? A_REQUEST_FIELD : A_RESPONSE_FIELD) == NULL)
            return -1;
        return add_text(f, lower, len);
    }
    for (size_t i = 0; i < sizeof environ_atoms / sizeof *environ_atoms; i++) {
        if (strcmp(environ_atoms[i].name, lower) == 0)
            return add_segment(f, environ_atoms[i].atom) == NULL ? -1 : 0;
    }
    if (len > 5 && memcmp(lower, "http_", 5) == 0) {
        for (size_t i = 5; i < len; i++)
            lower[i] = lower[i] == '_' ? '-' : lower[i];
        if (add_segment(f, A_REQUEST_FIELD) == NULL)
            return -1;
        return add_text(f, lower + 5, len - 5);
    }
    memcpy(lower, name, len); /* variables of the process have a case */
    const char *value = getenv(lower);
    if (value == NULL || *value == '\0')
        value = "-";
    if (add_segment(f, A_LITERAL) == NULL)
        return -1;
    segment *s = &f->seg[f->count - 1];
    if (put_text(&f->text, value, strlen(value)) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    s->len = f->text.len - s->at;
    return 0;
}

static int
compile_name(cap_access_format *f, const char *name, size_t len)
{
    if (len >= 3 && name[0] == '{' && name[len - 2] == '}' && strchr("ioe", name[len - 1]) != NULL)
        return compile_braces(f, name + 1, len - 3, name[len - 1]);
    for (size_t i = 0; i < sizeof atoms / sizeof *atoms; i++) {
        if (strlen(atoms[i].name) != len || memcmp(atoms[i].name, name, len) != 0)
            continue;
        if (add_segment(f, atoms[i].atom) == NULL)
            return -1;
        return atoms[i].field != NULL ? add_text(f, atoms[i].field, strlen(atoms[i].field)) : 0;
    }
    return refuse("unknown atom", name, len);
}

static bool
is_number(uint8_t a)
{
    return a == A_STATUS || a == A_BYTES || a == A_SECONDS || a == A_MICROSECONDS ||
           a == A_MILLISECONDS;
}

/* text[at] is the '%' of "%(name)-12.40s". Returns the place behind it, 0 with an
   exception. */
static size_t
compile_atom(cap_access_format *f, const char *text, size_t len, size_t at)
{
    size_t start = at++;
    if (at >= len || text[at] != '(') {
        refuse("% begins neither an atom nor %%, at", text + start, len - start);
        return 0;
    }
    const char *close = memchr(text + at, ')', len - at);
    if (close == NULL) {
        refuse("no ) ends", text + start, len - start);
        return 0;
    }
    const char *name = text + at + 1;
    if (compile_name(f, name, (size_t)(close - name)) < 0)
        return 0;
    segment *s = &f->seg[f->count - 1];
    at = (size_t)(close - text) + 1;
    if (at < len && text[at] == '-') {
        s->left = true;
        at++;
    }
    unsigned width = 0, precision = 0;
    for (; at < len && text[at] >= '0' && text[at] <= '9' && width < 1000; at++)
        width = width * 10 + (unsigned)(text[at] - '0');
    if (at < len && text[at] == '.') {
        for (at++; at < len && text[at] >= '0' && text[at] <= '9' && precision < 1000; at++)
            precision = precision * 10 + (unsigned)(text[at] - '0');
        s->precision = (int16_t)precision;
    }
    s->width = (uint16_t)width;
    char conversion = at < len ? text[at] : '\0';
    bool known = conversion == 's' || (conversion == 'd' && is_number(s->atom)) ||
                 (conversion == 'f' && s->atom == A_DT_MS);
    if (!known || width > 1000 || precision > 1000) {
        refuse("the atom's conversion is not one that it has (s; d for numbers), in",
               text + start, (at < len ? at + 1 : len) - start);
        return 0;
    }
    return at + 1;
}

static cap_access_format *
format_alloc(void)
{
    cap_access_format *f = cap_calloc(1, sizeof *f);
    if (f == NULL)
        PyErr_NoMemory();
    else
        f->clock_at = (time_t)-1;
    return f;
}

cap_access_format *
cap_access_format_new_json(void)
{
    cap_access_format *f = format_alloc();
    if (f != NULL)
        f->json = true;
    return f;
}

cap_access_format *
cap_access_format_new(const char *text, size_t len)
{
    cap_access_format *f = format_alloc();
    if (f == NULL)
        return NULL;
    for (size_t at = 0; at < len;) {
        if (text[at] == '\n' || text[at] == '\r' || text[at] == '\0') {
            refuse("a line end or NUL at", text + at, len - at);
            goto fail;
        }
        if (text[at] != '%' || (at + 1 < len && text[at + 1] == '%')) {
            if (add_literal(f, text + at, 1) < 0)
                goto fail;
            at += text[at] == '%' ? 2 : 1;
            continue;
        }
        at = compile_atom(f, text, len, at);
        if (at == 0)
            goto fail;
    }
    f->at_start = true;
    for (size_t i = 0; i < f->count; i++) {
        switch ((atom)f->seg[i].atom) {
        case A_BYTES:
        case A_BYTES_CLF:
        case A_SECONDS:
        case A_MICROSECONDS:
        case A_MILLISECONDS:
        case A_DECIMAL:
        case A_DT_MS:
        case A_RESPONSE_FIELD:
            f->at_start = false;
            break;
        default:
            break;
        }
    }
    return f;
fail:
    cap_access_format_free(f);
    return NULL;
}

void
cap_access_format_free(cap_access_format *f)
{
    if (f == NULL)
        return;
    cap_free(f->seg);
    cap_buffer_free(&f->text);
    cap_free(f);
}

bool
cap_access_format_at_start(const cap_access_format *f)
{
    return f->at_start;
}

/* ---- phrases ---- */

int
cap_access_phrases_load(cap_access_phrases *p)
{
    PyObject *module = PyImport_ImportModule("http");
    PyObject *statuses = NULL, *list = NULL;
    cap_buffer text = {0};
    int rc = -1;
    if (module == NULL || (statuses = PyObject_GetAttrString(module, "HTTPStatus")) == NULL ||
        (list = PySequence_List(statuses)) == NULL)
        goto done;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *status = PyList_GET_ITEM(list, i);
        long code = PyLong_AsLong(status);
        if (code == -1 && PyErr_Occurred())
            goto done;
        PyObject *phrase = PyObject_GetAttrString(status, "phrase");
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
            if (put(&text, words, (size_t)len) < 0) {
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
    Py_XDECREF(statuses);
    Py_XDECREF(module);
    return rc;
}

void
cap_access_phrases_free(cap_access_phrases *p)
{
    cap_free(p->text);
    p->text = NULL;
}
