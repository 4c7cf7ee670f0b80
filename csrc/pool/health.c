#include "pool/health.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

bool
cap_health_ready(const cap_health *h)
{
    if (h->board == NULL)
        return atomic_load(h->ready) != 0;
    uint32_t used = atomic_load(&h->board->used);
    for (uint32_t i = 0; i < used && i < h->board->slots; i++)
        if (atomic_load(&h->board->slot[i].state) == CAP_SLOT_SERVING)
            return true;
    return false;
}

bool
cap_health_is_path(const cap_health *h, const char *target, size_t len)
{
    size_t n = strlen(h->path);
    return n != 0 && len >= n && memcmp(target, h->path, n) == 0 && (len == n || target[n] == '?');
}

/* The request line is that of a health check? Returns where it ends, its CRLF included. */
static const char *
request_line(const cap_health *h, const char *data, const char *end, bool *no_content, bool *close)
{
    const char *lf = memchr(data, '\n', (size_t)(end - data));
    if (lf == NULL || lf - data < 15 || lf[-1] != '\r')
        return NULL;
    *no_content = memcmp(data, "HEAD ", 5) == 0;
    if (!*no_content && memcmp(data, "GET ", 4) != 0)
        return NULL;
    const char *target = data + (*no_content ? 5 : 4), *version = lf - 10; /* " HTTP/1.1\r" */
    if (version <= target || memcmp(version, " HTTP/1.", 8) != 0 ||
        (version[8] != '0' && version[8] != '1'))
        return NULL;
    *close = version[8] == '0';
    size_t len = (size_t)(version - target);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)target[i] <= ' ' || (unsigned char)target[i] >= 127)
            return NULL;
    return cap_health_is_path(h, target, len) ? lf + 1 : NULL;
}

static bool
names(const char *line, size_t len, const char *name)
{
    size_t n = strlen(name);
    return len == n && strncasecmp(line, name, n) == 0;
}

/* A field that leaves us the answer? Anything that could mean more than it says does not. */
static bool
plain_field(const char *line, const char *end, bool *host, bool *close)
{
    const char *colon = memchr(line, ':', (size_t)(end - line));
    if (colon == NULL || colon == line)
        return false;
    size_t len = (size_t)(colon - line);
    for (const char *p = line; p < colon; p++)
        if (*p != '-' && *p != '_' && !(*p >= '0' && *p <= '9') && !(*p >= 'A' && *p <= 'Z') &&
            !(*p >= 'a' && *p <= 'z'))
            return false;
    for (const char *p = colon + 1; p < end; p++)
        if (((unsigned char)*p < ' ' && *p != '\t') || *p == 127)
            return false;
    if (names(line, len, "content-length") || names(line, len, "transfer-encoding") ||
        names(line, len, "expect") || names(line, len, "upgrade"))
        return false;
    if (names(line, len, "host")) {
        bool second = *host;
        *host = true;
        return !second;
    }
    if (names(line, len, "connection")) {
        const char *value = colon + 1;
        while (value < end && (*value == ' ' || *value == '\t'))
            value++;
        while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
            end--;
        if (names(value, (size_t)(end - value), "close"))
            *close = true;
        else if (!names(value, (size_t)(end - value), "keep-alive"))
            return false;
    }
    return true;
}

size_t
cap_health_find(const cap_health *h, const char *data, size_t len, bool *no_content, bool *close)
{
    const char *end = data + len;
    const char *line = request_line(h, data, end, no_content, close);
    bool host = false, old = line != NULL && *close;
    while (line != NULL && line < end) {
        const char *lf = memchr(line, '\n', (size_t)(end - line));
        if (lf == NULL || lf == line || lf[-1] != '\r')
            return 0;
        if (lf - line == 1) /* the empty line; HTTP/1.1 needs a Host (RFC 9112, section 3.2) */
            return host || old ? (size_t)(lf + 1 - data) : 0;
        if (!plain_field(line, lf - 1, &host, close))
            return 0;
        line = lf + 1;
    }
    return 0;
}

size_t
cap_health_answer(const cap_health *h, bool no_content, bool close, char out[CAP_HEALTH_ANSWER])
{
    bool ready = cap_health_ready(h);
    const char *text = ready ? "ok\n" : "not ready\n";
    int len = snprintf(out, CAP_HEALTH_ANSWER,
                       "HTTP/1.1 %s\r\ncontent-type: text/plain; charset=utf-8\r\n"
                       "cache-control: no-store\r\ncontent-length: %zu\r\n%s\r\n%s",
                       ready ? "200 OK" : "503 Service Unavailable", strlen(text),
                       close ? "connection: close\r\n" : "", no_content ? "" : text);
    return (size_t)len;
}
