"""call_soon, timers, handles, errors and debug mode."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import socket
import sys
import threading
import time
import weakref
from typing import Any

import pytest
from capicorn.loop import Loop


def turn(loop: Loop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 9])
def test_any_number_of_arguments_arrives(loop: Loop, count: int) -> None:
    seen: list[Any] = []
    args = tuple(range(count))
    handles = [
        loop.call_soon(lambda *a: seen.append(a), *args),
        loop.call_soon_threadsafe(lambda *a: seen.append(a), *args),
        loop.call_later(0, lambda *a: seen.append(a), *args),
        loop.call_at(loop.time(), lambda *a: seen.append(a), *args),
    ]
    assert [h._args for h in handles] == [args] * 4
    loop.run_until_complete(asyncio.sleep(0.01))
    assert seen == [args] * 4


def test_callbacks_run_in_the_order_of_the_calls_and_new_ones_in_the_next_turn(loop: Loop) -> None:
    seen: list[Any] = []

    def first() -> None:
        seen.append(1)
        loop.call_soon(seen.append, 3)
        loop.stop()

    loop.call_soon(first)
    loop.call_soon(seen.append, 2)
    loop.run_forever()
    assert seen == [1, 2]
    turn(loop)
    assert seen == [1, 2, 3]


def test_many_more_callbacks_than_the_queue_was_made_for(loop: Loop) -> None:
    seen: list[int] = []
    for i in range(3):  # the ring's head is somewhere else each time
        loop.call_soon(seen.append, -i)
        turn(loop)
        seen.clear()
        for n in range(5000):
            loop.call_soon(seen.append, n)
        turn(loop)
        assert seen == list(range(5000))


def test_timers_fire_in_order_of_time_and_equal_ones_in_order_of_the_calls(loop: Loop) -> None:
    seen: list[int] = []
    base = loop.time() + 0.005
    for n in (3, 1, 2, 0):
        loop.call_at(base + n / 1000, seen.append, n)
    for n in range(10, 20):
        loop.call_at(base + 0.004, seen.append, n)
    loop.run_until_complete(asyncio.sleep(0.03))
    assert seen == [0, 1, 2, 3, *range(10, 20)]


def test_a_timer_is_never_early(loop: Loop) -> None:
    early: list[float] = []

    async def main() -> None:
        for delay in (0.0005, 0.001, 0.0015, 0.0101):
            start = time.monotonic()
            await asyncio.sleep(delay)
            if time.monotonic() - start < delay:
                early.append(delay)

    loop.run_until_complete(main())
    assert not early


def test_cancelled_timers_leave_the_heap_at_once_wherever_they_are(loop: Loop) -> None:
    fired: list[int] = []
    base = loop.time() + 0.01
    timers = [loop.call_at(base + (n * 7919 % 500) / 1e5, fired.append, n) for n in range(500)]
    kept = {n for n in range(500) if n % 3 == 0}
    for n, timer in enumerate(timers):
        if n not in kept:
            timer.cancel()
            timer.cancel()
    assert len(loop._scheduled) == len(kept)
    loop.run_until_complete(asyncio.sleep(0.05))
    assert sorted(fired) == sorted(kept)
    assert fired == sorted(fired, key=lambda n: (timers[n].when(), n))
    assert loop._scheduled == []


def test_the_arguments_of_a_cancelled_handle_are_given_back_at_once(loop: Loop) -> None:
    class Thing:
        pass

    for schedule in (lambda *a: loop.call_later(100, *a), loop.call_soon, loop.call_soon_threadsafe):
        thing = Thing()
        gone = weakref.ref(thing)
        handle = schedule(print, thing)
        del thing
        assert gone() is not None
        handle.cancel()
        assert gone() is None
        assert handle.cancelled()
        assert handle._callback is None and handle._args is None
    turn(loop)


def test_a_callback_may_cancel_its_own_handle_and_those_that_wait(loop: Loop) -> None:
    seen: list[str] = []
    handles: list[asyncio.Handle] = []

    def first(arg: str) -> None:
        for h in handles:
            h.cancel()
        gc.collect()
        seen.append(arg)

    handles.append(loop.call_soon(first, "a" * 1000))
    handles.append(loop.call_soon(seen.append, "never"))
    handles.append(loop.call_later(0, seen.append, "never"))
    loop.run_until_complete(asyncio.sleep(0.01))
    assert seen == ["a" * 1000]


def test_handles_are_asyncio_handles_to_isinstance(loop: Loop) -> None:
    soon, later = loop.call_soon(print), loop.call_later(10, print)
    assert isinstance(soon, asyncio.Handle) and not isinstance(soon, asyncio.TimerHandle)
    assert isinstance(later, asyncio.TimerHandle)
    assert repr(soon).startswith("<Handle ") and "when=" in repr(later)
    assert weakref.ref(soon)() is soon
    soon.cancel()
    later.cancel()
    assert "cancelled" in repr(soon) and "cancelled" in repr(later)


def test_timer_handles_compare_by_time(loop: Loop) -> None:
    a, b, c = loop.call_at(1e9, print, 1), loop.call_at(2e9, print, 1), loop.call_at(1e9, print, 1)
    assert a < b and b > a and a <= c and a >= c and a == c and a != b
    assert hash(a) == hash(c) == hash(1e9)
    a.cancel()
    assert a != c
    assert (a == object()) is False
    with pytest.raises(TypeError):
        a < 1  # noqa: B015
    b.cancel()
    c.cancel()


@pytest.mark.parametrize(
    "call",
    [
        lambda loop: loop.call_soon(),
        lambda loop: loop.call_soon(print, wrong=1),
        lambda loop: loop.call_soon(print, callback=print),
        lambda loop: loop.call_later(None, print),
        lambda loop: loop.call_later("1", print),
        lambda loop: loop.call_later(1),
        lambda loop: loop.call_at(None, print),
    ],
)
def test_wrong_arguments_are_a_type_error(loop: Loop, call: Any) -> None:
    with pytest.raises(TypeError):
        call(loop)


def test_not_a_number_is_no_time(loop: Loop) -> None:
    with pytest.raises(ValueError, match="NaN"):
        loop.call_later(float("nan"), print)
    loop.call_later(float("inf"), print).cancel()


def test_arguments_may_be_given_by_name(loop: Loop) -> None:
    seen: list[int] = []
    loop.call_soon(callback=lambda: seen.append(1))
    loop.call_later(delay=0, callback=lambda: seen.append(2))
    loop.call_at(when=0, callback=lambda: seen.append(3))
    loop.run_until_complete(asyncio.sleep(0.01))
    assert sorted(seen) == [1, 2, 3]


def test_callbacks_run_in_the_given_context_or_a_copy_of_the_current_one(loop: Loop) -> None:
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)
    seen: list[int] = []
    given = contextvars.copy_context()
    given.run(var.set, 5)

    def change() -> None:
        seen.append(var.get())
        var.set(9)

    handle = loop.call_soon(change, context=given)
    assert handle.get_context() is given
    loop.call_soon(lambda: seen.append(var.get()))
    loop.call_soon(lambda: seen.append(var.get()), context=given)
    loop.call_soon_threadsafe(lambda: seen.append(var.get()), context=None)
    turn(loop)
    assert seen == [5, 0, 9, 0]
    assert var.get() == 0


def test_an_error_of_a_callback_goes_to_the_exception_handler(loop: Loop) -> None:
    said: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: said.append(context))
    handle = loop.call_soon(lambda: 1 / 0)
    entered = contextvars.copy_context()
    loop.call_soon(loop.call_soon, print, context=entered)
    turn(loop)
    assert len(said) == 1
    assert said[0]["handle"] is handle and isinstance(said[0]["exception"], ZeroDivisionError)
    assert said[0]["message"].startswith("Exception in callback ")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupts_come_out_of_run_forever_and_the_rest_runs_later(loop: Loop, kind: type[BaseException]) -> None:
    seen: list[int] = []

    def leave() -> None:
        raise kind

    loop.call_soon(leave)
    loop.call_soon(seen.append, 1)
    with pytest.raises(kind):
        loop.run_forever()
    assert not loop.is_running()
    turn(loop)
    assert seen == [1]


def test_stop_before_run_forever_runs_one_turn(loop: Loop) -> None:
    seen: list[int] = []
    loop.call_soon(seen.append, 1)
    loop.stop()
    loop.run_forever()
    assert seen == [1]


def test_a_running_loop_cannot_be_run_or_closed(loop: Loop) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError):
            loop.run_forever()
        with pytest.raises(RuntimeError):
            loop.close()
        with pytest.raises(RuntimeError):
            loop._dispose()

    loop.run_until_complete(main())


def test_a_closed_loop_refuses_and_close_may_be_called_again(loop: Loop) -> None:
    loop.call_later(100, print, "x")
    loop.call_soon(print, "x")
    loop.close()
    loop.close()
    assert loop.is_closed() and loop._ready == [] and loop._scheduled == []
    for call in (loop.call_soon, loop.call_soon_threadsafe, lambda f: loop.call_later(1, f)):
        with pytest.raises(RuntimeError, match="closed"):
            call(print)
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_forever()


def test_destructors_that_use_the_loop_while_it_closes(loop: Loop) -> None:
    errors: list[str] = []

    class Late:
        def __del__(self) -> None:
            try:
                loop.call_soon(print)
            except RuntimeError as e:
                errors.append(str(e))

    loop.call_soon(print, Late())
    loop.call_later(100, print, Late())
    loop.close()
    assert errors == ["Event loop is closed"] * 2


def test_a_loop_that_is_forgotten_in_a_cycle_is_collected(loop: Loop) -> None:
    other = Loop()
    other.call_later(100, print, other)
    gone = weakref.ref(other)
    other.close()
    del other
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("call", ["call_soon", "call_soon_threadsafe"])
def test_a_loop_that_is_forgotten_with_callbacks_in_its_queue_is_collected(call: str) -> None:
    var: contextvars.ContextVar[Any] = contextvars.ContextVar("var")
    forgotten = Loop()
    schedule = getattr(forgotten, call)
    schedule(print, forgotten)
    context = contextvars.copy_context()
    context.run(var.set, forgotten)
    context.run(schedule, print)
    seen = weakref.ref(forgotten)
    del forgotten, schedule, context
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        gc.collect()
    assert seen() is None


@pytest.mark.parametrize("call", ["call_soon", "call_soon_threadsafe"])
@pytest.mark.parametrize("end", ["run", "cancelled"])
def test_handles_that_are_kept_in_a_cycle_are_collected(loop: Loop, call: str, end: str) -> None:
    var: contextvars.ContextVar[Any] = contextvars.ContextVar("var")

    class Keeper:
        def schedule(self) -> None:
            var.set(self)
            self.handle = getattr(loop, call)(self.callback)

        def callback(self) -> None:
            gc.collect()

    keeper = Keeper()
    contextvars.copy_context().run(keeper.schedule)
    seen = weakref.ref(keeper)
    if end == "cancelled":
        keeper.handle.cancel()
    del keeper
    gc.collect()
    turn(loop)
    gc.collect()
    assert seen() is None


def test_threads_wake_the_loop_and_none_of_their_calls_is_lost(loop: Loop) -> None:
    counts = [0] * 4

    def count(n: int) -> None:
        counts[n] += 1
        if sum(counts) == 4 * 500:
            loop.stop()

    def work(n: int) -> None:
        for i in range(500):
            loop.call_soon_threadsafe(count, n)
            if i % 50 == 0:
                time.sleep(0.001)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    guard = loop.call_later(20, loop.stop)
    for t in threads:
        t.start()
    loop.run_forever()
    guard.cancel()
    for t in threads:
        t.join()
    assert counts == [500] * 4


def test_other_threads_run_while_the_loop_sleeps(loop: Loop) -> None:
    ticks = 0
    done = threading.Event()

    def work() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)

    async def main() -> None:
        # watchers and timers of this turn are not yet known to the kernel when the loop goes to sleep
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await asyncio.sleep(0.2)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    thread = threading.Thread(target=work)
    thread.start()
    start = ticks
    loop.run_until_complete(main())
    done.set()
    thread.join()
    server.close()
    loop.run_until_complete(asyncio.sleep(0.01))
    assert ticks - start > 20


def test_a_loop_in_each_of_several_threads() -> None:
    results: list[int] = []

    async def main(n: int) -> int:
        await asyncio.sleep(0.01)
        return await asyncio.to_thread(lambda: n)

    def work(n: int) -> None:
        with asyncio.Runner(loop_factory=Loop) as runner:
            results.append(runner.run(main(n)))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(results) == list(range(8))


def test_debug_mode_checks_the_thread_and_the_callback(loop: Loop) -> None:
    loop.set_debug(True)
    errors: list[str] = []

    def work() -> None:
        for call in (loop.call_soon, lambda f: loop.call_later(1, f), lambda f: loop.call_at(1, f)):
            try:
                call(print)
            except RuntimeError as e:
                errors.append(str(e))

    async def main() -> None:
        await asyncio.to_thread(work)
        with pytest.raises(TypeError, match="callable object was expected by call_soon"):
            loop.call_soon(1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="coroutines cannot be used"):
            loop.call_later(0, main)  # type: ignore[arg-type]

    loop.run_until_complete(main())
    assert len(errors) == 3 and all("Non-thread-safe operation" in e for e in errors)


def test_debug_mode_warns_of_slow_callbacks_and_knows_where_they_came_from(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    said: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: said.append(context))
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        handle = loop.call_soon(time.sleep, 0.02)
        loop.call_soon(lambda: 1 / 0)
        turn(loop)
    assert handle._source_traceback[-1].name == "test_debug_mode_warns_of_slow_callbacks_and_knows_where_they_came_from"
    assert any("Executing <Handle" in m and "took 0.0" in m for m in caplog.messages)
    assert said[0]["source_traceback"]


def test_tasks_that_only_yield_do_not_keep_descriptors_timers_and_threads_waiting(loop: Loop) -> None:
    """What is ready again runs several times between two polls, but not for long."""
    ends: list[str] = []
    a, b = socket.socketpair()

    async def spin() -> None:
        while len(ends) < 3:
            await asyncio.sleep(0)

    async def main() -> None:
        loop.add_reader(a, lambda: (ends.append("read"), loop.remove_reader(a)))
        loop.call_later(0.001, ends.append, "timer")
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(ends.append, "thread"))
        thread.start()
        b.send(b"x")
        async with asyncio.timeout(10):
            await spin()
        thread.join()

    with a, b:
        loop.run_until_complete(main())
    assert sorted(ends) == ["read", "thread", "timer"]


def test_a_timer_that_is_due_comes_before_what_becomes_ready_later(loop: Loop) -> None:
    seen: list[str] = []

    def first() -> None:
        loop.call_at(loop.time() - 1, seen.append, "timer")
        loop.call_soon(second)

    def second() -> None:
        seen.append("ready")
        loop.call_soon(seen.append, "later")
        loop.call_soon(loop.stop)

    loop.call_soon(first)
    loop.run_forever()
    assert seen == ["ready", "timer", "later"]


def test_stop_ends_run_forever_before_what_became_ready_meanwhile(loop: Loop) -> None:
    seen: list[int] = []

    def again(n: int) -> None:
        seen.append(n)
        loop.call_soon(again, n + 1)
        if n == 3:
            loop.stop()

    loop.call_soon(again, 0)
    loop.run_forever()
    assert seen == [0, 1, 2, 3]
    turn(loop)
    assert seen == [0, 1, 2, 3, 4]


def test_tasks_have_their_names_contexts_and_class(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var")
    context = contextvars.Context()
    context.run(var.set, 7)

    async def coro() -> int:
        return var.get(0)

    async def main() -> None:
        plain = loop.create_task(coro())
        named = loop.create_task(coro(), name="Erna")
        both = loop.create_task(coro(), name="Otto", context=context)
        assert [type(task) for task in (plain, named, both)] == [asyncio.Task] * 3
        assert plain.get_name().startswith("Task-")
        assert [named.get_name(), both.get_name()] == ["Erna", "Otto"]
        assert await asyncio.gather(plain, named, both) == [0, 0, 7]

        class Other(asyncio.Task[Any]):
            pass

        with monkeypatch.context() as patch:
            patch.setattr(asyncio.tasks, "Task", Other)
            other = loop.create_task(coro())
        assert type(other) is Other
        await other
        made: list[Any] = []
        loop.set_task_factory(lambda loop, coro, **kwargs: made.append(kwargs) or asyncio.Task(coro, loop=loop))
        await loop.create_task(coro(), context=context)
        assert [kwargs.get("context") for kwargs in made] == [context]
        loop.set_task_factory(None)
        loop.set_debug(True)
        debugged = loop.create_task(coro())
        loop.set_debug(False)
        assert debugged._source_traceback[-1].name == "main"  # type: ignore[attr-defined]
        await debugged

    loop.run_until_complete(main())
    other_loop = asyncio.new_event_loop()

    async def elsewhere() -> None:
        task = loop.create_task(coro())
        assert task.get_loop() is loop

    other_loop.run_until_complete(elsewhere())
    other_loop.close()
    turn(loop)
    with pytest.raises(TypeError):
        loop.create_task(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        loop.create_task()  # type: ignore[call-arg]
    unused = coro()
    with pytest.raises(TypeError):
        loop.create_task(unused, colour="green")  # type: ignore[call-arg]
    loop.close()
    with pytest.raises(RuntimeError):
        loop.create_task(unused)
    unused.close()


def weak_set_of_tasks() -> Any:
    """Where asyncio enters tasks; None from 3.14 on."""
    return getattr(asyncio.tasks, "_all_tasks" if sys.version_info < (3, 12) else "_scheduled_tasks", None)


def test_all_tasks_are_known_while_they_live_and_forgotten_afterwards(loop: Loop) -> None:
    entered = weak_set_of_tasks()

    async def waits(future: asyncio.Future[None]) -> None:
        await future

    async def main() -> None:
        me = asyncio.current_task()
        assert asyncio.all_tasks() == {me}
        future = loop.create_future()
        tasks = {loop.create_task(waits(future)) for _ in range(50)}
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == tasks | {me}
        future.set_result(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {me}  # what has ended does not count, though it still exists

    loop.run_until_complete(main())
    gc.collect()
    assert not entered


def test_tasks_may_go_and_come_while_their_set_is_iterated(loop: Loop) -> None:
    entered = weak_set_of_tasks()
    if not hasattr(entered, "_pending_removals"):
        pytest.skip("this version of asyncio has no WeakSet of tasks")

    async def main() -> None:
        tasks = [loop.create_task(asyncio.sleep(10)) for _ in range(10)]
        await asyncio.sleep(0)
        walk = iter(entered)
        next(walk)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        del task
        tasks.clear()
        await asyncio.sleep(0)
        gc.collect()
        assert entered._pending_removals
        size = len(entered.data)
        del walk
        gc.collect()
        new = loop.create_task(asyncio.sleep(0))  # takes out what had to wait
        await asyncio.sleep(0)
        assert not entered._pending_removals and len(entered.data) < size
        assert new in asyncio.all_tasks()
        await new

    loop.run_until_complete(main())
    assert type(entered).__name__ == "WeakSet"
