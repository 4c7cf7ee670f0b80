"""Capicorn's own threads for synchronous work: `capicorn._core.ThreadPool` as the default executor of a
`capicorn.Loop`, and behind AnyIO's `to_thread.run_sync()`, which Starlette and FastAPI use for `def` endpoints.

AnyIO has no place for another implementation of its threads, so that a method of its asyncio back end is replaced, as
long as a loop of ours asks for it and for that loop alone. What it promises stays: limiters and their statistics,
cancel scopes, context variables, `anyio.from_thread`. Whatever is unusual goes to AnyIO's own method."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import inspect
import sys
import threading
import weakref
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from capicorn import _core

if TYPE_CHECKING:
    from capicorn.loop import Loop

IDLE = 10.0
"""Seconds after which a thread that nobody needs ends; AnyIO's figure."""

_pools: weakref.WeakSet[_core.ThreadPool] = weakref.WeakSet()


def _end_all() -> None:
    for pool in list(_pools):
        pool.close()


# Comes before the interpreter waits for threads that are no daemons, as for the standard library's executors.
threading._register_atexit(_end_all)  # type: ignore[attr-defined]


def _new_thread(target: Callable[[], None], name: str) -> threading.Thread:
    if sys.version_info >= (3, 14):  # whose first call made it must not matter
        return threading.Thread(target=target, name=name, context=Context())
    return threading.Thread(target=target, name=name)


# ---- the loop's default executor


class Executor(concurrent.futures.ThreadPoolExecutor):
    """`size` threads of ours. To the eye, and for `submit()`, an executor of the standard library;
    `loop.run_in_executor(None, ...)` is shorter."""

    def __init__(self, loop: Loop, size: int | None = None) -> None:
        super().__init__(size, thread_name_prefix="capicorn")
        self._numbers = 0
        self._pool = _core.ThreadPool(loop, self._start, size=self._max_workers, idle=IDLE)
        self._capicorn_call = self._pool.call
        """_capicorn_call(func, args): a future of the loop. Only in the loop's thread."""
        _pools.add(self._pool)

    @property
    def busy(self) -> int:
        return self._pool.busy

    @property
    def queued(self) -> int:
        return self._pool.queued

    def _start(self) -> None:
        thread = _new_thread(self._pool.work, f"{self._thread_name_prefix}_{self._numbers}")
        thread.start()
        self._numbers += 1
        self._threads = {one for one in self._threads if one.is_alive()} | {thread}

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._shutdown_lock:
            self._pool.run(_work_on, (future, fn, args, kwargs))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._shutdown_lock:
            self._shutdown = True
            if cancel_futures:
                for left in self._pool.forget():
                    (left[0] if isinstance(left, tuple) else left).cancel()
            self._pool.close()
        if wait:
            for thread in list(self._threads):
                thread.join()


def _work_on(
    future: concurrent.futures.Future[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args, **kwargs)
    except BaseException as exc:
        future.set_exception(exc)
        del future  # the exception's traceback has this frame
    else:
        future.set_result(result)


# ---- AnyIO

METHOD = "run_sync_in_worker_thread"
PARAMETERS = ["func", "args", "abandon_on_cancel", "limiter"]
"""Of that method, without the class."""
NAME = "AnyIO worker thread"


class AnyIOThreads:
    """AnyIO's threads for one loop. Made by install_anyio(); close() gives AnyIO its own back."""

    def __init__(self, loop: Loop, replacement: _Replacement) -> None:
        self._loop = loop
        self._replacement = replacement
        self.run_vars: dict[Any, Any] = replacement.lowlevel._run_vars.setdefault(loop, {})
        self._pool = _core.ThreadPool(
            loop, self._start, idle=IDLE, local=replacement.threadlocals, scope_name="current_cancel_scope"
        )
        self.call = self._pool.call
        _pools.add(self._pool)
        loop._anyio_threads = self
        replacement.install()

    @property
    def limiter(self) -> Any:
        """AnyIO's default limiter, if it has been asked for in this loop."""
        return self.run_vars.get(self._replacement.default_limiter)

    @property
    def busy(self) -> int:
        """Calls that run now: fewer than have a token of the limiter, when they are short."""
        return self._pool.busy

    @property
    def threads(self) -> int:
        return self._pool.threads

    def close(self) -> None:
        """The threads end when they are done. Idempotent."""
        if self._loop._anyio_threads is self:
            self._loop._anyio_threads = None
            self._replacement.uninstall()
        self._pool.close()

    def _start(self) -> None:
        _new_thread(self._work, NAME).start()

    def _work(self) -> None:
        begun = False
        try:
            with self._replacement.claim_worker_thread(self._replacement.backend, self._loop):
                self._replacement.threadlocals.current_cancel_scope = None
                begun = True
                self._pool.work()
        finally:
            if not begun:
                self._pool.lost()


class _Replacement:
    """The method, and how often it is wanted. AttributeError, ImportError or ValueError: an AnyIO unknown to us."""

    def __init__(self) -> None:
        module: Any = importlib.import_module("anyio._backends._asyncio")
        eventloop: Any = importlib.import_module("anyio._core._eventloop")
        synchronization: Any = importlib.import_module("anyio._core._synchronization")
        self.lowlevel: Any = importlib.import_module("anyio.lowlevel")
        self.backend: Any = module.AsyncIOBackend
        self.threadlocals: Any = eventloop.threadlocals
        self.claim_worker_thread: Any = eventloop.claim_worker_thread
        self.default_limiter: Any = module._default_thread_limiter
        self._users = 0
        self._original: Any = self.backend.__dict__[METHOD]
        if not isinstance(self._original, classmethod):
            raise ValueError(f"{METHOD} is no class method")
        found = inspect.signature(getattr(self.backend, METHOD)).parameters
        claims = inspect.signature(self.claim_worker_thread).parameters
        if list(found) != PARAMETERS or list(claims) != ["backend_class", "token"]:
            raise ValueError("its signatures are others")
        if not isinstance(self.lowlevel._run_vars, weakref.WeakKeyDictionary):
            raise ValueError("its run variables are kept elsewhere")
        if not hasattr(module.CancelScope(), "_parent_scope"):
            raise ValueError("its cancel scopes do not know their parents")
        # Since AnyIO 4.11 from_thread.run() does without a cancel scope where the task has none.
        adapter = getattr(synchronization, "CapacityLimiterAdapter", module.CapacityLimiter)
        self._method = classmethod(
            _make_method(
                original=self._original.__func__,
                limiters=(module.CapacityLimiter, adapter),
                default_limiter=self.default_limiter,
                task_states=module._task_states,
                cancel_scope=module.CancelScope,
                would_block=importlib.import_module("anyio").WouldBlock,
                reset_library=_reset_library(eventloop),
                scope_needed=not hasattr(self.lowlevel, "EventLoopToken"),
            )
        )

    def install(self) -> None:
        self._users += 1
        if self._users == 1:
            setattr(self.backend, METHOD, self._method)

    def uninstall(self) -> None:
        self._users -= 1
        if self._users == 0 and self.backend.__dict__.get(METHOD) is self._method:
            setattr(self.backend, METHOD, self._original)


def _reset_library(eventloop: Any) -> Callable[[Context], None] | None:
    """What makes a copied context forget which async library runs; None: it does not say."""
    sniffio = getattr(eventloop, "sniffio", None)
    if sniffio is None:
        return None
    variable = sniffio.current_async_library_cvar

    def reset(context: Context) -> None:
        if context.get(variable) is not None:
            context.run(variable.set, None)

    return reset


def _is_cancelled(scope: Any) -> bool:
    while scope is not None:
        if scope.cancel_called:
            return True
        if scope.shield:
            return False
        scope = scope._parent_scope
    return False


def _make_method(
    original: Callable[..., Any],
    limiters: tuple[type, ...],
    default_limiter: Any,
    task_states: Any,
    cancel_scope: Any,
    would_block: type[Exception],
    reset_library: Callable[[Context], None] | None,
    scope_needed: bool,
) -> Callable[..., Any]:
    get_running_loop, current_task = asyncio.get_running_loop, asyncio.current_task

    async def run_sync_in_worker_thread(
        cls: Any,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        abandon_on_cancel: bool = False,
        limiter: Any = None,
    ) -> Any:
        loop = get_running_loop()
        threads: AnyIOThreads | None = getattr(loop, "_anyio_threads", None)
        if threads is None or abandon_on_cancel:
            return await original(cls, func, args, abandon_on_cancel, limiter)
        if limiter is None:
            limiter = threads.run_vars.get(default_limiter) or cls.current_default_thread_limiter()
        task = current_task(loop)
        state = task_states.get(task) if task is not None else None
        scope = None if state is None else state.cancel_scope
        if (
            type(limiter) not in limiters
            or getattr(task, "_must_cancel", True)
            or (scope is not None and _is_cancelled(scope))
        ):
            return await original(cls, func, args, abandon_on_cancel, limiter)
        # A cancellation that was asked for has been seen to, and the call itself goes through the loop: so neither
        # AnyIO's checkpoint nor its second one, in the limiter, would change anything.
        try:
            limiter.acquire_on_behalf_of_nowait(task)
        except would_block:
            await limiter.acquire_on_behalf_of(task)
        try:
            context = copy_context()
            if reset_library is not None:
                reset_library(context)
            if scope is None and not scope_needed:
                return await threads.call(func, args, context)
            with cancel_scope(shield=True) as shield:
                return await threads.call(func, args, context, scope or shield)
        finally:
            limiter.release_on_behalf_of(task)

    return run_sync_in_worker_thread


_replacement: _Replacement | None = None


def install_anyio(loop: Loop) -> AnyIOThreads | None:
    """Run AnyIO's threads of this loop with ours, if AnyIO has been imported. None: it has not, or this AnyIO is one
    that we do not know."""
    global _replacement
    if "anyio" not in sys.modules or loop._anyio_threads is not None:
        return None
    if _replacement is None:
        try:
            _replacement = _Replacement()
        except (ImportError, AttributeError, KeyError, ValueError, TypeError):
            return None
    return AnyIOThreads(loop, _replacement)
