"""RFC 9112 6.3 and RFC 9110: what a response looks like on the wire."""

from __future__ import annotations

import email.utils
import time

import pytest

from tests.harness.client import Closed
from tests.harness.journal import notes
from tests.harness.process import ServerProcess


def test_length_when_the_application_gives_it(server: ServerProcess) -> None:
    with server.connect() as c:
        r = c.get("/body/1000").response()
        assert (r.framing, len(r.body)) == ("length", 1000)
        assert not r.closes


def test_chunked_when_the_application_gives_no_length(server: ServerProcess) -> None:
    with server.connect() as c:
        for _ in range(3):
            r = c.get("/stream").response()
            assert (r.framing, r.body) == ("chunked", b"one,two,three")


def test_10_client_gets_no_chunks(server: ServerProcess) -> None:
    """RFC 9112 6.1: never transfer-encoding to a 1.0 client; the end of the connection delimits."""
    with server.connect() as c:
        r = c.get("/stream", version="1.0").response()
        assert (r.framing, r.body) == ("close", b"one,two,three")


def test_10_client_that_asks_for_keep_alive_gets_no_chunks(server: ServerProcess) -> None:
    with server.connect() as c:
        r = c.get("/stream", "Connection: keep-alive", version="1.0").response()
        assert (r.framing, r.body) == ("close", b"one,two,three")
        assert "keep-alive" not in [v.lower() for v in r.all("connection")], "it promised to stay and closed"


@pytest.mark.parametrize("target", ["/", "/stream", "/empty", "/body/100000", "/chunks/100000"])
def test_head_has_no_content(server: ServerProcess, target: str) -> None:
    """RFC 9110 9.3.2."""
    with server.connect() as c:
        c.get(target, method="HEAD").get("/next")
        r = c.response("HEAD")
        assert r.status == 200
        assert c.response().status == 200


def test_head_has_the_length_of_get(server: ServerProcess) -> None:
    with server.connect() as c:
        assert c.get("/body/1000", method="HEAD").response("HEAD").get("content-length") == "1000"


def test_head_on_10_closes(server: ServerProcess) -> None:
    with server.connect() as c:
        c.get("/body/1000", method="HEAD", version="1.0")
        assert c.response("HEAD").status == 200
        c.expect_closed_clean()


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_statuses_without_content(server: ServerProcess, status: int, version: str) -> None:
    """RFC 9110 15.3.5 and 15.4.5; RFC 9112 6.1: no transfer-encoding in 204."""
    with server.connect() as c:
        c.get(f"/status/{status}", "Connection: keep-alive", version=version).get("/next", version=version)
        r = c.response()
        assert r.status == status
        assert r.get("transfer-encoding") is None
        assert c.response().status == 200


@pytest.mark.parametrize(
    ("status", "phrase"),
    [(200, "OK"), (201, "Created"), (206, "Partial Content"), (301, "Moved Permanently"), (404, "Not Found"),
     (413, "Content Too Large"), (418, ""), (422, "Unprocessable Content"), (429, "Too Many Requests"),
     (500, "Internal Server Error"), (503, "Service Unavailable"), (299, ""), (599, "")],
)  # fmt: skip
def test_reason_phrases(server: ServerProcess, status: int, phrase: str) -> None:
    """RFC 9112 4: the space stays also without a phrase."""
    with server.connect() as c:
        r = c.get(f"/status/{status}").response()
        assert r.status == status
        if status in (413, 418, 422):
            return  # they were renamed, or are reserved
        assert r.reason == phrase


@pytest.mark.ours
@pytest.mark.logs("status")
@pytest.mark.parametrize("status", [600, 799, 999])
def test_statuses_above_599(server: ServerProcess, status: int) -> None:
    """RFC 9110 15: outside 100..599 is invalid, so a server may refuse; then it says so, and never garbles."""
    notes(server)
    mark = server.log.mark()
    with server.connect() as c:
        r = c.get(f"/status/{status}").response()
        assert r.status in (status, 500)
    if r.status == 500:
        server.log.wait_for("Exception in ASGI application", after=mark)
    notes(server)


def test_date_is_now(server: ServerProcess) -> None:
    """RFC 9110 6.6.1."""
    with server.connect() as c:
        date = c.get("/").response().get("date")
        assert date is not None
        then = email.utils.parsedate_to_datetime(date).timestamp()
        assert abs(time.time() - then) < 3


def test_date_goes_on(server: ServerProcess) -> None:
    """It may be made once a second; it may not stand still."""
    with server.connect() as c:
        first = c.get("/empty").response().get("date")
        end = time.monotonic() + 3
        while c.get("/empty").response().get("date") == first:
            assert time.monotonic() < end, "the date stands still"
            time.sleep(0.05)
    notes(server)


@pytest.mark.ours
def test_server_field(server: ServerProcess) -> None:
    with server.connect() as c:
        assert c.get("/").response().all("server") == ["capicorn"]


@pytest.mark.logs("boom, as the test asked")
def test_error_of_the_application_is_500_and_close(server: ServerProcess) -> None:
    mark = server.log.mark()
    with server.connect() as c:
        r = c.get("/boom").response()
        assert (r.status, r.body) == (500, b"Internal Server Error")
        assert r.get("content-type") == "text/plain; charset=utf-8"
        assert r.closes
        c.expect_closed_clean()
    server.log.wait_for("Exception in ASGI application", after=mark)
    server.log.wait_for("ValueError: boom, as the test asked", after=mark)
    notes(server)


@pytest.mark.logs("halfway, as the test asked")
def test_error_behind_the_head_ends_the_connection_unfinished(server: ServerProcess) -> None:
    """A truncated response is never taken for a whole one: no last chunk (RFC 9112 8)."""
    mark = server.log.mark()
    with server.connect() as c:
        with pytest.raises(Closed):
            c.get("/halfway").response()
    server.log.wait_for("Exception in ASGI application", after=mark)
    notes(server)


@pytest.mark.logs("halfway, as the test asked")
def test_error_behind_the_head_on_10_is_visible(server: ServerProcess) -> None:
    """Where the end of the connection delimits, only a reset tells a truncated body from a whole one; a plain
    close is all that many servers do. Not an answer that goes on, at least."""
    with server.connect() as c:
        c.get("/halfway", version="1.0")
        try:
            body = c.response().body
        except Closed:
            return
        assert body == b"the first half"
    notes(server)


@pytest.mark.logs("nothing")
def test_silent_application_is_500(server: ServerProcess) -> None:
    mark = server.log.mark()
    with server.connect() as c:
        r = c.get("/silent").response()
        assert r.status == 500
        assert r.closes
        c.expect_closed_clean()
    server.log.wait_for("ASGI callable returned without starting response.", after=mark)
    notes(server)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 1000000, 20000000])
def test_sizes_with_length(server: ServerProcess, size: int) -> None:
    with server.connect() as c:
        assert c.get(f"/body/{size}").response().body == b"x" * size


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 1000000, 20000000])
def test_sizes_with_chunks(server: ServerProcess, size: int) -> None:
    with server.connect() as c:
        assert c.get(f"/chunks/{size}").response().body == b"y" * size


@pytest.mark.parametrize("size", [0, 1, 4095, 65536, 1000000, 20000000])
@pytest.mark.parametrize("chunked", [False, True])
def test_sizes_of_requests(server: ServerProcess, size: int, chunked: bool) -> None:
    notes(server)
    body = b"b" * size
    with server.connect() as c:
        if chunked:
            c.send(b"POST /status/200 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            for i in range(0, size, 50000):
                piece = body[i : i + 50000]
                c.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            c.send(b"0\r\n\r\n")
        else:
            c.post("/status/200", body)
        assert c.response().status == 200
    (entry,) = notes(server)
    assert (entry["length"], entry["complete"]) == (size, True)
