"""What a Server shows of itself while it runs: its slot on a scoreboard (csrc/pool/scoreboard.h), which is that of its
supervisor, or a scoreboard of its own. `capicorn status` and `top` read it from outside; nothing is listened on."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from capicorn import listeners
from capicorn._version import __version__

if TYPE_CHECKING:
    from capicorn._core import Scoreboard
    from capicorn.config import Config
    from capicorn.metrics import MetricsThread
    from capicorn.server import Server

BEAT = 1.0
"""Seconds between two entries of a loop; less for a short `timeout`."""

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds, in seconds, of the histogram of durations (csrc/pool/tally.h)."""

MOST_BINDS = 16
LONGEST = 100
"""Octets of one text."""

logger = logging.getLogger("capicorn.error")


class Presence:
    """Made before the application starts, in the loop's thread; closed when the loop's work is done."""

    def __init__(self, config: Config) -> None:
        worker = config.worker
        self.config = config
        self.board: Scoreboard | None = None
        self.slot = 0
        self._metrics: MetricsThread | None = None
        self._own = worker is None
        self._interval = min(BEAT, config.timeout / 4) if config.timeout else BEAT
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        if worker is not None:
            self.board, self.slot = worker.board, worker.slot
            return
        from capicorn import _core

        try:
            self.board = _core.Scoreboard(1)
        except OSError as exc:  # a sandbox without shared memory: then nobody sees us
            logger.debug("No scoreboard: %s", exc)
            return
        self.board.take(self.slot)
        self.board.set_state(self.slot, "starting")
        self.board.set_info(describe(config, []))

    def open_metrics(self) -> None:
        """Where a configuration without a supervisor wants them. Raises OSError."""
        address = self.config.metrics_bind
        if address is None or not self._own or self.board is None:
            return
        from capicorn.metrics import MetricsThread

        self._metrics = MetricsThread(address, self.board)

    def serving(self, server: Server) -> None:
        """The application has started and the sockets are listened on."""
        board, http = self.board, server.server_state.http
        if board is None:
            return
        if http is not None:
            board.attach(self.slot, http)
        loop = asyncio.get_running_loop()
        self._due = loop.time()
        self._beat(loop, server)
        board.set_state(self.slot, "serving")
        if self._own:
            sockets = [sock for listener in server.servers for sock in listener.sockets]
            board.set_info(describe(server.config, sockets))

    def stopping(self) -> None:
        """No more connections are accepted."""
        if self.board is not None:
            self.board.set_state(self.slot, "retiring")

    def close(self) -> None:
        """Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        self.board = None

    def _beat(self, loop: asyncio.AbstractEventLoop, server: Server) -> None:
        board = self.board
        if board is None:
            return
        now = loop.time()
        try:
            pool = server.threads
            if pool is None or (limit := pool.limit) is None:
                board.beat(self.slot, now - self._due)
            else:
                pool.look(now)
                board.beat(self.slot, now - self._due, limit, pool.busy, pool.queued)
        finally:  # memory may be short for a moment
            self._due = now + self._interval
            self._timer = loop.call_later(self._interval, self._beat, loop, server)


def describe(config: Config, sockets: Sequence[socket.socket], workers: int = 0) -> bytes:
    """What people are told of a server, for the scoreboard: JSON. `workers`: how many a supervisor wants."""
    facts: dict[str, Any] = {
        "version": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "app": _name(config.app),
        "binds": [address_of(sock, config.is_ssl) for sock in sockets[:MOST_BINDS]],
        "workers": workers,
        "since": time.time(),
    }
    from json import JSONEncoder

    # not json.dumps: an application's tests may watch whether that is called
    return JSONEncoder(separators=(",", ":")).encode(facts).encode()


def _name(app: Any) -> str:
    name = app if isinstance(app, str) else getattr(app, "__qualname__", None) or type(app).__qualname__
    return str(name)[:LONGEST]


def address_of(sock: socket.socket, tls: bool) -> str:
    """As a client would spell it."""
    try:
        name = sock.getsockname()
    except OSError:
        return "closed"
    if isinstance(name, (str, bytes)):
        return f"unix:{listeners.unix_name(name)}"[:LONGEST]
    if not isinstance(name, tuple):
        return str(name)[:LONGEST]
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{'https' if tls else 'http'}://{host}:{name[1]}"
