"""An application that notes what reached it, and answers in the way that the path asks for.

The tests read the notes through /-/journal (on another connection), which waits
until no other request runs, gives the notes and forgets them. Paths:

    /early/...     answers without reading
    /sleep/...     answers when /-/wake is requested
    /nap           answers after 0.7 s
    /late/...      reads when /-/wake was requested, then answers
    /stream/...    a response without content-length in three pieces
    /status/NNN    that status, no content
    /empty         200 with content-length: 0
    /body/N        N octets of content with content-length
    /chunks/N      N octets without content-length, in pieces of 64 KiB
    /endless       pieces until the client is gone
    /close         the app says connection: close
    /boom          raises before the response
    /halfway       raises after the head and a piece
    /silent        returns without a response
    anything else  reads the content, answers with what it got as JSON

Served by any ASGI server; nothing here knows one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Journal:
    """Notes of one process."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.active = 0
        self.idle = asyncio.Condition()
        self.wake = asyncio.Event()


_journal: list[Journal] = []


def journal() -> Journal:
    """The process's notes; made with its loop running."""
    if not _journal:
        _journal.append(Journal())
    return _journal[0]


async def read_body(receive: Receive, entry: dict[str, Any]) -> bytes:
    """All content; notes whether it came to its end."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            entry["disconnected"] = True
            break
        body += message.get("body", b"")
        entry["body"] = bytes(body[:65536]).decode("latin-1")
        entry["length"] = len(body)
        if not message.get("more_body", False):
            entry["complete"] = True
            break
    return bytes(body)


async def respond(
    send: Send, status: int, body: bytes = b"", *headers: tuple[bytes, bytes], length: bool = True
) -> None:
    """A whole response."""
    fields = list(headers)
    if length:
        fields.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def control(scope: Scope, receive: Receive, send: Send) -> None:
    """The paths under /-/ ."""
    notes = journal()
    path = scope["path"]
    if path == "/-/wake":
        notes.wake.set()
    elif path == "/-/journal":
        try:
            async with notes.idle:
                await asyncio.wait_for(notes.idle.wait_for(lambda: notes.active == 0), 5)
        except TimeoutError:
            pass
        entries, notes.entries = notes.entries, []
        notes.wake.clear()
        await respond(send, 200, json.dumps({"running": notes.active, "entries": entries}).encode())
        return
    elif path == "/-/active":
        await respond(send, 200, json.dumps({"running": notes.active, "entries": notes.entries}).encode())
        return
    elif path == "/-/counts":
        try:
            from capicorn import _core  # noqa: PLC0415 - only where that server is the one under test

            counts = _core._counts()
        except ImportError:
            counts = {}
        await respond(send, 200, json.dumps(counts).encode())
        return
    await respond(send, 200, b"ok")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    if scope["path"].startswith("/-/"):
        return await control(scope, receive, send)
    notes = journal()
    entry: dict[str, Any] = {
        "method": scope["method"],
        "path": scope["path"],
        "raw_path": scope["raw_path"].decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "version": scope["http_version"],
        "headers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in scope["headers"]],
        "body": "",
        "length": 0,
        "complete": False,
        "disconnected": False,
        "error": None,
    }
    notes.entries.append(entry)
    notes.active += 1
    try:
        await answer(scope, receive, send, entry)
    except BaseException as e:
        entry["error"] = repr(e)
        raise
    finally:
        notes.active -= 1
        async with notes.idle:
            notes.idle.notify_all()


async def answer(scope: Scope, receive: Receive, send: Send, entry: dict[str, Any]) -> None:
    parts = scope["path"].split("/")
    kind = parts[1] if len(parts) > 1 else ""
    if kind == "early":
        return await respond(send, 200, b"early")
    if kind == "sleep":
        await journal().wake.wait()
        return await respond(send, 200, b"awake")
    if kind == "nap":
        await asyncio.sleep(0.7)
        return await respond(send, 200, b"rested")
    if kind == "late":
        await journal().wake.wait()
    if kind == "boom":
        raise ValueError("boom, as the test asked")
    if kind == "silent":
        return
    body = await read_body(receive, entry)
    if entry["disconnected"]:
        return
    if kind == "stream":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        for piece in (b"one,", b"two,", b"three"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        return await send({"type": "http.response.body"})
    if kind == "status":
        await send({"type": "http.response.start", "status": int(parts[2]), "headers": []})
        return await send({"type": "http.response.body"})
    if kind == "empty":
        return await respond(send, 200)
    if kind == "body":
        return await respond(send, 200, b"x" * int(parts[2]))
    if kind == "chunks":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        left = int(parts[2])
        while left:
            n = min(left, 65536)
            left -= n
            await send({"type": "http.response.body", "body": b"y" * n, "more_body": True})
        return await send({"type": "http.response.body"})
    if kind == "endless":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        watch = asyncio.ensure_future(receive())
        while not watch.done():
            await send({"type": "http.response.body", "body": b"z" * 1000, "more_body": True})
            await asyncio.sleep(0.01)
        entry["disconnected"] = watch.result()["type"] == "http.disconnect"
        return
    if kind == "close":
        return await respond(send, 200, b"bye", (b"connection", b"close"))
    if kind == "halfway":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the first half", "more_body": True})
        raise ValueError("halfway, as the test asked")
    text = json.dumps({"method": scope["method"], "path": scope["path"], "body": body.decode("latin-1")})
    await respond(send, 200, text.encode(), (b"content-type", b"application/json"))
