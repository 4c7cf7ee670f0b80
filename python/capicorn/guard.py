"""The guard of a Server's event loop, in Python: its settings, and the log lines of a blocked loop.

The watching is done by a native thread (csrc/pool/guard.h). What is here runs in a thread that it starts to report a
block, or in the loop's thread.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import logging
import socket
import sys
import threading
import traceback
from types import FrameType
from typing import TYPE_CHECKING, Any

from capicorn import listeners

if TYPE_CHECKING:
    from capicorn._core import Guard as NativeGuard
    from capicorn._core import HTTPServer
    from capicorn.config import Config
    from capicorn.presence import Presence

HEALTH_PATH = "/healthz"
"""When only --health-bind is given."""

FRAMES = 40
"""How many of a stack's innermost frames are logged."""

ASYNCIO = ("/asyncio/base_events.py", "/asyncio/events.py")
"""Frames of asyncio's own loop, which say nothing."""

THREADS = 10
"""Of how many threads, when one of them keeps the GIL from the loop."""

MOST_TASKS = 200
"""That are looked at for the request behind a task."""

LONGEST_NAME = 256

logger = logging.getLogger("capicorn.error")


class Guard:
    """Watches the running loop, whose thread makes it, and answers health checks. Raises OSError when their address
    cannot be had."""

    def __init__(self, config: Config, presence: Presence | None) -> None:
        from capicorn import _core

        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.warn = when_to_warn(config)
        self.late = has_siblings(config)
        self.presence = presence
        self.socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._where = ""
        self._request = ""
        worker = config.worker
        channel = worker.rescue if worker is not None and self.late and config.rescue else None
        self.receive_fd = -1 if channel is None else channel[1].fileno()
        path = config.health_path or HEALTH_PATH
        self.own_path = config.health_path is not None
        if self.own_path and config.is_ssl and config.health_bind is None:
            logger.warning(
                "health_path: on TLS connections health checks are answered only while the event loop runs; with"
                " --health-bind they always are."
            )
        if config.health_bind is not None:
            self.socket = health_socket(config.health_bind, shared=worker is not None)
            host, port = self.socket.getsockname()[:2]
            level = logging.INFO if worker is None else logging.DEBUG
            logger.log(level, "Health checks on http://%s:%d%s", f"[{host}]" if ":" in host else host, port, path)
        try:
            self.native: NativeGuard = _core.Guard(
                self.loop,
                self.report,
                warn=self.warn,
                fd=2 if logger.isEnabledFor(logging.WARNING) else -1,
                health_fd=-1 if self.socket is None else self.socket.fileno(),
                health_path=path,
                board=None if presence is None else presence.board,
                slot=-1 if presence is None or presence.board is None else presence.slot,
                late=self.late,
                channel=-1 if channel is None else channel[0].fileno(),
                own_path=config.health_path or "",
            )
        except BaseException:
            if self.socket is not None:
                self.socket.close()
            raise
        atexit.register(self.native.stop)  # no thread of ours may want the GIL of an interpreter that ends

    def join(self, http: HTTPServer) -> None:
        """Look after its connections. Before it listens."""
        self.native.join(http, self.receive_fd)

    def serving(self) -> None:
        """The application has started: now blocks count, and health checks say so."""
        self.native.set_ready(True)
        if self.warn or self.late or self.own_path:
            if self.native.foreign:
                self._expect(min(self.warn / 4 or 0.25, 0.05 if self.late or self.own_path else 0.25))
            self.native.watch(True)

    def stopping(self) -> None:
        self.native.set_ready(False)

    def close(self) -> None:
        """In the loop's thread. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        atexit.unregister(self.native.stop)
        self.native.close()
        if self.socket is not None:
            self.socket.close()

    def _expect(self, interval: float) -> None:
        """The beat of a loop that is not ours."""
        self.native.expect(interval)
        self._timer = self.loop.call_later(interval, self._expect, interval)

    # ---- in the reporter's thread

    def report(self, event: str, request: str, seconds: float, live: bool, gil: bool) -> None:
        """The loop is ("begin"), or was ("end") blocked so long; `live`: it still is, so its stack is worth a look.
        "last": it still is, and the supervisor is about to end this process for it. `gil`: it wants to go on, and
        other threads do not let it have the GIL."""
        if event == "begin":
            self._request = request
            if live and not request:
                self._request = request_of(self.loop)
        request = request or self._request
        inside = f" in {request}" if request else ""
        if event == "end":
            logger.warning("Event loop was blocked for %.2f s%s%s", seconds, inside, self._where)
            return
        self._where = ""
        frames = sys._current_frames()
        if gil:
            self._where = ": other threads held the GIL"
            self._show(request, "other threads, which hold the GIL")
            logger.warning(
                "Event loop blocked for %.2f s: other threads hold the GIL%s",
                seconds,
                _stacks(frames, {self.thread, threading.get_ident()}),
            )
            return
        if not live:
            self._where = "; it went on before its stack could be taken"
            return
        frame = frames.get(self.thread)
        del frames
        if frame is None:
            logger.warning("Event loop blocked for %.2f s%s", seconds, inside)
            return
        stack = _inner(traceback.extract_stack(frame))
        del frame
        last = stack[-1]
        place = f"{last.filename}:{last.lineno} ({last.name})"
        self._where = f" at {place}"
        self._show(request, place)
        logger.warning(
            "Event loop %s for %.2f s%s%s\n%s",
            "still blocked" if event == "last" else "blocked",
            seconds,
            inside,
            self._where,
            "".join(traceback.format_list(stack)).rstrip("\n"),
        )

    def _show(self, request: str, place: str) -> None:
        """For the supervisor's log and for who looks at the scoreboard."""
        presence = self.presence
        board = None if presence is None else presence.board
        if presence is not None and board is not None:
            board.set_place(presence.slot, request, place)


def _inner(stack: traceback.StackSummary) -> list[traceback.FrameSummary]:
    """What the loop has called, without the loop and what has called it."""
    for index in range(len(stack) - 1, -1, -1):
        if stack[index].name == "run_forever" and index + 1 < len(stack):
            while stack[index + 1].filename.endswith(ASYNCIO) and index + 2 < len(stack):
                index += 1
            return list(stack[index + 1 :])[-FRAMES:]
    return list(stack)[-FRAMES:]


def _stacks(frames: dict[int, FrameType], without: set[int]) -> str:
    """The stacks of threads, the innermost frames of each."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    out: list[str] = []
    for ident, frame in list(frames.items()):
        if ident not in without and len(out) < THREADS:
            text = "".join(traceback.format_list(list(traceback.extract_stack(frame))[-8:])).rstrip("\n")
            out.append(f"\nThread {names.get(ident, ident)}:\n{text}")
    return "".join(out)


# ---- for which request a task works


def request_of(loop: asyncio.AbstractEventLoop) -> str:
    """ "GET /path" of the request for which the loop's current task works, when it is not the request's own task: that
    of a task which waits for it. "" when there is none. Any thread; what asyncio and AnyIO do not promise is looked at
    as well, so nothing that is found there is taken for granted."""
    try:
        return _request_behind(asyncio.current_task(loop))
    except Exception:
        return ""


def _request_behind(task: Any) -> str:
    todo: list[Any] = [task]
    seen: set[int] = set()
    while todo and len(seen) < MOST_TASKS:
        future = todo.pop(0)
        if not isinstance(future, asyncio.Future) or id(future) in seen:
            continue
        seen.add(id(future))
        if isinstance(future, asyncio.Task):
            coroutine: Any = future.get_coro()
            if type(coroutine).__module__ == "capicorn._core":
                name = coroutine.__name__.partition("?")[0][:LONGEST_NAME]
                return str(name).encode("ascii", "backslashreplace").decode()
        for callback, *_ in list(getattr(future, "_callbacks", None) or ()):
            todo += _behind(callback)
    return ""


def _behind(callback: Any) -> list[Any]:
    """The futures and tasks that a done callback is for."""
    found: list[Any] = []
    if isinstance(callback, functools.partial):
        found += [*callback.args, *_behind(callback.func)]
    held = [getattr(callback, "__self__", None)]  # a waiting task's wakeup, TaskGroup._on_task_done
    for cell in getattr(callback, "__closure__", None) or ():  # gather(), wait(), shield(), AnyIO's task groups
        with contextlib.suppress(ValueError):  # an empty one
            held.append(cell.cell_contents)
    for one in held:
        found.append(one)
        found.append(getattr(one, "_parent_task", None))
        found.append(getattr(getattr(one, "cancel_scope", None), "_host_task", None))
    return found


# ---- making one


def make_guard(config: Config, presence: Presence | None = None) -> Guard | None:
    """The guard that a configuration wants, if it wants one. Raises OSError."""
    health = config.health_bind is not None or config.health_path is not None
    if not config.block_warn and not health and not has_siblings(config):
        return None
    return Guard(config, presence)


def when_to_warn(config: Config) -> float:
    """Seconds of a block after which it is reported: in time before the supervisor ends the worker for it."""
    if config.worker is None or not config.timeout:
        return config.block_warn
    return min(config.block_warn, config.timeout / 2)


def has_siblings(config: Config) -> bool:
    """Are there other workers, who want to know when this one's loop is late?"""
    return config.worker is not None and config.workers > 1


def health_socket(address: str, shared: bool) -> socket.socket:
    """A listening socket for HOST:PORT; `shared`: each worker process has one of its own. Raises OSError, whose text
    names the address."""
    host, port = health_address(address)
    found: list[Any] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, where = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(where)
        sock.listen(64)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        raise OSError(exc.errno, f"health_bind: {address}: {exc.strerror}") from None
    return sock


def health_address(text: str) -> tuple[str, int]:
    """Host and port. Raises ValueError."""
    host, port, uds, fd = listeners.parse_address(text)
    if host is None or uds is not None or fd is not None or not text.rpartition(":")[2].isdigit():
        raise ValueError(f"health_bind: {text!r} is no address; it should be HOST:PORT.")
    return host, port
