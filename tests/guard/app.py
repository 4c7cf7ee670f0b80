"""What keeps an event loop from turning: by path. `?s` is how long, in seconds."""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time
from typing import Any

SECONDS = 1.3


def sleep(seconds: float) -> None:
    """A C call that releases the GIL."""
    time.sleep(seconds)


def compute(seconds: float) -> None:
    """Python's bytecode."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(100))


def hold(seconds: float) -> None:
    """A C call that keeps the GIL."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def starve(seconds: float) -> None:
    """The same in another thread, when the loop sleeps."""

    def greedy() -> None:
        time.sleep(0.2)
        hold(seconds)
        time.sleep(0.3)  # long enough to be seen: it is not sure who gets the GIL first

    threading.Thread(target=greedy, name="greedy").start()


BLOCKING = {"/sleep": sleep, "/compute": compute, "/hold": hold, "/starve": starve}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    seconds = float(scope["query_string"] or SECONDS)
    if path.startswith("/blocks/"):
        sleep(seconds)
    elif path in BLOCKING:
        BLOCKING[path](seconds)
    elif path == "/later":
        await asyncio.sleep(0.01)
        sleep(seconds)
    elif path == "/task":
        asyncio.get_running_loop().call_later(0.05, sleep, seconds)
    elif path == "/wait":
        await asyncio.sleep(seconds)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """The start and the end of this one take half a second."""
    if scope["type"] != "lifespan":
        return await app(scope, receive, send)
    for what in ("startup", "shutdown"):
        await receive()
        time.sleep(0.5)
        await send({"type": f"lifespan.{what}.complete"})
