"""Says as JSON what it is told of a connection."""

from __future__ import annotations

import json
from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    told = {name: scope[name] for name in ("type", "client", "server", "scheme", "path")}
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": json.dumps(told)})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", **{k: message[k] for k in ("text", "bytes") if k in message}})
        return
    if scope["path"] == "/sse":
        await sse(receive, send)
        return
    length = 0
    while True:
        message = await receive()
        length += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    body = json.dumps({**told, "length": length}).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def sse(receive: Any, send: Any) -> None:
    """An event each 50 ms, 100 at most, until the client has gone."""
    import asyncio

    gone = asyncio.ensure_future(_gone(receive))
    headers = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(100):
        if gone.done():
            print("the client has gone", flush=True)
            return
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await asyncio.sleep(0.05)
    await send({"type": "http.response.body", "body": b""})
    gone.cancel()


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
