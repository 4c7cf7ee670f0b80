"""Several worker processes: uvicorn's name for the supervisor."""

from __future__ import annotations

import sys
from collections.abc import Callable
from socket import socket

from capicorn.config import Config
from capicorn.supervisors.arbiter import Arbiter


class Multiprocess:
    """Runs `target(sockets=…)` in `config.workers` processes, which share the bound `sockets`."""

    def __init__(self, config: Config, target: Callable[..., None], sockets: list[socket]) -> None:
        self.config = config
        self.target = target
        self.sockets = sockets
        self.arbiter = Arbiter(config, target, sockets)

    def run(self) -> None:
        """Until a signal ends it. Exits with code 3 when no worker can be started."""
        code = self.arbiter.run()
        for sock in self.sockets:
            sock.close()
        if code:
            sys.exit(code)
