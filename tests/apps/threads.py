"""An application whose work is done in threads, by AnyIO and by the loop's default executor."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio.from_thread
import anyio.to_thread

from tests.apps.working import Message, Send, answer


def say(text: str) -> None:
    sys.stderr.write(f"app: {text}\n")


def sleep(seconds: float) -> str:
    say("thread begins")
    time.sleep(seconds)
    say("thread ends")
    return threading.current_thread().name


def back_and_forth() -> str:
    return ",".join(str(anyio.from_thread.run(asyncio.sleep, 0.001, n)) for n in range(5))


async def app(scope: dict[str, Any], receive: Callable[[], Any], send: Send) -> None:
    if scope["type"] == "lifespan":
        while True:
            message: Message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    _, kind, *rest = scope["path"].split("/")
    if kind == "sleep":
        await answer(send, await anyio.to_thread.run_sync(sleep, float(rest[0])))
    elif kind == "executor":
        await answer(send, await asyncio.get_running_loop().run_in_executor(None, sleep, float(rest[0])))
    elif kind == "back":
        await answer(send, await anyio.to_thread.run_sync(back_and_forth))
    elif kind == "kind":
        await answer(send, type(await anyio.to_thread.run_sync(threading.current_thread)).__name__)
    else:
        raise await anyio.to_thread.run_sync(ValueError, "of a thread")
