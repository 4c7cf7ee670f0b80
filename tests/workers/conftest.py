"""Servers with several workers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..harness.process import ServerProcess

APP = "tests.apps.working:app"


class Workers(ServerProcess):
    """A supervisor with its workers."""

    def children(self) -> list[int]:
        """Its workers, by their numbers."""
        try:
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in text.split() if "resource_tracker" not in command(int(pid))]

    def get(self, path: str) -> str:
        with self.connect() as client:
            return client.get(path, "Connection: close").response().text

    def wait_children(self, number: int, timeout: float = 15.0, without: Any = ()) -> list[int]:
        """Until there are exactly so many and none of `without`."""

        def right() -> bool:
            found = self.children()
            return len(found) == number and not set(found) & set(without)

        until(right, timeout, f"{number} workers without {without}")
        return self.children()

    def started(self, after: int = 0) -> int:
        """How many workers have started their application."""
        return self.log.text(after).count("app: lifespan.startup")


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Not gone, and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition: Callable[[], Any], timeout: float, what: str) -> Any:
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {timeout} s: {what}"
        time.sleep(0.01)


def wait_gone(pids: list[int], timeout: float = 10.0) -> None:
    until(lambda: not any(map(alive, pids)), timeout, f"the end of {pids}")


Launch = Callable[..., Workers]


@pytest.fixture
def workers() -> Iterator[Launch]:
    """workers("--workers", "2", app=..., env=...) starts; whatever is left at the end is killed, and is an error."""
    started: list[Workers] = []

    def go(*options: str, app: str = APP, **more: Any) -> Workers:
        started.append(Workers(app, *options, **more))
        return started[-1]

    yield go
    left = []
    for server in started:
        left += [pid for pid in server.children() if not server.alive and alive(pid)]
        server.kill()
    assert not left, f"workers without a supervisor: {left}"


@pytest.fixture
def is_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can change the user")
