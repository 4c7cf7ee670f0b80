"""A server in a thread of the test's own process, so that a test can hand it a function.

CAPICORN_TEST_MODULE names another module with `Config` and `Server` of the same
shape (uvicorn has them), to see what it does in the same test.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from .client import Address, Client

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

STOP_TIMEOUT = 15.0


def server_module() -> ModuleType:
    """The package under test."""
    return importlib.import_module(os.environ.get("CAPICORN_TEST_MODULE", "capicorn"))


def is_capicorn() -> bool:
    """Is it ours, or one that the tests only borrow?"""
    return os.environ.get("CAPICORN_TEST_MODULE", "capicorn") == "capicorn"


class ThreadServer:
    """`capicorn.Server` in a thread; a context manager. `failure` is what ended the thread, if anything did."""

    def __init__(self, app: Any, **options: Any) -> None:
        module = server_module()
        settings: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "lifespan": "off", "timeout_shutdown_idle": 0}
        settings.update(options)
        if not is_capicorn():
            settings = {k: v for k, v in settings.items() if k in module.Config.__init__.__code__.co_varnames}
        self.config = module.Config(app, **settings)
        self.server = module.Server(self.config)
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="server-under-test", daemon=True)

    def _run(self) -> None:
        try:
            self.server.run()
        except BaseException as e:  # SystemExit after a failed start, too
            self.failure = e

    def start(self) -> ThreadServer:
        self.thread.start()
        end = time.monotonic() + 15
        while not self.server.started:
            if not self.thread.is_alive():
                raise StartFailed(repr(self.failure)) from self.failure
            if time.monotonic() > end:
                raise StartFailed("not started in time")
            time.sleep(0.001)
        return self

    @property
    def address(self) -> Address:
        name = self.server.servers[0].sockets[0].getsockname()
        return name if isinstance(name, str) else (name[0], name[1])

    @property
    def port(self) -> int:
        return int(self.address[1])

    def connect(self, timeout: float = 10.0, receive_buffer: int | None = None) -> Client:
        return Client(self.address, timeout, receive_buffer)

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Ask it to end and wait; AssertionError when it does not."""
        if not self.thread.is_alive():
            return
        self.server.should_exit = True
        self.thread.join(timeout)
        if self.thread.is_alive():
            self.server.force_exit = True
            self.thread.join(5)
            raise AssertionError(f"the server did not end within {timeout} s")

    def forget(self) -> None:
        """Hold the server no longer; after stop()."""
        del self.server, self.config

    def __enter__(self) -> ThreadServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


class StartFailed(AssertionError):
    """The server did not come up; the cause hangs on it."""


class Trampoline:
    """One server for many tests: it calls what the test put into `app`."""

    def __init__(self) -> None:
        self.app: App | None = None
        self.active = 0
        self.changed = threading.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        assert app is not None, "a request came outside of a test"
        with self.changed:
            self.active += 1
        try:
            result = await app(scope, receive, send)
            return result
        finally:
            with self.changed:
                self.active -= 1
                self.changed.notify_all()

    def wait_idle(self, timeout: float = 10.0) -> None:
        """Wait until no call of the application runs; AssertionError when one is left."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.active == 0, timeout):
                raise AssertionError(f"{self.active} calls of the application still run")


class Served:
    """What a test gets from the `serve` fixture."""

    def __init__(self, server: ThreadServer, trampoline: Trampoline) -> None:
        self.server = server
        self.trampoline = trampoline
        self.clients: list[Client] = []

    @property
    def address(self) -> Address:
        return self.server.address

    def __call__(self, app: App, timeout: float = 10.0, receive_buffer: int | None = None) -> Client:
        """Serve `app` from now on; a connection to it."""
        self.trampoline.app = app
        return self.connect(timeout, receive_buffer)

    def connect(self, timeout: float = 10.0, receive_buffer: int | None = None) -> Client:
        client = self.server.connect(timeout, receive_buffer)
        self.clients.append(client)
        return client

    def wait_idle(self, timeout: float = 10.0) -> None:
        self.trampoline.wait_idle(timeout)

    def end(self) -> None:
        for client in self.clients:
            client.close()
        self.clients.clear()
        self.trampoline.wait_idle()
        self.trampoline.app = None


# ---------------------------------------------------------------------- levels


def core_counts() -> dict[str, int]:
    """`_core._counts()`, or nothing where another server is under test."""
    if not is_capicorn():
        return {}
    core = sys.modules.get("capicorn._core")
    return dict(core._counts()) if core is not None else {}


def children() -> set[int]:
    """Ids of child processes."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found.update(int(p) for p in (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def descriptors() -> dict[str, str]:
    """Open descriptors and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    return {n: t for n, t in found.items() if not t.startswith("/proc/")}


class Levels:
    """What has to be the same before and after a test."""

    def __init__(self, blocks: bool = True) -> None:
        """`blocks`: memory blocks too; a server that goes on has caches that grow to their bound."""
        self.blocks = blocks
        self.counts = core_counts()
        self.descriptors = descriptors()
        self.threads = set(threading.enumerate())
        self.children = children()

    def differences(self) -> list[str]:
        """What is there now that was not; empty when all is level."""
        out: list[str] = []
        now = core_counts()
        for kind in sorted(now):
            if (self.blocks or kind != "blocks") and now[kind] > self.counts.get(kind, 0):
                out.append(f"{kind}: {self.counts.get(kind, 0)} before, {now[kind]} now")
        opened = {n: t for n, t in descriptors().items() if n not in self.descriptors}
        if len(descriptors()) > len(self.descriptors):
            out.append(f"descriptors: {opened}")
        if threads := set(threading.enumerate()) - self.threads:
            out.append(f"threads: {sorted(t.name for t in threads)}")
        if new := children() - self.children:
            out.append(f"child processes: {new}")
        return out

    def settle(self, timeout: float = 5.0) -> list[str]:
        """Give what is being released until `timeout`; the differences that remain."""
        end = time.monotonic() + timeout
        while left := self.differences():
            if time.monotonic() > end:
                return left
            gc.collect()
            time.sleep(0.01)
        return []


def current_loop_is(kind: str) -> bool:
    """Does the running loop come from that implementation?"""
    module = type(asyncio.get_running_loop()).__module__
    return {"capicorn": "capicorn", "uvloop": "uvloop", "asyncio": "asyncio"}[kind] in module
