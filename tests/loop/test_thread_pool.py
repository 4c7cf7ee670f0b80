"""Capicorn's own threads: as the loop's default executor, and behind AnyIO's functions."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import importlib.util
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from capicorn import _core, thread_pool
from capicorn.loop import Loop
from capicorn.thread_pool import NAME, Executor, install_anyio
from capicorn.threads import ThreadPool

HAS_ANYIO = importlib.util.find_spec("anyio") is not None
if HAS_ANYIO:
    import anyio
    import anyio.from_thread
    import anyio.to_thread
    from anyio._backends._asyncio import AsyncIOBackend

needs_anyio = pytest.mark.skipif(not HAS_ANYIO, reason="AnyIO is not installed")
var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


@pytest.fixture
def executor(loop: Loop) -> Executor:
    """The loop's default executor."""
    it = Executor(loop, 4)
    loop.set_default_executor(it)
    return it


@pytest.fixture
def own(loop: Loop) -> Iterator[thread_pool.AnyIOThreads]:
    """AnyIO runs with our threads in this loop."""
    it = install_anyio(loop)
    assert it is not None
    yield it
    it.close()
    wait_until(lambda: it.threads == 0)


def wait_until(true: Callable[[], bool], timeout: float = 5.0) -> None:
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def ours() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == NAME or t.name.startswith("capicorn_")]


# ---- the default executor


def test_result_exception_and_thread(loop: Loop, executor: Executor) -> None:
    async def main() -> None:
        assert await loop.run_in_executor(None, pow, 2, 10) == 1024
        assert await loop.run_in_executor(None, threading.get_ident) != threading.get_ident()
        assert (await loop.run_in_executor(None, threading.current_thread)).name == "capicorn_0"
        with pytest.raises(ZeroDivisionError) as caught:
            await loop.run_in_executor(None, lambda: 1 // 0)
        assert caught.traceback[-1].name == "<lambda>"
        assert await asyncio.to_thread(int, "7") == 7

    loop.run_until_complete(main())


@pytest.mark.parametrize("debug", [False, True])
def test_many_calls_at_once(loop: Loop, executor: Executor, debug: bool) -> None:
    loop.set_debug(debug)

    async def main() -> None:
        found = await asyncio.gather(*(loop.run_in_executor(None, pow, n, 2) for n in range(3000)))
        assert found == [n * n for n in range(3000)]
        assert 1 <= len(ours()) <= 4
        assert (executor.busy, executor.queued) == (0, 0)

    loop.run_until_complete(main())


def test_submit_is_that_of_the_standard_library(loop: Loop, executor: Executor) -> None:
    """From any thread, and with no turn of the loop."""
    assert executor.submit(pow, 3, 2).result(5) == 9
    assert executor.submit(int, "11", base=2).result(5) == 3
    assert isinstance(executor.submit(int, "x").exception(5), ValueError)
    assert list(executor.map(abs, [-1, -2, -3])) == [1, 2, 3]
    go, running = threading.Event(), threading.Barrier(5)
    busy = [executor.submit(lambda: (running.wait(5), go.wait(5))) for _ in range(4)]
    running.wait(5)
    waiting = executor.submit(pow, 1, 1)
    assert (executor.busy, executor.queued) == (4, 1)
    assert waiting.cancel()
    go.set()
    concurrent.futures.wait(busy, 5)
    assert waiting.cancelled()


def test_blocked_calls_run_side_by_side_up_to_the_size(loop: Loop, executor: Executor) -> None:
    together = threading.Barrier(4)

    async def main() -> None:
        await asyncio.wait_for(asyncio.gather(*(loop.run_in_executor(None, together.wait, 5) for _ in range(8))), 5)

    loop.run_until_complete(main())


def test_results_do_not_wait_for_a_call_that_blocks(loop: Loop, executor: Executor) -> None:
    """Those of calls that the same thread has done before."""
    go = threading.Event()

    async def main() -> None:
        short = [loop.run_in_executor(None, pow, 2, 2) for _ in range(10)]
        blocked = loop.run_in_executor(None, go.wait, 10)
        begin = time.monotonic()
        await asyncio.gather(*short)
        assert time.monotonic() - begin < 2
        assert not blocked.done()
        go.set()
        assert await blocked

    loop.run_until_complete(main())


def test_loop_goes_on_while_threads_have_much_to_do(loop: Loop, executor: Executor) -> None:
    """Short calls one after another hold the GIL; the loop gets it in between."""
    late: list[float] = []

    def tick(due: float) -> None:
        late.append(loop.time() - due)
        if len(late) < 20:
            loop.call_later(0.001, tick, loop.time() + 0.001)

    async def main() -> None:
        loop.call_later(0.001, tick, loop.time() + 0.001)
        for _ in range(3):
            await asyncio.gather(*(loop.run_in_executor(None, sum, range(2000)) for _ in range(2000)))
        await asyncio.sleep(0.05)

    loop.run_until_complete(main())
    assert len(late) == 20
    assert sorted(late)[10] < 0.1


def test_threads_get_their_turn_in_a_loop_that_never_sleeps(loop: Loop, executor: Executor) -> None:
    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    async def main() -> None:
        spinning = asyncio.ensure_future(spin())
        for _ in range(50):
            await asyncio.wait_for(loop.run_in_executor(None, pow, 2, 2), 5)
        spinning.cancel()

    loop.run_until_complete(main())


def test_cancelled_before_its_turn_it_is_not_called(loop: Loop) -> None:
    executor = Executor(loop, 1)
    loop.set_default_executor(executor)
    go, called = threading.Event(), []

    async def main() -> None:
        first = loop.run_in_executor(None, go.wait, 5)
        second = loop.run_in_executor(None, called.append, 1)
        await asyncio.sleep(0.01)
        second.cancel()
        go.set()
        await first
        assert await loop.run_in_executor(None, pow, 2, 2) == 4
        assert not called

    loop.run_until_complete(main())


def test_cancelled_while_it_runs_its_result_is_dropped(loop: Loop, executor: Executor) -> None:
    go, running = threading.Event(), threading.Event()

    def work() -> None:
        running.set()
        go.wait(5)

    async def main() -> None:
        call = loop.run_in_executor(None, work)
        while not running.is_set():
            await asyncio.sleep(0.001)
        call.cancel()
        go.set()
        await loop.run_in_executor(None, pow, 2, 2)
        assert call.cancelled()

    loop.run_until_complete(main())


def test_shutdown_waits_for_what_runs_and_what_waits(loop: Loop) -> None:
    executor = Executor(loop, 1)
    done: list[int] = []
    calls = [executor.submit(lambda n=n: (time.sleep(0.01), done.append(n))) for n in range(5)]
    executor.shutdown()
    assert done == [0, 1, 2, 3, 4]
    assert all(call.done() for call in calls)
    assert not ours()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(int)


def test_shutdown_can_cancel_what_waits(loop: Loop) -> None:
    executor = Executor(loop, 1)
    go = threading.Event()
    first = executor.submit(go.wait, 5)
    rest = [executor.submit(int) for _ in range(5)]
    wait_until(lambda: executor.busy == 1)
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(call.cancelled() for call in rest)
    go.set()
    assert first.result(5)
    wait_until(lambda: not ours())


def test_closed_while_a_call_runs(loop: Loop) -> None:
    """Nobody is there for the result; the thread ends all the same."""
    executor = Executor(loop, 2)
    loop.set_default_executor(executor)
    go = threading.Event()

    async def main() -> None:
        loop.run_in_executor(None, go.wait, 5)
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    loop.close()
    go.set()
    wait_until(lambda: not ours())


def test_closed_while_a_result_wakes_the_loop() -> None:
    """The thread that wakes it does so without the GIL, and with a libuv that is still there."""
    end = time.monotonic() + 1
    turns = 0

    def work() -> None:
        until = time.perf_counter() + 0.001
        while time.perf_counter() < until:
            pass

    while time.monotonic() < end:
        loop = Loop()
        pool = _core.ThreadPool(loop, lambda: threading.Thread(target=pool.work).start(), size=1)  # noqa: B023
        pool.run(int, ())

        def begin(loop: Loop = loop, pool: _core.ThreadPool = pool, later: int = turns % 50) -> None:
            pool.call(work, ())
            loop.call_later(0.0005 + later * 0.001 / 60, loop.stop)

        loop.call_soon(begin)
        loop.run_forever()
        loop.close()
        pool.close()
        turns += 1
    assert turns > 20


def test_start_that_is_interrupted_when_the_thread_runs_already(
    loop: Loop, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the handler of a signal, in the main thread: what it raises comes out, and nothing is counted twice."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        wait_until(lambda: done)
        raise KeyboardInterrupt

    done: list[int] = []
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(threading.Thread, "start", interrupted)
        executor.submit(done.append, 1)
    assert executor._pool.threads == 1

    async def main() -> None:
        for n in range(20):
            assert await asyncio.wait_for(loop.run_in_executor(None, pow, n, 1), 5) == n

    loop.run_until_complete(main())


def test_loop_that_waits_for_a_call_of_its_own(loop: Loop, executor: Executor) -> None:
    """Blocking, which it should not, but not for ever."""

    async def main() -> None:
        await loop.run_in_executor(None, int)
        assert executor.submit(pow, 2, 5).result(5) == 32
        short = [loop.run_in_executor(None, sum, range(2000)) for _ in range(500)]
        assert executor.submit(pow, 2, 6).result(5) == 64
        await asyncio.gather(*short)

    loop.run_until_complete(main())


def test_call_whose_thread_has_been_idle_for_long_enough(loop: Loop) -> None:
    """It ends when nothing waits, and not before."""
    pool = _core.ThreadPool(loop, lambda: threading.Thread(target=pool.work).start(), size=1, idle=0.02)

    async def main() -> None:
        await pool.call(int, ())
        call = pool.call(pow, (2, 4))
        time.sleep(0.1)
        pool.close()
        assert await asyncio.wait_for(call, 5) == 16

    loop.run_until_complete(main())
    wait_until(lambda: pool.threads == 0)


def test_loop_that_stops_with_calls_on_their_way(loop: Loop, executor: Executor) -> None:
    """They run without it; their futures learn of it when it runs again."""
    calls: list[asyncio.Future[int]] = []

    async def main() -> None:
        calls.extend(loop.run_in_executor(None, pow, n, 1) for n in range(100))

    loop.run_until_complete(main())
    wait_until(lambda: executor.queued == executor.busy == 0)
    assert loop.run_until_complete(asyncio.wait_for(asyncio.gather(*calls), 5)) == list(range(100))


def test_idle_threads_end(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_pool, "IDLE", 0.05)
    executor = Executor(loop, 4)
    together = threading.Barrier(3)
    concurrent.futures.wait([executor.submit(together.wait, 5) for _ in range(3)])
    assert len(ours()) == 3
    wait_until(lambda: not ours())
    assert executor.submit(pow, 2, 2).result(5) == 4
    executor.shutdown()


def test_no_thread_can_be_started(loop: Loop, executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                loop.run_in_executor(None, int)
        assert executor.queued == 0
        await loop.run_in_executor(None, int)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)  # one is there: it does all
            await asyncio.gather(*(loop.run_in_executor(None, time.sleep, 0.001) for _ in range(10)))

    loop.run_until_complete(main())


def test_nothing_keeps_what_was_called_and_what_it_gave(loop: Loop, executor: Executor) -> None:
    class Thing:
        def __call__(self, other: Thing) -> Thing:
            return Thing()

    seen: list[weakref.ref[Thing]] = []

    async def main() -> None:
        func, arg = Thing(), Thing()
        result = await loop.run_in_executor(None, func, arg)
        seen.extend(weakref.ref(each) for each in (func, arg, result))
        del func, arg, result
        with pytest.raises(ValueError):
            await loop.run_in_executor(None, int, "x")

    before = _core._counts()["thread_calls"]
    loop.run_until_complete(main())
    gc.collect()
    assert [ref() for ref in seen] == [None] * 3
    assert _core._counts()["thread_calls"] == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_child_process_has_none_of_them(loop: Loop, executor: Executor) -> None:
    assert executor.submit(pow, 2, 2).result(5) == 4
    pid = os.fork()
    if pid == 0:
        try:
            executor.submit(pow, 2, 2)
        except RuntimeError as exc:
            os._exit(0 if "parent process" in str(exc) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert executor.submit(pow, 2, 2).result(5) == 4


def test_interpreter_ends_with_idle_threads() -> None:
    """Which nobody has told to end."""
    import subprocess

    code = (
        "from capicorn.loop import new_event_loop; from capicorn.thread_pool import Executor\n"
        "loop = new_event_loop(); executor = Executor(loop, 2); print(executor.submit(pow, 2, 5).result())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (found.stdout, found.returncode) == ("32\n", 0), found.stderr


# ---- AnyIO


@needs_anyio
def test_anyio_has_its_own_method_again(loop: Loop) -> None:
    before = AsyncIOBackend.__dict__["run_sync_in_worker_thread"]
    first, second = install_anyio(loop), install_anyio(loop)
    assert first is not None and second is None
    assert AsyncIOBackend.__dict__["run_sync_in_worker_thread"] is not before
    first.close()
    first.close()
    assert AsyncIOBackend.__dict__["run_sync_in_worker_thread"] is before


@needs_anyio
def test_other_loops_are_left_alone(loop: Loop, own: thread_pool.AnyIOThreads) -> None:
    async def main() -> str:
        return (await anyio.to_thread.run_sync(threading.current_thread)).__class__.__name__

    assert asyncio.run(main()) == "WorkerThread"
    assert loop.run_until_complete(main()) == "Thread"


@needs_anyio
def test_name_limiter_and_statistics(loop: Loop, own: thread_pool.AnyIOThreads) -> None:
    async def main() -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 3
        go = threading.Event()
        calls = [asyncio.ensure_future(anyio.to_thread.run_sync(go.wait, 5)) for _ in range(5)]
        while (seen := limiter.statistics()).tasks_waiting < 2:
            await asyncio.sleep(0.001)
        assert seen.borrowed_tokens == 3
        assert set(seen.borrowers) == set(calls[:3])
        go.set()
        await asyncio.gather(*calls)
        assert limiter.borrowed_tokens == 0
        assert (await anyio.to_thread.run_sync(threading.current_thread)).name == NAME
        single = anyio.CapacityLimiter(1)
        seen_at_once: list[int] = []
        await asyncio.gather(
            *(
                anyio.to_thread.run_sync(lambda: seen_at_once.append(int(single.borrowed_tokens)), limiter=single)
                for _ in range(5)
            )
        )
        assert seen_at_once == [1] * 5

    loop.run_until_complete(main())


@needs_anyio
def test_context_variables_go_there_and_do_not_come_back(loop: Loop, own: thread_pool.AnyIOThreads) -> None:
    def work() -> str:
        found = var.get()
        var.set("thread")
        return found

    async def main() -> None:
        var.set("task")
        assert await anyio.to_thread.run_sync(work) == "task"
        assert await anyio.to_thread.run_sync(work) == "task"
        assert var.get() == "task"

    loop.run_until_complete(main())


@needs_anyio
def test_exceptions(loop: Loop, own: thread_pool.AnyIOThreads) -> None:
    async def main() -> None:
        with pytest.raises(ValueError):
            await anyio.to_thread.run_sync(int, "x")
        with pytest.raises(RuntimeError, match="coroutine raised StopIteration") as caught:
            await anyio.to_thread.run_sync(next, iter(()))
        assert isinstance(caught.value.__cause__, StopIteration)
        with pytest.raises(SystemExit):
            await anyio.to_thread.run_sync(sys.exit, 3)

    loop.run_until_complete(main())


@needs_anyio
def test_from_thread(loop: Loop, own: thread_pool.AnyIOThreads) -> None:
    async def double(n: int) -> int:
        await anyio.sleep(0.001)
        return 2 * n

    def work() -> int:
        anyio.from_thread.check_cancelled()
        assert anyio.from_thread.run_sync(threading.get_ident) == here
        return anyio.from_thread.run(double, 21)

    here = threading.get_ident()

    async def main() -> None:
        assert await anyio.to_thread.run_sync(work) == 42
        with anyio.CancelScope():
            assert await anyio.to_thread.run_sync(work) == 42
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(anyio.to_thread.run_sync, work)

    loop.run_until_complete(main())


@needs_anyio
def test_cancel_scope_waits_for_the_thread(loop: Loop, own: thread_pool.AnyIOThreads) -> None:
    ended: list[Any] = []

    def work() -> None:
        try:
            while True:
                time.sleep(0.002)
                anyio.from_thread.check_cancelled()
        except BaseException as exc:
            ended.append(type(exc))
            raise

    async def main() -> None:
        with anyio.move_on_after(0.02) as scope:
            await anyio.to_thread.run_sync(work)
        assert scope.cancelled_caught
        assert ended == [asyncio.CancelledError]
        assert anyio.to_thread.current_default_thread_limiter().borrowed_tokens == 0

    loop.run_until_complete(main())


@needs_anyio
def test_cancelled_before_it_begins(loop: Loop, own: thread_pool.AnyIOThreads) -> None:
    called: list[int] = []

    async def main() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.to_thread.run_sync(called.append, 1)
        assert scope.cancelled_caught

        async def itself() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await anyio.to_thread.run_sync(called.append, 2)

        with pytest.raises(asyncio.CancelledError):
            await asyncio.ensure_future(itself())
        assert not called

    loop.run_until_complete(main())


@needs_anyio
def test_task_cancelled_while_it_waits_for_a_token(loop: Loop, own: thread_pool.AnyIOThreads) -> None:
    async def main() -> None:
        limiter = anyio.CapacityLimiter(1)
        go = threading.Event()
        first = asyncio.ensure_future(anyio.to_thread.run_sync(go.wait, 5, limiter=limiter))
        second = asyncio.ensure_future(anyio.to_thread.run_sync(int, limiter=limiter))
        while not limiter.statistics().tasks_waiting:
            await asyncio.sleep(0.001)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert limiter.statistics().tasks_waiting == 0
        go.set()
        await first
        assert limiter.borrowed_tokens == 0

    loop.run_until_complete(main())


@needs_anyio
def test_abandoned_calls_are_anyios(loop: Loop, own: thread_pool.AnyIOThreads) -> None:
    go = threading.Event()

    async def main() -> None:
        with anyio.move_on_after(0.01) as scope:
            await anyio.to_thread.run_sync(go.wait, 5, abandon_on_cancel=True)
        assert scope.cancelled_caught
        go.set()

    loop.run_until_complete(main())
    wait_until(lambda: not [t for t in threading.enumerate() if type(t).__name__ == "WorkerThread"])


@needs_anyio
def test_forty_calls_that_sleep_take_as_long_as_one(loop: Loop, own: thread_pool.AnyIOThreads) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(40):
                group.start_soon(anyio.to_thread.run_sync, time.sleep, 0.2)

    loop.run_until_complete(anyio.sleep(0))
    begin = time.monotonic()
    loop.run_until_complete(main())
    assert time.monotonic() - begin < 2


@needs_anyio
def test_switched_off(loop: Loop) -> None:
    async def main() -> None:
        pool = ThreadPool(2, native=False)
        pool.install()
        assert pool.anyio is None
        assert type(loop._default_executor) is concurrent.futures.ThreadPoolExecutor
        assert anyio.to_thread.current_default_thread_limiter().total_tokens == 2
        pool.close()

    loop.run_until_complete(main())
