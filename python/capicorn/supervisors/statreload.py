"""Reload by looking at the times of all *.py files again and again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import socket

from capicorn.config import Config
from capicorn.supervisors.basereload import BaseReload

logger = logging.getLogger("capicorn.error")


class StatReload(BaseReload):
    def __init__(self, config: Config, target: Callable[..., None], sockets: list[socket]) -> None:
        super().__init__(config, target, sockets)
        self.reloader_name = "StatReload"
        self.mtimes: dict[Path, float] = {}
        if config.reload_excludes or config.reload_includes:
            logger.warning("--reload-include and --reload-exclude have no effect unless watchfiles is installed.")

    def should_restart(self) -> list[Path] | None:
        self.pause()
        for file in self.iter_py_files():
            try:
                mtime = file.stat().st_mtime
            except OSError:
                continue
            old = self.mtimes.setdefault(file, mtime)
            if mtime > old:
                return [file]
        return None

    def restart(self) -> None:
        self.mtimes = {}
        super().restart()

    def iter_py_files(self) -> Iterator[Path]:
        for directory in self.config.reload_dirs:
            for path in list(directory.rglob("*.py")):
                yield path.resolve()
