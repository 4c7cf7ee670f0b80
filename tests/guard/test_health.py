"""Health checks on an address of their own: answered whatever the loop does."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from capicorn import _core
from capicorn.config import Config
from capicorn.loop import Loop

from ..harness.process import ROOT
from .conftest import APP, Guarded, Launch, Probe, health

pytestmark = pytest.mark.ours


def raw(port: int, *pieces: bytes, timeout: float = 3.0) -> bytes:
    """All that comes back for these octets, up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout) as sock:
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(0.02)
        out = b""
        while data := sock.recv(4096):
            out += data
        return out


@pytest.fixture(scope="module")
def server() -> object:
    with Guarded(APP, "--health-bind", "127.0.0.1:0", "--health-path", "/live") as it:
        it.health_port = it.find_health()
        yield it


@pytest.mark.parametrize("path", ["/sleep", "/compute", "/hold"])
def test_a_probe_never_fails_while_the_loop_is_blocked(guarded: Launch, path: str) -> None:
    server = guarded()
    with Probe(server.health_port) as probe:
        server.ask(f"{path}?1.5")
    assert len(probe.statuses) > 10
    assert set(probe.statuses) == {200}
    assert probe.slowest < 0.5


def test_it_is_not_ready_before_the_start_and_after_the_end_has_begun(guarded: Launch) -> None:
    server = guarded(app="tests.guard.app:slow", wait=False)
    server.log.wait_for("Waiting for application startup")
    assert server.health() == (503, "not ready\n")
    server.log.wait_for("Capicorn running on")
    deadline = time.monotonic() + 1
    while server.health()[0] != 200:
        assert time.monotonic() < deadline
    server.signal(15)
    server.log.wait_for("Waiting for application shutdown")
    assert server.health()[0] == 503
    assert server.wait() in (0, -15)


REQUESTS = [
    ("GET", b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n", 200, b"ok\n"),
    ("a query", b"GET /live?full=1 HTTP/1.1\r\nHost: x\r\n\r\n", 200, b"ok\n"),
    ("HTTP/1.0", b"GET /live HTTP/1.0\r\n\r\n", 200, b"ok\n"),
    ("bare line feeds", b"GET /live HTTP/1.1\n\n", 200, b"ok\n"),
    ("HEAD", b"HEAD /live HTTP/1.1\r\nHost: x\r\n\r\n", 200, b""),
    ("other path", b"GET /livelier HTTP/1.1\r\nHost: x\r\n\r\n", 404, b"Not Found"),
    ("shorter path", b"GET /liv HTTP/1.1\r\nHost: x\r\n\r\n", 404, b"Not Found"),
    ("POST", b"POST /live HTTP/1.1\r\nHost: x\r\ncontent-length: 0\r\n\r\n", 405, b"Method Not Allowed"),
    ("no HTTP", b"hello there\r\n\r\n", 400, b"Bad Request"),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, b"Bad Request"),
    ("no version", b"GET /live\r\n\r\n", 400, b"Bad Request"),
    ("an empty line", b"\r\n\r\n", 400, b"Bad Request"),
    ("too long", b"GET /live HTTP/1.1\r\nx: " + b"y" * 4000 + b"\r\n\r\n", 431, b"Request Header Fields Too Large"),
]


@pytest.mark.parametrize(("request_", "status", "text"), [r[1:] for r in REQUESTS], ids=[r[0] for r in REQUESTS])
@pytest.mark.parametrize("pieces", [1, 5])
def test_answers(server: Guarded, request_: bytes, status: int, text: bytes, pieces: int) -> None:
    step = -(-len(request_) // pieces)
    answer = raw(server.health_port, *(request_[i : i + step] for i in range(0, len(request_), step)))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"\r\nconnection: close" in head
    assert body == text
    assert server.alive


def test_half_a_request_and_many_connections_keep_nobody_out(server: Guarded) -> None:
    before = server.descriptors()
    idle = [socket.create_connection(("127.0.0.1", server.health_port)) for _ in range(100)]
    for sock in idle:
        sock.sendall(b"GET /li")
    assert health(server.health_port, "/live") == (200, "ok\n")
    assert server.descriptors() <= before + 33
    for sock in idle:
        sock.close()
    deadline = time.monotonic() + 3
    while server.descriptors() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_client_that_says_nothing_is_dropped(server: Guarded) -> None:
    begin = time.monotonic()
    assert raw(server.health_port, timeout=8.0) == b""
    assert 4.0 < time.monotonic() - begin < 7.0


def test_it_is_no_path_of_the_application_and_not_in_the_access_log(guarded: Launch) -> None:
    server = guarded()
    mark = server.log.mark()
    assert server.health() == (200, "ok\n")
    assert server.ask("/healthz") == 200
    server.log.wait_for("GET /healthz", mark)
    assert server.log.text(mark).count("healthz") == 1


def test_workers_answer_while_all_their_loops_are_blocked(guarded: Launch) -> None:
    server = guarded("--workers", "2")
    with Probe(server.health_port) as probe:
        threads = [server.ask_soon("/sleep?1.5") for _ in range(4)]
        for thread in threads:
            thread.join()
    assert set(probe.statuses) == {200}
    assert server.stop() == 0


def test_an_address_in_use_fails_the_start_with_its_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "capicorn", APP, "--port", "0", "--health-bind", address],
            cwd=Path(ROOT),
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.returncode == 3
    assert f"health_bind: {address}: Address already in use" in done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"health_bind": "127.0.0.1:1", "health_path": "healthz"}, "should begin with /"),
        ({"health_bind": "127.0.0.1:1", "health_path": "/a b\n"}, "no path"),
        ({"health_bind": "unix:/x"}, "it should be HOST:PORT"),
        ({"health_bind": "127.0.0.1"}, "it should be HOST:PORT"),
        ({"health_bind": "127.0.0.1:99999"}, "99999"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(APP, **settings)  # type: ignore[arg-type]


def test_socket_that_accepts_no_more_does_not_keep_the_guard_busy() -> None:
    loop = Loop()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        guard = _core.Guard(loop, lambda *args: None, warn=0, health_fd=sock.fileno(), health_path="/")
        sock.shutdown(socket.SHUT_RDWR)
        begin = time.process_time()
        time.sleep(1)
        used = time.process_time() - begin
        guard.close()
    loop.close()
    assert used < 0.1
