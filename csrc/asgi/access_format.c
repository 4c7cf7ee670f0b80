#include "asgi/access_format.h"

#include "asgi/access_text.h"
#include "base/base64.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
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
    cap_text_clock clock;
};

/* ---- what a record says ---- */

/* A repeated field's values joined by ", " (RFC 9110 section 5.3). */
static int
put_field(cap_buffer *out, PyObject *headers, const char *name, size_t len)
{
    Py_ssize_t from = 0;
    PyObject *value = cap_text_field(headers, name, len, &from);
    if (value == NULL)
        return cap_text_put(out, "-", 1);
    while (value != NULL) {
        if (cap_text_quoted(out, PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value)) < 0)
            return -1;
        value = cap_text_field(headers, name, len, &from);
        if (value != NULL && cap_text_put(out, ", ", 2) < 0)
            return -1;
    }
    return 0;
}

/* The user of Basic credentials (RFC 7617 section 2); never the password. */
static int
put_user(cap_buffer *out, PyObject *headers)
{
    Py_ssize_t from = 0;
    PyObject *value = cap_text_field(headers, "authorization", 13, &from);
    if (value == NULL)
        return cap_text_put(out, "-", 1);
    const char *text = PyBytes_AS_STRING(value);
    size_t len = (size_t)PyBytes_GET_SIZE(value);
    static const char scheme[] = "basic ";
    if (len < 6)
        return cap_text_put(out, "-", 1);
    for (size_t i = 0; i < 6; i++) {
        if ((text[i] | 0x20) != (scheme[i] | 0x20))
            return cap_text_put(out, "-", 1);
    }
    for (text += 6, len -= 6; len != 0 && *text == ' '; len--)
        text++;
    char user[768];
    if (len == 0 || len / 4 * 3 > sizeof user)
        return cap_text_put(out, "-", 1);
    size_t n = cap_base64_decode(user, text, len);
    const char *colon = n != (size_t)-1 && n != 0 ? memchr(user, ':', n) : NULL;
    if (colon == NULL || colon == user)
        return cap_text_put(out, "-", 1);
    return cap_text_quoted(out, user, (size_t)(colon - user));
}

static int
put_path(cap_buffer *out, const cap_access_record *rec, size_t target_len)
{
    if (cap_text_target(out, rec->root_path, strlen(rec->root_path)) < 0)
        return -1;
    return cap_text_target(out, rec->target, target_len);
}

static int
put_request_line(cap_buffer *out, const cap_access_record *rec)
{
    size_t len;
    const char *method = cap_text_method(rec, &len);
    if (cap_text_target(out, method, len) < 0 || cap_text_put(out, " ", 1) < 0 ||
        put_path(out, rec, rec->target_len) < 0 || cap_text_put(out, " ", 1) < 0)
        return -1;
    return cap_text_protocol(out, rec);
}

/* ---- a compiled format ---- */

static int
put_atom(cap_access_format *f, const segment *s, const cap_text_phrases *phrases,
         const cap_access_record *rec, cap_buffer *out)
{
    const char *text;
    size_t len;
    long port;
    char pid[32];
    switch ((atom)s->atom) {
    case A_LITERAL:
        return cap_text_put(out, f->text.data + s->at, s->len);
    case A_HOST:
        return cap_text_client(rec->client, &text, &len, &port) ? cap_text_target(out, text, len)
                                                                  : cap_text_put(out, "-", 1);
    case A_CLIENT_ADDR:
        if (!cap_text_client(rec->client, &text, &len, &port))
            return cap_text_put(out, "-", 1);
        if (cap_text_target(out, text, len) < 0)
            return -1;
        if (port < 0)
            return 0;
        return cap_text_put(out, ":", 1) < 0 ? -1 : cap_text_number(out, (uint64_t)port);
    case A_DASH:
        return cap_text_put(out, "-", 1);
    case A_USER:
        return put_user(out, rec->request_headers);
    case A_TIME_CLF:
        (void)cap_text_clock_look(&f->clock);
        return cap_text_put(out, f->clock.clf, strlen(f->clock.clf));
    case A_TIME:
        (void)cap_text_clock_look(&f->clock);
        return cap_text_put(out, f->clock.local, strlen(f->clock.local));
    case A_REQUEST:
        return put_request_line(out, rec);
    case A_METHOD:
        text = cap_text_method(rec, &len);
        return cap_text_target(out, text, len);
    case A_PATH:
        return put_path(out, rec, cap_text_path_len(rec));
    case A_QUERY:
        len = cap_text_path_len(rec);
        len = len < rec->target_len ? len + 1 : len;
        return cap_text_target(out, rec->target + len, rec->target_len - len);
    case A_FULL_PATH:
        return put_path(out, rec, rec->target_len);
    case A_PROTOCOL:
        return cap_text_protocol(out, rec);
    case A_STATUS:
        return cap_text_number(out, rec->status < 0 ? 0 : (uint64_t)rec->status);
    case A_PHRASE:
        len = cap_text_phrase(phrases, rec->status, &text);
        return cap_text_put(out, text, len);
    case A_STATUS_PHRASE:
        if (cap_text_number(out, rec->status < 0 ? 0 : (uint64_t)rec->status) < 0 ||
            cap_text_put(out, " ", 1) < 0)
            return -1;
        len = cap_text_phrase(phrases, rec->status, &text);
        return cap_text_put(out, text, len);
    case A_BYTES_CLF:
        if (rec->body_octets == 0)
            return cap_text_put(out, "-", 1);
        /* fall through */
    case A_BYTES:
        return cap_text_number(out, rec->body_octets);
    case A_SECONDS:
        return cap_text_number(out, rec->duration_ns / 1000000000);
    case A_MICROSECONDS:
        return cap_text_number(out, rec->duration_ns / 1000);
    case A_MILLISECONDS:
        return cap_text_number(out, rec->duration_ns / 1000000);
    case A_DECIMAL:
        return cap_text_fraction(out, rec->duration_ns / 1000, 6);
    case A_DT_MS: {
        unsigned digits = s->precision < 0 || s->precision > 6 ? 6 : (unsigned)s->precision;
        uint64_t unit = 1;
        for (unsigned i = digits; i < 6; i++)
            unit *= 10;
        return cap_text_fraction(out, (rec->duration_ns + unit / 2) / unit, digits);
    }
    case A_PID:
        len = (size_t)PyOS_snprintf(pid, sizeof pid, "<%ld>", (long)getpid());
        return cap_text_put(out, pid, len);
    case A_REQUEST_FIELD:
        return put_field(out, rec->request_headers, f->text.data + s->at, s->len);
    case A_RESPONSE_FIELD:
        return put_field(out, rec->response_headers, f->text.data + s->at, s->len);
    }
    return 0;
}

int
cap_access_format_line(cap_access_format *f, const cap_text_phrases *phrases,
                       const cap_access_record *rec, cap_buffer *out)
{
    if (f->json)
        return cap_access_json_line(&f->clock, rec, out);
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
    if (cap_text_put(&f->text, text, len) < 0) {
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
    if (cap_text_quoted(&f->text, value, strlen(value)) < 0) {
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
