"""An application for tests of worker processes. Says on stderr what it is told; does what the path asks for."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]

if os.environ.get("WORKING_IMPORT"):
    time.sleep(float(os.environ["WORKING_IMPORT"]))
if os.environ.get("WORKING_RAISE") and not os.path.exists(os.environ["WORKING_RAISE"]):
    raise RuntimeError("this application cannot be imported")
if os.environ.get("WORKING_SAY_IMPORT"):
    sys.stderr.write(f"app: imported in {os.getpid()}\n")

TEXT = "none"
if "WORKING_TEXT" in os.environ:
    with open(os.environ["WORKING_TEXT"]) as file:
        TEXT = file.read()


def say(text: str) -> None:
    sys.stderr.write(f"app: {text} {os.getpid()}\n")  # in one piece


async def answer(send: Send, text: str) -> None:
    body = text.encode()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[Message]], send: Send) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup" and os.environ.get("WORKING_START"):
                await asyncio.sleep(float(os.environ["WORKING_START"]))
            if message["type"] == "lifespan.startup" and os.environ.get("WORKING_CRASH"):
                asyncio.get_running_loop().call_later(0.05, os._exit, 9)
            say(message["type"])
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    _, kind, *rest = scope["path"].split("/")
    if kind == "pid":
        await answer(send, str(os.getpid()))
    elif kind == "text":
        await answer(send, TEXT)
    elif kind == "sleep":
        say("sleeps")
        await asyncio.sleep(float(rest[0]))
        await answer(send, "slept")
    elif kind == "block":
        say("blocks")
        time.sleep(float(rest[0]))
        await answer(send, "blocked")
    elif kind == "compute":
        say("computes")
        sum(range(int(rest[0])))  # one C call, so the GIL is held to its end
        await answer(send, "computed")
    elif kind == "thread":
        name = await asyncio.get_running_loop().run_in_executor(None, lambda: threading.current_thread().name)
        await answer(send, name)
    elif kind == "ids":
        await answer(send, f"{os.getuid()} {os.getgid()} {os.getcwd()} {os.environ.get('WORKING_RAW', '')}")
    else:
        os._exit(9)
