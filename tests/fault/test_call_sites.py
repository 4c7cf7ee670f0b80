"""Each place in C that calls something fallible fails once (base/fault.h): nothing dies by a signal, and the next
request is served. Only in a build with fault points: `make faults`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.process import ROOT, Process, ServerProcess, is_capicorn
from tests.websocket.raw import BINARY, PING, TEXT, close, deflated, frame

from .test_faults import APP, SCENES, Patient

try:
    from capicorn import _core
except ImportError:  # another server is under test
    _core = None  # type: ignore[assignment]

pytestmark = [
    pytest.mark.ours,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not hasattr(_core, "_fault_arm"), reason="a build without fault points"),
]


def handshake(path: bytes, extensions: bytes = b"") -> bytes:
    return (
        b"GET " + path + b" HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: chat, other\r\n" + extensions + b"\r\n"
    )


DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
MORE_SCENES = {
    "file": [b"GET /x/file HTTP/1.1\r\nHost: a\r\n\r\n"],
    "zerocopy": [b"GET /x/zerocopy HTTP/1.1\r\nHost: a\r\n\r\n"],
    "trailers": [b"GET /x/trailers HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n"],
    "wait": [b"GET /x/wait HTTP/1.1\r\nHost: a\r\n\r\n"],
    "mistakes": [b"GET /x/mistakes HTTP/1.1\r\nHost: a\r\n\r\n"],
    "view": [b"GET /x/view HTTP/1.1\r\nHost: a\r\n\r\n"],
    "target": [b"GET http://u:p@h:80/a%20b%ff?c#d HTTP/1.1\r\nHost: h\r\nCookie: a\r\nCookie: b\r\n\r\n"],
    "old": [b"GET /empty HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"],
    "proxied": [b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\r\n"],
    "websocket": [handshake(b"/"), frame(TEXT, b"hi") + frame(BINARY, b"x" * 70000) + frame(PING, b"p"), close()],
    "pieces": [handshake(b"/"), frame(TEXT, b"a", flags=0) + frame(0, b"b"), frame(TEXT, b"\xff")],
    "deflate": [handshake(b"/", DEFLATE), frame(TEXT, deflated(b"a" * 5000), flags=0xC0), close()],
    "denied": [handshake(b"/deny")],
    "gone": [handshake(b"/"), frame(TEXT, b"hi")],
}


class Seen:
    """The file of the places that have failed."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "seen"
        self.path.touch()

    @property
    def env(self) -> dict[str, str]:
        return {"CAPICORN_FAULTS_SEEN": str(self.path)}

    def places(self) -> list[str]:
        return self.path.read_text().split()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return Seen(tmp_path_factory.mktemp("faults"))


class PatientWithSites(Patient):
    def __init__(self, seen: Seen, *options: str) -> None:
        self.seen = seen
        self.options = options
        self.ends = 0
        self.server = self.start()

    def start(self) -> ServerProcess:
        return ServerProcess(APP, *(self.options or ("--no-access-log",)), env=self.seen.env)


def fail_all(patient: PatientWithSites, pieces: list[bytes]) -> int:
    """Fail what the scene reaches, place by place, until it reaches no new one. How many were there?"""
    count = 0
    strange = []
    while count < 1000:
        before = len(patient.seen.places())
        mark = patient.server.log.mark()
        patient.ask("/-/site")
        patient.play(pieces)
        patient.check()
        patient.recovered()
        new = patient.seen.places()[before:]
        text = patient.server.log.text(mark)
        if "SystemError" in text or "Fatal Python error" in text:
            strange.append(f"{new}:\n{text[:3000]}")
        if not new:
            break
        count += len(new)
    assert not strange, "\n".join(strange)[:8000]
    return count


@pytest.mark.parametrize("scene", [*SCENES, *MORE_SCENES])
def test_each_place_that_a_request_reaches(seen: Seen, scene: str) -> None:
    if not is_capicorn():
        pytest.skip("only of this server")
    patient = PatientWithSites(seen)
    try:
        count = fail_all(patient, {**SCENES, **MORE_SCENES}[scene])
        print(f"{scene}: {count} places, ended by itself: {patient.ends}")
        assert patient.ends <= 2
    finally:
        patient.server.kill()


def test_each_place_that_a_start_reaches(seen: Seen) -> None:
    """The command: it says that memory is missing, or serves; and then it ends as asked."""
    argv = [sys.executable, "-m", "capicorn", APP, "--port", "0", "--no-access-log", "--health-bind", "127.0.0.1:0"]
    ends = 0
    for _ in range(1000):
        before = seen.places()
        process = Process(argv, env={**seen.env, "CAPICORN_FAULTS_ARMED": "1"})
        try:
            with contextlib.suppress(AssertionError):
                process.log.wait_for("running on", timeout=5)
            silent = not process.log.ended and process.log.find("running on") is None
            process.process.terminate()
            code = process.wait()
        finally:
            process.kill()
        new, text = seen.places()[len(before) :], process.log.text()
        assert not silent, f"{new}: it neither serves nor ends\n{text[-3000:]}"
        assert code in (0, 1, 2, 3, -15), f"{new}: {code}\n{text[-3000:]}"
        assert "SystemError" not in text, f"{new}:\n{text[-3000:]}"
        ends += code in (1, 2, 3)
        if not new:
            break
    print(f"ended by itself: {ends}")


def test_each_place_that_the_loop_reaches(seen: Seen) -> None:
    for _ in range(40):
        before = len(seen.places())
        argv = [sys.executable, "-m", "tests.fault.loop_scene"]
        env = {**os.environ, **seen.env, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240)
        assert done.returncode >= 0, f"killed by signal {-done.returncode}\n{done.stderr[-3000:]}"
        assert "SystemError" not in done.stderr, done.stderr[-3000:]
        print(done.stdout[-2000:], done.stderr[-1000:] if done.returncode else "", seen.places()[before:])
        if done.returncode == 0 or len(seen.places()) == before:
            assert done.returncode == 0, done.stderr[-3000:]
            return
    raise AssertionError("it goes on and on")
