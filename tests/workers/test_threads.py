"""--threads: one number for AnyIO's limiter and the loop's executor, and what is seen of them."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import threading
import time

import pytest
from capicorn.loop import new_event_loop
from capicorn.threads import FULL, SAY_AGAIN, ThreadPool


def run(main: object) -> None:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main)  # type: ignore[arg-type]
    end = time.monotonic() + 5
    while any(t.name == "AnyIO worker thread" for t in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.005)


def test_calls_that_run_and_calls_that_wait_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    logging.getLogger("capicorn").propagate = True

    async def main() -> None:
        pool = ThreadPool(2)
        pool.install()
        pool.look(0)
        assert (pool.size, pool.busy, pool.queued) == (2, 0, 0)
        go, running = threading.Event(), threading.Barrier(3)

        def work() -> None:
            if not go.is_set():
                running.wait(10)
            go.wait(10)

        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(None, work) for _ in range(5)]
        while running.n_waiting < 2:
            await asyncio.sleep(0.005)
        pool.look(100)
        assert (pool.busy, pool.queued) == (2, 3)
        pool.look(100 + FULL / 2)
        assert not caplog.records
        pool.look(100 + FULL)
        assert "3 calls of synchronous code wait for a thread" in caplog.text
        once = len(caplog.records)  # other tests of this process may have set up logging
        pool.look(100 + FULL + 1)
        assert len(caplog.records) == once
        pool.look(100 + FULL + SAY_AGAIN)
        assert len(caplog.records) == 2 * once
        go.set()
        running.wait(10)
        await asyncio.gather(*calls)
        pool.look(300)
        assert (pool.busy, pool.queued) == (0, 0)
        pool.close()

    run(main())


@pytest.mark.skipif(importlib.util.find_spec("anyio") is None, reason="AnyIO is not installed")
def test_anyio_has_as_many() -> None:
    async def main() -> None:
        from anyio import to_thread

        pool = ThreadPool(3)
        pool.install()
        assert to_thread.current_default_thread_limiter().total_tokens == 3
        go = threading.Event()
        calls = [asyncio.ensure_future(to_thread.run_sync(go.wait, 10)) for _ in range(5)]
        while pool.queued < 2:
            await asyncio.sleep(0.005)
            pool.look(0)
        assert (pool.busy, pool.queued) == (3, 2)
        go.set()
        await asyncio.gather(*calls)
        pool.close()

    run(main())


@pytest.mark.skipif(importlib.util.find_spec("anyio") is None, reason="AnyIO is not installed")
def test_anyios_own_number_is_seen_when_none_is_given(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("capicorn").propagate = True

    async def main() -> None:
        from anyio import to_thread

        pool = ThreadPool(None)
        pool.install()
        pool.look(0)
        go = threading.Event()
        calls = [asyncio.ensure_future(to_thread.run_sync(go.wait, 10)) for _ in range(45)]
        while pool.anyio is None or pool.anyio.busy < 40:
            await asyncio.sleep(0.005)
        pool.look(0)
        assert (pool.limit, pool.busy, pool.queued) == (40, 40, 5)
        pool.look(FULL)
        assert "5 calls of synchronous code wait" in caplog.text and "--threads is not given" in caplog.text
        go.set()
        await asyncio.gather(*calls)
        pool.close()

    run(main())
