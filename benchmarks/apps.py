"""The raw ASGI application that every server serves, and that floor.py calls without a server."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HELLO = b"Hello, world!"
HELLO_HEADERS = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"13")]
SIZES = {"1k": 1024, "64k": 65536, "1m": 1048576}
BODIES = {f"/{name}": b"x" * size for name, size in SIZES.items()}
LARGE = 100 << 20
EVENT = b"data: hello world\n\n"
EVENTS = 100
BLOCK_SECONDS = 1.0
# An answer with what applications put into one: 8 headers, two of them cookies.
MANY_HEADERS = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", b"13"),
    (b"cache-control", b"no-store, max-age=0"),
    (b"x-request-id", b"4b1f7c1e-0d0a-4c55-8f6f-7a3c3d1a9a10"),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"set-cookie", b"session=3f2a9c41d7; Path=/; HttpOnly; SameSite=Lax"),
    (b"set-cookie", b"theme=dark; Path=/; Max-Age=31536000"),
]


async def raw(scope: Message, receive: Receive, send: Send) -> None:
    """ASGI without a framework."""
    kind = scope["type"]
    if kind == "http":
        path = scope["path"]
        if path == "/":
            await send({"type": "http.response.start", "status": 200, "headers": HELLO_HEADERS})
            await send({"type": "http.response.body", "body": HELLO})
        elif path == "/headers":
            await send({"type": "http.response.start", "status": 200, "headers": MANY_HEADERS})
            await send({"type": "http.response.body", "body": HELLO})
        else:
            await raw_other(path, receive, send)
    elif kind == "websocket":
        await echo(receive, send)
    elif kind == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return


async def raw_other(path: str, receive: Receive, send: Send) -> None:
    if path in BODIES:
        body = BODIES[path]
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
    elif path == "/upload":
        octets, more = 0, True
        while more:
            message = await receive()
            octets += len(message.get("body", b""))
            more = message.get("more_body", False)
        await text(send, b"%d" % octets)
    elif path == "/digest":
        digest, more = hashlib.sha256(), True
        while more:
            message = await receive()
            digest.update(message.get("body", b""))
            more = message.get("more_body", False)
        await text(send, digest.hexdigest().encode())
    elif path == "/stream":
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(EVENTS):
            await send({"type": "http.response.body", "body": EVENT, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    elif path == "/sleep":
        await asyncio.sleep(0.01)
        await text(send, HELLO)
    elif path == "/block":
        time.sleep(BLOCK_SECONDS)
        await text(send, HELLO)


async def text(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
