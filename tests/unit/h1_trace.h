/* Runs input through the request parser, cut wherever the caller wants, and writes
   the events down as text, so that two runs can be compared. Looks at each head from
   the outside on the way. For the unit tests and the fuzzer.

   What is presented lies in a block of just that size, so that a sanitizer sees any
   read beyond it. */
#ifndef CAP_TESTS_H1_TRACE_H
#define CAP_TESTS_H1_TRACE_H

#include <string.h>

#include "base/buffer.h"
#include "http/h1_request.h"
#include "http/h1_response.h"

#include "check.h"

static void
put(cap_buffer *out, const char *data, size_t len)
{
    REQUIRE(cap_buffer_append(out, data, len) == 0);
}

static void
put_text(cap_buffer *out, const char *text)
{
    put(out, text, strlen(text));
}

static void
put_span(cap_buffer *out, const char *label, const char *head, cap_span s)
{
    put_text(out, label);
    put(out, head + s.off, s.len);
}

static void
put_number(cap_buffer *out, const char *label, uint64_t n)
{
    char digits[20];
    put_text(out, label);
    put(out, digits, cap_h1_decimal(digits, n));
}

/* Every octet of the head has its place: nothing is left between the spans but what
   the grammar puts there. */
static void
check_head(const cap_h1_head *h, const char *data, size_t len, const cap_http_limits *limits)
{
    REQUIRE(h->method.off == 0 && cap_h1_name_ok(data, h->method.len));
    REQUIRE(h->target.off == h->method.len + 1 && data[h->method.len] == ' ');
    REQUIRE(h->target.len > 0);
    for (uint32_t i = 0; i < h->target.len; i++) {
        unsigned char c = (unsigned char)data[h->target.off + i];
        REQUIRE(c > ' ' && c < 0x7f && c != '#');
    }
    uint32_t line_end = h->target.off + h->target.len;
    REQUIRE(memcmp(data + line_end, " HTTP/1.", 8) == 0);
    REQUIRE(memcmp(data + line_end + 9, "\r\n", 2) == 0);
    REQUIRE(h->minor == (data[line_end + 8] != '0'));
    REQUIRE(h->path.off >= h->target.off && h->path.off + h->path.len <= line_end);
    REQUIRE(h->query.off >= h->path.off && h->query.off + h->query.len <= line_end);
    REQUIRE(h->path.len == 0 || h->form == CAP_H1_ASTERISK || data[h->path.off] == '/');

    uint32_t pos = line_end + 11;
    REQUIRE(h->block.off == pos && h->block.off + h->block.len == len);
    for (uint32_t i = 0; i < h->nfields; i++) {
        const cap_h1_field *f = &h->fields[i];
        REQUIRE(f->name.off == pos && cap_h1_name_ok(data + pos, f->name.len));
        REQUIRE(cap_h1_value_ok(data + f->value.off, f->value.len));
        REQUIRE(f->id == cap_header_find(data + pos, f->name.len));
        pos += f->name.len;
        REQUIRE(data[pos++] == ':');
        while (data[pos] == ' ' || data[pos] == '\t')
            pos++;
        REQUIRE(f->value.len == 0 ? f->value.off <= pos : f->value.off == pos);
        pos = f->value.len == 0 ? pos : pos + f->value.len;
        while (data[pos] == ' ' || data[pos] == '\t')
            pos++;
        REQUIRE(data[pos] == '\r' && data[pos + 1] == '\n');
        pos += 2;
    }
    REQUIRE(data[pos] == '\r' && data[pos + 1] == '\n' && pos + 2 == len);

    /* the short way reads the same, or declines */
    cap_h1_head again;
    cap_h1_head_init(&again);
    size_t n = cap_h1_request_line(limits, &again, data, len);
    if (n != 0) {
        REQUIRE(n == h->block.off && again.minor == h->minor && again.form == h->form);
        REQUIRE(memcmp(&again.method, &h->method, sizeof(cap_span)) == 0);
        REQUIRE(memcmp(&again.target, &h->target, sizeof(cap_span)) == 0);
        REQUIRE(memcmp(&again.path, &h->path, sizeof(cap_span)) == 0);
        REQUIRE(memcmp(&again.query, &h->query, sizeof(cap_span)) == 0);
    }
}

static void
put_head(cap_buffer *out, const cap_h1_head *h, const char *data)
{
    static const char *const forms[] = {"origin", "absolute", "asterisk", "authority"};
    put_span(out, "HEAD ", data, h->method);
    put_span(out, " path=", data, h->path);
    put_span(out, " query=", data, h->query);
    if (h->authority.len > 0)
        put_span(out, " authority=", data, h->authority);
    put_text(out, " ");
    put_text(out, forms[h->form]);
    put_number(out, " 1.", h->minor);
    if (h->flags & CAP_H1_KEEP_ALIVE)
        put_text(out, " keep");
    if (h->flags & CAP_H1_SAID_KEEP_ALIVE)
        put_text(out, " said-keep");
    if (h->flags & CAP_H1_CHUNKED)
        put_text(out, " chunked");
    if (h->flags & CAP_H1_HAS_LENGTH)
        put_number(out, " length=", h->content_length);
    if (h->flags & CAP_H1_EXPECT_CONTINUE)
        put_text(out, " expect");
    if (h->flags & CAP_H1_UPGRADE)
        put_text(out, " upgrade");
    if (h->flags & CAP_H1_UPGRADE_WEBSOCKET)
        put_text(out, " websocket");
    if (h->flags & CAP_H1_FORWARDED)
        put_text(out, " forwarded");
    put_text(out, "\n");
    for (uint32_t i = 0; i < h->nfields; i++) {
        put_span(out, "[", data, h->fields[i].name);
        put_span(out, "|", data, h->fields[i].value);
        put_text(out, "]\n");
    }
}

/* `cuts`, ascending, say how much of `data` there is at each step; all of it at the
   end. Writes to `out`, which the caller frees. */
static void
h1_trace(cap_buffer *out, const char *data, size_t len, const size_t *cuts, size_t ncuts,
         const cap_http_limits *limits)
{
    cap_h1_parser p;
    cap_h1_head h;
    cap_h1_init(&p, limits);
    cap_h1_head_init(&h);
    size_t off = 0, step = 0;
    bool in_body = false, ended = false;
    while (!ended) {
        size_t have = step < ncuts ? cuts[step] : len;
        if (have < off) {
            step++;
            continue;
        }
        /* events until all of this piece is used up */
        for (;;) {
            size_t n = have - off, used;
            char *piece = malloc(n > 0 ? n : 1);
            REQUIRE(piece != NULL);
            if (n > 0)
                memcpy(piece, data + off, n);
            cap_h1_out o;
            REQUIRE(!cap_h1_at_start(&p) || !cap_h1_in_head(&p));
            bool head_wanted = cap_h1_at_start(&p) || cap_h1_in_head(&p);
            cap_h1_event ev = cap_h1_next(&p, head_wanted ? &h : NULL, piece, n, &used, &o);
            REQUIRE(used <= n);
            if (in_body && ev != CAP_H1_BODY && ev != CAP_H1_MORE) {
                put_text(out, "\n");
                in_body = false;
            }
            if (ev == CAP_H1_HEAD) {
                REQUIRE(cap_h1_in_body(&p));
                check_head(&h, piece + o.head_off, used - o.head_off, limits);
                put_head(out, &h, piece + o.head_off);
            } else if (ev == CAP_H1_BODY) {
                REQUIRE(o.body_len > 0 && o.body >= piece && o.body + o.body_len <= piece + n);
                if (!in_body)
                    put_text(out, "BODY ");
                put(out, o.body, o.body_len);
                in_body = true;
            } else if (ev == CAP_H1_END) {
                REQUIRE(cap_h1_at_start(&p));
                put_text(out, "END\n");
            } else if (ev == CAP_H1_ERROR) {
                REQUIRE(o.status >= 400 && o.status < 600 && o.reason != NULL);
                put_number(out, "ERROR ", (uint64_t)o.status);
                put_text(out, " ");
                put_text(out, o.reason);
                put_text(out, "\n");
                ended = true;
            }
            off += used;
            free(piece);
            if (ended || ev == CAP_H1_MORE)
                break;
        }
        if (!ended && step++ >= ncuts) {
            if (in_body)
                put_text(out, "\n");
            put_text(out, cap_h1_at_start(&p)  ? "start"
                          : cap_h1_in_head(&p) ? "in head"
                                               : "in body");
            put_number(out, ", left ", len - off);
            put_text(out, "\n");
            ended = true;
        }
    }
    cap_h1_head_free(&h);
}

#endif
