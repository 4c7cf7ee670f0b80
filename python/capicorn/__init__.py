"""Capicorn: an ASGI server that is one C extension on libuv and llhttp.

    capicorn main:app
    capicorn.run("main:app")

Names are imported when they are first used, so `import capicorn` costs nothing, starts no thread and opens no file.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from capicorn._version import __version__

if TYPE_CHECKING:
    from capicorn.cli import main
    from capicorn.config import Config
    from capicorn.gunicorn_worker import GunicornWorker as GunicornWorker
    from capicorn.loop import Loop, install, new_event_loop
    from capicorn.runner import run
    from capicorn.server import Server

__all__ = ["Config", "Loop", "Server", "__version__", "install", "main", "new_event_loop", "run"]

_NAMES = {
    "Config": "capicorn.config",
    "GunicornWorker": "capicorn.gunicorn_worker",
    "Loop": "capicorn.loop",
    "Server": "capicorn.server",
    "install": "capicorn.loop",
    "main": "capicorn.cli",
    "new_event_loop": "capicorn.loop",
    "run": "capicorn.runner",
}
_SUBMODULES = frozenset(
    ("config", "importer", "lifespan", "logging", "loop", "middleware", "protocols", "server", "supervisors")
)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"capicorn.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_SUBMODULES})


class _Package(ModuleType):
    """The import system binds a submodule to its name in the package. As in uvicorn, `main` is the command although
    a module `capicorn.main` exists as well."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _NAMES and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
