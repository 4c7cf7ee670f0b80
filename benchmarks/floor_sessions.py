"""What WebSocket sessions hold without a server: the application, waiting in a plain loop, with the scopes and messages
that it was given.

python -m benchmarks.floor_sessions MODULE:NAME SESSIONS OCTETS

Prints KiB for each session.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from typing import Any

from .apps import Message
from .processes import memory_of

FIRST = 200
"""Sessions before the count begins: what is made once is made by then."""


def scope_of(number: int) -> dict[str, Any]:
    """As servers make it: the names of common fields are shared, their values are not."""
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", number),
        "root_path": "",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1:%d" % 8000),
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-key", b"%024d" % number),
            (b"sec-websocket-version", b"13"),
        ],
        "subprotocols": [],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }


async def measure(app: Any, sessions: int, octets: int) -> float:
    loop = asyncio.get_running_loop()
    tasks = []
    calls = 0

    # One for all sessions, and no coroutine of its own: what a server has of these is the server's. Each task runs up
    # to its third message, for which it waits, before the next one begins.
    def receive() -> asyncio.Future[Message]:
        nonlocal calls
        future = loop.create_future()
        if calls % 3 == 0:
            future.set_result({"type": "websocket.connect"})
        elif calls % 3 == 1:
            future.set_result({"type": "websocket.receive", "text": chr(97 + calls % 26) * octets})
        calls += 1
        return future

    async def send(message: Message) -> None:
        pass

    async def start(numbers: range) -> float:
        tasks.extend(loop.create_task(app(scope_of(number), receive, send)) for number in numbers)
        await asyncio.sleep(0.5)
        return memory_of([os.getpid()])

    before = await start(range(FIRST))
    after = await start(range(FIRST, FIRST + sessions))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return (after - before) / sessions


def main() -> None:
    app_name, sessions, octets = sys.argv[1:]
    module, _, attribute = app_name.partition(":")
    app = getattr(importlib.import_module(module), attribute)
    print(asyncio.run(measure(app, int(sessions), int(octets))))


if __name__ == "__main__":
    main()
