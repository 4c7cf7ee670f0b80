# ruff: noqa: E501 - the tables have a case a line
"""RFC 9112 section 5 and RFC 9110 section 5: field lines; RFC 9112 3.2: Host."""

from __future__ import annotations

import pytest

from tests.harness.journal import notes
from tests.harness.process import ServerProcess
from tests.http.cases import A, Case, E, R, run, table


def get(*lines: str) -> str:
    return "\r\n".join(["GET / HTTP/1.1", *lines, "", ""])


def host(*values: str, version: str = "1.1") -> str:
    return "".join([f"GET / HTTP/{version}\r\n", *(f"Host: {v}\r\n" for v in values), "\r\n"])


ROOT = ("GET", "/")


@table(
    A("9112-3.2 a name", host("example.org"), ROOT, fields={"host": "example.org"}),
    A("9112-3.2 a port", host("example.org:8000"), ROOT, fields={"host": "example.org:8000"}),
    A("3986-3.2.3 an empty port", host("example.org:"), ROOT),
    A("3986-3.2.2 IPv4", host("127.0.0.1:80"), ROOT),
    A("3986-3.2.2 IPv6", host("[::1]:80"), ROOT),
    A("3986-3.2.2 IPv6 without a port", host("[2001:db8::1]"), ROOT),
    A("3986-3.2.2 an underscore", host("a_b.c"), ROOT),
    A("3986-3.2.2 a final dot", host("example.org."), ROOT),
    A("9110-5.1 names in any case", "GET / HTTP/1.1\r\nhOST: x\r\n\r\n", ROOT, fields={"host": "x"}),
    A("9112-3.2 not needed on 1.0", host(version="1.0"), ROOT),
    E("3986-3.2.2 percent-encoded", host("ex%41mple"), ROOT),
    E("3986-3.2.2 sub-delims", host("a!b$c"), ROOT),
    E("9110-7.2 empty", host(""), ROOT),
    A("3986-3.2.3 a port above 65535, which the grammar allows", host("a:65536"), ROOT),
    A("3986-3.2.3 a port beyond 2**32", host("a:4294967376"), ROOT),
    R("9112-3.2 missing", get("X: y")),
    R("9112-3.2 missing, no field at all", "GET / HTTP/1.1\r\n\r\n"),
    R("9112-3.2 missing beside absolute-form", "GET http://b/ HTTP/1.1\r\n\r\n"),
    R("9112-3.2 two", host("a", "b")),
    R("9112-3.2 the same twice", host("a", "a")),
    R("9112-3.2 two on 1.0", host("a", "b", version="1.0")),
    R("9112-3.2 a list", host("a, b")),
    R("9112-3.2 a list without a space", host("a,b@")),
    R("9112-3.2 a space inside", host("a b")),
    R("9112-3.2 a path", host("a/b")),
    R("9112-3.2 a path and query", host("a/b?c=")),
    R("9112-3.2 a query", host("a?b")),
    R("9112-3.2 a fragment", host("a#b")),
    R("9112-3.2 user information", host("u@a")),
    R("9112-3.2 a scheme", host("http://a")),
    R("9112-3.2 a backslash", host("a\\b")),
    R("9112-3.2 quotation mark", host('a"b')),
    R("9112-3.2 angle bracket", host("<a>")),
    R("9112-3.2 a port of letters", host("a:b")),
    R("9112-3.2 a negative port", host("a:-1")),
    R("9112-3.2 two ports", host("a:1:2")),
    R("9112-3.2 IPv6 without brackets", host("2001:db8::1")),
    R("9112-3.2 a bracket that does not close", host("[::1")),
    R("9112-3.2 an empty bracket", host("[]")),
    R("9112-3.2 text behind a bracket", host("[::1]x")),
    R("9112-3.2 octets above 127", host("b\xc3\xbccher")),
    R("9112-3.2 a control character", host("a\x01")),
    R("9112-3.2 NUL", host("a\0b")),
    R("9112-3.2 malformed on 1.0", host("a/b", version="1.0")),
    R("9112-5.1 space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    R("9112-5.2 folded", "GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n"),
)  # fmt: skip
def test_host(server: ServerProcess, case: Case) -> None:
    run(server, case)


def field(text: str | bytes) -> bytes:
    data = text.encode("latin-1") if isinstance(text, str) else text
    return b"GET / HTTP/1.1\r\nHost: a\r\n" + data + b"\r\n\r\n"


@table(
    A("9110-5.5 empty value", field("X:"), ROOT, fields={"x": ""}),
    A("9110-5.5 value of white space", field("X:  \t "), ROOT, fields={"x": ""}),
    A("9112-5 no white space behind the colon", field("X:y"), ROOT, fields={"x": "y"}),
    A("9112-5 white space around the value", field("X: \t y z \t"), ROOT, fields={"x": "y z"}),
    A("9110-5.5 a tab inside", field("X: a\tb"), ROOT, fields={"x": "a\tb"}),
    A("9110-5.5 obs-text", field("X: \x80\xff\xe9"), ROOT, fields={"x": "\x80\xff\xe9"}),
    A("9110-5.1 every character of a name", field("!#$%&'*+-.^_`|~0Az: y"), ROOT, fields={"!#$%&'*+-.^_`|~0az": "y"}),
    A("9110-5.1 names arrive in lower case", field("X-YyY: Zz"), ROOT, fields={"x-yyy": "Zz"}),
    A("9110-5.1 an underscore is kept", field("X_Y: z"), ROOT, fields={"x_y": "z"}),
    A("9112-5 colons in the value", field("X: a: b:c"), ROOT, fields={"x": "a: b:c"}),
    A("9110-5.6.4 quotation marks are nothing special", field('X: "a'), ROOT, fields={"x": '"a'}),
    A("9110-5.4 a value of 10000 octets", field("X: " + "y" * 10000), ROOT, fields={"x": "y" * 10000}),
    R("9112-5 no colon", field("X y")),
    R("9112-5 no name", field(": y")),
    R("9112-5 only a colon", field(":")),
    R("9112-5.1 space before the colon", field("X : y")),
    R("9112-5.1 tab before the colon", field("X\t: y")),
    R("9112-5.1 space inside the name", field("X Y: z")),
    R("9110-5.6.2 parenthesis in the name", field("X(Y): z")),
    R("9110-5.6.2 quotation mark in the name", field('"X": z')),
    R("9110-5.6.2 slash in the name", field("X/Y: z")),
    R("9110-5.6.2 at sign in the name", field("X@Y: z")),
    R("9110-5.6.2 comma in the name", field("X,Y: z")),
    R("9110-5.6.2 octets above 127 in the name", field("X\xe9: z")),
    R("9110-5.6.2 control character in the name", field("X\x01: z")),
    R("9110-5.6.2 NUL in the name", field("X\0Y: z")),
    R("9110-5.5 NUL in the value", field("X: a\0b")),
    R("9110-5.5 bare CR in the value", field("X: a\rb")),
    R("9110-5.5 bare LF in the value", field("X: a\nb: c")),
    R("9112-2.2 bare LF ends a field line", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
    R("9112-2.2 bare LF ends the last field line", b"GET / HTTP/1.1\r\nHost: a\n\r\n"),
    R("9112-2.2 bare LF for the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\n" + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("9112-2.2 CR CR LF", field("X: a\r")),
    R("CVE-2025-23167 CR and another octet for the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n"),
    R("CVE-2023-30589 a bare CR ends a field line", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rContent-Length: 3\r\n\r\nabc"),
    R("9112-5.2 a folded value", field("X: a\r\n b")),
    R("9112-5.2 folded with a tab", field("X: a\r\n\tb")),
    R("9112-5.2 a fold of white space alone", field("X: a\r\n \r\nY: b")),
    E("9110-5.5 control character in the value", field("X: a\x01b"), ROOT),
    E("9110-5.5 escape in the value", field("X: \x1b[31m"), ROOT),
    E("9110-5.5 backspace in the value", field("X: a\x08"), ROOT),
    E("9110-5.5 DEL in the value", field("X: a\x7f"), ROOT),
)  # fmt: skip
def test_field_line(server: ServerProcess, case: Case) -> None:
    run(server, case)


def test_repeated_fields_keep_their_order_and_number(server: ServerProcess) -> None:
    notes(server)
    with server.connect() as c:
        c.send(get("Host: a", "X: 1", "Cookie: a=b", "x: 2", "Cookie: c=d", "X: 3"))
        assert c.response().status == 200
    (entry,) = notes(server)
    assert entry["headers"] == [["host", "a"], ["x", "1"], ["cookie", "a=b"], ["x", "2"], ["cookie", "c=d"], ["x", "3"]]


@pytest.mark.parametrize("n", [1, 2, 60, 126])
def test_as_many_fields_as_allowed(server: ServerProcess, n: int) -> None:
    notes(server)
    with server.connect() as c:
        c.send(get("Host: a", *(f"X-{i}: {i}" for i in range(n))))
        assert c.response().status == 200
    (entry,) = notes(server)
    assert entry["headers"] == [["host", "a"], *([f"x-{i}", str(i)] for i in range(n))]


def test_fields_of_one_request_do_not_reach_the_next(server: ServerProcess) -> None:
    """Also not when a connection sends the same block again and again and then another one."""
    notes(server)
    with server.connect() as c:
        for value in ("one", "one", "one", "two", "", "one"):
            c.send(get("Host: a", *([f"X: {value}"] if value else [])))
            assert c.response().status == 200
    seen = [[v for n, v in e["headers"] if n == "x"] for e in notes(server)]
    assert seen == [["one"], ["one"], ["one"], ["two"], [], ["one"]]
