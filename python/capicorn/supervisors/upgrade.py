"""SIGUSR2: a new supervisor, of the program as it is on the disk now, gets the listening sockets of this one."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from capicorn.supervisors.signals import Blocked
from capicorn.supervisors.sockets import FDS, FDS_INHERITED, UPGRADED_FROM

if TYPE_CHECKING:
    from capicorn.supervisors.arbiter import Arbiter

logger = logging.getLogger("capicorn.error")


def start_upgrade(arbiter: Arbiter) -> int:
    """The number of the new process; 0 when it could not be made. It runs the command line of this one."""
    command = [sys.executable, *sys.orig_argv[1:]]
    environment = dict(os.environ)
    environment[FDS] = ",".join(str(sock.fileno()) for sock in arbiter.sockets)
    if arbiter.config.inherited:
        environment[FDS_INHERITED] = "1"
    environment[UPGRADED_FROM] = str(arbiter.pid)
    if arbiter.pidfile is not None:
        arbiter.pidfile.rename(arbiter.pidfile.path + ".oldbin")
    sys.stdout.flush()
    sys.stderr.flush()
    with Blocked() as blocked:
        try:
            pid = os.fork()
        except OSError as exc:
            logger.error("Cannot start the new parent process: %s", exc)
            return 0
        if pid:
            return pid
        try:
            arbiter.signals.drop()
            for worker in arbiter.workers.values():
                worker.channel.close()
            for sock in arbiter.sockets:
                os.set_inheritable(sock.fileno(), True)
            blocked.restore()
            if arbiter.start_folder is not None:
                os.chdir(arbiter.start_folder)
            os.execve(command[0], command, environment)
        except BaseException as exc:
            logger.error("Cannot start %s: %s", command[0], exc)
        finally:
            os._exit(1)
