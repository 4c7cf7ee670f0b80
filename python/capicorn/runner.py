"""run(): serve an application from a program, and what the command does."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from capicorn.config import STARTUP_FAILURE, Config
from capicorn.server import Server
from capicorn.supervisors import process
from capicorn.systemd import Service

if TYPE_CHECKING:
    from typing import Unpack

    from capicorn._arguments import ConfigArguments

USAGE_FAILURE = 2
"""Exit code for what is asked for and is not there."""

logger = logging.getLogger("capicorn.error")


def run(app: Any, *, app_dir: str | None = None, **kwargs: Unpack[ConfigArguments]) -> None:
    """Serve until a signal or the end; the keyword arguments are those of Config, and `app_dir` goes in front of
    sys.path. Exits with code 3 when the start fails, and with 2 for what this release cannot do."""
    if app_dir is not None:
        sys.path.insert(0, app_dir)
    run_config(Config(app, **kwargs))


def _signature() -> inspect.Signature:
    """Of run(): Config's arguments, all by keyword, and its own."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    app, *rest = inspect.signature(Config).parameters.values()
    own = inspect.Parameter("app_dir", keyword, default=None, annotation="str | None")
    return inspect.Signature([app, *(row.replace(kind=keyword) for row in rest), own])


run.__signature__ = _signature()  # type: ignore[attr-defined]


def run_config(config: Config, remake: Callable[[], Config] | None = None) -> None:
    """The same for a Config that exists. `remake` reads the configuration again, for SIGHUP with workers."""
    if config.use_subprocess and not isinstance(config.app, str):
        logger.warning("You must pass the application as an import string to enable 'reload' or 'workers'.")
        sys.exit(STARTUP_FAILURE)
    if reason := config.refused():
        logger.error(reason)
        sys.exit(USAGE_FAILURE)
    try:
        process.enter(config)
    except process.ProcessError as exc:
        logger.error("%s", exc)
        sys.exit(USAGE_FAILURE)
    config.owns_process = True
    server = Server(config=config)
    if config.use_workers and not config.should_reload:
        from capicorn.supervisors.command import run_workers

        sys.exit(run_workers(config, server.run, _remake(remake)))
    pidfile = None
    if config.pidfile is not None:
        pidfile = process.PidFile(config.pidfile)
        try:
            pidfile.create()
        except process.ProcessError as exc:
            logger.error("%s", exc)
            sys.exit(STARTUP_FAILURE)
    try:
        if not config.use_subprocess:
            config.load_app()
        if config.proc_name is not None:
            process.set_title(config, "parent" if config.should_reload else "server")
        if config.should_reload:
            from capicorn.supervisors import ChangeReload

            sock = config.bind_socket()
            sock.listen(config.backlog)  # who connects while no child serves waits, and is not turned away
            ChangeReload(config, target=server.run, sockets=[sock]).run()
        else:
            config.service = _service(config)
            config.inherited = bool(config.service.sockets)
            server.run()
    except KeyboardInterrupt:
        pass
    finally:
        if config.uds is not None and config.should_reload and os.path.exists(config.uds):
            os.remove(config.uds)
        if pidfile is not None:
            pidfile.remove()
    if not server.started and not config.should_reload:
        sys.exit(STARTUP_FAILURE)


def _service(config: Config) -> Service:
    try:
        return Service(config.socket_names)
    except OSError as exc:
        logger.error(exc)
        sys.exit(STARTUP_FAILURE)


def _remake(remake: Callable[[], Config] | None) -> Callable[[], tuple[Config, Callable[..., None]]] | None:
    if remake is None:
        return None

    def again() -> tuple[Config, Callable[..., None]]:
        config = remake()
        if reason := config.refused():
            raise ValueError(reason)
        config.owns_process = True
        return config, Server(config=config).run

    return again
