"""run(): serve an application from a program, and what the command does."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from capicorn.config import STARTUP_FAILURE, Config
from capicorn.server import Server

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


def run_config(config: Config) -> None:
    """The same for a Config that exists."""
    if config.use_subprocess and not isinstance(config.app, str):
        logger.warning("You must pass the application as an import string to enable 'reload' or 'workers'.")
        sys.exit(STARTUP_FAILURE)
    if reason := config.refused():
        logger.error(reason)
        sys.exit(USAGE_FAILURE)
    if not config.use_subprocess:
        config.load_app()
    server = Server(config=config)
    try:
        if config.should_reload:
            from capicorn.supervisors import ChangeReload

            sock = config.bind_socket()
            sock.listen(config.backlog)  # who connects while no child serves waits, and is not turned away
            ChangeReload(config, target=server.run, sockets=[sock]).run()
        else:
            server.run()
    except KeyboardInterrupt:
        pass
    finally:
        if config.uds is not None and config.should_reload and os.path.exists(config.uds):
            os.remove(config.uds)
    if not server.started and not config.should_reload:
        sys.exit(STARTUP_FAILURE)
