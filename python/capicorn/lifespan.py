"""The ASGI lifespan protocol: tells the application that the server starts and ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capicorn.config import Config

logger = logging.getLogger("capicorn.error")

STATE_TRANSITION_ERROR = "Got invalid state transition on lifespan protocol."


class LifespanOn:
    """Runs the application's lifespan in a task. `should_exit` is true after a failed start or stop.

    An application that raises before it answered is served nevertheless, unless lifespan is "on". `state` is the
    dict of the scope, which requests get copies of. startup() may be called again after shutdown().
    """

    def __init__(self, config: Config) -> None:
        if not config.loaded:
            config.load()
        self.config = config
        self.logger = logger
        self.state: dict[str, Any] = {}
        self.error_occurred = False
        self.startup_failed = False
        self.shutdown_failed = False
        self.should_exit = False
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        self.logger.info("Waiting for application startup.")
        self.startup_event = asyncio.Event()
        self.shutdown_event = asyncio.Event()
        self.receive_queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.error_occurred = self.startup_failed = self.shutdown_failed = self.should_exit = False
        self._task = asyncio.get_running_loop().create_task(self.main(), name="lifespan")
        self.receive_queue.put_nowait({"type": "lifespan.startup"})
        await self.startup_event.wait()
        if self.startup_failed or (self.error_occurred and self.config.lifespan == "on"):
            self.logger.error("Application startup failed. Exiting.")
            self.should_exit = True
        else:
            self.logger.info("Application startup complete.")

    async def shutdown(self) -> None:
        """Idempotent; nothing happens when the application has no lifespan or has not been started."""
        if self.error_occurred or self._task is None:
            return
        self.logger.info("Waiting for application shutdown.")
        self.receive_queue.put_nowait({"type": "lifespan.shutdown"})
        await self.shutdown_event.wait()
        self._task = None
        if self.shutdown_failed or (self.error_occurred and self.config.lifespan == "on"):
            self.logger.error("Application shutdown failed. Exiting.")
            self.should_exit = True
        else:
            self.logger.info("Application shutdown complete.")

    def cancel(self) -> None:
        """Give up on an application that is still starting or stopping."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def main(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": self.config.asgi_version, "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self.config.loaded_app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            self.error_occurred = True
            raise
        except BaseException as exc:
            self.error_occurred = True
            if self.startup_failed or self.shutdown_failed:
                return
            if self.config.lifespan == "auto":
                self.logger.info("ASGI 'lifespan' protocol appears unsupported.")
                self.logger.debug("What the application raised on the lifespan scope:", exc_info=exc)
            else:
                self.logger.error("Exception in 'lifespan' protocol\n", exc_info=exc)
        finally:
            self.startup_event.set()
            self.shutdown_event.set()

    async def receive(self) -> dict[str, Any]:
        return await self.receive_queue.get()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        kind = message["type"]
        known = {f"lifespan.{part}.{end}" for part in ("startup", "shutdown") for end in ("complete", "failed")}
        if kind not in known:
            raise RuntimeError(f"Expected an ASGI 'lifespan' message, but got '{kind}'.")
        starting = kind.startswith("lifespan.startup")
        if self.shutdown_event.is_set() or self.startup_event.is_set() == starting:
            raise RuntimeError(STATE_TRANSITION_ERROR)
        if kind.endswith("failed"):
            if starting:
                self.startup_failed = True
            else:
                self.shutdown_failed = True
            if message.get("message"):
                self.logger.error(message["message"])
        (self.startup_event if starting else self.shutdown_event).set()


class LifespanOff:
    """No lifespan events."""

    def __init__(self, config: Config) -> None:
        self.should_exit = False
        self.state: dict[str, Any] = {}

    async def startup(self) -> None: ...

    async def shutdown(self) -> None: ...

    def cancel(self) -> None: ...
