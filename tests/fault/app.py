"""An application that lets allocations of its own process fail.

/-/core?N      the N-th allocation of the extension from now on fails
/-/python?N    the N-th allocation of CPython fails (all of its domains), until /-/end
/-/site        the next place in C that never failed fails (a build with CAPICORN_BUILD=faults)
/-/end         no more
/-/ping        answers
/x/WHAT        what only some applications use: see `extra`
anything else  the journal's paths, without notes; a WebSocket is echoed
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import Any

from tests.soak.app import Receive, Scope, Send
from tests.soak.app import app as plain

try:
    import _testcapi
except ImportError:
    _testcapi = None  # type: ignore[assignment]

HEAD: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY: dict[str, Any] = {"type": "http.response.body", "body": b"ok"}


async def extra(what: str, scope: Scope, receive: Receive, send: Send) -> None:
    if what == "file":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        return await send({"type": "http.response.pathsend", "path": __file__})
    if what == "zerocopy":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with open(__file__, "rb") as file:
            return await send({"type": "http.response.zerocopysend", "file": file.fileno(), "count": 100})
    if what == "trailers":
        await send({"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]})
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send(BODY)
        return await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})
    if what == "wait":
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(receive(), 0.05)
            await asyncio.wait_for(receive(), 0.05)
        return await send(HEAD)  # and no content: a mistake
    if what == "mistakes":
        for message in ({"type": "nonsense"}, {"type": "http.response.start", "status": "x"}, BODY, {}):
            with contextlib.suppress(Exception):
                await send(message)
        await send({**HEAD, "headers": [(b"a b", b"\r\n")]})
    if what == "view":
        await send({"type": "http.response.start", "status": 200, "headers": [("x", "y"), (b"Date", b"z")]})
        await send({"type": "http.response.body", "body": memoryview(bytearray(300_000)), "more_body": True})
        await send({"type": "http.response.body", "body": bytearray(b"end")})


async def echo(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x", b"y")]})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({**message, "type": "websocket.send"})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    path = scope.get("path", "")
    if scope["type"] == "websocket":
        if path == "/deny":
            await receive()
            await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
            return await send({"type": "websocket.http.response.body", "body": b"no"})
        return await echo(receive, send)
    if path.startswith("/x/"):
        return await extra(path[3:], scope, receive, send)
    if not path.startswith("/-/"):
        return await plain(scope, receive, send)
    if path == "/-/end":
        if _testcapi is not None:
            _testcapi.remove_mem_hooks()
        with contextlib.suppress(ImportError):
            from capicorn import _core

            _core._mem_fail(0)
            if hasattr(_core, "_fault_arm"):
                _core._fault_arm(False)
        gc.collect()
    n = int(scope["query_string"] or b"0")
    if path == "/-/core":
        from capicorn import _core

        _core._mem_fail(n)
    elif path == "/-/python":
        _testcapi.set_nomemory(n, n + 1)
    elif path == "/-/site":
        from capicorn import _core

        _core._fault_arm(True)  # type: ignore[attr-defined]
    await send(HEAD)
    await send(BODY)
