"""Servers whose loop is blocked, and health checks beside them."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ..harness.process import ServerProcess

APP = "tests.guard.app:app"


class Guarded(ServerProcess):
    """A server, and where its health checks are answered."""

    health_port = 0

    def find_health(self) -> int:
        return int(self.log.wait_for(r"Health checks on http://127.0.0.1:(\d+)/")[1])

    def ask(self, path: str, timeout: float = 10.0) -> int:
        """The status of one request on a connection of its own."""
        with self.connect() as client:
            client.sock.settimeout(timeout)
            return client.get(path, "Connection: close").response().status

    def ask_soon(self, path: str) -> threading.Thread:
        """The same in a thread."""
        thread = threading.Thread(target=self.ask, args=(path,))
        thread.start()
        return thread

    def health(self, path: str = "/healthz", method: str = "GET") -> tuple[int, str]:
        return health(self.health_port, path, method)


def health(port: int, path: str = "/healthz", method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


class Probe:
    """A liveness probe every 20 ms, in a thread."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.statuses: list[int | str] = []
        self.slowest = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._end.wait(0.02):
            begin = time.monotonic()
            try:
                self.statuses.append(health(self.port)[0])
            except OSError as exc:
                self.statuses.append(repr(exc))
            self.slowest = max(self.slowest, time.monotonic() - begin)

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()


Launch = Callable[..., Guarded]


@pytest.fixture
def guarded() -> Iterator[Launch]:
    """guarded("--flag") starts a server with health checks."""
    started: list[Guarded] = []

    held: list[socket.socket] = []

    def go(*options: str, app: str = APP, health: bool = True, **more: object) -> Guarded:
        port = 0
        if "--workers" in options:  # one port for all of them: taken here, so that nobody else gets it
            held.append(socket.socket())
            held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held[-1].bind(("127.0.0.1", 0))
            port = held[-1].getsockname()[1]
        more_options = ("--health-bind", f"127.0.0.1:{port}") if health else ()
        server = Guarded(app, *options, *more_options, **more)  # type: ignore[arg-type]
        started.append(server)
        server.health_port = port or (server.find_health() if health else 0)
        return server

    yield go
    for server in started:
        server.kill()
    for sock in held:
        sock.close()
