"""A server in a child process of its own, started afresh (spawn): it imports the application anew."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from socket import socket
from typing import TYPE_CHECKING, Any

from capicorn.config import Config

if TYPE_CHECKING:
    from capicorn._core import Scoreboard


def get_subprocess(config: Config, target: Callable[..., None], sockets: list[socket]) -> SpawnProcess:
    """The process that will call `target(sockets=sockets)`, not yet started. All three are pickled."""
    multiprocessing.allow_connection_pickling()
    shim = sys.modules.get("capicorn.uvicorn_names")
    arguments: dict[str, Any] = {
        "config": config,
        "target": target,
        "sockets": sockets,
        "stdin": _stdin(),
        "as_uvicorn": shim is not None and shim.active(),
    }
    return multiprocessing.get_context("spawn").Process(target=started, kwargs=arguments)


def started(
    config: Config, target: Callable[..., None], sockets: list[socket], stdin: int | None, as_uvicorn: bool
) -> None:
    """The child's main function. Ends with the exit codes of the command."""
    from capicorn.cli import print_without_us

    if stdin is not None:  # debuggers want it; multiprocessing puts /dev/null there
        try:
            sys.stdin = os.fdopen(stdin)
        except OSError:
            pass
    if as_uvicorn:
        from capicorn.uvicorn_names import install

        install(shadow=True)
    config.configure_logging()
    try:
        target(sockets=sockets)
    except KeyboardInterrupt:
        pass
    except Exception as exc:
        print_without_us(exc)
        sys.exit(1)


def spawn_worker(
    config: Config,
    target: Callable[..., None],
    sockets: list[socket],
    channel: socket,
    board: Scoreboard,
    slot: int,
    age: int,
    rescue: tuple[socket, socket] | None,
) -> int:
    """Start a worker that is an interpreter of its own; its process number."""
    from capicorn.supervisors import worker

    multiprocessing.allow_connection_pickling()
    shim = sys.modules.get("capicorn.uvicorn_names")
    supervisor, config.supervisor = config.supervisor, None
    loaded = config.loaded, config.loaded_app, config.ssl
    config.loaded, config.loaded_app, config.ssl = False, None, None  # it loads them itself
    hooks, config.hooks = config.hooks, None  # functions of a file have no name to import them by: it is read again
    try:
        child = multiprocessing.get_context("spawn").Process(
            target=worker.spawned,
            args=(config, target, sockets, channel, _Descriptor(board.fileno()), slot, age, rescue),
            kwargs={"as_uvicorn": shim is not None and shim.active()},
        )
        child.start()
    finally:
        config.supervisor, config.hooks = supervisor, hooks
        config.loaded, config.loaded_app, config.ssl = loaded
    multiprocessing.process._children.discard(child)  # type: ignore[attr-defined]  # it is waited for by its number
    assert child.pid is not None
    return child.pid


class _Descriptor:
    """A descriptor that is pickled for a child."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> Any:
        from multiprocessing import reduction

        return _detached, (reduction.DupFd(self.fd),)


def _detached(dup: Any) -> int:
    fd: int = dup.detach()
    return fd


def _stdin() -> int | None:
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        return None
