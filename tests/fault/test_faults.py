"""The n-th allocation fails, for every n within reach: the server goes on, or ends with a MemoryError of its own.
It never dies by a signal, and after the fault the next request is served."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.harness.client import Client
from tests.harness.process import ServerProcess, is_capicorn

pytestmark = [pytest.mark.ours, pytest.mark.timeout(300)]
APP = "tests.fault.app:app"
REACH = int(os.environ.get("CAPICORN_FAULT_REACH", "25"))
"""How many allocations are failed, one after the other; 300 reaches all of a request."""

NOT_OURS = "SystemError: <class 'logging.LogRecord'> returned a result with an exception set"
"""CPython's own: an allocation that fails inside of LogRecord.__init__, which is Python code."""

SCENES = {
    "get": [b"GET /empty HTTP/1.1\r\nHost: a\r\n\r\n"],
    "fields": [b"GET /body/10 HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(40)) + b"\r\n"],
    "length": [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello", b"world"],
    "chunked": [
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"0\r\nX: y\r\n\r\n",
    ],
    "stream": [b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"],
    "large": [b"GET /chunks/400000 HTTP/1.1\r\nHost: a\r\n\r\n"],
    "pipelined": [b"GET /empty HTTP/1.1\r\nHost: a\r\n\r\n" * 3 + b"GET /empty HTTP/1.1\r\nHo", b"st: a\r\n\r\n"],
    "refused": [b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n"],
    "expect": [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", b"hello"],
    "error": [b"GET /boom HTTP/1.1\r\nHost: a\r\n\r\n"],
    "idle": [],
    "big upload": [b"POST /status/200 HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n", b"x" * 300000],
}


class Patient:
    """A server that is started anew when a fault has ended it, in the way that is allowed."""

    def __init__(self) -> None:
        self.server = self.start()
        self.ends = 0

    def start(self) -> ServerProcess:
        return ServerProcess(APP, "--no-access-log")

    def check(self) -> None:
        """Alive, or ended by itself."""
        code = self.server.process.poll()
        if code is None:
            return
        ended, self.server = self.server, self.start()
        ended.wait()
        text = ended.log.text().replace(NOT_OURS, "")
        assert code >= 0, f"killed by signal {-code}:\n{text[-3000:]}"
        assert "MemoryError" in text, f"ended with {code} without a MemoryError:\n{text[-3000:]}"
        assert "SystemError" not in text, text[-3000:]
        self.ends += 1

    def ask(self, target: str) -> bool:
        """A control request on a connection of its own; was it answered with 200?"""
        try:
            with Client(self.server.address, timeout=3) as c:
                return c.get(target, "Connection: close").response().status == 200
        except (AssertionError, OSError):
            return False

    def recovered(self) -> None:
        """The fault is over; the next request is served."""
        for _ in range(20):
            if self.ask("/-/end"):
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.server.process.wait(0.5)  # it refuses connections while it is ending
            self.check()
        else:
            raise AssertionError(f"it does not answer after the fault:\n{self.server.log.text()[-3000:]}")
        assert self.ask("/-/ping")

    def play(self, pieces: list[bytes]) -> None:
        """The scene; whatever comes of it."""
        if not pieces:
            time.sleep(0.25)  # two ticks of a server that nobody asks
            return
        with contextlib.suppress(AssertionError, OSError):
            with Client(self.server.address, timeout=0.3) as c:
                for piece in pieces:
                    c.send(piece)
                    if piece is not pieces[-1]:
                        c.wait_taken(0.2)
                c.half_close()
                c.expect_close()


@pytest.fixture(scope="module")
def patient() -> Iterator[Patient]:
    if not is_capicorn():
        pytest.skip("only of this server")
    it = Patient()
    yield it
    it.server.kill()


@pytest.mark.parametrize("kind", ["core", "python"])
@pytest.mark.parametrize("scene", SCENES)
def test_nth_allocation_fails(patient: Patient, kind: str, scene: str) -> None:
    if kind == "python":
        pytest.importorskip("_testcapi")
    reach = REACH if kind == "python" else min(REACH, 40)
    strange = []
    for n in range(1, reach):
        mark = patient.server.log.mark()
        patient.ask(f"/-/{kind}?{n}")
        patient.play(SCENES[scene])
        patient.check()
        patient.recovered()
        text = patient.server.log.text(mark).replace(NOT_OURS, "")
        if "SystemError" in text or "Fatal Python error" in text:
            strange.append(f"n = {n}:\n{text[:3000]}")
    assert not strange, "\n".join(strange)[:8000]


def test_ends_are_few(patient: Patient) -> None:
    """That the server goes on is the rule."""
    print(f"ended by itself: {patient.ends}")
    assert patient.ends <= 3 * len(SCENES)
