"""Reload by the operating system's notifications, through watchfiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from socket import socket

from watchfiles import watch

from capicorn.config import Config
from capicorn.supervisors.basereload import BaseReload

INCLUDES = ("*.py",)
EXCLUDES = (".*", ".py[cod]", ".sw.*", "~*")


class FileFilter:
    """Does a changed file count? Included and not excluded; a file that is included by its own name always does. A
    default is dropped when the user says the opposite."""

    def __init__(self, config: Config) -> None:
        self.includes = {name for name in INCLUDES if name not in config.reload_excludes} | set(config.reload_includes)
        left_out = {name for name in EXCLUDES if name not in config.reload_includes} | set(config.reload_excludes)
        self.exclude_dirs = {Path(name).resolve() for name in left_out if _is_dir(name)}
        self.excludes = {name for name in left_out if not _is_dir(name)}

    def __call__(self, path: Path) -> bool:
        matching = [pattern for pattern in self.includes if path.match(pattern)]
        if any(str(path).endswith(pattern) for pattern in matching):
            return True
        if not matching or any(directory in path.parents for directory in self.exclude_dirs):
            return False
        return not any(path.match(pattern) for pattern in self.excludes)


class WatchFilesReload(BaseReload):
    def __init__(self, config: Config, target: Callable[..., None], sockets: list[socket]) -> None:
        super().__init__(config, target, sockets)
        self.reloader_name = "WatchFiles"
        self.reload_dirs = list(config.reload_dirs)
        self.watch_filter = FileFilter(config)
        self.watcher = watch(
            *self.reload_dirs,
            watch_filter=None,
            stop_event=self.should_exit,
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )

    def should_restart(self) -> list[Path] | None:
        self.pause()
        changes = next(self.watcher)
        return sorted(path for path in {Path(change[1]) for change in changes} if self.watch_filter(path)) or None


def _is_dir(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:
        return False
