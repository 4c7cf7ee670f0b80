"""Runs a scenario on asyncio's own loop and on capicorn.Loop, and compares what is seen.

A scenario is a function, or a coroutine function, of a `Seen`; what it notes there has to be equal. So have what is
logged to the logger "asyncio", the warnings, the contexts that a default exception handler gets, and how it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import gc
import inspect
import logging
import re
import socket
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from capicorn.loop import Loop

SAME = [
    (r"0x[0-9a-f]+", "0x"),
    (r"\bfd=\d+", "fd=N"),
    (r"\bfd(s?) \d+", r"fd\1 N"),
    (r"File descriptor \d+", "File descriptor N"),
    (r"\bwhen=[\d.]+", "when=T"),
    (r"\b\d+\.\d+ (?=(?:sec|ms))", "T "),
    (r"'127\.0\.0\.1', \d+", "'127.0.0.1', N"),
    (r"\bpid=\d+", "pid=N"),
    (r"Task-\d+", "Task-N"),
    # which handle it was, and what polls just then
    (r"handle=<Handle [^\n]*?>, message", "message"),
    (r"_(?:read|write)_ready\([^()]*\)", "_ready()"),
    (r"\b\w+\._ready\(\)|protocol\.datagram_received\(\)", "what reads"),
    (r"\b\w+\._call_connection_lost\b", "_call_connection_lost"),
    (r"write=<(?:polling|idle)", "write=<"),
    (r"bufsize=\d+", "bufsize=N"),
    (r"(PipeTransport closed fd=N) closed", r"\1"),
    (r"<_?(?:Unix|Selector|Stream|Read|Write|Datagram)[^<>]*\.\.\.[^<>]*(?:<[^<>]*>)?>+\)", "<...>)"),
    # what kinds are called
    (r"\b_?(?:UnixSelectorEventLoop|Loop)\b", "Loop"),
    (r"\b(?:_SelectorSocketTransport|StreamTransport|AcceptedTransport)\b", "StreamTransport"),
    (r"\b(?:_SelectorDatagramTransport|DatagramTransport)\b", "DatagramTransport"),
    (r"\b(?:_UnixReadPipeTransport|ReadPipeTransport)\b", "ReadPipeTransport"),
    (r"\b(?:_UnixWritePipeTransport|WritePipeTransport)\b", "WritePipeTransport"),
]


def same(text: object) -> str:
    """What differs from run to run, and what kinds are called, replaced."""
    text = str(text)
    for pattern, by in SAME:
        text = re.sub(pattern, by, text)
    return text


def told(exc: BaseException | None) -> str:
    return "None" if exc is None else same(f"{type(exc).__name__}: {exc}")


class Seen(logging.Handler):
    """What a scenario sees."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop: Any = loop
        self.notes: list[str] = []
        self.unraisable: list[str] = []

    def note(self, *what: object) -> None:
        self.notes.append(" ".join(same(w) for w in what))

    def attempt(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls the function, and notes what it returns or raises."""
        try:
            got = function(*args, **kwargs)
        except Exception as exc:
            self.note(what, "raises", told(exc))
            return None
        self.note(what, "->", repr(got))
        return got

    def kind(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As attempt(), for errors whose words come from CPython's calling convention."""
        try:
            got = function(*args, **kwargs)
        except Exception as exc:
            self.note(what, "raises", type(exc).__name__)
            return None
        self.note(what, "-> something" if got is not None else "-> None")
        return got

    async def wait(self, what: str, awaitable: Awaitable[Any]) -> Any:
        """Awaits it, and notes what it returns or raises."""
        try:
            got = await awaitable
        except (Exception, asyncio.CancelledError) as exc:
            self.note(what, "raises", told(exc))
            return None
        self.note(what, "->", repr(got))
        return got

    async def turns(self, number: int = 5) -> None:
        for _ in range(number):
            await asyncio.sleep(0)

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                await asyncio.sleep(0.001)

    def on_error(self, loop: Any, context: dict[str, Any]) -> None:
        """An exception handler: notes all of the context."""
        parts = []
        for key, value in sorted(context.items()):
            parts.append(f"{key}={told(value) if isinstance(value, BaseException) else repr(value)}")
        self.note("error:", ", ".join(parts))

    def on_unraisable(self, args: Any) -> None:
        self.unraisable.append(f"{args.object!r}: {args.exc_value!r}")

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("Using selector"):
            return
        if record.exc_info and record.exc_info[1] is not None:
            text += f" [{told(record.exc_info[1])}]"
        self.note("log:", record.levelname, text)


@contextlib.contextmanager
def logged(seen: Seen) -> Iterator[None]:
    logger = logging.getLogger("asyncio")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(seen)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(seen)
        logger.setLevel(level)
        logger.propagate = propagate


def close(loop: asyncio.AbstractEventLoop) -> None:
    if loop.is_closed():
        return
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0.001))
    loop.run_until_complete(loop.shutdown_asyncgens())
    if getattr(loop, "_default_executor", None) is not None:
        loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def see(scenario: Callable[[Seen], Any], make: Callable[[], asyncio.AbstractEventLoop]) -> Seen:
    """What is seen of the scenario on a loop of that kind."""
    gc.collect()
    loop = make()
    seen = Seen(loop)
    loop.slow_callback_duration = 60.0  # the machine may be busy
    loop.set_exception_handler(seen.on_error)
    before, sys.unraisablehook = sys.unraisablehook, seen.on_unraisable
    with logged(seen), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            if inspect.iscoroutinefunction(scenario):
                loop.run_until_complete(asyncio.wait_for(scenario(seen), 10))
            else:
                scenario(seen)
        except BaseException as exc:
            seen.note("ended with", told(exc))
            if isinstance(exc, (AssertionError, TimeoutError, AttributeError, NameError)):
                raise
        finally:
            close(loop)
            gc.collect()
            sys.unraisablehook = before
    for warning in warned:
        seen.note("warning:", warning.category.__name__, warning.message)
    return seen


def compare(scenario: Callable[[Seen], Any]) -> None:
    theirs = see(scenario, asyncio.SelectorEventLoop)
    ours = see(scenario, Loop)
    assert theirs.notes, "the scenario saw nothing"
    assert not ours.unraisable, ours.unraisable  # asyncio's transports have some
    if ours.notes != theirs.notes:
        lines = difflib.unified_diff(theirs.notes, ours.notes, "asyncio", "capicorn", lineterm="")
        raise AssertionError("\n".join(["what is seen differs:", *lines]))


def pair() -> tuple[socket.socket, socket.socket]:
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    return a, b


# what callbacks do


def fail(*args: Any) -> Any:
    raise ValueError(*args)


def nothing(*args: Any, **kwargs: Any) -> None:
    pass
