/* Requests that are served and requests that are refused, with the rule beside them.
   Every input is read in one piece, octet by octet and cut in two at each place: the
   events have to be the same. */
#include "base/mem.h"

#include "h1_trace.h"

static const cap_http_limits defaults = CAP_HTTP_LIMITS_DEFAULT;
static int failures;

static void
show(const char *what, const cap_buffer *b)
{
    fprintf(stderr, "  %s:\n%.*s", what, (int)b->len, b->data);
}

/* The events of this input, the same however it is cut. */
static cap_buffer
events(const char *name, const char *data, size_t len, const cap_http_limits *limits)
{
    cap_buffer whole = {0};
    h1_trace(&whole, data, len, NULL, 0, limits);
    size_t *all = malloc((len + 1) * sizeof(*all));
    REQUIRE(all != NULL);
    for (size_t i = 0; i <= len; i++)
        all[i] = i;
    for (size_t i = 0; i <= len + 1; i++) {
        cap_buffer cut = {0};
        if (i > len)
            h1_trace(&cut, data, len, all, len + 1, limits);
        else
            h1_trace(&cut, data, len, &all[i], 1, limits);
        if (cut.len != whole.len || memcmp(cut.data, whole.data, cut.len) != 0) {
            fprintf(stderr, "%s: cut at %zu of %zu (%s) it reads differently\n", name, i, len,
                    i > len ? "every octet" : "two pieces");
            show("whole", &whole);
            show("cut", &cut);
            failures++;
            cap_buffer_free(&cut);
            break;
        }
        cap_buffer_free(&cut);
    }
    free(all);
    return whole;
}

static void
expect(const char *name, const char *data, size_t len, const char *want,
       const cap_http_limits *limits)
{
    cap_buffer got = events(name, data, len, limits);
    if (got.len != strlen(want) || memcmp(got.data, want, got.len) != 0) {
        fprintf(stderr, "%s:\n  expected:\n%s", name, want);
        show("got", &got);
        failures++;
    }
    cap_buffer_free(&got);
}

/* Refused, with this beginning of "STATUS REASON" as the last event. */
static void
refused(const char *name, const char *data, size_t len, const char *want,
        const cap_http_limits *limits)
{
    cap_buffer got = events(name, data, len, limits);
    const char *last = got.data + got.len - 1;
    while (last > got.data && last[-1] != '\n')
        last--;
    size_t n = (size_t)(got.data + got.len - last);
    if (n < 6 + strlen(want) || memcmp(last, "ERROR ", 6) != 0 ||
        memcmp(last + 6, want, strlen(want)) != 0) {
        fprintf(stderr, "%s:\n  expected: ERROR %s\n", name, want);
        show("got", &got);
        failures++;
    }
    cap_buffer_free(&got);
}

#define OK(name, data, want) expect(name, data, sizeof(data) - 1, want, &defaults)
#define NO(name, data, want) refused(name, data, sizeof(data) - 1, want, &defaults)
#define H "GET / HTTP/1.1\r\nHost: h\r\n"
#define G "HEAD GET path=/ query= origin 1.1 keep\n"
#define P "POST / HTTP/1.1\r\nHost: h\r\n"
#define CH P "Transfer-Encoding: chunked\r\n\r\n"
#define CHUNKED_HEAD                                                                       \
    "HEAD POST path=/ query= origin 1.1 keep chunked\n[Host|h]\n[Transfer-Encoding|chunked]\n"

static void
request_lines(void)
{
    OK("9112 3: simple", H "\r\n", G "[Host|h]\nEND\nstart, left 0\n");
    OK("9112 3: query", "GET /a?b=c?d HTTP/1.1\r\nHost: h\r\n\r\n",
       "HEAD GET path=/a query=b=c?d origin 1.1 keep\n[Host|h]\nEND\nstart, left 0\n");
    OK("9112 3: empty query", "GET /a? HTTP/1.1\r\nHost: h\r\n\r\n",
       "HEAD GET path=/a query= origin 1.1 keep\n[Host|h]\nEND\nstart, left 0\n");
    OK("what browsers leave unescaped", "GET /|\"{}^[]`\\<> HTTP/1.1\r\nHost: h\r\n\r\n",
       "HEAD GET path=/|\"{}^[]`\\<> query= origin 1.1 keep\n[Host|h]\nEND\nstart, left 0\n");
    OK("9110 9.1: any token is a method", "B!#$%&'*+-.^_`|~9 / HTTP/1.1\r\nHost: h\r\n\r\n",
       "HEAD B!#$%&'*+-.^_`|~9 path=/ query= origin 1.1 keep\n[Host|h]\nEND\nstart, left 0\n");
    OK("9112 2.2: empty lines first", "\r\n\r\n" H "\r\n\r\n" H "\r\n",
       G "[Host|h]\nEND\n" G "[Host|h]\nEND\nstart, left 0\n");
    OK("9110 2.5: a higher minor version", "GET / HTTP/1.7\r\nHost: h\r\n\r\n",
       G "[Host|h]\nEND\nstart, left 0\n");
    OK("1.0 needs no Host, closes", "GET / HTTP/1.0\r\n\r\n",
       "HEAD GET path=/ query= origin 1.0\nEND\nstart, left 0\n");
    OK("incomplete method", "GE", "in head, left 2\n");
    OK("incomplete target", "GET /", "in head, left 5\n");
    OK("incomplete version", "GET / HTTP/1.1\r", "in head, left 15\n");
    OK("nothing", "", "start, left 0\n");
    OK("half an empty line", "\r", "start, left 1\n");

    NO("9112 2.2: too many empty lines", "\r\n\r\n\r\n\r\n\r\n" H "\r\n", "400 too many empty");
    NO("9112 2.2: bare LF first", "\n" H "\r\n", "400 bare LF");
    NO("9112 2.2: bare CR first", "\rGET / HTTP/1.1\r\n", "400 bare CR");
    NO("9112 3: space first", " GET / HTTP/1.1\r\n", "400 the method is not a token");
    NO("9112 3: no method", "\x16\x03\x01", "400 the method is not a token");
    NO("9112 3: method with a comma", "GE,T / HTTP/1.1\r\n", "400 the method is not a token");
    NO("9112 3: two spaces", "GET  / HTTP/1.1\r\n", "400 more than one space");
    NO("9112 3: two spaces behind", "GET /  HTTP/1.1\r\n", "400 the HTTP version");
    NO("9112 3: tabs", "GET\t/\tHTTP/1.1\r\n", "400 the method");
    NO("9112 3: tab behind target", "GET /\tHTTP/1.1\r\n", "400 invalid character");
    NO("9112 3: no version", "GET /\r\n\r\n", "400 the request line has no HTTP version");
    NO("9112 3: no version, LF", "GET /\n", "400 bare LF");
    NO("9112 3: no target", "GET\r\n", "400 the method");
    NO("9112 2.2: bare LF", "GET / HTTP/1.1\nHost: h\r\n\r\n", "400 bare LF");
    NO("9112 2.2: bare CR", "GET / HTTP/1.1\rHost: h\r\n\r\n", "400 bare CR");
    NO("9112 3: trailing space", "GET / HTTP/1.1 \r\n", "400 extra characters");
    NO("9112 2.3: lower-case", "GET / http/1.1\r\n", "400 the HTTP version");
    NO("9112 2.3: garbage", "GET / FTP/1.1\r\n", "400 the HTTP version");
    NO("9112 2.3: three digits", "GET / HTTP/1.10\r\n", "400 extra characters");
    NO("9112 2.3: no minor", "GET / HTTP/1\r\n", "400 the HTTP version");
    NO("9112 2.3: comma", "GET / HTTP/1,1\r\n", "400 the HTTP version");
    NO("9110 15.6.6: 2.0", "GET / HTTP/2.0\r\n", "505");
    NO("9110 15.6.6: preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505");
    NO("9110 15.6.6: 0.9", "GET / HTTP/0.9\r\n", "505");
    NO("9112 3.2: fragment", "GET /a#b HTTP/1.1\r\n", "400 the request target has a fragment");
    NO("9112 3.2: raw UTF-8", "GET /\xc3\xa9 HTTP/1.1\r\n", "400 invalid character");
    NO("9112 3.2: DEL", "GET /\x7f HTTP/1.1\r\n", "400 invalid character");
    NO("9112 3.2: NUL", "GET /\0 HTTP/1.1\r\n", "400 invalid character");
    OK("9112 3: method of 65",
       "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\nHost: h\r\n\r\n",
       "HEAD AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA path=/ query= origin "
       "1.1 keep\n[Host|h]\nEND\nstart, left 0\n");
    NO("the second of two is bad", H "\r\nGET /\r\n", "400 the request line has no HTTP version");
}

static void
targets(void)
{
    OK("9112 3.2.2", "GET http://a.b:8/c?d HTTP/1.1\r\nHost: h\r\n\r\n",
       "HEAD GET path=/c query=d authority=a.b:8 absolute 1.1 keep\n[Host|h]\nEND\n"
       "start, left 0\n");
    OK("9112 3.2.2: https, any case", "GET hTTps://A HTTP/1.1\r\nHost: h\r\n\r\n",
       "HEAD GET path= query= authority=A absolute 1.1 keep\n[Host|h]\nEND\nstart, left 0\n");
    OK("9112 3.2.2: query, no path", "GET http://[::1]?q HTTP/1.1\r\nHost: h\r\n\r\n",
       "HEAD GET path= query=q authority=[::1] absolute 1.1 keep\n[Host|h]\nEND\nstart, left 0\n");
    OK("9112 3.2.4", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
       "HEAD OPTIONS path=* query= asterisk 1.1 keep\n[Host|h]\nEND\nstart, left 0\n");
    OK("9112 3.2.3", "CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n",
       "HEAD CONNECT path= query= authority=h:443 authority 1.1 keep\n[Host|h]\nEND\n"
       "start, left 0\n");
    OK("9110 9.3.6: CONNECT is framed as all are",
       "CONNECT h:443 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab",
       "HEAD CONNECT path= query= authority=h:443 authority 1.1 keep length=2\n[Host|h]\n"
       "[Content-Length|2]\nBODY ab\nEND\nstart, left 0\n");
    OK("a path with a scheme in it", "GET /http://x/ HTTP/1.1\r\nHost: h\r\n\r\n",
       "HEAD GET path=/http://x/ query= origin 1.1 keep\n[Host|h]\nEND\nstart, left 0\n");

    NO("9112 3.2.4: GET *", "GET * HTTP/1.1\r\n", "400 the target * is for OPTIONS");
    NO("9112 3.2.4: options *", "options * HTTP/1.1\r\n", "400 the target * is for OPTIONS");
    NO("9112 3.2: **", "OPTIONS ** HTTP/1.1\r\n", "400 the request target is neither");
    NO("9112 3.2: no slash", "GET a/b HTTP/1.1\r\n", "400 the request target is neither");
    NO("9112 3.2: query only", "GET ?a HTTP/1.1\r\n", "400 the request target is neither");
    NO("9112 3.2.3: GET h:80", "GET h:80 HTTP/1.1\r\n", "400 the request target is neither");
    NO("9112 3.2.3: no port", "CONNECT h HTTP/1.1\r\n", "400 the target of CONNECT");
    NO("9110 9.3.6: empty port", "CONNECT h: HTTP/1.1\r\n", "400 the target of CONNECT");
    NO("9110 9.3.6: port 0", "CONNECT h:0 HTTP/1.1\r\n", "400 the target of CONNECT");
    OK("without a tunnel to open", "CONNECT /h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
       "HEAD CONNECT path=/h:1 query= origin 1.1 keep\n[Host|h]\nEND\nstart, left 0\n");
    NO("9112 3.2.3: URI", "CONNECT http://h:1 HTTP/1.1\r\n", "400 the target of CONNECT");
    NO("9112 3.2: one slash", "GET http:/x HTTP/1.1\r\n", "400 the request target is neither");
    NO("9112 3.2: other scheme", "GET ftp://x/ HTTP/1.1\r\n", "400 the request target is neither");
    NO("9110 4.2.1: no host", "GET http:///x HTTP/1.1\r\n", "400 the host is empty");
    NO("9110 4.2.1: port alone", "GET http://:80/ HTTP/1.1\r\n", "400 the host is empty");
    NO("9110 4.2.4: userinfo", "GET http://u:p@h/ HTTP/1.1\r\n", "400 the port is not a number");
    NO("9110 4.2.4: user", "GET http://u@h/ HTTP/1.1\r\n", "400 user information");
    NO("3986 3.2.3", "GET http://h:x/ HTTP/1.1\r\n", "400 the port is not a number");
    NO("3986 3.2.2", "GET http://h\\x/ HTTP/1.1\r\n", "400 invalid character in the host");
    NO("3986 3.5", "GET http://h/#f HTTP/1.1\r\n", "400 the request target has a fragment");
}

static void
hosts(void)
{
    static const char *const good[] = {
        "h", "h:", "h:80", "h:65535", "a-b_c.d~e", "1.2.3.4", "[::1]", "[::]:80", "[1::]",
        "[::ffff:1.2.3.4]", "[1:2:3:4:5:6:7:8]", "[1:2:3:4:5:6:1.2.3.4]", "[::2:3:4:5:6:7:8]",
        "[1:2:3:4:5:6:7::]", "%41b", "h!$&'()*+;=", "xn--bcher-kva.example", "h:0080", "",
        "h:65536", "[v1.a]", "[vF.a:b]:80",
    };
    static const char *const bad[] = {
        "h h", "h,i", "h/i", "h?i", "h#i", "u@h", "u:p@h", ":80", ":", "h:x", "[v1.]",
        "h:-1", "h:1:2", "[::1", "::1", "[:::1]", "[1]", "[1:2:3:4:5:6:7]", "[1:2:3:4:5:6:7:8:9]",
        "[1::2::3]", "[::12345]", "[::g]", "[::1%25eth0]", "[::1.2.3]", "[::1.2.3.256]",
        "[::1.2.3.04]", "[1:2:3:4:5:6:7:1.2.3.4]", "[]", "[::1]x", "[::1]:x", "h%4", "h%", "h%gg",
        "h\x80", "h\"", "<h>", "h\\i", "{h}", "h|i", "h^", "[1:2:3:4:5:6:7:8::]", "[v.a]", "[v1a]",
        "[::2:3:4:5:6:7:8:9]", "[1:]", "[:1]", "h\ti",
    };
    char data[200];
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        char want[200];
        int n = snprintf(data, sizeof(data), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", good[i]);
        snprintf(want, sizeof(want), G "[Host|%s]\nEND\nstart, left 0\n", good[i]);
        expect(good[i], data, (size_t)n, want, &defaults);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int n = snprintf(data, sizeof(data), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", bad[i]);
        refused(bad[i], data, (size_t)n, "400 Host is not", &defaults);
    }
    NO("9112 3.2: missing", "GET / HTTP/1.1\r\n\r\n", "400 Host is missing");
    NO("9112 3.2: missing beside an absolute target", "GET http://h/ HTTP/1.1\r\n\r\n",
       "400 Host is missing");
    NO("9112 3.2: equal", H "host: h\r\n\r\n", "400 Host is repeated");
    NO("9112 3.2: repeated in 1.0", "GET / HTTP/1.0\r\nHost: h\r\nHOST: h\r\n\r\n",
       "400 Host is repeated");
}

static void
fields(void)
{
    OK("9112 5: forms of a line", H "a:b\r\nC:\td \t\r\nE:\r\nF: \t \r\ng: : x\ty\r\n\r\n",
       G "[Host|h]\n[a|b]\n[C|d]\n[E|]\n[F|]\n[g|: x\ty]\nEND\nstart, left 0\n");
    OK("9110 5.5: obs-text", H "a: \x80\xff\r\n\r\n", G "[Host|h]\n[a|\x80\xff]\nEND\nstart, left 0\n");
    OK("9110 5.6.2: token", H "!#$%&'*+-.^_`|~0Az: b\r\n\r\n",
       G "[Host|h]\n[!#$%&'*+-.^_`|~0Az|b]\nEND\nstart, left 0\n");
    OK("9112 9.3: close", H "Connection: foo, Close\r\n\r\n",
       "HEAD GET path=/ query= origin 1.1\n[Host|h]\n[Connection|foo, Close]\nEND\nstart, left 0\n");
    OK("9112 9.3: close wins", H "Connection: keep-alive\r\nConnection: close\r\n\r\n" H "\r\n",
       "HEAD GET path=/ query= origin 1.1 said-keep\n[Host|h]\n[Connection|keep-alive]\n"
       "[Connection|close]\nEND\n" G "[Host|h]\nEND\nstart, left 0\n");
    OK("9112 9.3: 1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
       "HEAD GET path=/ query= origin 1.0 keep said-keep\n[Connection|Keep-Alive]\nEND\n"
       "start, left 0\n");
    OK("9110 7.6.1: close-ish", H "Connection: closed, xclose\r\n\r\n",
       G "[Host|h]\n[Connection|closed, xclose]\nEND\nstart, left 0\n");
    OK("proxy-connection says nothing", H "Proxy-Connection: close\r\n\r\n",
       G "[Host|h]\n[Proxy-Connection|close]\nEND\nstart, left 0\n");
    OK("9110 7.8: upgrade", H "Connection: Upgrade\r\nUpgrade: h2c, WebSocket\r\n\r\nGET",
       "HEAD GET path=/ query= origin 1.1 keep upgrade websocket\n[Host|h]\n[Connection|Upgrade]\n"
       "[Upgrade|h2c, WebSocket]\nEND\nin head, left 3\n");
    OK("9110 7.8: upgrade with content",
       P "Connection: upgrade\r\nUpgrade: foo\r\nContent-Length: 1\r\n\r\nx" H "\r\n",
       "HEAD POST path=/ query= origin 1.1 keep length=1 upgrade\n[Host|h]\n[Connection|upgrade]\n"
       "[Upgrade|foo]\n[Content-Length|1]\nBODY x\nEND\n" G "[Host|h]\nEND\nstart, left 0\n");
    OK("9110 7.8: upgrade not listed", H "Upgrade: websocket\r\n\r\n",
       G "[Host|h]\n[Upgrade|websocket]\nEND\nstart, left 0\n");
    OK("9110 7.8: upgrade in 1.0",
       "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
       "HEAD GET path=/ query= origin 1.0\n[Connection|upgrade]\n[Upgrade|websocket]\nEND\n"
       "start, left 0\n");
    OK("9110 10.1.1", P "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n",
       "HEAD POST path=/ query= origin 1.1 keep length=1 expect\n[Host|h]\n[Expect|100-Continue]\n"
       "[Content-Length|1]\nin body, left 0\n");
    OK("9110 10.1.1: ignored in 1.0", "GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n",
       "HEAD GET path=/ query= origin 1.0\n[Expect|100-continue]\nEND\nstart, left 0\n");
    OK("forwarded", H "x-forwarded-proto: a\r\n\r\n",
       "HEAD GET path=/ query= origin 1.1 keep forwarded\n[Host|h]\n[x-forwarded-proto|a]\nEND\n"
       "start, left 0\n");

    NO("9110 15.5.18", P "Expect: 200-ok\r\n\r\n", "417");
    NO("9110 15.5.18: empty", P "Expect:\r\n\r\n", "417");
    NO("9112 5.1: space before colon", H "a : b\r\n\r\n", "400 white space in or behind");
    NO("9112 5.1: tab before colon", H "a\t: b\r\n\r\n", "400 white space in or behind");
    NO("9112 5.1: space in a name", H "a b: c\r\n\r\n", "400 white space in or behind");
    NO("9112 2.2: space first", "GET / HTTP/1.1\r\n Host: h\r\n\r\n", "400 white space before");
    NO("9112 2.2: tab first", "GET / HTTP/1.1\r\n\tHost: h\r\n\r\n", "400 white space before");
    NO("9112 5.2: fold", H "a: b\r\n c\r\n\r\n", "400 a field line is folded");
    NO("9112 5.2: fold by tab", H "a: b\r\n\tc\r\n\r\n", "400 a field line is folded");
    NO("9112 5.2: fold of an empty value", H "a:\r\n b\r\n\r\n", "400 a field line is folded");
    NO("9112 5.2: fold, only white space", H "a: b\r\n \r\n\r\n", "400 a field line is folded");
    NO("9112 5: no colon", H "abc\r\n\r\n", "400 a field line has no colon");
    NO("9112 5: no colon first", "GET / HTTP/1.1\r\nabc\r\n\r\n", "400 a field line has no colon");
    NO("9110 5.1: no name", H ": b\r\n\r\n", "400 a field name is empty");
    NO("9110 5.1: NUL", H "a\0b: c\r\n\r\n", "400 invalid character in a field name");
    NO("9110 5.1: obs-text", H "a\x80: c\r\n\r\n", "400 invalid character in a field name");
    NO("9110 5.1: slash", H "a/b: c\r\n\r\n", "400 invalid character in a field name");
    NO("9110 5.1: quote", H "\"a\": c\r\n\r\n", "400 invalid character in a field name");
    NO("9110 5.5: NUL", H "a: b\0c\r\n\r\n", "400 invalid character in a field value");
    NO("9110 5.5: DEL", H "a: b\x7f" "c\r\n\r\n", "400 invalid character in a field value");
    NO("9110 5.5: VT", H "a: \x0b\r\n\r\n", "400 invalid character in a field value");
    NO("9110 5.5: ESC at the end", H "a: b\x1b\r\n\r\n", "400 invalid character in a field value");
    NO("9112 2.2: bare LF", H "a: b\n\r\n", "400 bare LF");
    NO("9112 2.2: bare LF, no value", H "a:\n\r\n", "400 bare LF");
    NO("9112 2.2: bare LF in a name", H "ab\nc: d\r\n\r\n", "400 bare LF");
    NO("9112 2.2: bare LF ends the head", H "\n", "400 bare LF");
    NO("9112 2.2: bare LF first", "GET / HTTP/1.1\r\n\n", "400 bare LF");
    NO("9112 2.2: bare CR", H "a: b\rc\r\n\r\n", "400 bare CR");
    NO("9112 2.2: CR CR LF", H "a: b\r\r\n\r\n", "400 bare CR");
    NO("9112 2.2: bare CR in a name", H "a\rb: c\r\n\r\n", "400 ");
    NO("9112 2.2: CR at the end", H "\rX", "400 bare CR");
    NO("9112 2.2: CR CR LF at the end", H "\r\r\n", "400 bare CR");
}

static void
lengths(void)
{
    OK("9112 6.2", P "Content-Length: 3\r\n\r\nabc" H "\r\n",
       "HEAD POST path=/ query= origin 1.1 keep length=3\n[Host|h]\n[Content-Length|3]\nBODY abc\n"
       "END\n" G "[Host|h]\nEND\nstart, left 0\n");
    OK("9112 6.2: zero", P "content-length: 0\r\n\r\n",
       "HEAD POST path=/ query= origin 1.1 keep length=0\n[Host|h]\n[content-length|0]\nEND\n"
       "start, left 0\n");
    OK("9110 8.6: leading zeros", P "Content-Length:  003 \r\n\r\nabcd",
       "HEAD POST path=/ query= origin 1.1 keep length=3\n[Host|h]\n[Content-Length|003]\n"
       "BODY abc\nEND\nin head, left 1\n");
    OK("a GET with content", H "Content-Length: 1\r\n\r\nx",
       "HEAD GET path=/ query= origin 1.1 keep length=1\n[Host|h]\n[Content-Length|1]\nBODY x\nEND\n"
       "start, left 0\n");
    OK("another name", P "Content_Length: 3\r\n\r\n",
       "HEAD POST path=/ query= origin 1.1 keep\n[Host|h]\n[Content_Length|3]\nEND\nstart, left 0\n");
    OK("incomplete", P "Content-Length: 3\r\n\r\nab",
       "HEAD POST path=/ query= origin 1.1 keep length=3\n[Host|h]\n[Content-Length|3]\nBODY ab\n"
       "in body, left 0\n");
    static const char *const bad[] = {"+3", "-3", "3 3", "3,3", "3, 3", "", "0x3", "3.0", "a",
                                      "3a", "\"3\"", "1_0", "9223372036854775808", "3;", ",3"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char data[200];
        int n = snprintf(data, sizeof(data), P "Content-Length: %s\r\n\r\nabc", bad[i]);
        refused(bad[i], data, (size_t)n, "400 Content-Length is not a number", &defaults);
    }
    NO("9112 6.3: repeated", P "Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
       "400 Content-Length is repeated");
    NO("9112 6.3: differing", P "Content-Length: 3\r\nA: b\r\ncontent-length: 4\r\n\r\n",
       "400 Content-Length is repeated");
    NO("9112 6.3: both", P "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
       "400 Content-Length and Transfer-Encoding together");
    NO("9112 6.3: both, other order", P "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
       "400 Content-Length and Transfer-Encoding together");
}

static void
codings_(void)
{
    static const struct {
        const char *value, *want;
    } bad[] = {
        {"xchunked", "400 Transfer-Encoding does not"},
        {"identity", "400 Transfer-Encoding does not"},
        {"gzip", "400 Transfer-Encoding does not"},
        {"chunked, gzip", "400 Transfer-Encoding does not"},
        {"chunked, chunked", "400 "},
        {"gzip, chunked", "501 "},
        {"identity, chunked", "501 "},
        {"gzip;q=1, chunked", "400 Transfer-Encoding is malformed"},
        {"chunked;q=1", "400 "},
        {"", "400 "},
        {", chunked", "400 Transfer-Encoding is malformed"},
        {"chunked,", "400 "},
        {"\"chunked\"", "400 "},
        {"'chunked'", "400 "},
        {"gzip chunked", "400 "},
        {"chunke", "400 "},
        {"chunked\xc2\xa0", "400 "},
        {"\xe2\x84\xaa", "400 "},
        {"chunked\r\nTransfer-Encoding: gzip", "400 "},
        {"chunked\r\nTransfer-Encoding: chunked", "400 "},
        {"gzip\r\nTransfer-Encoding: chunked", "501 "},
        {"chunked\x0b", "400 "},
    };
    char data[300];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int n = snprintf(data, sizeof(data), P "Transfer-Encoding: %s\r\n\r\n0\r\n\r\n",
                         bad[i].value);
        refused(bad[i].value, data, (size_t)n, bad[i].want, &defaults);
    }
    NO("9112 6.1: in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
       "400 Transfer-Encoding in HTTP/1.0");
    OK("9112 7: any case", P "transfer-encoding:\tChUnKeD \r\n\r\n0\r\n\r\n",
       "HEAD POST path=/ query= origin 1.1 keep chunked\n[Host|h]\n[transfer-encoding|ChUnKeD]\n"
       "END\nstart, left 0\n");
    OK("9110 5.5: white space around", P "Transfer-Encoding: \t chunked \t \r\n\r\n0\r\n\r\n",
       CHUNKED_HEAD "END\nstart, left 0\n");
    OK("9112 9.6: chunked and close",
       P "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nX",
       "HEAD POST path=/ query= origin 1.1 chunked\n[Host|h]\n[Connection|close]\n"
       "[Transfer-Encoding|chunked]\nBODY a\nEND\nin head, left 1\n");
}

static void
chunks(void)
{
    static const struct {
        const char *body, *want; /* the content */
    } good[] = {
        {"0\r\n\r\n", ""},
        {"000\r\n\r\n", ""},
        {"5\r\nhello\r\n0\r\n\r\n", "BODY hello\n"},
        {"1\r\na\r\n00a\r\n0123456789\r\n1\r\nb\r\n0\r\n\r\n", "BODY a0123456789b\n"},
        {"A\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", "BODY \r\n\r\n\r\n\r\n\r\n\n"},
        {"0000000000000001\r\na\r\n0\r\n\r\n", "BODY a\n"},
        {"1;a\r\nx\r\n0;b=c;d=\"e\"\r\n\r\n", "BODY x\n"},
        {"1;a=\"\\\"; \\\\ \xff\t\"\r\nx\r\n0\r\n\r\n", "BODY x\n"},
        {"1 \t; a = \"b\" ;c\t=\td\r\nx\r\n0\r\n\r\n", "BODY x\n"},
        {"1;a=\"\"\r\nx\r\n0\r\n\r\n", "BODY x\n"},
        {"1\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\n", "BODY x\n"},
        {"0\r\nTransfer-Encoding: gzip\r\nHost: x\r\n\r\n", ""},
        {"0\r\nTransfer-Encoding: chunked\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", ""},
        {"0\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", ""},
    };
    static const struct {
        const char *body, *want;
    } bad[] = {
        {"-5\r\n", "400 a chunk size is malformed"},
        {"+5\r\n", "400 a chunk size is malformed"},
        {"0x5\r\n", "400 a chunk size is malformed"},
        {"0_5\r\n", "400 a chunk size is malformed"},
        {"g\r\n", "400 a chunk size is malformed"},
        {"\r\n", "400 a chunk size is malformed"},
        {";a\r\n", "400 a chunk size is malformed"},
        {" 5\r\n", "400 a chunk size is malformed"},
        {"\t5\r\n", "400 a chunk size is malformed"},
        {"5h\r\n", "400 a chunk size is malformed"},
        {"5.0\r\n", "400 a chunk size is malformed"},
        {"5,\r\n", "400 a chunk size is malformed"},
        {"\xef\xbc\x95\r\n", "400 a chunk size is malformed"},
        {"5 5\r\n", "400 a chunk extension is malformed"},
        {"5 \r\nhello\r\n", "400 a chunk extension is malformed"},
        {"5\t\r\nhello\r\n", "400 a chunk extension is malformed"},
        {"5\nhello\r\n", "400 bare LF"},
        {"5\rhello\r\n", "400 bare CR"},
        {"5\r\r\nhello\r\n", "400 bare CR"},
        {"00000000000000005\r\n", "400 a chunk size has too many digits"},
        {"10000000000000005\r\n", "400 a chunk size has too many digits"},
        {"FFFFFFFFFFFFFFFF\r\n", "400 a chunk size is too large"},
        {"8000000000000000\r\n", "400 a chunk size is too large"},
        {"1\r\na\r\n7fffffffffffffff\r\n", "400 a chunk size is too large"},
        {"5;\r\nhello\r\n", "400 a chunk extension is malformed"},
        {"5;;a\r\n", "400 a chunk extension is malformed"},
        {"5;a;\r\n", "400 a chunk extension is malformed"},
        {"5;a=\r\n", "400 a chunk extension is malformed"},
        {"5;=a\r\n", "400 a chunk extension is malformed"},
        {"5;a=b=c\r\n", "400 a chunk extension is malformed"},
        {"5;a b\r\n", "400 a chunk extension is malformed"},
        {"5;a \r\n", "400 a chunk extension is malformed"},
        {"5;a=b \r\n", "400 a chunk extension is malformed"},
        {"5;a=b\"c\"\r\n", "400 a chunk extension is malformed"},
        {"5;a=\"b\"c\r\n", "400 a chunk extension is malformed"},
        {"5;a=\"b\r\nhello\r\n", "400 a chunk extension is malformed"},
        {"5;a=\"\\\r\nhello\r\n", "400 a chunk extension is malformed"},
        {"5;a\n\r\n", "400 bare LF"},
        {"5;a=\"\n\"\r\n", "400 bare LF"},
        {"5;a\rb\r\n", "400 bare CR"},
        {"5;a\x01\r\n", "400 a chunk extension is malformed"},
        {"5;a=\x80\r\n", "400 a chunk extension is malformed"},
        {"5;a=\"\x7f\"\r\n", "400 a chunk extension is malformed"},
        {"5\r\nhello0\r\n\r\n", "400 a chunk is not followed by CRLF"},
        {"5\r\nhello\n0\r\n\r\n", "400 a chunk is not followed by CRLF"},
        {"5\r\nhello\rx0\r\n\r\n", "400 a chunk is not followed by CRLF"},
        {"5\r\nhello \r\n0\r\n\r\n", "400 a chunk is not followed by CRLF"},
        {"0\n\r\n", "400 bare LF"},
        {"0\r\n\n", "400 a trailer field line is malformed"},
        {"0\r\nX", "in body"},
        {"0\r\nA : b\r\n\r\n", "400 a trailer field line is malformed"},
        {"0\r\n A: b\r\n\r\n", "400 a trailer field line is malformed"},
        {"0\r\nA: b\r\n c\r\n\r\n", "400 a trailer field line is malformed"},
        {"0\r\nA: b\n\r\n", "400 a trailer field line is malformed"},
        {"0\r\nA: b\x01\r\n\r\n", "400 a trailer field line is malformed"},
        {"0\r\nA\r\n\r\n", "400 a trailer field line is malformed"},
        {"0\r\n: b\r\n\r\n", "400 a trailer field line is malformed"},
        {"0\r\nA: b\r\n\rX", "400 a trailer field line is malformed"},
    };
    char data[400], want[400];
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        int n = snprintf(data, sizeof(data), CH "%sGET", good[i].body);
        snprintf(want, sizeof(want), CHUNKED_HEAD "%sEND\nin head, left 3\n", good[i].want);
        expect(good[i].body, data, (size_t)n, want, &defaults);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int n = snprintf(data, sizeof(data), CH "%s", bad[i].body);
        if (strcmp(bad[i].want, "in body") == 0)
            expect(bad[i].body, data, (size_t)n, CHUNKED_HEAD "in body, left 0\n", &defaults);
        else
            refused(bad[i].body, data, (size_t)n, bad[i].want, &defaults);
    }
    NO("NUL behind a size", CH "5\0\r\n", "400 a chunk size is malformed");
    NO("NUL in an extension", CH "5;a\0\r\n", "400 a chunk extension is malformed");
}

static char *
repeat(char *out, const char *text, size_t times)
{
    for (size_t i = 0; i < times; i++, out += strlen(text))
        memcpy(out, text, strlen(text));
    return out;
}

static void
limits(void)
{
    /* request line 20, head 40, 3 fields, a line 15, content 10 */
    const cap_http_limits small = {20, 40, 3, 15, 10};
#define LIM_OK(name, data, want) expect(name, data, sizeof(data) - 1, want, &small)
#define LIM_NO(name, data, want) refused(name, data, sizeof(data) - 1, want, &small)
    LIM_OK("line of 20", "GET /23456 HTTP/1.1\r\nHost: h\r\n\r\n",
           "HEAD GET path=/23456 query= origin 1.1 keep\n[Host|h]\nEND\nstart, left 0\n");
    LIM_OK("line of 20 exactly", "GET /234567 HTTP/1.1\r\nHost: h\r\n\r\n",
           "HEAD GET path=/234567 query= origin 1.1 keep\n[Host|h]\nEND\nstart, left 0\n");
    LIM_NO("line of 21", "GET /2345678 HTTP/1.1\r\nHost: h\r\n\r\n", "414");
    LIM_NO("endless target", "GET /2345678901234567", "414");
    LIM_NO("endless method", "GETGETGETGETGETGETGETGETGE", "414");
    LIM_OK("line of 15", H "A: 345678901234\r\n\r\n",
           G "[Host|h]\n[A|345678901234]\nEND\nstart, left 0\n");
    LIM_NO("line of 16", H "A: 3456789012345\r\n\r\n", "431 a field line is too long");
    LIM_NO("endless name", H "abcdefghijklmnopqrst", "431 a field line is too long");
    LIM_NO("no line at all, but too long", H "abcdefghijklmnopqrst\r\n", "431 a field line is");
    LIM_NO("a bad octet before the limit", H "ab(defghijklmnopqrst", "400 invalid");
    LIM_NO("a bad octet behind the limit", H "abcdefghijklmnop(rst: ", "431 a field line");
    LIM_OK("three lines", H "a:b\r\nc:d\r\n\r\n",
           G "[Host|h]\n[a|b]\n[c|d]\nEND\nstart, left 0\n");
    LIM_NO("four lines", H "a:b\r\nc:d\r\ne:f\r\n\r\n", "431 too many field lines");
    LIM_NO("the beginning of a fourth", H "a:b\r\nc:d\r\ne", "431 too many field lines");
    LIM_OK("40 octets", H "A: 345678901234\r\nB: 3456789\r\n\r\n",
           G "[Host|h]\n[A|345678901234]\n[B|3456789]\nEND\nstart, left 0\n");
    LIM_OK("39 octets and the end", H "A: 345678901234\r\nB: 345678\r\n\r\n",
           G "[Host|h]\n[A|345678901234]\n[B|345678]\nEND\nstart, left 0\n");
    LIM_NO("41 octets", H "A: 345678901234\r\nB: 3456789012\r\n\r\n", "431 the field lines together");
    LIM_NO("41 octets, unfinished", H "A: 345678901234\r\nB: 345678901234", "431 the field lines");
    LIM_NO("content", P "Content-Length: 11\r\n\r\n", "431 a field line");
    const cap_http_limits body = {0, 0, 0, 0, 10};
    expect("content of 10", P "Content-Length: 10\r\n\r\n", strlen(P) + 22,
           "HEAD POST path=/ query= origin 1.1 keep length=10\n[Host|h]\n[Content-Length|10]\n"
           "in body, left 0\n", &body);
    refused("content of 11", P "Content-Length: 11\r\n\r\n", strlen(P) + 22, "413", &body);
    expect("chunks of 10", CH "5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n", strlen(CH) + 25,
           CHUNKED_HEAD "BODY helloworld\nEND\nstart, left 0\n", &body);
    refused("chunks of 11", CH "5\r\nhello\r\n6\r\n", strlen(CH) + 13, "413", &body);
    refused("one chunk of 11", CH "b\r\n", strlen(CH) + 3, "413", &body);

    static char big[20000];
    char *end = repeat(big, CH, 1);
    end = repeat(end, "1;abcdefghi=jklmnopqrstu\r\nx\r\n", 200);
    refused("extensions together", big, (size_t)(end - big), "400 the chunk extensions", &defaults);
    end = repeat(repeat(big, CH, 1), "0\r\n", 1);
    end = repeat(end, "a: bcdefghijk\r\n", 600);
    cap_buffer got = {0};
    h1_trace(&got, big, (size_t)(end - big), NULL, 0, &defaults);
    REQUIRE(strstr(got.data, "ERROR 431 the trailer section is too long") != NULL);
    cap_buffer_free(&got);
    /* the default number of fields: 128 */
    end = repeat(repeat(repeat(big, H, 1), "a: b\r\n", 127), "\r\n", 1);
    h1_trace(&got, big, (size_t)(end - big), NULL, 0, &defaults);
    REQUIRE(memcmp(got.data + got.len - 18, "END\nstart, left 0\n", 18) == 0);
    cap_buffer_free(&got);
    end = repeat(repeat(repeat(big, H, 1), "a: b\r\n", 128), "\r\n", 1);
    refused("129 fields", big, (size_t)(end - big), "431 too many field lines", &defaults);
}

static void
memory(void)
{
    static char big[20000];
    char *end = repeat(repeat(repeat(big, H, 1), "a: b\r\n", 100), "\r\n", 1);
    for (long n = 1; n < 10; n++) {
        cap_buffer got = {0};
        REQUIRE(cap_buffer_reserve(&got, 100000) == 0); /* the trace itself does not fail */
        cap_mem_fail(n, 1);
        h1_trace(&got, big, (size_t)(end - big), NULL, 0, &defaults);
        cap_mem_fail(0, 0);
        /* room for 16, 32, 64 and 128 fields */
        if (n <= 4)
            REQUIRE(got.len == 24 && memcmp(got.data, "ERROR 500 out of memory\n", 24) == 0);
        else
            REQUIRE(memcmp(got.data + got.len - 18, "END\nstart, left 0\n", 18) == 0);
        cap_buffer_free(&got);
    }
}

static void
skipping(void)
{
    static const char data[] = H "\r\n";
    cap_h1_parser p;
    cap_h1_head h;
    cap_h1_out o;
    size_t used;
    cap_h1_init(&p, &defaults);
    cap_h1_head_init(&h);
    for (int i = 0; i < 3; i++) {
        REQUIRE(cap_h1_next(&p, &h, data, sizeof(data) - 1, &used, &o) == CAP_H1_HEAD);
        REQUIRE(used == sizeof(data) - 1 && o.head_off == 0);
        REQUIRE(cap_h1_next(&p, NULL, NULL, 0, &used, &o) == CAP_H1_END && used == 0);
        REQUIRE(cap_h1_request_line(&defaults, &h, data, sizeof(data) - 1) == 16);
        cap_h1_skip_head(&p);
        REQUIRE(cap_h1_in_body(&p) && !cap_h1_at_start(&p));
        REQUIRE(cap_h1_next(&p, NULL, NULL, 0, &used, &o) == CAP_H1_END && cap_h1_at_start(&p));
        REQUIRE(cap_h1_next(&p, &h, NULL, 0, &used, &o) == CAP_H1_MORE);
    }
    REQUIRE(cap_h1_next(&p, &h, "\n", 1, &used, &o) == CAP_H1_ERROR && o.status == 400);
    REQUIRE(cap_h1_next(&p, &h, data, 5, &used, &o) == CAP_H1_ERROR && o.status == 400);
    REQUIRE(used == 0 && o.reason != NULL);
    cap_h1_head_free(&h);

    /* the short way declines what is unusual */
    static const char *const odd[] = {
        "", "G", "GET", "GET ", "GET /", "GET / HTTP/1.1", "GET / HTTP/1.1\r", "GET / HTTP/1.2\r\n",
        "GET / HTTP/1.1\n\n", "GET  / HTTP/1.1\r\n", "\r\nGET / HTTP/1.1\r\n", "GET /# HTTP/1.1\r\n",
        "OPTIONS * HTTP/1.1\r\n", "GET http://h/ HTTP/1.1\r\n", "CONNECT /h:1 HTTP/1.1\r\n",
        "GET /\x80 HTTP/1.1\r\n", " / HTTP/1.1\r\n", "GET /a b HTTP/1.1\r\n"};
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        size_t n = strlen(odd[i]);
        char *copy = malloc(n + (n == 0));
        REQUIRE(copy != NULL);
        memcpy(copy, odd[i], n);
        REQUIRE(cap_h1_request_line(&defaults, &h, copy, n) == 0);
        free(copy);
    }
    const cap_http_limits small = {14, 0, 0, 0, 0};
    REQUIRE(cap_h1_request_line(&small, &h, "GET / HTTP/1.1\r\nX", 17) == 16);
    REQUIRE(cap_h1_request_line(&small, &h, "GET /a HTTP/1.1\r\nX", 18) == 0);
}

int
main(void)
{
    long blocks = cap_mem_blocks();
    request_lines();
    targets();
    hosts();
    fields();
    lengths();
    codings_();
    chunks();
    limits();
    memory();
    skipping();
    REQUIRE(cap_mem_blocks() == blocks);
    if (failures > 0)
        fprintf(stderr, "%d failed\n", failures);
    return failures > 0;
}
