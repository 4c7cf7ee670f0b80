"""Threads for synchronous work: one number for AnyIO's limiter (`def` endpoints and dependencies of FastAPI and
Starlette) and for the loop's default executor (`run_in_executor(None, ...)`, `asyncio.to_thread()`)."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from capicorn.thread_pool import AnyIOThreads, Executor

FULL = 5.0
"""Seconds for which calls have to wait without a break before the log says so."""

SAY_AGAIN = 60.0

logger = logging.getLogger("capicorn.error")


class ThreadPool:
    """`size` threads for each of the two; None: their own numbers. install() in the event loop, before the application
    starts. `native`: threads of ours, where the loop is ours too."""

    def __init__(self, size: int | None, native: bool = True) -> None:
        self.size = size
        self.native = native
        self.busy = 0
        """Threads at work, at the last look()."""
        self.queued = 0
        """Calls that waited for one then."""
        self.anyio: AnyIOThreads | None = None
        """Ours behind AnyIO's functions, if they are."""
        self._executor: ThreadPoolExecutor | Executor | None = None
        self._limiter: Any = None
        self._full_since: float | None = None
        self._said = float("-inf")

    def install(self) -> None:
        from capicorn.loop import Loop

        loop = asyncio.get_running_loop()
        if self.native and isinstance(loop, Loop):
            from capicorn.thread_pool import Executor, install_anyio

            self.anyio = install_anyio(loop)
            if self.size is not None or getattr(loop, "_default_executor", None) is None:
                self._executor = Executor(loop, self.size)
        elif self.size is not None:
            from concurrent.futures import ThreadPoolExecutor

            self._executor = ThreadPoolExecutor(self.size, thread_name_prefix="capicorn")
        if self._executor is not None:
            loop.set_default_executor(self._executor)
        if self.size is not None and importlib.util.find_spec("anyio") is not None:
            from anyio.to_thread import current_default_thread_limiter

            self._limiter = current_default_thread_limiter()
            self._limiter.total_tokens = self.size

    def close(self) -> None:
        """AnyIO's threads end; the executor's do with the loop's default executor."""
        if self.anyio is not None:
            self.anyio.close()

    @property
    def limit(self) -> int | None:
        """How many calls of AnyIO's can run at once, or else of the executor's; None: nobody has said yet."""
        if self.size is not None:
            return self.size
        if self._limiter is not None:
            tokens = self._limiter.total_tokens
            return None if math.isinf(tokens) else int(tokens)
        return getattr(self._executor, "_max_workers", None)

    def look(self, now: float) -> None:
        """Count, and warn when calls have been waiting for long. `now`: seconds of a monotonic clock."""
        busy = queued = 0
        executor = self._executor
        if executor is not None:
            busy, queued = _counts(executor)
        if self._limiter is None and self.anyio is not None:
            self._limiter = self.anyio.limiter
        if self._limiter is not None:
            seen = self._limiter.statistics()
            busy += seen.borrowed_tokens
            queued += seen.tasks_waiting
        self.busy, self.queued = busy, queued
        if not queued or not self._is_full():
            self._full_since = None
            return
        if self._full_since is None:
            self._full_since = now
        elif now - self._full_since >= FULL and now - self._said >= SAY_AGAIN:
            self._said = now
            logger.warning(
                "%d calls of synchronous code wait for a thread, and some have for %.0f seconds; --threads is %s.",
                queued,
                now - self._full_since,
                "not given" if self.size is None else self.size,
            )

    def _is_full(self) -> bool:
        """Of calls that take their time. Short ones of ours go through few threads one after another, and some wait
        whenever there is much to do."""
        if self.anyio is None or self._limiter is None:
            return True
        running, tokens = self.anyio.busy, self._limiter.total_tokens
        if self._executor is not None and hasattr(self._executor, "_capicorn_call"):
            ours: Any = self._executor
            if ours.queued and ours.busy * 2 >= ours._max_workers:
                return True
        return bool(running * 2 >= tokens)


def _counts(executor: ThreadPoolExecutor | Executor) -> tuple[int, int]:
    """Threads at work, and calls that wait."""
    if not hasattr(executor, "_capicorn_call"):
        # an idle thread has put a token into the semaphore; one that ends its work after this look does so later
        return max(0, len(executor._threads) - executor._idle_semaphore._value), executor._work_queue.qsize()
    ours: Any = executor
    return ours.busy, ours.queued
