"""Very many calls in threads, of all kinds and mixed, and nothing that stays of them."""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import os
import random
import threading
import time
from typing import Any

import pytest
from capicorn import _core
from capicorn.loop import Loop, new_event_loop
from capicorn.thread_pool import Executor, install_anyio

TOTAL = int(os.environ.get("CAPICORN_SOAK_CALLS", "100000"))
ROUNDS = 5
AT_ONCE = 200
LEVEL = 1 << 20
ANYIO = importlib.util.find_spec("anyio") is not None


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fail(n: int) -> None:
    raise ValueError(n)


def compute(n: int) -> int:
    return sum(range(n))


async def one(loop: Loop, rng: random.Random, seen: dict[str, int]) -> None:
    kind = rng.choice(
        ["short"] * 6 + ["submit", "sleep", "fail", "cancel", "long", "to_thread", "anyio", "anyio", "back"]
    )
    if kind in ("anyio", "back") and not ANYIO:
        kind = "short"
    n = rng.randrange(1000)
    if kind == "short":
        assert await loop.run_in_executor(None, pow, n, 2) == n * n
    elif kind == "submit":
        executor: Any = loop._default_executor  # type: ignore[attr-defined]
        assert await asyncio.wrap_future(executor.submit(pow, n, 2)) == n * n
    elif kind == "sleep":
        await loop.run_in_executor(None, time.sleep, 0.0005)
    elif kind == "fail":
        with pytest.raises(ValueError):
            await loop.run_in_executor(None, fail, n)
    elif kind == "cancel":
        call = loop.run_in_executor(None, time.sleep, 0.0002)
        await asyncio.sleep(rng.random() / 2000)
        call.cancel()
    elif kind == "long":
        assert await loop.run_in_executor(None, compute, 20_000) == 199990000
    elif kind == "to_thread":
        assert await asyncio.to_thread(pow, n, 2) == n * n
    else:
        import anyio.from_thread
        import anyio.to_thread

        if kind == "anyio":
            assert await anyio.to_thread.run_sync(pow, n, 2) == n * n
        else:
            await anyio.to_thread.run_sync(anyio.from_thread.run, asyncio.sleep, 0.0001)
    seen[kind] = seen.get(kind, 0) + 1


async def round_of(loop: Loop, calls: int, seed: int) -> dict[str, int]:
    rng, seen = random.Random(seed), {}

    async def client() -> None:
        for _ in range(calls // AT_ONCE):
            await one(loop, rng, seen)

    async with asyncio.timeout(60 + calls / 500):
        await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return seen


@pytest.mark.timeout(600)
def test_calls_in_threads_leave_nothing() -> None:
    before = _core._counts()["thread_calls"]
    loop = new_event_loop()
    executor = Executor(loop, 8)
    loop.set_default_executor(executor)
    if ANYIO:
        importlib.import_module("anyio.to_thread")
    own = install_anyio(loop)
    assert (own is not None) == ANYIO
    levels, memory = [], []
    loop.run_until_complete(round_of(loop, TOTAL // ROUNDS, 0))
    for seed in range(1, ROUNDS + 1):
        seen = loop.run_until_complete(round_of(loop, TOTAL // ROUNDS, seed))
        assert sum(seen.values()) == TOTAL // ROUNDS // AT_ONCE * AT_ONCE
        end = time.monotonic() + 5
        while executor.busy or executor.queued or _core._counts()["thread_calls"] != before:
            assert time.monotonic() < end, (executor.busy, executor.queued, _core._counts())
            loop.run_until_complete(asyncio.sleep(0.01))
        gc.collect()
        levels.append(_core._counts()["blocks"])
        memory.append(resident())
    if own is not None:
        own.close()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    assert max(memory[1:]) - memory[0] < LEVEL, memory
    assert levels[-1] <= levels[0] + 8, levels
    end = time.monotonic() + 5
    while any(t.name.startswith(("capicorn_", "AnyIO")) for t in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)
