"""The same bytes cut at every place give the same: TCP keeps no boundaries."""

from __future__ import annotations

import pytest

from tests.harness.journal import notes
from tests.harness.process import ServerProcess

GET = b"GET /a%20b?c=d HTTP/1.1\r\nHost: a:1\r\nX-Empty:\r\nX-Value: a b\r\n\r\n"
LENGTH = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world"
CHUNKED = (
    b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;a=b\r\nhello\r\n6\r\n world\r\n0;c\r\nX-T: u\r\n\r\n"
)
ABSOLUTE = b"\r\nOPTIONS http://h:9/x?y HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
PIPELINED = GET + LENGTH + CHUNKED + GET
REFUSED = b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n"
SMUGGLE = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"

ACCEPTED = {"get": GET, "length": LENGTH, "chunked": CHUNKED, "absolute": ABSOLUTE, "pipelined": PIPELINED}


def seen(server: ServerProcess) -> list[tuple[str, ...]]:
    keys = ("method", "raw_path", "query", "body", "headers", "complete")
    return [tuple(str(e[k]) for k in keys) for e in notes(server)]


def count(data: bytes) -> int:
    return 4 if data is PIPELINED else 1


@pytest.mark.parametrize("name", ACCEPTED)
def test_cut_once_at_every_octet(server: ServerProcess, name: str) -> None:
    data = ACCEPTED[name]
    notes(server)
    with server.connect() as c:
        c.send(data)
        assert [c.response().status for _ in range(count(data))] == [200] * count(data)
    whole = seen(server)
    assert len(whole) == count(data)
    for i in range(1, len(data)):
        with server.connect() as c:
            c.send_read(data[:i]).send(data[i:])
            assert [c.response().status for _ in range(count(data))] == [200] * count(data), i
        assert seen(server) == whole, f"cut at {i}"


@pytest.mark.parametrize("name", ACCEPTED)
def test_octet_by_octet(server: ServerProcess, name: str) -> None:
    data = ACCEPTED[name]
    notes(server)
    with server.connect() as c:
        c.send(data)
        statuses = [c.response().status for _ in range(count(data))]
    whole = seen(server)
    with server.connect() as c:
        c.send_read(*(data[i : i + 1] for i in range(len(data))))
        assert [c.response().status for _ in range(count(data))] == statuses
    assert seen(server) == whole


@pytest.mark.parametrize("data", [REFUSED, SMUGGLE], ids=["space-before-colon", "length-and-coding"])
def test_what_is_refused_is_refused_wherever_it_is_cut(server: ServerProcess, data: bytes) -> None:
    notes(server)
    for i in range(1, len(data)):
        with server.connect() as c:
            c.send_read(data[:i]).send(data[i:])
            r = c.response()
            assert (r.status, r.closes) == (400, True), i
    assert notes(server) == []


def test_two_requests_in_every_two_pieces_with_large_fields(server: ServerProcess) -> None:
    """Cuts far apart: the head outgrows any first buffer."""
    big = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"v" * 30000 + b"\r\n\r\n"
    notes(server)
    for i in range(1, len(big), 997):
        with server.connect() as c:
            c.send_read(big[:i]).send(big[i:] + GET)
            assert [c.response().status, c.response().status] == [200, 200], i
        entries = notes(server)
        assert [len(v) for n, v in entries[0]["headers"] if n == "x"] == [30000]
        assert entries[1]["raw_path"] == "/a%20b"
