"""Applications whose start and end go in several ways, for servers in processes of their own."""

from __future__ import annotations

import asyncio
import os
import sys

from tests.apps.basic import ok, read_all, reply
from tests.harness.thread import Receive, Scope, Send


def say(text: str) -> None:
    """A line on stderr, at once."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


async def good(scope: Scope, receive: Receive, send: Send) -> None:
    """Says what it is told."""
    if scope["type"] == "lifespan":
        say(f"told {(await receive())['type']}")
        await send({"type": "lifespan.startup.complete"})
        say(f"told {(await receive())['type']}")
        await send({"type": "lifespan.shutdown.complete"})
        return
    await answer(scope, receive, send)


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """/events: a stream that ends when receive() says so; /deaf: one that never asks; /slow: 1.5 s of work;
    /stuck: work that refuses to be cancelled for a moment; /pid."""
    path = scope["path"]
    if path == "/events":
        await read_all(receive)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: hello\n\n", "more_body": True})
        message = await receive()
        say(f"stream told {message['type']}")
        await send({"type": "http.response.body", "body": b"data: bye\n\n"})
    elif path == "/deaf":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"tick\n", "more_body": True})
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            say("deaf cancelled")
            raise
    elif path == "/slow":
        say("slow begins")
        await asyncio.sleep(1.5)
        say("slow ends")
        await reply(send, b"slow but whole")
    elif path == "/stuck":
        say("stuck begins")
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                say("stuck cancelled")
    elif path == "/pid":
        await reply(send, str(os.getpid()).encode())
    else:
        await ok(scope, receive, send)


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    """Says that it cannot start."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "the database is not there"})


async def raising(scope: Scope, receive: Receive, send: Send) -> None:
    """Raises in its lifespan, answers requests."""
    if scope["type"] == "lifespan":
        await receive()
        raise RuntimeError("raised in lifespan")
    await ok(scope, receive, send)


async def unsupported(scope: Scope, receive: Receive, send: Send) -> None:
    """Knows no lifespan."""
    assert scope["type"] == "http"
    await ok(scope, receive, send)


async def failing_end(scope: Scope, receive: Receive, send: Send) -> None:
    """Starts, and cannot stop."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "the cache would not close"})
        return
    await ok(scope, receive, send)


async def never_starts(scope: Scope, receive: Receive, send: Send) -> None:
    """Its start takes for ever."""
    if scope["type"] == "lifespan":
        await receive()
        say("starting")
        await asyncio.sleep(3600)
    await ok(scope, receive, send)


async def never_ends(scope: Scope, receive: Receive, send: Send) -> None:
    """Its end takes for ever."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        say("ending")
        await asyncio.sleep(3600)
    await ok(scope, receive, send)


def factory() -> object:
    """Makes good()."""
    return good


class Two:
    """An application of ASGI 2."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, receive: Receive, send: Send) -> None:
        assert self.scope["asgi"]["version"] == "2.0"
        assert self.scope["type"] == "http"
        await ok(self.scope, receive, send)
