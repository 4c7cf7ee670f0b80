"""What the tests of AccessLog stand on."""

from __future__ import annotations

import asyncio
import fcntl
import io
import logging
import os
import re
from pathlib import Path
from typing import Any

from capicorn import _core

CLIENT = ("127.0.0.1", 40000)


class Bench:
    """A file that access logs write to, and a logger of our own name in logging's default shape."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "access.log"
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.stream = io.StringIO()
        self.logger = logging.getLogger("capicorn.access")
        self.before = (self.logger.propagate, self.logger.level, self.logger.disabled)
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(logging.Formatter("%(message)s"))
        self.logger.propagate = False
        self.logger.disabled = False
        self.logger.setLevel(logging.INFO)
        self.loop = asyncio.new_event_loop()
        self.logs: list[_core.AccessLog] = []

    def make(self, **options: Any) -> _core.AccessLog:
        options = {"handler": self.handler, "fd": self.fd, **options}
        if options["handler"] is self.handler:
            self.logger.handlers[:] = [self.handler]  # pytest adds its own to loggers that do not propagate
        return _core.AccessLog(self.loop, self.logger, **options)

    def log(self, **options: Any) -> _core.AccessLog:
        """One that is closed at the test's end."""
        log = self.make(**options)
        self.logs.append(log)
        return log

    def line(self, target: bytes = b"/", client: Any = CLIENT, method: str = "GET", **record: Any) -> str:
        """The line that a log with record["log"] (its options) writes for one response."""
        options = record.pop("log", {})
        log = self.log(**options)
        log._write(client, method, target, **record)
        log.close()
        return self.read()

    def read(self) -> str:
        text = self.path.read_text("ascii")
        os.ftruncate(self.fd, 0)
        return text

    def close(self) -> None:
        for log in self.logs:
            log.close()
        self.logs.clear()
        self.loop.close()
        self.logger.handlers.clear()
        self.logger.propagate, level, self.logger.disabled = self.before
        self.logger.setLevel(level)
        self.logger.filters.clear()
        os.close(self.fd)


class Keep(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class Pipe:
    def __init__(self, nonblocking: bool) -> None:
        self.r, self.w = os.pipe()
        if nonblocking:
            os.set_blocking(self.w, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(self.w, fcntl.F_SETPIPE_SZ, 65536)
        os.set_blocking(self.r, False)

    def read(self) -> bytes:
        parts = []
        while True:
            try:
                part = os.read(self.r, 65536)
            except BlockingIOError:
                break
            if not part:
                break
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        for fd in (self.r, self.w):
            try:
                os.close(fd)
            except OSError:
                pass


def numbers(data: bytes) -> list[int]:
    assert data.endswith(b"\n")
    found = []
    for line in data.decode("ascii").splitlines():
        match = re.fullmatch(r'INFO:     127\.0\.0\.1:40000 - "GET /(\d+)/x* HTTP/1\.1" 200 OK', line)
        assert match, line
        found.append(int(match[1]))
    return found
