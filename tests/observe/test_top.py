"""`capicorn top`, in a terminal of 80 columns and 24 lines."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from capicorn import top

from ..harness.process import ROOT
from .conftest import Launch

pytestmark = pytest.mark.ours
pytest.importorskip("rich")


class Terminal:
    """`capicorn top` inside; `text()` is all that was written to it."""

    def __init__(self, *arguments: str, columns: int = 80, lines: int = 24) -> None:
        import fcntl
        import termios

        self.fd, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "capicorn", "top", *arguments],
            cwd=ROOT,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""},
            start_new_session=True,
        )
        os.close(inside)
        self._got = b""

    def text(self) -> str:
        while select.select([self.fd], [], [], 0)[0]:
            try:
                piece = os.read(self.fd, 65536)
            except OSError:
                break
            if not piece:
                break
            self._got += piece
        return self._got.decode("utf-8", "replace")

    def wait_for(self, pattern: str, timeout: float = 10.0) -> re.Match[str]:
        end = time.monotonic() + timeout
        while True:
            if m := re.search(pattern, self.text()):
                return m
            assert time.monotonic() < end, self.text()[-3000:]
            time.sleep(0.02)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)


@pytest.fixture
def terminal() -> Iterator[Any]:
    opened: list[Terminal] = []

    def go(*arguments: str, **more: int) -> Terminal:
        opened.append(Terminal(*arguments, **more))
        return opened[-1]

    yield go
    for one in opened:
        one.close()


def test_it_shows_rates_and_what_blocks_and_ends_with_q(served: Launch, terminal: Any) -> None:
    server = served("--workers", "2", "--block-warn", "0.2")
    screen = terminal("--pid", str(server.pid), "--delay", "0.3")
    screen.wait_for(rf"pid {server.pid}")
    for _ in range(30):
        server.ask("/")
    screen.wait_for(r"req/s +[1-9]")
    thread = server.ask_soon("/block/this?3")
    screen.wait_for(r"\x1b\[[0-9;]*31m *\d+ blocked ")
    screen.wait_for(r"GET /block/this  BLOCKS [\d.]+ m?s at observe/app.py:\d+ \(app\)")
    os.write(screen.fd, b"q")
    assert screen.process.wait(5) == 0
    assert "\x1b[?1049l" in screen.text(), "the screen before is back"
    thread.join()


def test_ctrl_c_ends_it_too(served: Launch, terminal: Any) -> None:
    server = served()
    screen = terminal("--pid", str(server.pid))
    screen.wait_for(rf"pid {server.pid}")
    os.write(screen.fd, b"\x03")
    screen.process.send_signal(signal.SIGINT)  # it may not be the terminal's foreground process
    assert screen.process.wait(5) == 0
    assert "Traceback" not in screen.text()


def test_it_says_that_the_server_has_ended(served: Launch, terminal: Any) -> None:
    server = served()
    screen = terminal("--pid", str(server.pid), "--delay", "0.2")
    screen.wait_for(rf"pid {server.pid}")
    server.stop()
    screen.wait_for(r"The server has ended: process \d+ does not run any more\.")
    assert screen.process.wait(5) == 1


def test_without_a_terminal_it_names_the_command_that_needs_none() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "capicorn", "top"], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 1 and "capicorn status prints the same once" in done.stderr


def test_without_rich_it_names_the_extra() -> None:
    program = "import sys; sys.modules['rich'] = None; from capicorn.cli import main; main(['top'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1 and "pip install 'capicorn[standard]'" in done.stderr and "Traceback" not in done.stderr


def worker(number: int, **more: Any) -> dict[str, Any]:
    requests = [{"method": "GET", "path": f"/{number}/{at}", "age": at + 0.5, "websocket": False} for at in range(8)]
    return {
        "pid": 4000000 + number, "generation": 1, "state": "serving", "beat_age": 0.5, "age": 3.0e6, "connections": 123456,
        "requests": 99999, "total_requests": 10**12, "total_connections": 10, "threads": 400, "threads_busy": 399,
        "threads_queued": 120, "lag": 0.0009, "resident": 5 * 10**10, "awake": 0.0, "running": "", "place": "",
        "tally": {"errors": 123456789}, "listed": requests, "not_listed": 3,
    } | more  # fmt: skip


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 10), (60, 40), (200, 60)])
@pytest.mark.parametrize("number", [1, 4, 30])
def test_the_picture_fits_whatever_the_numbers_are(width: int, height: int, number: int) -> None:
    tally = {
        "requests": 10**13, "connections": 10**9, "websockets": 3, "status": (5, 10**12, 10**9, 10**8, 10**7), "errors": 10**6,
        "aborted": 10**7, "octets_in": 10**15, "octets_out": 10**16, "buckets": (10**11,) * 14, "seconds": 1.0e9,
        "blocks": 10**5, "blocked": 1.0e6, "longest_block": 3600.0,
    }  # fmt: skip
    workers = [worker(at) for at in range(number)]
    workers[-1] |= {
        "state": "blocked",
        "awake": 99.0,
        "running": "GET /" + "x" * 90,
        "place": "/" + "a/b" * 50 + ".py:9 (f)",
    }
    before = {
        "pid": 4194303, "version": "0.1.0", "app": "package.module.and.more:application.with.a.long.name", "uptime": 9e6,
        "binds": ["http://[2001:db8::1]:65535"] * 5, "supervised": True, "workers_wanted": 32, "workers_ended": 1234,
        "connections": 10**6, "requests": 10**6, "quantiles": {"0.5": 0.001, "0.95": 0.0025, "0.99": None},
        "total": {name: (0,) * len(n) if isinstance(n, tuple) else 0 for name, n in tally.items()}, "workers": [],
    }  # fmt: skip
    rates = top.Rates()
    rates.note(before, 1.0)
    seen = {**before, "total": tally, "workers": workers}
    rates.note(seen, 2.0)
    lines = top.picture(seen, rates, width, height).plain.split("\n")
    assert len(lines) <= height and max(map(len, lines)) <= width
    rows = [line for line in lines if re.match(r" *400\d{4} ", line)]
    assert rows and "blocked" in rows[0], "what is blocked comes first"
    if height >= 24:
        assert len(rows) >= min(number, 4) and any("BLOCKS 99 s" in line for line in lines)
