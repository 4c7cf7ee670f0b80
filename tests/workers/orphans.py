"""An application each of whose requests leaves a process behind that nobody waits for; the answer is its number."""

from __future__ import annotations

import os
from typing import Any


def orphan() -> int:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        if grandchild == 0:
            os.close(reader)
            os._exit(0)
        os.write(writer, b"%d" % grandchild)
        os._exit(0)
    os.close(writer)
    number = int(os.read(reader, 32))
    os.close(reader)
    os.waitpid(child, 0)
    return number


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body = b"%d" % orphan()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
