"""Bounded memory both ways: who does not read makes the other side wait, not the server grow."""

from __future__ import annotations

import select
import socket
import time

import pytest

from tests.conftest import Pool
from tests.harness.client import Client
from tests.harness.process import ServerProcess

MIB = 1 << 20
GIB = 1 << 30
GROWTH = 12 * MIB
"""How much a process may grow over one connection's buffers; the kernel's do not count in it."""


@pytest.fixture
def heavy(pool: Pool) -> ServerProcess:
    server = pool(app="tests.apps.heavy:app")
    with server.connect() as c:
        for _ in range(20):
            assert c.get("/").response().status == 200
    return server


def push(c: Client, total: int, quiet: float) -> int:
    """Send `total` octets until nothing was taken for `quiet` seconds; how many were."""
    block = memoryview(bytes(1 << 20))
    sent = 0
    c.sock.setblocking(False)
    last = time.monotonic()
    while sent < total and time.monotonic() - last < quiet:
        if select.select([], [c.sock], [], 0.05)[1]:
            try:
                sent += c.sock.send(block[: min(len(block), total - sent)])
                last = time.monotonic()
            except BlockingIOError:
                continue
            except OSError:
                break
    c.sock.setblocking(True)
    c.sock.settimeout(10)
    return sent


def at(server: ServerProcess) -> int:
    with server.connect() as c:
        return int(c.get("/at").response().body)


def settled(server: ServerProcess) -> int:
    """How far /send has come once it goes no further."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 0.4:
        now = at(server)
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.02)
    return last


@pytest.mark.parametrize("chunked", [False, True])
def test_upload_that_nobody_reads_stops(heavy: ServerProcess, chunked: bool) -> None:
    """Of 1 GiB only what fits into buffers leaves the client."""
    before = heavy.rss()
    with heavy.connect() as c:
        framing = f"Transfer-Encoding: chunked\r\n\r\n{GIB:x}\r\n" if chunked else f"Content-Length: {GIB}\r\n\r\n"
        c.send("POST /ignore HTTP/1.1\r\nHost: a\r\n" + framing)
        sent = push(c, GIB, 0.5)
        grown = heavy.rss() - before
    assert sent < 64 * MIB, f"{sent / MIB:.0f} MiB were taken"
    assert grown < GROWTH, f"grew by {grown / MIB:.1f} MiB"


def test_upload_that_nobody_read_ends_with_the_response(pool: Pool) -> None:
    """The answer comes although most of the content was never taken; then the connection ends, or the rest is
    read and dropped in bounded memory."""
    server = pool("--lifespan", "on", app="tests.apps.heavy:app")
    before = server.rss()
    with server.connect() as c:
        c.send(f"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: {GIB}\r\n\r\n")
        push(c, GIB, 0.3)
        with server.connect() as other:
            assert other.get("/wake").response().status == 200
        r = c.response()
        assert r.status == 200
    assert server.rss() - before < GROWTH
    with server.connect() as c:
        assert c.get("/").response().status == 200


def test_upload_that_is_read_goes_through(heavy: ServerProcess) -> None:
    before = heavy.rss()
    size = 256 * MIB
    with heavy.connect(timeout=30) as c:
        c.send(f"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n")
        assert push(c, size, 10) == size
        assert c.response().text == str(size)
    assert heavy.rss() - before < GROWTH


def test_upload_that_is_read_slowly_waits(heavy: ServerProcess) -> None:
    before = heavy.rss()
    with heavy.connect() as c:
        c.send(f"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: {GIB}\r\n\r\n")
        end = time.monotonic() + 1.0
        sent = 0
        while time.monotonic() < end:
            sent += push(c, 4 * MIB, 0.05)
        read = at(heavy)
        grown = heavy.rss() - before
    assert grown < GROWTH, f"grew by {grown / MIB:.1f} MiB"
    assert read > 0


def test_response_that_nobody_reads_stops(heavy: ServerProcess) -> None:
    """send() waits: of 1 GiB the application has produced only what fits into buffers."""
    before = heavy.rss()
    with heavy.connect(receive_buffer=65536) as c:
        c.get(f"/send/{GIB}")
        assert c.head().status == 200
        produced = settled(heavy)
        grown = heavy.rss() - before
    assert produced < 64 * MIB, f"{produced / MIB:.0f} MiB were produced"
    end = time.monotonic() + 20  # it sends the rest into nothing, and others have their turns meanwhile
    while at(heavy) < GIB:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert grown < GROWTH, f"grew by {grown / MIB:.1f} MiB"


def test_response_goes_on_when_the_client_reads_again(heavy: ServerProcess) -> None:
    size = 64 * MIB
    with heavy.connect(receive_buffer=65536, timeout=30) as c:
        c.get(f"/send/{size}")
        assert c.head().status == 200
        stopped = settled(heavy)
        assert stopped < size
        got = len(c.buffer)
        while got < size:
            data = c.sock.recv(1 << 20)
            assert data
            got += len(data)
        assert got == size
    assert at(heavy) == size


def test_pipelined_requests_that_nobody_reads_the_responses_of(heavy: ServerProcess) -> None:
    """A client that sends requests without end and reads nothing is not read either."""
    before = heavy.rss()
    with heavy.connect(receive_buffer=4096) as c:
        request = b"GET /once/20000 HTTP/1.1\r\nHost: a\r\n\r\n" * 2000
        c.sock.setblocking(False)
        sent, last = 0, time.monotonic()
        while time.monotonic() - last < 0.5 and sent < 200 * MIB:
            try:
                sent += c.sock.send(request)
                last = time.monotonic()
            except BlockingIOError:
                select.select([], [c.sock], [], 0.1)
        grown = heavy.rss() - before
    assert sent < 64 * MIB
    assert grown < GROWTH, f"grew by {grown / MIB:.1f} MiB"


def test_one_large_message_is_given_back(heavy: ServerProcess) -> None:
    """100 MiB in one send(): written without a copy kept for ever."""
    with heavy.connect(timeout=30) as c:
        c.get(f"/once/{100 * MIB}")
        c.head()
        got = len(c.buffer)
        while got < 100 * MIB:
            got += len(c.sock.recv(1 << 20))
    with heavy.connect() as c:
        assert c.get("/").response().status == 200
    end = time.monotonic() + 5
    while heavy.rss() > 120 * MIB and time.monotonic() < end:
        time.sleep(0.05)
    assert heavy.rss() < 120 * MIB


def test_many_idle_connections_cost_little(heavy: ServerProcess) -> None:
    before = heavy.rss()
    clients: list[socket.socket] = []
    n = 400
    for _ in range(n):
        c = heavy.connect()
        assert c.get("/").response().status == 200
        clients.append(c.sock)
    grown = heavy.rss() - before
    for sock in clients:
        sock.close()
    assert grown / n < 16384, f"{grown / n:.0f} octets a connection"
