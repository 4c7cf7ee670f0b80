"""What WebSockets cost that are open and silent."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.process import ROOT, ServerProcess

from .raw import WebSocket

pytestmark = pytest.mark.ours
Launch = Callable[..., ServerProcess]
APP = "tests.websocket.app:app"
SESSIONS = 2000


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < SESSIONS + 500:
        pytest.skip(f"a process may have {hard} descriptors only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def private_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))


def settled_kib(pid: int) -> int:
    """When it no longer moves."""
    seen = private_kib(pid)
    for _ in range(40):
        time.sleep(0.1)
        before, seen = seen, private_kib(pid)
        if abs(seen - before) < 64:
            break
    return seen


@pytest.mark.skipif("PYTHONMALLOC" in os.environ, reason="a sanitizer's allocator takes more")
@pytest.mark.parametrize("offer", ["", "permessage-deflate; client_max_window_bits"])
def test_an_idle_session_takes_less_than_4_kib_beside_the_applications_own(
    launch: Launch, many_descriptors: None, offer: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.floor_sessions", APP, str(SESSIONS), "100"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    applications = float(done.stdout)

    server = launch(APP, "--lifespan", "off", "--ws-ping-interval", "120")
    held = []
    try:
        for _ in range(200):
            WebSocket(server.connect(), offer=offer).opened().c.close()
        before = settled_kib(server.pid)
        for i in range(SESSIONS):
            ws = WebSocket(server.connect(), offer=offer).opened().text(chr(97 + i % 26) * 100)
            ws.frame()
            held.append(ws.c)
        each = (settled_kib(server.pid) - before) / SESSIONS
    finally:
        for c in held:
            c.close()
    assert each - applications < 4.0, f"{each:.2f} KiB each, of which {applications:.2f} are the application's"
