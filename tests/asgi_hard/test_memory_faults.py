"""An allocation that fails while a request is handled: the process lives and serves the next one.

The server runs in a child; over a pair of sockets it is told which allocation, counted from then on, is to fail: one of
the extension's own (`_core._mem_fail`) or one of CPython's (`_testcapi.set_nomemory`).
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

PROGRAM = """
import asyncio, logging, os, socket, sys
import capicorn
from capicorn import _core

what, kind, control_fd, listening_fd = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if what == "python":
    import _testcapi
sys.unraisablehook = lambda args: None
log = logging.getLogger("capicorn.error")
log.propagate = False
log.addHandler(logging.NullHandler())
control = socket.socket(fileno=control_fd)

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "subprotocol": None, "headers": [[b"a", b"b"]]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"] * 100})
        return
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    if scope["path"] == "/raise":
        raise ValueError
    await send({"type": "http.response.start", "status": 200, "headers": iter([[b"a", b"b"], (b"server", b"x")])})
    await send({"type": "http.response.body", "body": bytearray(10), "more_body": True})
    await send({"type": "http.response.body", "body": bytes(100000)})

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)
    http = _core.HTTPServer(loop, app, logger=log, proxy_headers=lambda scope: None, timeout_keep_alive=1,
                            timeout_request_head=1, timeout_request_body=1)
    http.listen(listening_fd)
    done = loop.create_future()

    def command():
        n = int(control.recv(16) or -1)
        if n < 0:
            loop.remove_reader(control_fd)
            done.set_result(None)
            return
        if what == "core":
            _core._mem_fail(n, 1)
        elif n:
            control.send(b"k")
            _testcapi.set_nomemory(n, n + 1)
            return
        else:
            _testcapi.remove_mem_hooks()
        control.send(b"k")

    loop.add_reader(control_fd, command)
    await done
    http.cancel()
    http.close()
    await asyncio.sleep(0.2)
    os._exit(0)  # a task whose own wake-up met the failure is lost to asyncio, and never ends

with asyncio.Runner(loop_factory=capicorn.Loop if kind == "capicorn" else asyncio.new_event_loop) as runner:
    runner.run(main())
"""

WEBSOCKET = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)
GET = b"GET /a%20b?c HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nConnection: close\r\n\r\n"
REQUESTS = {
    "get": GET,
    "chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\nabc\r\n0\r\n\r\n",
    "large": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 400000\r\n\r\n" + bytes(400_000),
    "refused": b"GET / HTTP/1.1\r\n bad\r\n\r\n",
    "raise": b"GET /raise HTTP/1.1\r\nHost: a\r\n\r\n",
    "websocket": WEBSOCKET + b"\x81\x82\0\0\0\0hi\x01\x81\0\0\0\0a\x80\x81\0\0\0\0b\x88\x80\0\0\0\0",
}


class Faulty:
    """The child, and its control socket."""

    def __init__(self, what: str, kind: str) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(5)
        with theirs, socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            self.address = listening.getsockname()
            fds = (theirs.fileno(), listening.fileno())
            command = [sys.executable, "-X", "faulthandler", "-c", PROGRAM, what, kind, *map(str, fds)]
            self.process = subprocess.Popen(command, cwd=ROOT, pass_fds=fds, stderr=subprocess.PIPE)
        self.tell(0)

    def tell(self, n: int) -> None:
        self.control.send(b"%d" % n)
        with contextlib.suppress(TimeoutError):  # the answer itself may be what failed
            self.control.recv(1)

    def ask(self, data: bytes) -> bytes:
        answer = b""
        with contextlib.suppress(OSError), socket.create_connection(self.address, 3) as s:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            while piece := s.recv(1 << 20):
                answer += piece
        return answer

    def end(self) -> bytes:
        try:
            with contextlib.suppress(OSError):
                self.control.send(b"-1")
                self.control.send(b"-1")  # the first may have met the last failure
            return self.process.communicate(timeout=5)[1]
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler says where it is
            raise AssertionError(f"it did not end: {self.process.communicate()[1].decode()}") from None
        finally:
            self.process.kill()
            self.control.close()


@pytest.fixture
def faulty(request: pytest.FixtureRequest) -> Iterator[Faulty]:
    it = Faulty(*request.param)
    yield it
    it.end()


def sweep(faulty: Faulty, data: bytes, most: int) -> None:
    assert faulty.ask(GET).startswith(b"HTTP/1.1 200")
    for n in range(1, most):
        faulty.tell(n)
        faulty.ask(data)
        faulty.tell(0)
        again = faulty.ask(GET)
        if not again.startswith(b"HTTP/1.1 200 "):
            raise AssertionError(f"allocation {n}: then {again!r}, the process said {faulty.end().decode()}")
    errors = faulty.end()
    assert faulty.process.returncode == 0, errors


@pytest.mark.parametrize("faulty", [("core", "capicorn"), ("core", "asyncio")], indirect=True, ids=lambda p: p[1])
@pytest.mark.parametrize("case", REQUESTS)
def test_own_allocation_fails(faulty: Faulty, case: str) -> None:
    sweep(faulty, REQUESTS[case], 14)


@pytest.mark.parametrize("faulty", [("python", "capicorn")], indirect=True, ids=lambda p: p[1])
@pytest.mark.parametrize("case", REQUESTS)
def test_allocation_of_cpython_fails(faulty: Faulty, case: str) -> None:
    pytest.importorskip("_testcapi")
    sweep(faulty, REQUESTS[case], 36)
