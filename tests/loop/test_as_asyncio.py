"""asyncio's own loop and ours, side by side: scheduling, errors, life and death, executors, tasks.

Each scenario runs on both (side_by_side.py). Where ours differs on purpose, a test at the end says so.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from capicorn.loop import Loop

from .side_by_side import Seen, compare, fail, nothing, pair, told

SCENARIOS: list[Callable[[Seen], Any]] = []


def scenario(function: Callable[[Seen], Any]) -> Callable[[Seen], Any]:
    SCENARIOS.append(function)
    return function


# ---- what runs, and in which order


@scenario
def call_soon_in_order(seen: Seen) -> None:
    def nested(name: str, deeper: int) -> None:
        seen.note(name, deeper)
        if deeper:
            seen.loop.call_soon(nested, name, deeper - 1)

    for name in "abc":
        seen.loop.call_soon(nested, name, 2)
    seen.loop.call_later(0.02, seen.loop.stop)
    seen.loop.run_forever()


@scenario
def timers_in_the_order_of_their_time(seen: Seen) -> None:
    for delay in (0.03, 0.01, 0.02, 0.0, -1.0):
        seen.loop.call_later(delay, seen.note, delay)
    seen.loop.call_later(0.05, seen.loop.stop)
    seen.loop.run_forever()


@scenario
def timers_of_one_moment(seen: Seen) -> None:
    when = seen.loop.time() + 0.01
    for name in "ab":
        seen.loop.call_at(when, seen.note, name)
    seen.loop.call_at(when + 0.01, seen.loop.stop)
    seen.loop.run_forever()


@scenario
def a_timer_that_is_due_and_call_soon(seen: Seen) -> None:
    seen.loop.call_later(0, seen.note, "timer")
    seen.loop.call_soon(seen.note, "soon")
    seen.loop.call_at(seen.loop.time() - 5, seen.note, "past")
    seen.loop.call_soon(seen.note, "soon too")
    seen.loop.call_later(0.01, seen.loop.stop)
    seen.loop.run_forever()


@scenario
def a_timer_from_a_callback_runs_after_what_is_ready(seen: Seen) -> None:
    def first() -> None:
        seen.loop.call_later(-1, seen.note, "timer")
        seen.loop.call_soon(seen.note, "next turn")

    seen.loop.call_soon(first)
    seen.loop.call_soon(seen.note, "this turn")
    seen.loop.call_later(0.01, seen.loop.stop)
    seen.loop.run_forever()


@scenario
def descriptors_and_what_was_ready(seen: Seen) -> None:
    a, b = pair()
    b.send(b"x")

    def readable() -> None:
        seen.note("readable")
        seen.loop.remove_reader(a)

    def writable() -> None:
        seen.note("writable")
        seen.loop.remove_writer(a)

    seen.loop.add_writer(a, writable)
    seen.loop.add_reader(a, readable)
    seen.loop.call_soon(seen.note, "soon")
    seen.loop.call_later(0.02, seen.loop.stop)
    seen.loop.run_forever()
    a.close()
    b.close()


@scenario
def stop_lets_the_turn_end(seen: Seen) -> None:
    def first() -> None:
        seen.loop.stop()
        seen.loop.call_soon(seen.note, "in the next run")

    seen.loop.call_soon(first)
    seen.loop.call_soon(seen.note, "in this turn")
    seen.loop.run_forever()
    seen.note("stopped")
    seen.loop.stop()
    seen.loop.run_forever()


@scenario
def stop_before_it_runs(seen: Seen) -> None:
    seen.loop.stop()
    seen.loop.call_soon(seen.note, "one turn")
    seen.loop.call_soon(lambda: seen.loop.call_soon(seen.note, "not yet"))
    seen.loop.run_forever()
    seen.note("stopped")
    seen.loop.stop()
    seen.loop.stop()
    seen.loop.run_forever()
    seen.loop.call_soon(seen.loop.stop)
    seen.loop.run_forever()


@scenario
def stop_with_a_timer_due_in_that_turn(seen: Seen) -> None:
    seen.loop.call_later(-1, seen.note, "timer")
    seen.loop.stop()
    seen.loop.run_forever()
    seen.note("stopped")


@scenario
def call_soon_threadsafe_wakes(seen: Seen) -> None:
    done: list[str] = []

    def other() -> None:
        time.sleep(0.01)
        handle = seen.loop.call_soon_threadsafe(seen.note, "from a thread")
        done.append(type(handle).__name__)
        seen.loop.call_soon_threadsafe(seen.loop.stop)

    thread = threading.Thread(target=other)
    thread.start()
    seen.loop.run_forever()
    thread.join()
    seen.note(len(done))


@scenario
def contexts_of_callbacks(seen: Seen) -> None:
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)
    given = contextvars.copy_context()
    given.run(var.set, 7)

    def show(name: str) -> None:
        seen.note(name, var.get())
        var.set(var.get() + 100)

    var.set(1)
    a, b = pair()
    seen.loop.call_soon(show, "soon")
    seen.loop.call_soon(show, "soon, given", context=given)
    seen.loop.call_soon(show, "soon, None", context=None)
    seen.loop.call_later(0.01, show, "later")
    seen.loop.call_at(seen.loop.time() + 0.02, show, "at, given", context=given)
    seen.loop.call_soon_threadsafe(show, "threadsafe")
    seen.loop.call_soon_threadsafe(show, "threadsafe, given", context=given)
    b.send(b"x")
    seen.loop.add_reader(a, lambda: (show("reader"), seen.loop.remove_reader(a)))
    var.set(2)
    seen.loop.call_later(0.04, seen.loop.stop)
    seen.loop.run_forever()
    seen.note(var.get(), given[var])
    if sys.version_info >= (3, 12):
        for handle in (seen.loop.call_soon(nothing), seen.loop.call_soon(nothing, context=given)):
            seen.note("get_context", handle.get_context() is given, type(handle.get_context()).__name__)
    a.close()
    b.close()
    var.set(0)


# ---- handles


@scenario
def a_handle_in_all_states(seen: Seen) -> None:
    handles: dict[str, Any] = {}

    def cancels_itself() -> None:
        seen.note(repr(handles["self"]), handles["self"].cancelled())
        handles["self"].cancel()
        seen.note(repr(handles["self"]), handles["self"].cancelled())

    for debug in (False, True):
        seen.loop.set_debug(debug)
        handles["self"] = seen.loop.call_soon(cancels_itself)
        dropped = seen.loop.call_soon(seen.note, "never")
        seen.note(repr(dropped))
        seen.attempt("cancel", dropped.cancel)
        seen.attempt("cancel again", dropped.cancel)
        seen.note(repr(dropped), dropped.cancelled(), dropped._callback, dropped._args)
        ran = seen.loop.call_soon(nothing, 1, "two")
        seen.note(repr(ran).partition(" created")[0], ran._callback.__name__, ran._args, ran._cancelled)
        seen.loop.call_soon(seen.loop.stop)
        seen.loop.run_forever()
        seen.note(repr(ran).partition(" created")[0], ran.cancelled())
        ran.cancel()
        seen.note(repr(ran).partition(" created")[0], ran.cancelled())


@scenario
def a_timer_in_all_states(seen: Seen) -> None:
    for debug in (False, True):
        seen.loop.set_debug(debug)
        when = seen.loop.time() + 0.005
        ran = seen.loop.call_at(when, nothing, 1)
        seen.note(ran.when() == when, repr(ran).partition(" created")[0], ran.cancelled(), ran._scheduled)
        dropped = seen.loop.call_later(5, nothing)
        seen.attempt("cancel", dropped.cancel)
        seen.attempt("cancel again", dropped.cancel)
        seen.note(repr(dropped).partition(" created")[0], dropped.cancelled(), dropped._callback, dropped._args)
        seen.loop.call_later(0.02, seen.loop.stop)
        seen.loop.run_forever()
        seen.note(repr(ran).partition(" created")[0], ran.cancelled(), ran.when() == when, ran._scheduled)
        ran.cancel()
        seen.note(repr(ran).partition(" created")[0], ran.cancelled())


@scenario
def timers_compare(seen: Seen) -> None:
    a, b = seen.loop.call_at(1e9, nothing), seen.loop.call_at(2e9, nothing)
    like_a = seen.loop.call_at(1e9, nothing)
    seen.note(a < b, a <= b, a > b, a >= b, a == b, a != b, a == like_a, a <= like_a, a >= like_a, a == 1, a != "x")
    seen.note(hash(a) == hash(like_a), hash(a) == hash(a), len({a, b, like_a}))
    for other in (1, None, "x"):
        seen.kind("order", lambda other=other: a < other)
    soon, soon_too = seen.loop.call_soon(nothing), seen.loop.call_soon(nothing)
    seen.note(soon == soon_too, soon == soon, hash(soon) == hash(soon_too))
    seen.note(isinstance(a, asyncio.TimerHandle), isinstance(a, asyncio.Handle), isinstance(soon, asyncio.Handle))
    for handle in (a, b, like_a):
        handle.cancel()


@scenario
def what_callbacks_are_called_in_a_repr(seen: Seen) -> None:
    import functools

    class Kind:
        def method(self, *args: Any) -> None: ...

        def __call__(self) -> None: ...

        def __repr__(self) -> str:
            return "<a Kind>"

    for callback, args in (
        (nothing, ()),
        (nothing, (1, "x" * 300)),
        (Kind().method, (1,)),
        (Kind(), ()),
        (functools.partial(nothing, 1, key=2), (3,)),
        (print, ("x",)),
        (lambda: None, ()),
        ([].append, (1,)),
    ):
        seen.note(repr(seen.loop.call_soon(callback, *args)).partition(" created")[0])


@scenario
def a_cancelled_handle_lets_go(seen: Seen) -> None:
    import weakref

    class Big:
        pass

    big = Big()
    ref = weakref.ref(big)
    handle = seen.loop.call_later(100, nothing, big)
    del big
    handle.cancel()
    seen.note(ref() is None)
    big = Big()
    ref = weakref.ref(big)
    handle = seen.loop.call_soon(nothing, big)
    del big
    seen.loop.call_soon(seen.loop.stop)
    seen.loop.run_forever()
    seen.note(handle is not None)


# ---- arguments


@scenario
def wrong_arguments_of_scheduling(seen: Seen) -> None:
    loop = seen.loop
    for name in ("call_soon", "call_soon_threadsafe"):
        seen.kind(f"{name} of nothing", getattr(loop, name))
        seen.kind(f"{name} with a keyword", getattr(loop, name), nothing, wrong=1)
    for name in ("call_later", "call_at"):
        seen.kind(f"{name} of nothing", getattr(loop, name))
        seen.kind(f"{name} of a time", getattr(loop, name), 5)
        seen.attempt(f"{name} at None", getattr(loop, name), None, nothing)
        if name == "call_later":  # asyncio's call_at() takes it, and breaks later
            seen.kind(f"{name} at str", getattr(loop, name), "5", nothing)
        seen.kind(f"{name} with a keyword", getattr(loop, name), 5, nothing, wrong=1)
        seen.note(name, float(getattr(loop, name)(Fraction(10**9), nothing).when()) >= 10**9)
        seen.note(name, getattr(loop, name)(True, nothing) is not None)
        getattr(loop, name)(math.inf, nothing).cancel()
        getattr(loop, name)(callback=nothing, **{"delay" if name == "call_later" else "when": 1e9}).cancel()
    seen.note(loop.call_soon(callback=nothing) is not None)


@scenario
def what_is_no_callback(seen: Seen) -> None:
    async def coroutine() -> None: ...

    loop = seen.loop
    for debug in (False, True):
        loop.set_debug(debug)
        for what in (None, 5, "x", coroutine):
            if not debug:
                continue
            seen.attempt("call_soon", loop.call_soon, what)
            seen.attempt("call_soon_threadsafe", loop.call_soon_threadsafe, what)
            seen.attempt("call_later", loop.call_later, 1, what)
            seen.attempt("call_at", loop.call_at, 1, what)
            if what is coroutine:
                made = coroutine()
                seen.kind("call_soon of a coroutine", loop.call_soon, made)
                made.close()


@scenario
def what_is_no_callback_and_runs_all_the_same(seen: Seen) -> None:
    for what in (None, 5, "x"):
        seen.kind("call_soon", seen.loop.call_soon, what)
    seen.loop.call_soon(seen.loop.stop)
    seen.loop.run_forever()


@scenario
def wrong_arguments_of_settings(seen: Seen) -> None:
    loop = seen.loop
    seen.attempt("set_exception_handler(5)", loop.set_exception_handler, 5)
    seen.attempt("set_exception_handler('x')", loop.set_exception_handler, "x")
    seen.note(loop.get_exception_handler() == seen.on_error)
    seen.attempt("set_exception_handler(None)", loop.set_exception_handler, None)
    seen.note(loop.get_exception_handler())
    seen.attempt("set_task_factory(5)", loop.set_task_factory, 5)
    seen.note(loop.get_task_factory())
    seen.attempt("set_default_executor(5)", loop.set_default_executor, 5)
    seen.attempt("set_default_executor(None)", loop.set_default_executor, None)
    seen.attempt("get_debug", loop.get_debug)
    seen.attempt("set_debug('x')", loop.set_debug, "x")
    seen.note(bool(loop.get_debug()))
    seen.attempt("set_debug(0)", loop.set_debug, 0)
    seen.note(bool(loop.get_debug()), type(loop.time()).__name__, type(loop)().slow_callback_duration)
    seen.kind("stop with an argument", loop.stop, 1)
    seen.kind("close with an argument", loop.close, 1)


# ---- errors


@scenario
def an_error_in_a_callback(seen: Seen) -> None:
    seen.loop.call_soon(fail, "soon", 1)
    seen.loop.call_later(0.001, fail, "later")
    seen.loop.call_soon_threadsafe(fail, "threadsafe")
    seen.loop.call_soon(seen.note, "goes on")
    seen.loop.call_later(0.01, seen.loop.stop)
    seen.loop.run_forever()


@scenario
def an_error_in_a_watcher(seen: Seen) -> None:
    a, b = pair()
    b.send(b"x")

    def readable() -> None:
        seen.loop.remove_reader(a)
        fail("reader")

    seen.loop.add_reader(a, readable)
    seen.loop.call_later(0.01, seen.loop.stop)
    seen.loop.run_forever()
    a.close()
    b.close()


@scenario
def errors_with_the_default_handler(seen: Seen) -> None:
    seen.loop.set_exception_handler(None)
    seen.loop.call_soon(fail, "default")
    seen.loop.call_later(0.005, seen.loop.stop)
    seen.loop.run_forever()
    seen.attempt(
        "call_exception_handler", seen.loop.call_exception_handler, {"message": "hello", "future": 5, "x": [1]}
    )
    seen.attempt("without a message", seen.loop.call_exception_handler, {"exception": ValueError("x")})
    seen.attempt("nothing", seen.loop.call_exception_handler, {})
    seen.attempt("no dict", seen.loop.call_exception_handler, 5)


@scenario
def errors_in_the_exception_handler(seen: Seen) -> None:
    def broken(loop: Any, context: dict[str, Any]) -> None:
        raise RuntimeError("handler")

    seen.loop.set_exception_handler(broken)
    seen.loop.call_soon(fail, "first")
    seen.loop.call_later(0.005, seen.loop.stop)
    seen.loop.run_forever()
    seen.loop.default_exception_handler = broken
    seen.loop.set_exception_handler(None)
    seen.loop.call_soon(fail, "second")
    seen.loop.call_later(0.005, seen.loop.stop)
    seen.loop.run_forever()


@scenario
def the_handler_runs_in_the_context_of_what_failed(seen: Seen) -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="none")
    seen.loop.set_exception_handler(lambda loop, context: seen.note("handler", var.get()))
    given = contextvars.copy_context()
    given.run(var.set, "given")
    seen.loop.call_soon(fail, "x", context=given)
    seen.loop.call_later(0.001, fail, "x", context=given)
    seen.loop.call_later(0.01, seen.loop.stop)
    seen.loop.run_forever()


@scenario
def what_ends_the_run(seen: Seen) -> None:
    def leave(kind: type[BaseException]) -> None:
        raise kind("leave")

    for kind in (SystemExit, KeyboardInterrupt):
        seen.loop.call_soon(seen.note, "before")
        seen.loop.call_soon(leave, kind)
        seen.loop.call_soon(seen.note, "after")
        try:
            seen.loop.run_forever()
        except BaseException as exc:
            seen.note("run_forever", told(exc))
        seen.note(seen.loop.is_running(), seen.loop.is_closed())
        seen.loop.call_later(0.001, leave, kind)
        try:
            seen.loop.run_forever()
        except BaseException as exc:
            seen.note("run_forever", told(exc))
    seen.loop.call_soon(leave, GeneratorExit)
    seen.loop.call_soon(leave, asyncio.CancelledError)
    seen.loop.call_later(0.001, seen.loop.stop)
    try:
        seen.loop.run_forever()
    except BaseException as exc:
        seen.note("run_forever", told(exc))


@scenario
def debug_says_where_a_handle_was_made(seen: Seen) -> None:
    seen.loop.set_debug(True)
    context: list[dict[str, Any]] = []
    seen.loop.set_exception_handler(lambda loop, c: context.append(c))
    handle = seen.loop.call_soon(fail)
    later = seen.loop.call_later(0, fail)
    seen.note(type(handle._source_traceback).__name__, repr(handle).count("created at"))
    seen.note(handle._source_traceback[-1].name, later._source_traceback[-1].name)
    seen.loop.call_later(0.005, seen.loop.stop)
    seen.loop.run_forever()
    for one in context:
        seen.note(sorted(one), one["message"], one["source_traceback"][-1].name)


@scenario
def debug_warns_of_slow_callbacks(seen: Seen) -> None:
    seen.loop.set_debug(True)
    seen.loop.slow_callback_duration = 0.005

    async def slow() -> None:
        time.sleep(0.01)

    seen.loop.call_soon(time.sleep, 0.01)
    seen.loop.call_later(0, time.sleep, 0.01)
    seen.loop.run_until_complete(slow())
    seen.loop.call_later(0.001, seen.loop.stop)
    seen.loop.run_forever()


@scenario
def debug_checks_the_thread(seen: Seen) -> None:
    seen.loop.set_debug(True)

    def other() -> None:
        seen.attempt("call_soon", seen.loop.call_soon, nothing)
        seen.attempt("call_later", seen.loop.call_later, 1, nothing)
        seen.attempt("call_at", seen.loop.call_at, 1, nothing)
        seen.kind("call_soon_threadsafe", seen.loop.call_soon_threadsafe, nothing)

    async def main() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.001)

    seen.loop.run_until_complete(main())
    thread = threading.Thread(target=lambda: seen.kind("not running", seen.loop.call_soon, nothing))
    thread.start()
    thread.join()


# ---- life and death


@scenario
def run_until_complete_and_its_errors(seen: Seen) -> None:
    loop = seen.loop

    async def give() -> int:
        return 5

    async def broken() -> None:
        fail("broken")

    seen.attempt("a coroutine", loop.run_until_complete, give())
    seen.attempt("an error", loop.run_until_complete, broken())
    seen.attempt("a number", loop.run_until_complete, 5)
    seen.attempt("None", loop.run_until_complete, None)
    done = loop.create_future()
    done.set_result(6)
    seen.attempt("a future", loop.run_until_complete, done)
    loop.call_soon(loop.stop)
    seen.attempt("stopped", loop.run_until_complete, loop.create_future())
    cancelled = loop.create_future()
    cancelled.cancel()
    try:
        loop.run_until_complete(cancelled)
    except asyncio.CancelledError as exc:
        seen.note("cancelled", told(exc))
    other = type(loop)()
    foreign = other.create_future()
    seen.attempt("another loop's", loop.run_until_complete, foreign)
    other.close()


@scenario
def running_twice(seen: Seen) -> None:
    loop, other = seen.loop, type(seen.loop)()

    async def main() -> None:
        seen.attempt("run_forever", loop.run_forever)
        seen.attempt("run_until_complete", loop.run_until_complete, loop.create_future())
        seen.attempt("close", loop.close)
        seen.attempt("another's run_forever", other.run_forever)
        future = other.create_future()
        seen.attempt("another's run_until_complete", other.run_until_complete, future)
        seen.note(loop.is_running(), other.is_running(), asyncio.get_running_loop() is loop)
        seen.attempt("asyncio.run", asyncio.run, 5)

    loop.run_until_complete(main())
    seen.note(loop.is_running())
    other.close()


@scenario
def the_repr_of_a_loop(seen: Seen) -> None:
    async def main() -> None:
        seen.note(repr(seen.loop))

    seen.note(repr(seen.loop))
    seen.loop.run_until_complete(main())
    seen.loop.set_debug(True)
    seen.note(repr(seen.loop))
    seen.loop.close()
    seen.note(repr(seen.loop))


@scenario
def after_close(seen: Seen) -> None:
    loop = seen.loop
    seen.attempt("close", loop.close)
    seen.attempt("close again", loop.close)
    seen.note(loop.is_closed(), loop.is_running())
    a, b = pair()

    async def main() -> None: ...

    seen.attempt("call_soon", loop.call_soon, nothing)
    seen.attempt("call_soon_threadsafe", loop.call_soon_threadsafe, nothing)
    seen.attempt("call_later", loop.call_later, 1, nothing)
    seen.attempt("call_at", loop.call_at, 1, nothing)
    seen.attempt("run_forever", loop.run_forever)
    for coroutine, method in ((main(), loop.create_task), (main(), loop.run_until_complete)):
        seen.attempt(method.__name__, method, coroutine)
        coroutine.close()
    seen.attempt("run_in_executor", loop.run_in_executor, None, nothing)
    seen.attempt("add_reader", loop.add_reader, a, nothing)
    seen.attempt("add_writer", loop.add_writer, a, nothing)
    seen.attempt("remove_reader", loop.remove_reader, a)
    seen.attempt("remove_writer", loop.remove_writer, a)
    seen.attempt("add_signal_handler", loop.add_signal_handler, signal.SIGUSR1, nothing)
    seen.attempt("remove_signal_handler", loop.remove_signal_handler, signal.SIGUSR1)
    seen.attempt("stop", loop.stop)
    seen.kind("time", loop.time)
    seen.kind("create_future", loop.create_future)
    seen.attempt("set_debug", loop.set_debug, True)
    seen.attempt("call_soon with debug", loop.call_soon, nothing)
    seen.attempt("call_exception_handler", loop.call_exception_handler, {"message": "after close"})
    a.close()
    b.close()


@scenario
def closed_with_work_left(seen: Seen) -> None:
    loop = seen.loop
    a, b = pair()
    handle, timer = loop.call_soon(seen.note, "never"), loop.call_later(1, seen.note, "never")
    loop.add_reader(a, nothing)
    loop.add_signal_handler(signal.SIGUSR1, nothing)
    loop.close()
    seen.note(handle.cancelled(), timer.cancelled(), signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL)
    seen.attempt("cancel", handle.cancel)
    seen.attempt("cancel", timer.cancel)
    a.close()
    b.close()


@scenario
def a_loop_that_is_dropped(seen: Seen) -> None:
    other = type(seen.loop)()
    seen.note("dropped")
    del other


@scenario
def dunder_asyncio_run(seen: Seen) -> None:
    async def main() -> int:
        task = asyncio.current_task()
        assert task is not None
        seen.note(task.get_name(), asyncio.get_running_loop().get_debug())
        asyncio.get_running_loop().call_later(50, nothing)
        seen.left_over = asyncio.create_task(asyncio.sleep(50), name="left over")  # type: ignore[attr-defined]
        return 3

    with asyncio.Runner(loop_factory=type(seen.loop), debug=True) as runner:
        seen.attempt("run", runner.run, main())
        loop = runner.get_loop()
    seen.note(loop.is_closed())
    seen.attempt("run", runner.run, 5)


# ---- executors


@scenario
async def run_in_executor_and_its_errors(seen: Seen) -> None:
    loop = seen.loop

    async def coroutine() -> None: ...

    await seen.wait("a result", loop.run_in_executor(None, lambda: 5))
    await seen.wait("arguments", loop.run_in_executor(None, divmod, 7, 2))
    await seen.wait("an error", loop.run_in_executor(None, fail, "in a thread"))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        await seen.wait("another pool", loop.run_in_executor(pool, lambda: 6))
    seen.attempt("a pool that was shut down", loop.run_in_executor, pool, nothing)
    seen.kind("no function", loop.run_in_executor, None)
    loop.set_debug(True)
    for what in (coroutine, 5):
        seen.attempt("debug", loop.run_in_executor, None, what)
    loop.set_debug(False)
    await seen.wait("shutdown", loop.shutdown_default_executor())
    seen.attempt("after shutdown", loop.run_in_executor, None, nothing)
    await seen.wait("getaddrinfo of a name after shutdown", loop.getaddrinfo("localhost", "http", flags=0))
    await seen.wait("shutdown again", loop.shutdown_default_executor())


@scenario
async def an_executor_call_that_is_cancelled(seen: Seen) -> None:
    go = threading.Event()
    future = seen.loop.run_in_executor(None, go.wait, 5)
    await asyncio.sleep(0.01)
    seen.note(future.cancel(), future.cancelled())
    await seen.wait("cancelled", future)
    go.set()


# ---- tasks


@scenario
async def names_and_contexts_of_tasks(seen: Seen) -> None:
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)

    async def show() -> int:
        var.set(var.get() + 1)
        return var.get()

    loop = seen.loop
    given = contextvars.copy_context()
    task = loop.create_task(show(), name="called")
    seen.note(task.get_name(), await task)
    task = loop.create_task(show(), name=5)
    seen.note(task.get_name(), await task)
    task = loop.create_task(show(), name=None)
    seen.note(await task)
    task = loop.create_task(show(), context=given)
    seen.note(await task, given[var], var.get())
    task = loop.create_task(show(), name="both", context=given)
    seen.note(task.get_name(), await task)
    seen.note(repr(task))


@scenario
async def what_is_no_task(seen: Seen) -> None:
    async def coroutine() -> None: ...

    loop = seen.loop
    for what in (None, 5, coroutine, loop.create_future()):
        seen.attempt("create_task", loop.create_task, what)
    seen.kind("create_task of nothing", loop.create_task)
    made = coroutine()
    seen.kind("an unknown keyword", loop.create_task, made, wrong=1)
    made.close()
    made = coroutine()
    seen.kind("two arguments", loop.create_task, made, "name")
    made.close()


@scenario
async def eager_tasks(seen: Seen) -> None:
    async def main() -> int:
        seen.note("runs", asyncio.current_task().get_name())  # type: ignore[union-attr]
        return 1

    made = main()
    try:
        task = seen.loop.create_task(made, name="eager", eager_start=True)
    except TypeError:
        seen.note("refused")
        made.close()
    else:
        seen.note(task.done(), await task)
        task = seen.loop.create_task(main(), name="lazy", eager_start=False)
        seen.note(task.done(), await task)
    if sys.version_info >= (3, 12):
        seen.loop.set_task_factory(asyncio.eager_task_factory)
        task = seen.loop.create_task(main(), name="by factory")
        seen.note(task.done(), await task)
        task = asyncio.create_task(main(), name="by asyncio")
        seen.note(task.done(), await task)
        seen.loop.set_task_factory(None)


@scenario
async def task_factories(seen: Seen) -> None:
    async def main() -> int:
        return 1

    def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
        seen.note("factory", loop is seen.loop, sorted(kwargs))
        return asyncio.Task(coro, loop=loop, **kwargs)

    seen.loop.set_task_factory(factory)
    seen.note(seen.loop.get_task_factory() is factory)
    await seen.wait("plain", seen.loop.create_task(main()))
    task = seen.loop.create_task(main(), name="called", context=contextvars.copy_context())
    seen.note(task.get_name(), await task)
    await seen.wait("gather", asyncio.gather(main(), main()))
    seen.loop.set_task_factory(lambda loop, coro, **kwargs: coro.close())
    seen.attempt("None from the factory", seen.loop.create_task, main())
    seen.loop.set_task_factory(lambda loop, coro: (coro.close(), fail("factory")))
    made = main()
    seen.kind("an error in the factory", seen.loop.create_task, made)
    made.close()
    seen.loop.set_task_factory(None)


@scenario
async def a_task_whose_error_nobody_took(seen: Seen) -> None:
    async def broken() -> None:
        fail("nobody asks")

    seen.loop.create_task(broken(), name="broken")
    await seen.turns()
    import gc

    gc.collect()


@scenario
async def cancelling_and_waiting(seen: Seen) -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError as exc:
            seen.note("cancelled", exc.args)
            return "kept on"
        return ""

    task = seen.loop.create_task(stubborn())
    await asyncio.sleep(0)
    seen.note(task.cancel("why"), task.cancelling())
    await seen.wait("stubborn", task)
    await seen.wait("wait_for", asyncio.wait_for(seen.loop.create_future(), 0.001))
    await seen.wait("wait_for 0", asyncio.wait_for(seen.loop.create_future(), 0))
    await seen.wait("gather", asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0.001, 2)))
    await seen.wait("shield", asyncio.shield(asyncio.sleep(0, 3)))
    done, pending = await asyncio.wait({asyncio.ensure_future(asyncio.sleep(0))}, timeout=1)
    seen.note(len(done), len(pending))


@scenario
async def the_order_of_tasks(seen: Seen) -> None:
    async def worker(name: str) -> None:
        for step in range(3):
            seen.note(name, step)
            await asyncio.sleep(0)

    seen.loop.call_soon(seen.note, "soon")
    tasks = [seen.loop.create_task(worker(name)) for name in "abc"]
    for task in tasks:
        task.add_done_callback(lambda task: seen.note("done"))
    seen.loop.call_soon(seen.note, "soon after")
    await asyncio.gather(*tasks)


@scenario
async def async_generators(seen: Seen) -> None:
    async def numbers() -> Any:
        try:
            yield 1
            yield 2
        finally:
            seen.note("closed")

    async def broken() -> Any:
        try:
            yield 1
        finally:
            fail("in aclose")

    kept, kept_too = numbers(), broken()
    seen.note(await anext(kept), await anext(kept_too))
    dropped = numbers()
    await anext(dropped)
    del dropped
    await seen.turns()
    await seen.wait("shutdown_asyncgens", seen.loop.shutdown_asyncgens())
    await seen.turns()
    late = numbers()
    await anext(late)
    await seen.wait("again", seen.loop.shutdown_asyncgens())
    await late.aclose()


@pytest.mark.parametrize("function", SCENARIOS, ids=lambda f: f.__name__)
def test_the_same_is_seen(function: Callable[[Seen], Any]) -> None:
    compare(function)


# ---- on purpose


@pytest.mark.parametrize("when", [10**9, Fraction(10**9), True])
def test_when_is_always_a_float(loop: Loop, when: Any) -> None:
    """asyncio gives back what call_at() was given, and orders its timers by that."""
    timer = loop.call_at(when, nothing)
    assert type(timer.when()) is float and timer.when() == when
    with pytest.raises(TypeError):
        loop.call_at("5", nothing)  # type: ignore[arg-type]


def test_a_context_that_is_none_is_refused_when_it_is_used(loop: Loop) -> None:
    """asyncio: AttributeError, as an int has no run()."""
    errors: list[Any] = []
    loop.set_exception_handler(lambda loop, context: errors.append(context["exception"]))
    loop.call_soon(nothing, context=5)  # type: ignore[arg-type]
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert [type(error) for error in errors] == [TypeError]


def test_a_time_that_is_no_number_is_refused(loop: Loop) -> None:
    """asyncio takes NaN, and the order of its timers is lost."""
    with pytest.raises(ValueError, match="NaN"):
        loop.call_later(math.nan, nothing)
    with pytest.raises(ValueError, match="NaN"):
        loop.call_at(math.nan, nothing)
