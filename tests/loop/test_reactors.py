"""C code on an event loop, ours or another: the HTTP server stands for it."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from capicorn import _core
from capicorn.loop import new_event_loop

LOOPS: list[Any] = [pytest.param(new_event_loop, id="capicorn"), pytest.param(asyncio.SelectorEventLoop, id="asyncio")]
try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS.append(pytest.param(uvloop.new_event_loop, id="uvloop"))

every_loop = pytest.mark.parametrize("factory", LOOPS)


async def answer(send: Callable[[dict[str, Any]], Any]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class Site:
    """A server in the running loop and a client of it."""

    def __init__(self, app: Callable[..., Any], **options: Any) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.setblocking(False)
        options.setdefault("logger", logging.getLogger("capicorn.test"))
        self.server = _core.HTTPServer(asyncio.get_running_loop(), app, **options)
        self.server.listen(self.sock.fileno())

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.sock.getsockname())

    @staticmethod
    async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str = "/") -> bytes:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        await reader.readexactly(2)
        return head[:15]

    async def end(self, *writers: asyncio.StreamWriter) -> None:
        for writer in writers:
            writer.close()
        self.server.close()
        self.sock.close()
        await asyncio.sleep(0.01)


def run(factory: Callable[[], asyncio.AbstractEventLoop], main: Any) -> None:
    before = _core._counts()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)
    gc.collect()
    after = _core._counts()
    kinds = ("connections", "requests", "handles", "uv_handles", "write_requests")
    assert {k: after[k] for k in kinds} == {k: before[k] for k in kinds}


@every_loop
def test_requests_that_wait_and_requests_that_do_not(factory: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/wait":
            await asyncio.sleep(0.02)
        await answer(send)

    async def main() -> None:
        site = Site(app)
        pairs = [await site.connect() for _ in range(3)]
        for path in ("/", "/wait", "/"):
            assert await asyncio.gather(*[site.get(*pair, path) for pair in pairs]) == [b"HTTP/1.1 200 OK"] * 3
        await site.end(*[writer for _, writer in pairs])

    run(factory, main())


@every_loop
def test_a_request_has_its_own_task_and_context(factory: Any) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        await asyncio.sleep(0)
        seen.append(task is asyncio.current_task() and isinstance(task, asyncio.Task))
        await answer(send)

    async def main() -> None:
        site = Site(app)
        reader, writer = await site.connect()
        await site.get(reader, writer)
        await site.get(reader, writer)
        assert seen == [True, True]
        await site.end(writer)

    run(factory, main())


@every_loop
def test_a_task_factory_is_asked(factory: Any) -> None:
    made: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)

    def make(loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(type(coro).__name__)
        return asyncio.Task(coro, loop=loop, **options)

    async def main() -> None:
        site = Site(app)
        reader, writer = await site.connect()
        asyncio.get_running_loop().set_task_factory(make)
        await site.get(reader, writer)
        asyncio.get_running_loop().set_task_factory(None)
        assert "Request" in made
        await site.end(writer)

    run(factory, main())


@every_loop
def test_timers_in_c_fire_while_nothing_else_happens(factory: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)

    async def main() -> None:
        site = Site(app, timeout_keep_alive=0.1)
        reader, writer = await site.connect()
        await site.get(reader, writer)
        start = time.monotonic()
        assert await asyncio.wait_for(reader.read(), 5) == b""  # the server closes the idle connection
        assert 0.05 < time.monotonic() - start < 2
        await site.end(writer)

    run(factory, main())


@every_loop
def test_an_idle_server_sleeps(factory: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)

    async def main() -> None:
        site = Site(app)
        reader, writer = await site.connect()
        await site.get(reader, writer)
        start = time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - start < 0.1
        await site.end(writer)

    run(factory, main())
