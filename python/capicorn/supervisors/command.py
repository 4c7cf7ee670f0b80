"""Serve with a supervisor: sockets, pid file and background around an Arbiter."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from capicorn.config import STARTUP_FAILURE, Config
from capicorn.supervisors import process
from capicorn.supervisors.arbiter import Arbiter
from capicorn.supervisors.sockets import FDS, UPGRADED_FROM, close_socket, open_sockets

logger = logging.getLogger("capicorn.error")


def run_workers(
    config: Config, target: Callable[..., None], remake: Callable[[], tuple[Config, Callable[..., None]]] | None
) -> int:
    """Until the end; the exit code. `remake` makes both anew for SIGHUP."""
    upgraded = FDS in os.environ
    os.environ.pop(UPGRADED_FROM, None)
    background = process.daemonize() if config.daemon and not upgraded else None
    code = STARTUP_FAILURE
    pidfile = process.PidFile(config.pidfile) if config.pidfile is not None else None
    try:
        sockets = open_sockets(config)
        arbiter = Arbiter(config, target, sockets, remake)
        try:
            if pidfile is not None:
                pidfile.create()
                arbiter.pidfile = pidfile
            process.set_title(config, "parent")
            if background is not None:
                descriptor = background
                arbiter.on_ready = lambda code: process.daemon_ready(descriptor, code)
            code = arbiter.run()
        finally:
            for sock in arbiter.sockets:
                if arbiter.upgrade_pid or config.inherited:
                    sock.close()
                else:
                    close_socket(sock)
            if pidfile is not None:
                pidfile.remove()
    except OSError as exc:
        logger.error(exc)
    except process.ProcessError as exc:
        logger.error("%s", exc)
    except KeyboardInterrupt:
        code = 0
    if background is not None and code:
        try:
            os.write(background, bytes([code & 255]))
        except OSError:
            pass
    sys.stdout.flush()
    sys.stderr.flush()
    return code
