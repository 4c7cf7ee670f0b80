"""Works in child processes that were forked from the server, as multiprocessing does it before CPython 3.14."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import os
from typing import Any

pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the number of the child, which lives on."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    pid = await asyncio.get_running_loop().run_in_executor(pool, os.getpid)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % pid, "more_body": True})
    if scope["path"] == "/cut":
        raise RuntimeError("in the middle of a response")
    await send({"type": "http.response.body", "body": b""})
