"""Fixtures of every test: servers, and what is looked at after each test."""

from __future__ import annotations

import gc
import importlib.util
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.apps.basic import ok
from tests.harness import process, thread
from tests.harness.process import ServerProcess
from tests.harness.thread import Levels, Served, ThreadServer, Trampoline

JOURNAL = "tests.apps.journal:app"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow (other projects' suites)")


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background job ignores SIGINT, and so would every server that a test starts and interrupts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for line in (
        "slow: minutes, not seconds; only with --slow",
        "ours: says something that only this server promises; skipped when another one is under test",
        "logs(pattern): a line of level error or above that the test provokes; may be repeated",
        "stays(kind, reason): leaves something of that kind behind on purpose",
    ):
        config.addinivalue_line("markers", line)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("timeout") is None and config.pluginmanager.hasplugin("timeout"):
            item.add_marker(pytest.mark.timeout(60))
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))
        if item.get_closest_marker("ours"):
            in_process = "asgi" in item.path.parts
            if not (thread.is_capicorn() if in_process else process.is_capicorn()):
                item.add_marker(pytest.mark.skip(reason="only of this server"))


# --------------------------------------------------------------- in-process


class Records(logging.Handler):
    """Log records of the server in this process. They keep no traceback: its frames would keep the request."""

    LOGGERS = ("capicorn", "uvicorn", "asyncio")

    def __init__(self) -> None:
        super().__init__(level=0)
        self.records: list[logging.LogRecord] = []
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))

    def attach(self) -> None:
        """Listen. Again after each Config, which configures the loggers anew; `capicorn.access` is left alone, its
        lines are written from C as long as nobody listens there."""
        for name in self.LOGGERS:
            log = logging.getLogger(name)
            if self not in log.handlers:
                log.addHandler(self)

    def detach(self) -> None:
        for name in self.LOGGERS:
            logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)
        self.records.append(record)

    def forget_tracebacks(self) -> None:
        """Those of the records that other handlers keep, too: they are the same objects."""
        for record in self.records:
            record.exc_info = None

    def text(self) -> str:
        """The messages, with tracebacks."""
        return "\n".join(self.format(r) for r in list(self.records))

    def wait_for(self, text: str, timeout: float = 5.0) -> None:
        """AssertionError when no message contains it in time."""
        end = time.monotonic() + timeout
        while text not in self.text():
            assert time.monotonic() < end, f"{text!r} is not in the log:\n{self.text()}"
            time.sleep(0.005)


@pytest.fixture
def records() -> Iterator[Records]:
    """What the server in this process logs during the test."""
    handler = Records()
    handler.attach()
    yield handler
    handler.detach()


@pytest.fixture(scope="session")
def warm() -> None:
    """What is made once in a process (imports, libuv's own pipe) is made before anybody counts."""
    with ThreadServer(ok) as server, server.connect() as c:
        c.get("/").response()
    if importlib.util.find_spec("uvloop") is not None:  # it brings a libuv, and so a pipe, of its own
        import uvloop

        uvloop.new_event_loop().close()


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test: nothing is left behind, nothing was swallowed."""
    in_process = "serve" in request.fixturenames or "start" in request.fixturenames
    if not in_process:
        yield
        return
    request.getfixturevalue("warm")
    shared = "serve" in request.fixturenames
    if shared:
        request.getfixturevalue("shared_server")  # its own descriptors are no leak
    records: Records = request.getfixturevalue("records")
    ending = [request.getfixturevalue(name) for name in ("serve", "start") if name in request.fixturenames]
    unraisable: list[Any] = []
    previous = sys.unraisablehook
    sys.unraisablehook = lambda args: unraisable.append((repr(args.exc_value), repr(args.object)))
    levels = Levels(blocks=not shared)
    try:
        yield
        for fixture in ending:
            fixture.end()
        records.forget_tracebacks()
        left = levels.settle(0.5 if request.node.get_closest_marker("stays") else 5.0)
        gc.collect(1)
    finally:
        sys.unraisablehook = previous
    expected = [str(m.args[0]) for m in request.node.iter_markers("logs")]
    errors = [r for r in records.records if r.levelno >= logging.ERROR]
    strange = [records.format(r) for r in errors if not any(p in records.format(r) for p in expected)]
    stays = {str(m.args[0]) for m in request.node.iter_markers("stays")}
    left = [text for text in left if text.partition(":")[0] not in stays]
    assert not left, f"left behind: {left}"
    assert not unraisable, f"errors that nobody could receive: {unraisable}"
    assert not strange, "unexpected errors in the log:\n" + "\n".join(strange)


@pytest.fixture(scope="module")
def shared_server(warm: None) -> Iterator[tuple[ThreadServer, Trampoline]]:
    """One server for the tests of a module, and nothing left of it when it has ended."""
    yield from serving()


def serving(**options: Any) -> Iterator[tuple[ThreadServer, Trampoline]]:
    """A server with a trampoline; afterwards all is as before."""
    levels = Levels()
    trampoline = Trampoline()
    server = ThreadServer(trampoline, **options).start()
    trampoline.app = ok  # what the first request opens (a spare descriptor) is no test's leak
    with server.connect() as c:
        c.get("/").response()
    yield server, trampoline
    server.stop()
    levels.blocks = False  # while the Server object lives, its memory may
    left = levels.settle(2)
    assert not left, f"the server left behind: {left}"
    levels.blocks = True
    server.forget()
    left = levels.settle(2)
    assert not left, f"the server left behind, although nobody holds it: {left}"


@pytest.fixture
def serve(shared_server: tuple[ThreadServer, Trampoline]) -> Served:
    """serve(app) gives a connection on which `app` answers."""
    return Served(*shared_server)


class Starter:
    """start(app, option=...) gives a running ThreadServer; all are stopped at the test's end."""

    def __init__(self, records: Records) -> None:
        self.servers: list[ThreadServer] = []
        self.records = records

    def __call__(self, app: Any, **options: Any) -> ThreadServer:
        server = ThreadServer(app, **options)
        self.records.attach()
        self.servers.append(server)
        return server.start()

    def end(self) -> None:
        servers, self.servers = self.servers, []
        for server in servers:
            server.stop()


@pytest.fixture
def start(records: Records) -> Iterator[Starter]:
    starter = Starter(records)
    yield starter
    starter.end()


# --------------------------------------------------------------- subprocess


def check_log(server: ServerProcess, mark: int, expected: list[str]) -> None:
    """No traceback since `mark` but the expected ones, and the server lives."""
    assert server.alive, f"the server died with {server.process.poll()}:\n{server.log.text(mark)}"
    text = server.log.text(mark)
    if "Traceback" in text and not any(e in text for e in expected):
        raise AssertionError(f"a traceback in the log:\n{text[-6000:]}")
    for bad in ("AddressSanitizer", "runtime error:", "Fatal Python error"):
        assert bad not in text, text[-6000:]


class Pool:
    """Servers in child processes by their options, started once for the module."""

    def __init__(self) -> None:
        self.servers: dict[tuple[str, tuple[str, ...]], ServerProcess] = {}

    def __call__(self, *options: str, app: str = JOURNAL) -> ServerProcess:
        key = (app, options)
        if key not in self.servers or not self.servers[key].alive:
            self.servers[key] = ServerProcess(app, *options)
        return self.servers[key]

    def end(self) -> None:
        for server in self.servers.values():
            server.kill()
        self.servers.clear()


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """pool("--flag", "value") gives a server with these flags, shared by the module's tests."""
    servers = Pool()
    yield servers
    servers.end()


@pytest.fixture
def server(pool: Pool, request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """The server with default flags and the journal application."""
    it = pool()
    mark = it.log.mark()
    yield it
    check_log(it, mark, [str(m.args[0]) for m in request.node.iter_markers("logs")])


@pytest.fixture
def launch() -> Iterator[Callable[..., ServerProcess]]:
    """launch("module:app", "--flag") gives a process of the test's own."""
    started: list[ServerProcess] = []

    def go(app: str = JOURNAL, *options: str, **more: Any) -> ServerProcess:
        started.append(ServerProcess(app, *options, **more))
        return started[-1]

    yield go
    for it in started:
        it.kill()
