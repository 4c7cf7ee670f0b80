"""Echoes; over TLS as well."""

from __future__ import annotations

from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    offered = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": offered[-1] if offered else None})
    if scope["path"] == "/close":
        await send({"type": "websocket.close", "code": 4000, "reason": "because"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", **{k: message[k] for k in ("text", "bytes") if k in message}})
