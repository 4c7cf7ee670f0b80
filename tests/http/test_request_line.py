# ruff: noqa: E501 - the tables have a case a line
"""RFC 9112 section 2 and 3: methods, targets, versions, line ends."""

from __future__ import annotations

import pytest

from tests.harness.journal import notes
from tests.harness.process import ServerProcess
from tests.http.cases import A, Case, E, R, run, table

H = "\r\nHost: a\r\n\r\n"


def line(text: str) -> str:
    return text + H


@table(
    A("9112-3.1 GET", line("GET / HTTP/1.1"), ("GET", "/")),
    A("ASGI the method is told in upper case", line("get / HTTP/1.1"), ("GET", "/")),
    A("9110-9.1 a method that nobody registered", line("BREW / HTTP/1.1"), ("BREW", "/")),
    A("9110-9.1 a method with a hyphen", line("M-SEARCH / HTTP/1.1"), ("M-SEARCH", "/")),
    A("9110-5.6.2 every character of a token", line("!#$%&'*+-.^_`|~0Az / HTTP/1.1"), ("!#$%&'*+-.^_`|~0AZ", "/")),
    A("9110-9.1 a method of one letter", line("G / HTTP/1.1"), ("G", "/")),
    A("9110-9.1 a method that begins like another", line("GETS / HTTP/1.1"), ("GETS", "/")),
    A("9110-9.1 a method that another begins with", line("PO / HTTP/1.1"), ("PO", "/")),
    A("9110-9.1 a method with digits", line("GET2 / HTTP/1.1"), ("GET2", "/")),
    A("10008 QUERY with content", "QUERY /q HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", ("QUERY", "/q", "hello")),
    A("9110-9.3.8 TRACE", line("TRACE / HTTP/1.1"), ("TRACE", "/")),
    A("5789 PATCH with content", "PATCH /p HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", ("PATCH", "/p", "hi")),
    R("9110-5.6.2 @ in a method", line("G@T / HTTP/1.1")),
    R("9110-5.6.2 colon in a method", line("GET: / HTTP/1.1")),
    R("9110-5.6.2 slash in a method", line("G/T / HTTP/1.1")),
    R("9110-5.6.2 bracket in a method", line("G[T / HTTP/1.1")),
    R("9110-5.6.2 octet above 127 in a method", line("G\xc9T / HTTP/1.1")),
    R("9110-5.6.2 control character in a method", line("G\x01T / HTTP/1.1")),
    R("9110-5.6.2 NUL in a method", line("GET\0 / HTTP/1.1")),
    R("9110-9.1 a method of 20000 letters", line("A" * 20000 + " / HTTP/1.1"), 400, 414, 501),
)  # fmt: skip
def test_method(server: ServerProcess, case: Case) -> None:
    run(server, case)


@table(
    A("9112-2.2 one empty line in front", "\r\n" + line("GET / HTTP/1.1"), ("GET", "/")),
    E("9112-2.2 three empty lines in front", "\r\n\r\n\r\n" + line("GET / HTTP/1.1"), ("GET", "/")),
    E("9112-2.2 a bare LF in front", "\n" + line("GET / HTTP/1.1"), ("GET", "/")),
    R("9112-3 a space in front", " " + line("GET / HTTP/1.1")),
    R("9112-3 two spaces before the target", line("GET  / HTTP/1.1")),
    R("9112-3 two spaces before the version", line("GET /  HTTP/1.1")),
    R("9112-3 a space behind the version", line("GET / HTTP/1.1 ")),
    R("9112-3 a tab between", line("GET\t/ HTTP/1.1")),
    R("9112-3 a tab before the version", line("GET /\tHTTP/1.1")),
    R("9112-3 no version, HTTP/0.9", "GET /\r\n\r\n", 400, 505),
    R("9112-3 no target", line("GET HTTP/1.1")),
    R("9112-3 empty target", line("GET  HTTP/1.1")),
    R("9112-3 only a method", "GET\r\n\r\n"),
    R("9112-3 four words", line("GET / foo HTTP/1.1")),
    R("9112-2.2 bare LF ends the line", "GET / HTTP/1.1\nHost: a\r\n\r\n"),
    R("9112-2.2 bare LF everywhere", "GET / HTTP/1.1\nHost: a\n\n"),
    R("9112-2.2 bare CR ends the line", "GET / HTTP/1.1\rHost: a\r\n\r\n"),
    R("9112-2.2 CR inside the line", line("GET /\r HTTP/1.1")),
    R("9112-2.2 two CR end the line", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"),
    R("9112-2.2 white space behind the request line", "GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n"),
    R("9112-2.2 a folded first field", "GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n"),
    R("9112-2.2 a request of bare LF behind white space", "GET / HTTP/1.1\r\n\tHost: a\r\nHost: a\r\n\r\n"),
    R("9112-3 a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32) + b"\r\n\r\n"),
    R("9112-3 a greeting of another protocol", "SSH-2.0-OpenSSH_9.9\r\n", 400, 505),
    R("9112-3 a line of zeros", b"\0" * 64 + b"\r\n\r\n"),
    R("9113-3.4 the HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 505),
)  # fmt: skip
def test_line(server: ServerProcess, case: Case) -> None:
    run(server, case)


@table(
    A("9112-2.3 1.1", line("GET / HTTP/1.1"), ("GET", "/"), closes=False),
    A("9112-2.3 1.0", line("GET / HTTP/1.0"), ("GET", "/"), closes=True),
    A("9112-2.3 1.0 without Host", "GET / HTTP/1.0\r\n\r\n", ("GET", "/"), closes=True),
    E("9110-2.5 a later minor version", line("GET / HTTP/1.2"), ("GET", "/")),
    E("9110-2.5 minor version 9", line("GET / HTTP/1.9"), ("GET", "/")),
    R("9110-15.6.6 2.0", line("GET / HTTP/2.0"), 505, 400),
    R("9110-15.6.6 3.0", line("GET / HTTP/3.0"), 505, 400),
    R("9110-15.6.6 9.9", line("GET / HTTP/9.9"), 505, 400),
    R("9110-15.6.6 0.9", line("GET / HTTP/0.9"), 505, 400),
    R("9110-15.6.6 0.0", line("GET / HTTP/0.0"), 505, 400),
    R("9112-2.3 two digits", line("GET / HTTP/1.10")),
    R("9112-2.3 two digits in front", line("GET / HTTP/11.1")),
    R("9112-2.3 a leading zero", line("GET / HTTP/01.1")),
    R("9112-2.3 no minor version", line("GET / HTTP/1")),
    R("9112-2.3 no number", line("GET / HTTP/")),
    R("9112-2.3 lower case", line("GET / http/1.1")),
    R("9112-2.3 mixed case", line("GET / Http/1.1")),
    R("9112-2.3 comma", line("GET / HTTP/1,1")),
    R("9112-2.3 minus", line("GET / HTTP/-1.1")),
    R("9112-2.3 a third number", line("GET / HTTP/1.1.1")),
    R("9112-2.3 letters behind", line("GET / HTTP/1.1x")),
    R("9112-2.3 another protocol", line("GET / HTTPS/1.1")),
    R("9112-2.3 shorter name", line("GET / HTP/1.1")),
    R("9112-2.3 ICY", line("GET / ICY/1.0")),
    R("9112-2.3 space before the number", line("GET / HTTP/ 1.1")),
)  # fmt: skip
def test_version(server: ServerProcess, case: Case) -> None:
    run(server, case)


@table(
    A("9112-3.2.1 path", line("GET /a/b HTTP/1.1"), ("GET", "/a/b")),
    A("9112-3.2.1 encoded octets stay in raw_path", line("GET /%41%2f%20 HTTP/1.1"), ("GET", "/%41%2f%20")),
    A("9112-3.2.1 dots and slashes are left alone", line("GET //a/./b/..//c HTTP/1.1"), ("GET", "//a/./b/..//c")),
    A("3986-3.3 every character of a path", line("GET /-._~!$&'()*+,;=:@ HTTP/1.1"), ("GET", "/-._~!$&'()*+,;=:@")),
    A("9112-3.2.1 a path that looks like an authority", line("GET //h:1/x HTTP/1.1"), ("GET", "//h:1/x")),
    A("9112-3.2.1 an URI in the path", line("GET /http://h/x HTTP/1.1"), ("GET", "/http://h/x")),
    A("9112-3.2.2 absolute-form", line("GET http://b/x HTTP/1.1"), ("GET", "/x"), fields={"host": "b"}),
    A("9112-3.2.2 absolute-form with a port replaces Host", line("GET http://b:81/x HTTP/1.1"), ("GET", "/x"), fields={"host": "b:81"}),
    A("9112-3.2.2 scheme in capitals", line("GET HTTP://b/x HTTP/1.1"), ("GET", "/x"), fields={"host": "b"}),
    A("9112-3.2.2 absolute-form without a path", line("GET http://b HTTP/1.1"), ("GET", "/")),
    A("9112-3.2.2 absolute-form without a path, with a query", line("GET http://b?x=1 HTTP/1.1"), ("GET", "/")),
    A("9112-3.2.2 absolute-form with an IPv6 address", line("GET http://[::1]:81/x HTTP/1.1"), ("GET", "/x"), fields={"host": "[::1]:81"}),
    E("9112-3.2.2 absolute-form, https", line("GET https://b/x HTTP/1.1"), ("GET", "/x"), statuses=(400, 421)),
    E("9110-4.2.4 user information", line("GET http://u@b/x HTTP/1.1"), ("GET", "/x")),
    E("9112-3.2.2 another scheme", line("GET ftp://b/x HTTP/1.1"), ("GET", "/x"), statuses=(400, 421, 501)),
    A("9112-3.2.4 asterisk-form", line("OPTIONS * HTTP/1.1"), ("OPTIONS", "*")),
    R("9110-4.2.1 absolute-form without a host", line("GET http:///x HTTP/1.1")),
    R("9112-3.2.2 absolute-form with a bad port", line("GET http://b:x/y HTTP/1.1")),
    R("9112-3.2.2 absolute-form with a space", line("GET http://b /y HTTP/1.1")),
    R("9112-3.2.4 asterisk for GET", line("GET * HTTP/1.1")),
    R("9112-3.2.4 asterisk for POST", line("POST * HTTP/1.1")),
    R("9112-3.2.4 asterisk and more", line("OPTIONS *x HTTP/1.1")),
    R("9112-3.2.3 authority for GET", line("GET a:80 HTTP/1.1")),
    R("9112-3.2 no slash in front", line("GET foo HTTP/1.1")),
    R("9112-3.2 only a query", line("GET ?x=1 HTTP/1.1")),
    R("9112-3.2 fragment", line("GET /a#b HTTP/1.1")),
    R("9112-3.2 octets above 127", line("GET /\xc3\xa9 HTTP/1.1")),
    R("9112-3.2 octets above 127 in the query", line("GET /?\xc3\xa9 HTTP/1.1")),
    R("9112-3.2 control character", line("GET /\x01 HTTP/1.1")),
    R("9112-3.2 escape", line("GET /\x1b[31m HTTP/1.1")),
    R("9112-3.2 DEL", line("GET /\x7f HTTP/1.1")),
    R("9112-3.2 NUL", line("GET /a\0b HTTP/1.1")),
    R("9112-3.2 space", line("GET /a b HTTP/1.1")),
    R("9112-3.2 vertical tab", line("GET /a\x0bb HTTP/1.1")),
    E("3986-2 a backslash", line("GET /a\\b HTTP/1.1"), ("GET", "/a\\b")),
    E("3986-2 quotation marks", line('GET /"a" HTTP/1.1'), ("GET", '/"a"')),
    E("3986-2 angle brackets", line("GET /<a> HTTP/1.1"), ("GET", "/<a>")),
    E("3986-2 curly brackets and bar", line("GET /{a|b} HTTP/1.1"), ("GET", "/{a|b}")),
    E("3986-2 caret and backtick", line("GET /^` HTTP/1.1"), ("GET", "/^`")),
    E("3986-2 square brackets in the path", line("GET /a[0] HTTP/1.1"), ("GET", "/a[0]")),
    E("3986-2.1 a percent sign alone", line("GET /% HTTP/1.1"), ("GET", "/%")),
    E("3986-2.1 not hexadecimal", line("GET /%zz HTTP/1.1"), ("GET", "/%zz")),
    E("3986-2.1 an encoded NUL", line("GET /a%00b HTTP/1.1"), ("GET", "/a%00b")),
    R("9112-3 a target of 20000 octets", line("GET /" + "a" * 20000 + " HTTP/1.1"), 414),
)  # fmt: skip
def test_target(server: ServerProcess, case: Case) -> None:
    run(server, case)


@pytest.mark.parametrize("target", ["a:80", "a", "/", "http://a/", "a:", ":80", "[::1]:80", "a:80/x"])
def test_connect_is_no_tunnel(server: ServerProcess, target: str) -> None:
    """RFC 9110 9.3.6: an origin server may refuse, or let the application answer. What follows is no request
    when the answer is 2xx, and never one without an answer."""
    notes(server)
    with server.connect() as c:
        c.send(f"CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        r = c.response("GET")
        if r.status >= 400:
            assert r.closes
            c.expect_closed_clean()
    entries = notes(server)
    if r.status >= 400:
        assert not [e for e in entries if e["path"] == "/smuggled"], entries


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a?b=c", "/a", "b=c"),
        ("/a?", "/a", ""),
        ("/a?b?c", "/a", "b?c"),
        ("/a?%20+", "/a", "%20+"),
        ("/a%3Fb", "/a?b", ""),
        ("/%C3%A9", "/é", ""),
        ("/a%2Fb", "/a/b", ""),
        ("/a+b", "/a+b", ""),
        ("/a%25b", "/a%b", ""),
        ("/;a=b", "/;a=b", ""),
        ("http://b/a?b=c", "/a", "b=c"),
        ("http://b?b=c", "/", "b=c"),
    ],
)
def test_path_is_decoded_once_and_query_is_not(server: ServerProcess, target: str, path: str, query: str) -> None:
    notes(server)
    with server.connect() as c:
        assert c.get(target).response().status == 200
    (entry,) = notes(server)
    assert (entry["path"], entry["query"]) == (path, query)


def test_options_and_absolute_form_without_a_path(server: ServerProcess) -> None:
    """RFC 9112 3.2.4: what a proxy would have made `*` of; the origin itself may take it as `/`."""
    notes(server)
    with server.connect() as c:
        assert c.get("http://b", method="OPTIONS").response().status == 200
    (entry,) = notes(server)
    assert entry["path"] in ("*", "/")
