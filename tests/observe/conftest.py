"""Servers that are looked at from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..harness.process import ROOT, ServerProcess

APP = "tests.observe.app:app"


class Seen(ServerProcess):
    """A server, and what is seen of it."""

    def ask(self, path: str, timeout: float = 15.0) -> int:
        """The status of one request on a connection of its own."""
        with self.connect(timeout) as client:
            return client.get(path, "Connection: close").response().status

    def ask_soon(self, path: str) -> threading.Thread:
        thread = threading.Thread(target=self._ask_quietly, args=(path,))
        thread.start()
        return thread

    def _ask_quietly(self, path: str) -> None:
        try:
            self.ask(path)
        except (OSError, EOFError, AssertionError):  # its worker is killed
            pass

    def status(self) -> dict[str, Any]:
        done = command("status", "--pid", str(self.pid), "--json")
        assert done.returncode == 0, done.stderr
        seen: dict[str, Any] = json.loads(done.stdout)
        return seen

    def wait_status(self, condition: Callable[[dict[str, Any]], Any], timeout: float = 10.0) -> dict[str, Any]:
        """The first one that meets the condition."""
        end = time.monotonic() + timeout
        while True:
            seen = self.status()
            if condition(seen):
                return seen
            assert time.monotonic() < end, json.dumps(seen, indent=1)
            time.sleep(0.05)


def command(*arguments: str, cwd: str = str(ROOT)) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "capicorn", *arguments], cwd=cwd, capture_output=True, text=True, timeout=30, check=False
    )


Launch = Callable[..., Seen]


@pytest.fixture
def served() -> Iterator[Launch]:
    """served("--workers", "2") starts a server; the log of requests is off."""
    started: list[Seen] = []

    def go(*options: str, app: str = APP, **more: Any) -> Seen:
        started.append(Seen(app, "--no-access-log", *options, **more))
        return started[-1]

    yield go
    for server in started:
        server.kill()
