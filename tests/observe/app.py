"""An application that waits, blocks, fails; by path. `?s` is how long, in seconds. `/in/HOW` blocks in a child task."""

from __future__ import annotations

import asyncio
import ctypes
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio


async def block(seconds: float) -> None:
    time.sleep(seconds)


async def by_task(seconds: float) -> None:
    await asyncio.create_task(block(seconds))


async def by_gather(seconds: float) -> None:
    await asyncio.gather(asyncio.sleep(0.01), block(seconds))


async def by_wait_for(seconds: float) -> None:
    await asyncio.wait_for(asyncio.create_task(block(seconds)), 20)


async def by_wait(seconds: float) -> None:
    await asyncio.wait([asyncio.create_task(block(seconds))])


async def by_shield(seconds: float) -> None:
    await asyncio.shield(block(seconds))


async def by_task_group(seconds: float) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(by_task(seconds))


async def by_anyio(seconds: float) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(by_gather, seconds)


IN_A_CHILD: dict[str, Callable[[float], Awaitable[None]]] = {
    "task": by_task,
    "gather": by_gather,
    "wait_for": by_wait_for,
    "wait": by_wait,
    "shield": by_shield,
    "task_group": by_task_group,
    "anyio": by_anyio,
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    _, kind, *rest = scope["path"].split("/")
    seconds = float(scope["query_string"] or 1.0)
    status = 200
    if kind == "wait":
        await asyncio.sleep(seconds)
    elif kind == "block":
        time.sleep(seconds)
    elif kind == "hold":
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    elif kind == "in":
        await IN_A_CHILD[rest[0]](seconds)
    elif kind == "thread":
        await asyncio.get_running_loop().run_in_executor(None, time.sleep, seconds)
    elif kind == "raise":
        raise RuntimeError("as asked")
    elif kind.isdigit():
        status = int(kind)
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
