"""AccessLog: the text of lines, and which lines there are."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from typing import Any

import pytest

from tests.asgi_unit.bench import CLIENT, Bench

# ---------------------------------------------------------------- uvicorn's line


@pytest.mark.parametrize(
    ("client", "method", "target", "status", "expected"),
    [
        (CLIENT, "GET", b"/", 200, 'INFO:     127.0.0.1:40000 - "GET / HTTP/1.1" 200 OK\n'),
        (("::1", 5), "PUT", b"/a?b=c", 404, 'INFO:     ::1:5 - "PUT /a?b=c HTTP/1.1" 404 Not Found\n'),
        (None, "GET", b"/", 204, 'INFO:      - "GET / HTTP/1.1" 204 No Content\n'),
        (CLIENT, "OPTIONS", b"*", 200, 'INFO:     127.0.0.1:40000 - "OPTIONS * HTTP/1.1" 200 OK\n'),
        (CLIENT, "GET", b"/", 299, 'INFO:     127.0.0.1:40000 - "GET / HTTP/1.1" 299 \n'),
        (CLIENT, "GET", b"/", 999, 'INFO:     127.0.0.1:40000 - "GET / HTTP/1.1" 999 \n'),
        (CLIENT, "GET", b"/", 42, 'INFO:     127.0.0.1:40000 - "GET / HTTP/1.1" 42 \n'),
        (
            ("10.1.2.3", 0),
            "GET",
            b"/%C3%A9",
            301,
            'INFO:     10.1.2.3:0 - "GET /%C3%A9 HTTP/1.1" 301 Moved Permanently\n',
        ),
    ],
)
def test_default_line(bench: Bench, client: Any, method: str, target: bytes, status: int, expected: str) -> None:
    assert bench.line(target, client, method, status=status) == expected


def test_http_10_and_root_path(bench: Bench) -> None:
    assert bench.line(b"/x?y", root_path="/api", minor=0).endswith('"GET /api/x?y HTTP/1.0" 200 OK\n')


@pytest.mark.parametrize("colors", [False, True])
@pytest.mark.parametrize("client", [CLIENT, ("2001:db8::1", 65535), None])
def test_every_status_is_the_line_of_uvicorns_formatter(bench: Bench, colors: bool, client: Any) -> None:
    formatter = pytest.importorskip("uvicorn.logging").AccessFormatter(
        '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s', use_colors=colors
    )
    address = f"{client[0]}:{client[1]}" if client else ""
    log = bench.log(colors=colors)
    statuses = [*range(90, 620), 700, 999]
    expected = []
    for status in statuses:
        log._write(client, "DELETE", b"/a/b?q=1", status=status)
        args = (address, "DELETE", "/a/b?q=1", "1.1", status)
        record = logging.LogRecord("x", logging.INFO, "x", 1, '%s - "%s %s HTTP/%s" %d', args, None)
        expected.append(formatter.format(record))
    log.flush()
    assert bench.read().splitlines() == expected


def test_no_control_character_of_a_request_reaches_a_line(bench: Bench) -> None:
    nasty = bytes(range(256))
    headers = [(b"user-agent", nasty), (b"referer", nasty)]
    for options in ({}, {"format": "%(r)s|%(U)s|%(q)s|%(h)s|%(f)s|%(a)s|%({x}o)s"}, {"json": True}):
        line = bench.line(
            b"/" + nasty,
            ('1.2.3.4\x1b[31m\r\n\xe9"\\', 1),
            "GE\x07T",
            log=options,
            request_headers=headers,
            response_headers=[(b"X", nasty)],
        )
        assert line.count("\n") == 1 and line.endswith("\n")
        assert all(" " <= c <= "~" for c in line[:-1])


def test_escapes_are_unambiguous(bench: Bench) -> None:
    line = bench.line(b'/\x1b\\x1b"\x80', ("h\n", 1))
    assert line == 'INFO:     h\\x0a:1 - "GET /\\x1b%5Cx1b%22\\x80 HTTP/1.1" 200 OK\n'


def test_client_that_is_no_host_and_port(bench: Bench) -> None:
    assert bench.line(client=("unix:",)).startswith("INFO:     unix: - ")
    assert bench.line(client=("\ud800", 1)).startswith("INFO:     ?:1 - ")
    assert bench.line(client=("h", 1 << 80)).startswith("INFO:     h - ")
    assert bench.line(client=()).startswith("INFO:      - ")


def test_prefix_and_its_colour(bench: Bench) -> None:
    assert bench.line(log={"prefix": ""}).startswith("127.0.0.1:40000 - ")
    assert bench.line(log={"prefix": "x ", "colors": True}).startswith("x 127.0.0.1:40000 - ")
    assert bench.line(log={"colors": True}) == (
        '\x1b[32mINFO\x1b[0m:     127.0.0.1:40000 - "\x1b[1mGET / HTTP/1.1\x1b[0m" \x1b[32m200 OK\x1b[0m\n'
    )


# ---------------------------------------------------------------- formats

REQUEST = [
    (b"host", b"h"),
    (b"referer", b'http://r/"x"'),
    (b"user-agent", b"agent \\ 1\t"),
    (b"x-two", b"a"),
    (b"x-two", b"b"),
    (b"authorization", b"Basic dXNlcjpwYXNz"),
]
RESPONSE = [(b"Content-Type", b"text/plain"), [b"x-o", b"1"]]


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("", ""),
        ("100%% %(h)s", "100% 127.0.0.1"),
        ("%(l)s %(u)s", "- user"),
        ('"%(r)s"', '"POST /api/p/x?a=1&b HTTP/1.1"'),
        ("%(m)s %(U)s %(q)s %(H)s", "POST /api/p/x a=1&b HTTP/1.1"),
        ("%(s)s %(s)d %(st)s %(status_code)s", "201 201 Created 201 Created"),
        ("%(B)s %(b)s %(B)d", "1234 1234 1234"),
        ("%(f)s", "http://r/\\x22x\\x22"),
        ("%(a)s", "agent \\x5c 1\\x09"),
        ("%(T)s %(D)s %(M)s %(L)s", "2 2345678 2345 2.345678"),
        ("%(dt_ms).3f %(dt_ms)s %(dt_ms).0f", "2345.679 2345.678901 2346"),
        ("%({Host}i)s %({X-Two}i)s %({nope}i)s", "h a, b -"),
        ("%({content-type}o)s %({X-O}o)s %({nope}o)s", "text/plain 1 -"),
        ("%({CAPICORN_TEST_VALUE}e)s %({CAPICORN_NOT_SET}e)s", "v\\x0a -"),
        ("%({REMOTE_ADDR}e)s %({http_x_two}e)s %({raw_uri}e)s", "127.0.0.1 a, b /api/p/x?a=1&b"),
        (
            "%(addr)s %(method)s %(path)s %(query_string)s %(protocol)s %(status)d",
            "127.0.0.1 POST /api/p/x a=1&b HTTP/1.1 201",
        ),
        ("%(client_addr)s %(request_line)s", "127.0.0.1:40000 POST /api/p/x?a=1&b HTTP/1.1"),
        ("[%(m)8s][%(m)-8s][%(U).4s][%(m)6.2s]", "[    POST][POST    ][/api][    PO]"),
        ("[%({CAPICORN_TEST_VALUE}e)-6s]x", "[v\\x0a ]x"),
    ],
)
def test_atoms(bench: Bench, monkeypatch: pytest.MonkeyPatch, format: str, expected: str) -> None:
    monkeypatch.setenv("CAPICORN_TEST_VALUE", "v\n")
    line = bench.line(
        b"/p/x?a=1&b",
        method="POST",
        root_path="/api",
        status=201,
        body_octets=1234,
        duration_ns=2_345_678_901,
        request_headers=REQUEST,
        response_headers=RESPONSE,
        log={"format": format},
    )
    assert line == expected + "\n"


def test_atoms_with_nothing_to_say(bench: Bench) -> None:
    line = bench.line(
        b"/", None, log={"format": "%(h)s %(client_addr)s %(u)s %(q)s|%(b)s %(B)s %(f)s %({a}i)s %({a}o)s"}
    )
    assert line == "- - - |- 0 - - -\n"


@pytest.mark.parametrize(
    ("value", "user"),
    [(b"basic  dTo=", "u"), (b"Basic OnA=", "-"), (b"Basic !!!", "-"), (b"Basic dXNlcg==", "-"), (b"Bearer eDp5", "-"),
     (b"Basic", "-"), (b"Basic ", "-"), (b"Basic IgpiOnA=", "\\x22\\x0ab"), (b"Basic " + b"YTph" * 5000, "-")],
)  # fmt: skip
def test_user_of_basic_credentials(bench: Bench, value: bytes, user: str) -> None:
    assert bench.line(request_headers=[(b"authorization", value)], log={"format": "%(u)s"}) == user + "\n"


def test_time_and_pid(bench: Bench) -> None:
    before = time.time() - 1
    clf, iso, pid = bench.line(log={"format": "%(t)s|%(time)s|%(p)s"}).rstrip("\n").split("|")
    for text, form in ((clf, "[%d/%b/%Y:%H:%M:%S %z]"), (iso, "%Y-%m-%d %H:%M:%S %z")):
        assert before <= time.mktime(time.strptime(text, form)) <= time.time() + 1
    assert pid == f"<{os.getpid()}>"


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("%(x)s", "unknown atom 'x'"),
        ("ok %(nope)s", "unknown atom 'nope'"),
        ("%({a}x)s", "unknown atom '{a}x'"),
        ("%(h", "no \\) ends '%\\(h'"),
        ("%h", "neither an atom nor %%, at '%h'"),
        ("50%", "neither an atom nor %%, at '%'"),
        ("%(h)", "conversion"),
        ("%(h)d", "conversion"),
        ("%(D)f", "conversion"),
        ("%(h)9999s", "conversion"),
        ("%({}i)s", "braces"),
        ("%(h)s\n", "line end"),
        ("a\0b", "NUL"),
    ],
)
def test_format_that_cannot_be_is_a_value_error_that_says_where(bench: Bench, format: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bench.log(format=format)


def test_arguments_that_cannot_be(bench: Bench) -> None:
    with pytest.raises(ValueError, match="not both"):
        bench.log(format="x", json=True)
    with pytest.raises(TypeError, match="format must be str or None, not bytes"):
        bench.log(format=b"x")
    with pytest.raises(TypeError, match="exclude must be a sequence"):
        bench.log(exclude="/health")
    with pytest.raises(TypeError, match="exclude must hold str, not int"):
        bench.log(exclude=["/", 1])
    with pytest.raises(UnicodeEncodeError):
        bench.log(format="\ud800")


@pytest.mark.parametrize(
    ("options", "at_start"),
    [
        ({}, True),
        ({"format": "%(h)s %(r)s %(s)s %({a}i)s"}, True),
        ({"format": "%(b)s"}, False),
        ({"format": "%(D)s"}, False),
        ({"format": "%({x}o)s"}, False),
        ({"json": True}, False),
    ],
)
def test_a_line_waits_for_the_responses_end_only_when_it_has_to(bench: Bench, options: Any, at_start: bool) -> None:
    assert bench.log(**options).at_start is at_start


def test_json_line(bench: Bench) -> None:
    line = bench.line(
        b"/p?q=1",
        root_path="/r",
        status=404,
        body_octets=9,
        duration_ns=1_234_567,
        request_headers=REQUEST,
        log={"json": True},
    )
    data = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", data.pop("time"))
    assert data == {
        "client": "127.0.0.1",
        "client_port": 40000,
        "method": "GET",
        "path": "/r/p",
        "query": "q=1",
        "protocol": "HTTP/1.1",
        "status": 404,
        "bytes": 9,
        "duration_ms": 1.234,
        "referer": 'http://r/"x"',
        "user_agent": "agent \\ 1\t",
        "request_id": None,
    }
    assert line.startswith('{"time": "')


def test_json_is_valid_for_any_octets(bench: Bench) -> None:
    nasty = bytes(range(256))
    host = '\x00\xe9\u20ac\U0001f600\ud800"\\'
    line = bench.line(b"/" + nasty, (host, 1), request_headers=[(b"user-agent", nasty)], log={"json": True})
    data = json.loads(line)
    path, _, query = ("/" + nasty.decode("latin-1")).partition("?")
    assert (data["path"], data["query"], data["user_agent"]) == (path, query, nasty.decode("latin-1"))
    assert data["client"] == host


def test_json_of_a_unix_client(bench: Bench) -> None:
    data = json.loads(bench.line(client=None, log={"json": True}))
    assert data["client"] is None and data["client_port"] is None


# ---------------------------------------------------------------- what is left out


@pytest.mark.parametrize(
    ("target", "root_path", "logged"),
    [
        (b"/health", "", False),
        (b"/health?full=1", "", False),
        (b"/health/", "", True),
        (b"/healt", "", True),
        (b"/metrics", "", False),
        (b"/metrics/cpu?x", "", False),
        (b"/metric", "", True),
        (b"/?/health", "", True),
        (b"/health", "/api", False),
        (b"/v1", "/api", False),
        (b"/v1x", "/api", True),
        (b"/v1", "", True),
        (b"/deep/x", "/api", False),
    ],
)
def test_excluded_paths(bench: Bench, target: bytes, root_path: str, logged: bool) -> None:
    exclude = ["/health", "/metrics*", "/api/v1", "/api/deep*"]
    assert bool(bench.line(target, root_path=root_path, log={"exclude": exclude})) is logged


def test_a_star_excludes_all_and_nothing_excludes_nothing(bench: Bench) -> None:
    assert bench.line(log={"exclude": ["*"]}) == ""
    assert bench.line(log={"exclude": ["", "x"]}) != ""
