"""Threads for synchronous work: one number for AnyIO's limiter (`def` endpoints and dependencies of FastAPI and
Starlette) and for the loop's default executor (`run_in_executor(None, ...)`, `asyncio.to_thread()`)."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

FULL = 5.0
"""Seconds for which calls have to wait without a break before the log says so."""

SAY_AGAIN = 60.0

logger = logging.getLogger("capicorn.error")


class ThreadPool:
    """`size` threads for each of the two. install() in the event loop, before the application starts."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.busy = 0
        """Threads at work, at the last look()."""
        self.queued = 0
        """Calls that waited for one then."""
        self._executor: ThreadPoolExecutor | None = None
        self._limiter: Any = None
        self._full_since: float | None = None
        self._said = float("-inf")

    def install(self) -> None:
        self._executor = ThreadPoolExecutor(self.size, thread_name_prefix="capicorn")
        asyncio.get_running_loop().set_default_executor(self._executor)
        if importlib.util.find_spec("anyio") is not None:
            from anyio.to_thread import current_default_thread_limiter

            self._limiter = current_default_thread_limiter()
            self._limiter.total_tokens = self.size

    def look(self, now: float) -> None:
        """Count, and warn when calls have been waiting for long. `now`: seconds of a monotonic clock."""
        busy = queued = 0
        executor = self._executor
        if executor is not None:
            queued = executor._work_queue.qsize()
            # an idle thread has put a token into the semaphore; one that ends its work after this look does so later
            idle = executor._idle_semaphore._value
            busy = max(0, len(executor._threads) - idle)
        if self._limiter is not None:
            seen = self._limiter.statistics()
            busy += seen.borrowed_tokens
            queued += seen.tasks_waiting
        self.busy, self.queued = busy, queued
        if not queued:
            self._full_since = None
            return
        if self._full_since is None:
            self._full_since = now
        elif now - self._full_since >= FULL and now - self._said >= SAY_AGAIN:
            self._said = now
            logger.warning(
                "%d calls of synchronous code wait for a thread, and some have for %.0f seconds; --threads is %d.",
                queued,
                now - self._full_since,
                self.size,
            )
