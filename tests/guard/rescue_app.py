"""Says who answered whom, and blocks as tests/guard/app.py does."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from .app import BLOCKING


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    query = scope["query_string"].decode()
    body = hashlib.sha256()
    octets = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body.update(message.get("body", b""))
        octets += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    if path in BLOCKING:
        BLOCKING[path](float(query))
    said = {
        "pid": os.getpid(),
        "path": path,
        "query": query,
        "client": scope["client"],
        "server": scope["server"],
        "octets": octets,
        "sha256": body.hexdigest(),
    }
    text = json.dumps(said).encode()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", str(len(text)).encode()), (b"content-type", b"application/json")],
        }
    )
    await send({"type": "http.response.body", "body": text})
