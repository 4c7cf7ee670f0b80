"""The journal's paths without its notes, so that nothing grows that is not the server's."""

from __future__ import annotations

from tests.apps.journal import Receive, Scope, Send, answer, control


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    if scope["path"].startswith("/-/"):
        return await control(scope, receive, send)
    await answer(scope, receive, send, {"disconnected": False})
