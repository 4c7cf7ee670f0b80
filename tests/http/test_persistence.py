# ruff: noqa: E501 - the tables have a case a line
"""RFC 9112 section 9: connections that stay, connections that end, requests one behind the other."""

from __future__ import annotations

import json

import pytest

from tests.harness.client import Closed
from tests.harness.journal import active, notes, wake
from tests.harness.process import ServerProcess
from tests.http.cases import A, Case, run, table


def get(version: str, *fields: str) -> str:
    return "\r\n".join([f"GET / HTTP/{version}", "Host: a", *fields, "", ""])


ROOT = ("GET", "/")


@table(
    A("9112-9.3 1.1 stays", get("1.1"), ROOT, closes=False),
    A("9112-9.3 1.1 with keep-alive stays", get("1.1", "Connection: keep-alive"), ROOT, closes=False),
    A("9112-9.6 1.1 with close ends", get("1.1", "Connection: close"), ROOT, closes=True),
    A("9110-7.6.1 options in any case", get("1.1", "Connection: CLOSE"), ROOT, closes=True),
    A("9110-7.6.1 close in a list", get("1.1", "Connection: foo, close"), ROOT, closes=True),
    A("9110-7.6.1 close in a list without spaces", get("1.1", "Connection: foo,close,bar"), ROOT, closes=True),
    A("9110-7.6.1 close in a second line", get("1.1", "Connection: foo", "Connection: close"), ROOT, closes=True),
    A("9112-9.3 close wins over keep-alive", get("1.1", "Connection: keep-alive, close"), ROOT, closes=True),
    A("9110-7.6.1 an option that is not ours", get("1.1", "Connection: closed"), ROOT, closes=False),
    A("9112-9.3 1.0 ends", get("1.0"), ROOT, closes=True),
    A("9112-9.3 1.0 with close ends", get("1.0", "Connection: close"), ROOT, closes=True),
    A("9112-9.3 1.0 with keep-alive stays", get("1.0", "Connection: keep-alive"), ROOT, closes=False),
    A("9112-9.3 1.0 with keep-alive in capitals stays", get("1.0", "Connection: Keep-Alive"), ROOT, closes=False),
    A("9112-9.3 1.0 with both ends", get("1.0", "Connection: keep-alive, close"), ROOT, closes=True),
    A("9110-7.8 upgrade to what nobody speaks", get("1.1", "Connection: upgrade", "Upgrade: foo/2"), ROOT, closes=False),
    A("9110-7.8 upgrade to h2c", get("1.1", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"), ROOT, closes=False),
    A("9110-7.8 upgrade without the option", get("1.1", "Upgrade: foo"), ROOT, closes=False),
    A("9110-7.8 upgrade on 1.0 is ignored", get("1.0", "Connection: upgrade", "Upgrade: foo"), ROOT, closes=True),
)  # fmt: skip
def test_connection(server: ServerProcess, case: Case) -> None:
    run(server, case)


def test_upgrade_of_a_request_with_content(server: ServerProcess) -> None:
    """RFC 9110 7.8: ignored, so the content is read as content and the next request as a request."""
    notes(server)
    with server.connect() as c:
        c.post("/up", b"hello", "Connection: upgrade", "Upgrade: foo").get("/next")
        assert c.response().status == 200
        assert c.response().status == 200
    assert [(e["path"], e["body"]) for e in notes(server)] == [("/up", "hello"), ("/next", "")]


@pytest.mark.parametrize("n", [2, 3, 50])
def test_pipelined_requests_are_answered_in_order(server: ServerProcess, n: int) -> None:
    notes(server)
    with server.connect() as c:
        c.send("".join(f"GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n" for i in range(n)))
        got = [json.loads(c.response().body)["path"] for i in range(n)]
    assert got == [f"/{i}" for i in range(n)]
    assert [e["path"] for e in notes(server)] == got


def test_pipelined_requests_with_content_are_answered_in_order(server: ServerProcess) -> None:
    pieces = []
    for i in range(12):
        body = f"body {i}" * i
        if i % 3 == 0:
            pieces.append(f"POST /{i} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n{body}")
        elif i % 3 == 1:
            chunk = f"{len(body):x}\r\n{body}\r\n" if body else ""
            pieces.append(
                f"POST /{i} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\nX: y\r\n\r\n"
            )
        else:
            body = ""
            pieces.append(f"GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n")
    with server.connect() as c:
        c.send("".join(pieces))
        for i in range(12):
            r = json.loads(c.response().body)
            assert (r["path"], r["body"]) == (f"/{i}", f"body {i}" * i if i % 3 < 2 else "")


def test_a_pipelined_request_waits_for_the_one_before(server: ServerProcess) -> None:
    notes(server)
    with server.connect() as c:
        c.get("/sleep").get("/second")
        c.wait_taken(1)
        while not active(server)["running"]:
            pass
        assert [e["path"] for e in active(server)["entries"]] == ["/sleep"]
        assert c.is_open()
        wake(server)
        assert c.response().body == b"awake"
        assert json.loads(c.response().body)["path"] == "/second"
    notes(server)


def test_content_that_nobody_read_is_no_request(server: ServerProcess) -> None:
    """The application answers without reading; what follows on the connection is the rest of the content."""
    notes(server)
    inner = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    with server.connect() as c:
        c.post("/early", inner).get("/next")
        assert c.response().body == b"early"
        try:
            assert json.loads(c.response().body)["path"] == "/next"
        except Closed:
            pass  # RFC 9112 9.3: it may close instead of reading on
    assert "/smuggled" not in [e["path"] for e in notes(server)]


def test_chunked_content_that_nobody_read_is_no_request(server: ServerProcess) -> None:
    notes(server)
    inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    with server.connect() as c:
        c.send(
            f"POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{len(inner):x}\r\n{inner}\r\n0\r\n\r\n"
        )
        c.get("/next")
        assert c.response().body == b"early"
        try:
            assert json.loads(c.response().body)["path"] == "/next"
        except Closed:
            pass
    assert "/smuggled" not in [e["path"] for e in notes(server)]


def test_nothing_is_read_behind_a_request_that_closes(server: ServerProcess) -> None:
    """RFC 9112 9.6: no response to what was sent behind `close`."""
    notes(server)
    with server.connect() as c:
        c.get("/one", "Connection: close").get("/two")
        assert c.response().closes
        c.expect_closed_clean()
    assert [e["path"] for e in notes(server)] == ["/one"]


def test_the_applications_close_ends_the_connection(server: ServerProcess) -> None:
    with server.connect() as c:
        c.get("/close")
        r = c.response()
        assert r.all("connection") == ["close"]
        c.expect_closed_clean()


def test_a_kept_10_connection_says_so(server: ServerProcess) -> None:
    """RFC 9112 C.2.2: the client has to be told, 1.0 does not assume it."""
    with server.connect() as c:
        c.get("/", "Connection: keep-alive", version="1.0")
        r = c.response()
        assert [v.lower() for v in r.all("connection")] == ["keep-alive"]


def test_a_kept_11_connection_does_not_say_so(server: ServerProcess) -> None:
    with server.connect() as c:
        assert c.get("/").response().all("connection") == []


def test_empty_lines_are_counted_however_they_arrive(server: ServerProcess) -> None:
    """Between two requests a connection gives its parser back; not when it has counted something."""
    with server.connect() as c, server.connect() as other:
        c.send(get("1.1"))
        assert c.response().status == 200
        for _ in range(5):
            c.send("\r\n")
            other.send(get("1.1"))  # answered behind what was read of the first
            assert other.response().status == 200
        assert c.response().status == 400


def test_a_thousand_requests_on_one_connection(server: ServerProcess) -> None:
    with server.connect() as c:
        for i in range(1000):
            c.get("/empty")
            assert c.response().status == 200, i
    notes(server)


def test_half_closed_client_gets_its_response(server: ServerProcess) -> None:
    """RFC 9112 9.6 has a server read on after its own half; the client may do the same."""
    with server.connect() as c:
        c.get("/x").half_close()
        assert json.loads(c.response().body)["path"] == "/x"
        c.expect_closed_clean()


def test_half_closed_client_gets_a_response_that_comes_later(server: ServerProcess) -> None:
    notes(server)
    with server.connect() as c:
        c.get("/sleep").half_close()
        while not active(server)["running"]:
            pass
        wake(server)
        assert c.response().body == b"awake"
        c.expect_closed_clean()
    notes(server)


def test_half_closed_client_gets_all_its_pipelined_responses(server: ServerProcess) -> None:
    with server.connect() as c:
        c.get("/1").post("/2", b"hello").get("/3").half_close()
        for path in ("/1", "/2", "/3"):
            assert json.loads(c.response().body)["path"] == path
        c.expect_closed_clean()


def test_half_closed_client_gets_a_long_response(server: ServerProcess) -> None:
    with server.connect() as c:
        c.get("/body/3000000").half_close()
        assert len(c.response().body) == 3000000
        c.expect_closed_clean()


@pytest.mark.parametrize("cut", ["GET / HT", "GET / HTTP/1.1\r\nHost: a\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhell",
                                 "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"])  # fmt: skip
def test_end_inside_a_request_is_no_request(server: ServerProcess, cut: str) -> None:
    """RFC 9112 8: an incomplete message never reaches the application as whole."""
    notes(server)
    with server.connect() as c:
        c.send(cut).half_close()
        rest = c.expect_close()
        assert not rest or b" 400 " in rest.split(b"\r\n")[0], rest
    assert not [e for e in notes(server) if e["complete"]]


def test_a_connection_without_a_byte_ends_without_a_word(server: ServerProcess) -> None:
    mark = server.log.mark()
    with server.connect() as c:
        c.half_close()
        c.expect_closed_clean()
    with server.connect() as c:
        c.get("/").response()
    assert "Traceback" not in server.log.text(mark)


@pytest.mark.parametrize(
    "sent",
    ["", "GET", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhell"],
)
def test_reset_is_survived(server: ServerProcess, sent: str) -> None:
    for _ in range(20):
        server.connect().send(sent).reset()
    with server.connect() as c:
        assert c.get("/").response().status == 200
    notes(server)


def test_reset_while_the_response_is_written(server: ServerProcess) -> None:
    for _ in range(10):
        c = server.connect().get("/chunks/10000000")
        assert c.head().status == 200
        c.reset()
    with server.connect() as c:
        assert c.get("/").response().status == 200
    notes(server)


def test_disconnect_reaches_the_application(server: ServerProcess) -> None:
    notes(server)
    c = server.connect().get("/endless")
    assert c.head().status == 200
    c.close()
    (entry,) = notes(server)
    assert entry["disconnected"]
