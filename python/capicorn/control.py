"""Finding the servers of this machine, and reading what they show on their scoreboards.

A scoreboard is memory that has no name (csrc/pool/scoreboard.h), but its processes have it open, and /proc leads to it:
so nothing has to be listened on, configured or cleaned up, whoever may look at a process of the server may look at its
scoreboard, and it can be read when none of those processes answers any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from capicorn.presence import BOUNDS

if TYPE_CHECKING:
    from capicorn._core import Scoreboard

NAME = "/memfd:capicorn scoreboard"
"""What /proc calls it."""

BLOCKED = 0.5
"""Seconds without a turn of the loop from which on a worker is shown as blocked."""


class NotFoundError(Exception):
    """There is no such server; the text is the sentence that says so."""


@dataclass
class Found:
    """A server: `pid` is that of its first process."""

    pid: int
    board: Scoreboard
    info: dict[str, Any] = field(default_factory=dict)


# ---- finding


def find(target: str | None) -> Found:
    """The server that is meant by the number of a process of its, by a pid file, or because it is the only one. Raises
    NotFoundError."""
    if not os.path.isdir("/proc/self/fd"):
        raise NotFoundError("This needs the /proc of Linux.")
    if target is None:
        return _only_one()
    pid = int(target) if target.isdigit() else _read_pid_file(target)
    try:
        held = _board_of(pid)
    except (FileNotFoundError, ProcessLookupError):
        where = "" if target.isdigit() else f"{target} is stale: "
        raise NotFoundError(f"{where}process {pid} does not run.") from None
    except PermissionError:
        raise NotFoundError(f"Process {pid} must not be looked at: ask as its user or as root.") from None
    if held is None:
        where = "" if target.isdigit() else f"{target} may be stale: "
        raise NotFoundError(f"{where}process {pid} is no Capicorn server.")
    return _open(pid, *held)


def _read_pid_file(path: str) -> int:
    try:
        with open(path) as file:
            text = file.read(32).strip()
    except OSError as exc:
        raise NotFoundError(f"The pid file {path} cannot be read: {exc.strerror}.") from None
    if not text.isdigit():
        raise NotFoundError(f"{path} is no pid file.")
    return int(text)


def _only_one() -> Found:
    found = everyone()
    if not found:
        raise NotFoundError(
            "No Capicorn server runs here"
            + ("." if os.geteuid() == 0 else " as this user; --pid names one, and root sees those of all users.")
        )
    if len(found) > 1:
        lines = "".join(f"\n  --pid {one.pid:<7} {_summary(one)}" for one in found)
        raise NotFoundError(f"{len(found)} Capicorn servers run here; say which one is meant:{lines}")
    return found[0]


def _summary(one: Found) -> str:
    return " ".join([str(one.info.get("app", "")), *map(str, one.info.get("binds", []))])


def everyone() -> list[Found]:
    """All servers whose processes we may look at."""
    boards: dict[tuple[int, int], dict[int, str]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            held = _board_of(int(name))
            if held is not None:
                path, key = held
                boards.setdefault(key, {})[int(name)] = path
    found = []
    for key, members in boards.items():
        first = next((pid for pid in sorted(members) if parent_of(pid) not in members), min(members))
        with contextlib.suppress(NotFoundError):
            found.append(_open(first, members[first], key))
    return sorted(found, key=lambda one: one.pid)


def _board_of(pid: int) -> tuple[str, tuple[int, int]] | None:
    """The scoreboard's path under /proc, and what is the same for all of its processes. Raises OSError."""
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        try:
            if os.readlink(path).startswith(NAME):
                status = os.stat(path)
                return path, (status.st_dev, status.st_ino)
        except FileNotFoundError:  # closed meanwhile
            continue
    return None


def parent_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _open(pid: int, path: str, key: tuple[int, int]) -> Found:
    from capicorn import _core

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise NotFoundError(f"Process {pid} cannot be looked at: {exc.strerror}.") from None
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != key:
            raise NotFoundError(f"Process {pid} does not run any more.")
        board = _core.Scoreboard(fd=fd, readonly=True)
    except NotFoundError:
        os.close(fd)
        raise
    except OSError:
        os.close(fd)
        raise NotFoundError(f"Process {pid} is a Capicorn server of another version: use the command of its.") from None
    return Found(pid, board, info_of(board))


def info_of(board: Scoreboard) -> dict[str, Any]:
    try:
        info = json.loads(board.info() or b"{}")
    except ValueError:
        return {}
    return info if isinstance(info, dict) else {}


# ---- reading


def look(found: Found) -> dict[str, Any]:
    """All there is to be seen of a server, as `capicorn status --json` prints it. Raises NotFoundError when it has
    ended."""
    if not os.path.exists(f"/proc/{found.pid}"):
        raise NotFoundError(f"The server has ended: process {found.pid} does not run any more.")
    board = found.board
    info = info_of(board) or found.info
    workers = [one for one in map(board.inspect, range(board.used)) if one["state"] in STATES]
    single = not info.get("workers")
    for one in workers:
        if one["awake"] >= BLOCKED and one["state"] == "serving":
            one["state"] = "blocked"
        one["not_listed"] = max(0, one["requests"] - len(one["listed"]) - _in_first_step(one))
    total = board.total()
    return {
        "pid": found.pid,
        "version": info.get("version", ""),
        "python": info.get("python", ""),
        "app": info.get("app", ""),
        "binds": info.get("binds", []),
        "uptime": board.age,
        "supervised": not single,
        "workers_wanted": info.get("workers") or 1,
        "workers_ended": max(0, total.pop("starts") - len(workers)),
        "connections": sum(one["connections"] for one in workers),
        "requests": sum(one["requests"] for one in workers),
        "total": total,
        "quantiles": {f"{q:g}": quantile(total["buckets"], q) for q in (0.5, 0.95, 0.99)},
        "workers": workers,
    }


STATES = ("starting", "serving", "retiring")


def _in_first_step(worker: dict[str, Any]) -> int:
    """Is there a request that runs and is not listed, as it has not come to its first await?"""
    running = worker["running"]
    return int(bool(running) and not any(f"{one['method']} {one['path']}" == running for one in worker["listed"]))


def quantile(buckets: tuple[int, ...], q: float) -> float | None:
    """An upper bound, in seconds: below it lies that part of the durations. None when there are none, or it is above
    the last bound."""
    wanted, seen = q * sum(buckets), 0
    if not wanted:
        return None
    for bound, count in zip(BOUNDS, buckets, strict=False):
        seen += count
        if seen >= wanted:
            return bound
    return None


def pss_of(pid: int) -> int | None:
    """Octets of memory, with each shared page divided among those who share it; None where that cannot be read."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def fail(exc: NotFoundError) -> int:
    """Say it; the exit code."""
    print(f"capicorn: {exc}", file=sys.stderr)
    return 1
