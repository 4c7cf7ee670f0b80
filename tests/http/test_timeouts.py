"""Every limit in time: what is too slow is ended, what is only long is not. RFC 9110 15.5.9, 15.6.5."""

from __future__ import annotations

import time

import pytest

from tests.conftest import Pool
from tests.harness.client import Client, Closed, Silent
from tests.harness.journal import active, notes, wake
from tests.harness.process import ServerProcess

pytestmark = pytest.mark.ours

SHORT = 0.6


@pytest.fixture
def quick(pool: Pool) -> ServerProcess:
    """All time-outs on reading are short."""
    flags = []
    for name in ("first-byte", "request-head", "request-body", "keep-alive"):
        flags += [f"--timeout-{name}", str(SHORT)]
    return pool(*flags)


def ends_within(c: Client, low: float, high: float) -> bytes:
    """Wait for the close; returns what came before. AssertionError when it came too early or too late."""
    begin = time.monotonic()
    data = c.expect_close(high + 3)
    passed = time.monotonic() - begin
    assert low <= passed <= high, f"closed after {passed:.2f} s"
    return data


def test_connection_without_a_byte(quick: ServerProcess) -> None:
    mark = quick.log.mark()
    with quick.connect() as c:
        data = ends_within(c, SHORT * 0.7, SHORT * 2 + 1)
        assert not data or b" 408 " in data.split(b"\r\n")[0]
    assert "Traceback" not in quick.log.text(mark)


@pytest.mark.parametrize("sent", ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n", "\r\n"])
def test_head_that_does_not_end_is_408(quick: ServerProcess, sent: str) -> None:
    notes(quick)
    mark = quick.log.mark()
    with quick.connect() as c:
        c.send(sent)
        begin = time.monotonic()
        if sent == "\r\n":
            c.expect_close(5)  # not a request yet: silence is right, too
        else:
            r = c.response()
            assert (r.status, r.closes) == (408, True)
            assert r.body
            c.expect_closed_clean()
            quick.log.wait_for(f"{c.local[0]}:{c.local[1]}", after=mark)
        assert time.monotonic() - begin < SHORT * 2 + 1
    assert notes(quick) == []


def test_head_that_drips_is_408(quick: ServerProcess) -> None:
    """Progress does not help: the whole head has that time."""
    notes(quick)
    begin = time.monotonic()
    with quick.connect() as c:
        c.send("GET / HTTP/1.1\r\nHost: a\r\n")
        while time.monotonic() - begin < 5 and c.is_open(0.1):
            c.send("X: y\r\n")
        assert time.monotonic() - begin < SHORT * 2 + 1
        assert c.response().status == 408
    assert notes(quick) == []


def test_second_head_that_drips_is_408(quick: ServerProcess) -> None:
    notes(quick)
    with quick.connect() as c:
        assert c.get("/").response().status == 200
        begin = time.monotonic()
        c.send("GET / HTTP/1.1\r\nHost: a\r\n")
        while time.monotonic() - begin < 5 and c.is_open(0.1):
            c.send("X: y\r\n")
        assert time.monotonic() - begin < SHORT * 2 + 1
        assert c.response().status == 408
    notes(quick)


def test_idle_connection_is_closed_without_a_word(quick: ServerProcess) -> None:
    """RFC 9112 9.5: a 408 there would be taken for the answer to the next request."""
    with quick.connect() as c:
        assert c.get("/").response().status == 200
        assert ends_within(c, SHORT * 0.6, SHORT * 2 + 1) == b""


def test_a_request_in_time_keeps_the_connection(quick: ServerProcess) -> None:
    with quick.connect() as c:
        for _ in range(4):
            assert c.get("/").response().status == 200
            assert c.is_open(SHORT * 0.5)
    notes(quick)


@pytest.mark.parametrize("chunked", [False, True])
def test_content_that_stops_is_408(quick: ServerProcess, chunked: bool) -> None:
    notes(quick)
    framing = "Transfer-Encoding: chunked\r\n\r\n5\r\nhel" if chunked else "Content-Length: 5\r\n\r\nhel"
    with quick.connect() as c:
        c.send("POST / HTTP/1.1\r\nHost: a\r\n" + framing)
        begin = time.monotonic()
        r = c.response()
        assert time.monotonic() - begin < SHORT * 2 + 1
        assert (r.status, r.closes) == (408, True)
        c.expect_closed_clean()
    (entry,) = notes(quick)
    assert (entry["complete"], entry["disconnected"]) == (False, True)


def test_content_that_goes_on_is_read(quick: ServerProcess) -> None:
    """Slow is not stopped: each piece comes in time."""
    notes(quick)
    with quick.connect() as c:
        c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n")
        for piece in "abcdef":
            c.is_open(SHORT * 0.4)
            c.send(piece)
        assert b'"body": "abcdef"' in c.response().body
    notes(quick)


def test_a_slow_application_is_nobodys_timeout(quick: ServerProcess) -> None:
    notes(quick)
    with quick.connect() as c:
        c.get("/sleep")
        assert c.is_open(SHORT * 2.5)
        wake(quick)
        assert c.response().body == b"awake"
    notes(quick)


def test_an_application_that_reads_late_is_no_slow_client(quick: ServerProcess) -> None:
    """The content lies there; that nobody reads it is not the client's fault."""
    notes(quick)
    body = b"x" * 2_000_000
    with quick.connect() as c:
        c.sock.setblocking(False)
        head = b"POST /late HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
        c.sock.send(head)
        sent = 0
        end = time.monotonic() + SHORT * 2.5
        while time.monotonic() < end and sent < len(body):
            try:
                sent += c.sock.send(body[sent : sent + 65536])
            except BlockingIOError:
                time.sleep(0.02)
        while not active(quick)["running"]:
            pass
        assert time.monotonic() > end or sent == len(body)
        time.sleep(max(0.0, end - time.monotonic()))
        wake(quick)
        c.sock.setblocking(True)
        c.sock.settimeout(10)
        c.send(body[sent:])
        assert c.response().status == 200
    (entry,) = notes(quick)
    assert entry["length"] == len(body)


def test_client_that_takes_nothing_is_ended(pool: Pool) -> None:
    server = pool("--timeout-send", "1")
    notes(server)
    mark = server.log.mark()
    with server.connect(receive_buffer=4096) as c:
        c.get("/chunks/50000000")
        peer = f"{c.local[0]}:{c.local[1]}"
        server.log.wait_for(peer, after=mark, timeout=8)
        (entry,) = notes(server)
        assert not entry["error"], entry
        begin = time.monotonic()
        with pytest.raises(Closed):
            c.response()
        assert time.monotonic() - begin < 5


def test_client_that_takes_slowly_is_served(pool: Pool) -> None:
    server = pool("--timeout-send", "1")
    with server.connect(receive_buffer=65536) as c:
        c.get("/body/3000000")
        head = c.head()
        assert head.status == 200
        got = len(c.buffer)
        begin = time.monotonic()
        while got < 3_000_000:
            if time.monotonic() - begin < 2.5:
                time.sleep(0.1)
                data = c.sock.recv(20000)
            else:
                data = c.sock.recv(1 << 20)
            assert data, f"ended after {got} octets"
            got += len(data)
    notes(server)


def test_client_that_takes_less_than_the_kernel_holds_is_served(pool: Pool) -> None:
    """The kernel has megabytes for a connection, and tells of room when a third of them is free: a client that takes
    some octets all the time is not to be ended because that takes longer than --timeout-send."""
    server = pool("--timeout-send", "1")
    with server.connect(receive_buffer=65536) as c:
        c.get("/body/20000000")
        assert c.head().status == 200
        end = time.monotonic() + 4
        while time.monotonic() < end:
            time.sleep(0.25)
            assert c.sock.recv(40000)
    notes(server)


def test_whole_request_is_504(pool: Pool) -> None:
    server = pool("--timeout-request", str(SHORT))
    notes(server)
    mark = server.log.mark()
    with server.connect() as c:
        r = c.get("/sleep").response()
        assert (r.status, r.closes) == (504, True)
        assert r.body
        c.expect_closed_clean()
    server.log.wait_for("/sleep", after=mark)
    (entry,) = notes(server)
    assert "Cancelled" in (entry["error"] or "Cancelled")


def test_whole_request_that_has_begun_its_response_is_ended(pool: Pool) -> None:
    server = pool("--timeout-request", str(SHORT))
    notes(server)
    with server.connect() as c:
        c.get("/endless")
        with pytest.raises(Closed):
            c.response()
    notes(server)


def test_whole_request_in_time(pool: Pool) -> None:
    server = pool("--timeout-request", str(SHORT))
    with server.connect() as c:
        for _ in range(5):
            assert c.get("/").response().status == 200
    notes(server)


def test_many_idle_connections_end_in_time(quick: ServerProcess) -> None:
    clients = [quick.connect() for _ in range(100)]
    for c in clients[:50]:
        assert c.get("/empty").response().status == 200
    begin = time.monotonic()
    for c in clients:
        try:
            c.expect_close(5)
        except Silent:
            raise AssertionError("one of them stays open") from None
        c.close()
    assert time.monotonic() - begin < SHORT * 2 + 2
    notes(quick)
