"""A server process of its own for a test, and a folder of small applications."""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

APPS = """
import asyncio, json, os, sys

async def plain(send, body, status=200, headers=()):
    await send({"type": "http.response.start", "status": status,
                "headers": [(b"content-length", b"%d" % len(body)), *headers]})
    await send({"type": "http.response.body", "body": body})

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            print("app:", message["type"], file=sys.stderr, flush=True)
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    path = scope["path"]
    if path == "/sleep":
        print("app: sleeping", file=sys.stderr, flush=True)
        try:
            await asyncio.sleep(float(scope["query_string"] or b"60"))
        except asyncio.CancelledError:
            print("app: cancelled", file=sys.stderr, flush=True)
            raise
        return await plain(send, b"slept")
    if path == "/endless":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begin", "more_body": True})
        print("app: streaming", file=sys.stderr, flush=True)
        await receive()
        message = await receive()
        print("app:", message["type"], file=sys.stderr, flush=True)
        return await send({"type": "http.response.body", "body": b"end"})
    shown = {k: v for k, v in scope.items() if isinstance(v, (str, int, tuple, type(None)))}
    shown["env"] = dict(os.environ)
    shown["loop"] = type(asyncio.get_running_loop()).__module__
    await plain(send, json.dumps(shown).encode())

class Two:
    def __init__(self, scope):
        self.scope = scope
    async def __call__(self, receive, send):
        await app(self.scope, receive, send)

def factory():
    return app

def broken_factory():
    return {}["no such key in the factory"]

def wsgi(environ, start_response):
    body = environ["wsgi.input"].read()
    write = start_response("200 OK", [("X-Length", str(len(body)))])
    write(b"one ")
    return [b"two ", environ["PATH_INFO"].encode()]

async def only_http(scope, receive, send):
    assert scope["type"] == "http", "this is no lifespan"
    await plain(send, b"ok")

async def failing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the cause of it"})

async def slow_start(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        print("app: starting", file=sys.stderr, flush=True)
        await asyncio.sleep(60)
"""


class Process:
    """A command whose two outputs are read as they come; `wait_for` waits for a line, not for a time."""

    def __init__(self, words: list[str], cwd: Path, env: dict[str, str], pass_fds: tuple[int, ...]) -> None:
        self.lines: list[str] = []
        self._news = threading.Condition()
        self.proc = subprocess.Popen(
            words,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        assert self.proc.stdout is not None and self.proc.stderr is not None
        self.readers = [threading.Thread(target=self._read, args=(f,)) for f in (self.proc.stdout, self.proc.stderr)]
        for reader in self.readers:
            reader.start()

    def _read(self, file: IO[str]) -> None:
        for line in file:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        file.close()
        with self._news:
            self._news.notify_all()

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, timeout: float = 20) -> re.Match[str]:
        found: list[re.Match[str]] = []

        def look() -> bool:
            found.extend(match for line in self.lines if (match := re.search(pattern, line)))
            return bool(found) or not any(reader.is_alive() for reader in self.readers[1:])

        with self._news:
            self._news.wait_for(look, timeout)
        assert found, f"no line matches {pattern!r} in:\n{self.text}"
        return found[0]

    @property
    def port(self) -> int:
        return int(self.wait_for(r"running on http://\S+:(\d+) ")[1])

    def get(self, path: str = "/", headers: dict[str, str] | None = None) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", path, headers={"Connection": "close", **(headers or {})})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response, body

    def open(self, path: str = "/") -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), 20)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        return sock

    def signal(self, number: signal.Signals) -> None:
        self.proc.send_signal(number)

    def exit_code(self, timeout: float = 20) -> int:
        code = self.proc.wait(timeout)
        for reader in self.readers:
            reader.join(timeout)
        return code

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.proc.pid, signal.SIGKILL)
        self.exit_code()


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Configs configure logging for the whole process: each test begins without."""
    yield
    known = logging.root.manager.loggerDict
    for name in [name for name in known if name.startswith("uvicorn")]:
        del known[name]
    for name in ("capicorn", "capicorn.error", "capicorn.access", "capicorn.asgi"):
        one = logging.getLogger(name)
        one.handlers.clear()
        one.filters.clear()
        one.setLevel(logging.NOTSET)
        one.propagate = True
        one.disabled = False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "apps.py").write_text(APPS)
    return tmp_path


Launch = Callable[..., Process]


@pytest.fixture
def launch(folder: Path) -> Iterator[Launch]:
    """launch("--flag", ..., app="apps:app", env={}): `capicorn` in `folder` on a free port."""
    running: list[Process] = []

    def begin(
        *flags: str,
        app: str | None = "apps:app",
        port: str | None = "0",
        env: dict[str, str] | None = None,
        command: tuple[str, ...] = ("-m", "capicorn"),
        pass_fds: tuple[int, ...] = (),
    ) -> Process:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CAPICORN_", "UVICORN_")) and name not in ("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS")
        }
        words = [sys.executable, *command, *([app] if app else []), *(["--port", port] if port else []), *flags]
        process = Process(words, folder, {**inherited, **(env or {})}, pass_fds)
        running.append(process)
        return process

    yield begin
    for process in running:
        process.stop()


@pytest.fixture
def run_python(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """run_python(code): a program in `folder`, with its outputs."""

    def run(code: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments, "-c", code],
            cwd=folder,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    return run


def pytest_make_parametrize_id(val: Any) -> str | None:
    return " ".join(val) if isinstance(val, (list, tuple)) and all(isinstance(v, str) for v in val) else None
