"""Small applications as functions, for tests that serve them in their own process."""

from __future__ import annotations

from tests.harness.thread import Message, Receive, Scope, Send


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    """200, two octets, nothing read."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def reply(send: Send, body: bytes = b"ok", status: int = 200) -> None:
    """A whole response."""
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


async def read_all(receive: Receive) -> tuple[bytes, list[Message]]:
    """The content and the messages that it came in, up to the last one or a disconnect."""
    body = b""
    messages = []
    while True:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request":
            return body, messages
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body, messages


async def with_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Completes start and stop; answers as ok() does."""
    if scope["type"] != "lifespan":
        return await ok(scope, receive, send)
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
