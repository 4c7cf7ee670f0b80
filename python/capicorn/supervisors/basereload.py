"""Reload: a child serves, and is replaced when files change."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path
from socket import socket
from types import FrameType

from capicorn.config import Config
from capicorn.logging import style
from capicorn.supervisors.child import get_subprocess

HANDLED_SIGNALS = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger("capicorn.error")


class BaseReload:
    """Holds the bound `sockets` and runs `target(sockets=…)` in a child. How changes are noticed is the subclasses'
    part: should_restart() waits a while and returns the changed files."""

    def __init__(self, config: Config, target: Callable[..., None], sockets: list[socket]) -> None:
        self.config = config
        self.target = target
        self.sockets = sockets
        self.should_exit = threading.Event()
        self.pid = os.getpid()
        self.reloader_name: str | None = None
        self.process: SpawnProcess

    def signal_handler(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit.set()

    def run(self) -> None:
        self.startup()
        for changes in self:
            if changes:
                logger.warning(
                    "%s detected changes in %s. Reloading...",
                    self.reloader_name,
                    ", ".join(map(_display_path, changes)),
                )
                self.restart()
        self.shutdown()

    def pause(self) -> None:
        """Wait for reload_delay; ends the iteration when the end was asked for."""
        if self.should_exit.wait(self.config.reload_delay):
            raise StopIteration

    def __iter__(self) -> Iterator[list[Path] | None]:
        return self

    def __next__(self) -> list[Path] | None:
        return self.should_restart()

    def startup(self) -> None:
        logger.info(
            f"Started reloader process [{self.pid}] using {self.reloader_name}",
            extra={
                "color_message": f"Started reloader process [{style(str(self.pid), fg='cyan', bold=True)}]"
                f" using {style(str(self.reloader_name), fg='cyan', bold=True)}"
            },
        )
        for sig in HANDLED_SIGNALS:
            signal.signal(sig, self.signal_handler)
        self._start()

    def restart(self) -> None:
        self._stop()
        self._start()

    def shutdown(self) -> None:
        self._stop()
        for sock in self.sockets:
            sock.close()
        logger.info(
            f"Stopping reloader process [{self.pid}]",
            extra={"color_message": f"Stopping reloader process [{style(str(self.pid), fg='cyan', bold=True)}]"},
        )

    def should_restart(self) -> list[Path] | None:
        raise NotImplementedError("Reload strategies should override should_restart()")

    def _start(self) -> None:
        self.process = get_subprocess(config=self.config, target=self.target, sockets=self.sockets)
        self.process.start()

    def _stop(self) -> None:
        """A child that does not end in its own time (its code blocks the loop) is killed."""
        self.process.terminate()
        graceful = self.config.timeout_graceful_shutdown
        self.process.join(None if graceful is None else graceful + 5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _display_path(path: Path) -> str:
    try:
        return f"'{path.relative_to(Path.cwd())}'"
    except ValueError:
        return f"'{path}'"
