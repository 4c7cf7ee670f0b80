"""Python that runs in the middle of C: logging handlers, iterables, finalizers, which close, send or raise."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import queue
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from capicorn import Config, Server, _core
from capicorn.loop import Loop

from tests.conftest import Starter
from tests.harness.client import Closed
from tests.harness.thread import App, Receive, Scope, Send, ThreadServer

OK = [(b"content-length", b"2")]


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": OK})
    await send({"type": "http.response.body", "body": b"ok"})


class Doing(logging.Handler):
    """Does something with each record that contains `text`."""

    def __init__(self, text: str, act: Callable[[], None]) -> None:
        super().__init__()
        self.text = text
        self.act = act

    def emit(self, record: logging.LogRecord) -> None:
        if self.text in record.getMessage():
            self.act()


@pytest.fixture
def handler() -> Iterator[Callable[[str, Callable[[], None]], None]]:
    log = logging.getLogger("capicorn.error")
    added: list[logging.Handler] = []

    def add(text: str, act: Callable[[], None]) -> None:
        added.append(Doing(text, act))
        log.addHandler(added[-1])

    yield add
    for h in added:
        log.removeHandler(h)
        del h.act


Handler = Callable[[str, Callable[[], None]], None]


def http_of(server: ThreadServer) -> Any:
    return server.server.server_state.http


REFUSED = {
    "malformed": (b"GET / HTTP/1.1\r\n bad\r\n\r\n", {}),
    "upgrade": (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", {}),
    "handshake": (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", {}),
    "content": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", {}),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("what", ["connection", "server", "raise"])
def test_log_handler_that_closes(start: Starter, handler: Handler, case: str, what: str) -> None:
    data, options = REFUSED[case]
    server = start(ok, **options)
    http = http_of(server)
    unraisable: list[str] = []

    def act() -> None:
        gc.collect()
        if what == "server":
            http.close()
        elif what == "connection":
            for c in http.connections:
                c.close()
        else:
            raise OSError("of the logging handler")

    handler("", act)
    hook, sys.unraisablehook = sys.unraisablehook, lambda args: unraisable.append(str(args.exc_value))
    try:
        with server.connect(5.0) as c:
            c.send(data).half_close()
            c.expect_close()
    finally:
        sys.unraisablehook = hook
    assert set(unraisable) == ({"of the logging handler"} if what == "raise" else set())


@pytest.mark.logs("Exception in ASGI application")
@pytest.mark.parametrize("what", ["connection", "server"])
def test_log_handler_that_closes_when_the_application_failed(start: Starter, handler: Handler, what: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/started":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("of the application")

    server = start(app)
    http = http_of(server)

    def act() -> None:
        for c in http.connections:
            c.close()
        if what == "server":
            http.close()

    handler("", act)
    for path in ("/", "/started") if what == "connection" else ("/started",):
        with server.connect(5.0) as c:
            c.get(path)
            c.expect_close()


@pytest.mark.logs("Request timed out")
def test_log_handler_that_answers_the_request_whose_time_is_over(start: Starter, handler: Handler) -> None:
    """One response, the application's: it was there when the server came to its own."""
    import asyncio

    sends: list[Send] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        sends.append(send)
        await asyncio.sleep(5)

    server = start(app, timeout_request=1)

    def act() -> None:
        sends[0]({"type": "http.response.start", "status": 200, "headers": OK})

    handler("Request timed out", act)
    with server.connect(5.0) as c:
        c.get("/")
        data = c.expect_close()
    assert data.count(b"HTTP/1.1 ") == 1, data
    sends.clear()


class Nested:
    """A pair of bytes that sends another start while it is looked at."""

    def __init__(self, send: Send, got: queue.Queue[Any]) -> None:
        self.send = send
        self.got = got

    def __iter__(self) -> Iterator[bytes]:
        try:
            self.send({"type": "http.response.start", "status": 201, "headers": [(b"x-nested", b"1")]})
        except RuntimeError as e:
            self.got.put(str(e))
        return iter((b"x-outer", b"1"))


def test_header_pair_that_sends_while_it_is_iterated(start: Starter) -> None:
    """Whichever start is taken, the response is one."""
    got: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [Nested(send, got)]})
        except RuntimeError as e:
            got.put(str(e))
        await send({"type": "http.response.body", "body": b"ok"})

    with start(app).connect() as c:
        c.get("/")
        r = c.response()
        assert r.body == b"ok"
        assert len([n for n in r.raw_names if n.startswith("x-")]) == 1
        assert "http.response.start" in got.get(timeout=5)
        c.get("/")
        assert c.response().body == b"ok"


class Emptying:
    """Truth that takes the body out of its message."""

    def __init__(self, message: dict[str, Any]) -> None:
        self.message = message

    def __bool__(self) -> bool:
        del self.message["body"]
        gc.collect()
        [bytes([i % 256]) * 100_000 for i in range(20)]
        return False


def test_message_that_changes_while_it_is_read(start: Starter) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        message: dict[str, Any] = {"type": "http.response.body", "body": b"".join([b"a"] * 100_000)}
        message["more_body"] = Emptying(message)
        await send(message)

    with start(app).connect() as c:
        c.get("/")
        assert c.response().body in (b"", b"a" * 100_000)


@pytest.mark.parametrize("where", ["before", "start", "body", "after", "task"])
def test_application_that_closes_the_server(start: Starter, where: str) -> None:
    import asyncio

    box: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def close() -> None:
            box[0].close()
            box[0].close()
            gc.collect()

        if where == "before":
            await close()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if where == "start":
            await close()
        await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        if where == "body":
            await close()
        if where == "task":
            await asyncio.create_task(close())
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"x" * 100_000})
        if where == "after":
            await close()
            message = await receive()
            assert message["type"] == "http.disconnect"

    server = start(app)
    box.append(http_of(server))
    with server.connect(5.0) as c, server.connect(5.0) as idle:
        c.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
        c.expect_close()
        idle.expect_close()
    box.clear()


def test_collector_callback_that_closes_the_server(start: Starter) -> None:
    """On CPython 3.11 each allocation may run the collector, and that anything: here in the middle of a known head."""
    server = start(ok)
    http = http_of(server)
    armed = False

    def callback(phase: str, info: Any) -> None:
        if armed and threading.current_thread() is server.thread:
            http.close()

    before = gc.get_threshold()
    gc.callbacks.append(callback)
    try:
        with server.connect(5.0) as c:
            for _ in range(2):
                c.get("/")
                assert c.response().body == b"ok"
            armed = True
            gc.set_threshold(1, 1, 1)
            c.get("/")
            with contextlib.suppress(Closed):
                c.response()
                c.expect_close()
    finally:
        armed = False
        gc.callbacks.remove(callback)
        gc.set_threshold(*before)
    assert server.thread.is_alive()


@pytest.mark.logs("Exception in ASGI application")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="classes in Python have no buffers")
def test_body_whose_buffer_changes_the_message(start: Starter) -> None:
    class Body:
        def __buffer__(self, flags: int) -> memoryview:
            message.clear()
            raise ValueError("of the body")

    message: dict[str, Any] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": OK})
        message.update(type="http.response.body", body=Body())
        await send(message)

    with start(app).connect(5.0) as c:
        c.get("/")
        c.expect_close()


class Hooked(asyncio.SelectorEventLoop):
    """call_soon() does something first, once."""

    hook: Callable[[], object] | None = None
    server: Any = None

    def call_soon(self, *args: Any, **kwargs: Any) -> Any:
        hook, self.hook = self.hook, None
        if hook is not None:
            hook()
        return super().call_soon(*args, **kwargs)


HANDSHAKE = (
    "GET / HTTP/1.1",
    "Host: a",
    "Connection: upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "",
    "",
)


def serve_in(loop: Hooked, app: App, talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> Any:
    """What `talk` gives, with a connection to a server in this loop that has sent a WebSocket's handshake. The server
    is the loop's `server`."""

    async def main() -> Any:
        serving = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0.001)
        reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
        writer.write("\r\n".join(HANDSHAKE).encode())
        result = await asyncio.wait_for(talk(reader, writer), 10)
        writer.close()
        server.should_exit = True
        await serving
        return result

    server = loop.server = Server(
        Config(app, port=0, lifespan="off", loop="none", log_config=None, log_level="info", timeout_shutdown_idle=0)
    )
    return loop.run_until_complete(main())


def test_shutdown_in_the_middle_of_a_websockets_end(handler: Handler) -> None:
    """Whoever waits for its end learns of it by the loop's call_soon(), which is Python in other loops than ours."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(bytes.fromhex("888200000000") + (1000).to_bytes(2, "big"))
        return await reader.read()

    hooks: list[None] = []
    with contextlib.closing(Hooked()) as loop:
        shut_down: Callable[[], None] = lambda: hooks.append(loop.server.server_state.http.shutdown(5.0))  # noqa: E731
        handler("connection closed", lambda: setattr(loop, "hook", shut_down))
        assert serve_in(loop, app, talk) == bytes.fromhex("8802") + (1000).to_bytes(2, "big")
    assert hooks


def test_connection_that_is_closed_in_the_middle_of_a_websockets_beginning() -> None:
    """Its client has ended its side before that."""
    accepted: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await asyncio.sleep(0.1)

        def close() -> None:
            for c in loop.server.server_state.http.connections:
                c.close()
            accepted.append(True)

        loop.hook = close
        await send({"type": "websocket.accept"})

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write_eof()
        return await reader.read()

    with contextlib.closing(Hooked()) as loop:
        assert serve_in(loop, app, talk) == b""
    assert accepted


@pytest.mark.parametrize("where", ["log", "proxy_headers", "proxy_protocol"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_comes_out_of_the_loop(where: str, error: type[BaseException]) -> None:
    """The handler of a signal may run, and raise, in whatever Python the server calls."""

    def interrupt(*args: object) -> None:
        raise error

    log = logging.getLogger("tests.interrupt")
    log.propagate = False
    handler = Doing("", interrupt)
    loop = Loop()
    options: dict[str, Any] = {} if where == "log" else {where: interrupt}
    http = _core.HTTPServer(loop, ok, logger=log, **options)
    request = b"bad\r\n\r\n" if where == "log" else b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: b\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.closing(loop):
        http.listen(listener.fileno())
        with socket.create_connection(listener.getsockname()) as c:
            c.sendall(request)
            log.addHandler(handler)
            loop.call_later(5, loop.stop)
            with pytest.raises(error):
                loop.run_forever()
            log.removeHandler(handler)
            http.close()
            loop.run_until_complete(asyncio.sleep(0.01))
