"""Server-sent events and other endless responses."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from typing import Any

import pytest

from tests.apps.basic import ok
from tests.conftest import Starter
from tests.harness.process import ServerProcess
from tests.harness.thread import Receive, Scope, Send, Served

START: dict[str, Any] = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream")],
}


def piece(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def test_each_send_leaves_at_once(serve: Served) -> None:
    steps: queue.Queue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        for number in range(5):
            go = asyncio.Event()
            await send(piece(b"data: %d\n\n" % number))
            steps.put((asyncio.get_running_loop(), go))
            await go.wait()
        await send(piece(b"", False))

    c = serve(app)
    c.get("/")
    for number in range(5):
        loop, go = steps.get(timeout=5)
        got = b""
        while b"data: %d\n\n" % number not in got:
            got += c.read_some()  # before the application goes on
        loop.call_soon_threadsafe(go.set)
    assert c.read_some() == b"0\r\n\r\n"


def test_the_head_leaves_with_the_first_piece_also_when_that_is_empty(serve: Served) -> None:
    steps: queue.Queue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        go = asyncio.Event()
        await send(START)
        await send(piece(b""))
        steps.put((asyncio.get_running_loop(), go))
        await go.wait()
        await send(piece(b"", False))

    c = serve(app)
    assert c.get("/").head().status == 200
    loop, go = steps.get(timeout=5)
    loop.call_soon_threadsafe(go.set)


def test_a_client_that_leaves_ends_the_generator_within_a_second(serve: Served) -> None:
    ended: queue.Queue[float] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def events() -> None:
            try:
                await send(START)
                while True:
                    await send(piece(b"data: x\n\n"))
                    await asyncio.sleep(0.05)
            finally:
                ended.put(time.monotonic())

        task = asyncio.ensure_future(events())
        while (await receive())["type"] != "http.disconnect":
            pass
        task.cancel()

    for how in ("close", "reset"):
        c = serve(app)
        c.get("/").head()
        c.read_some()
        left = time.monotonic()
        getattr(c, how)()
        assert ended.get(timeout=5) - left < 1.0


def test_starlettes_streaming_response_ends_with_its_client(serve: Served) -> None:
    responses = pytest.importorskip("starlette.responses")
    ended: queue.Queue[float] = queue.Queue()

    async def events() -> Any:
        try:
            while True:
                yield b"data: x\n\n"
                await asyncio.sleep(0.05)
        finally:
            ended.put(time.monotonic())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with contextlib.aclosing(events()) as source:
            await responses.StreamingResponse(source, media_type="text/event-stream")(scope, receive, send)

    c = serve(app)
    assert c.get("/").head().status == 200
    c.read_some()
    left = time.monotonic()
    c.close()
    assert ended.get(timeout=5) - left < 1.0


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    while True:
        await send(piece(bytes(65536)))


@pytest.mark.ours
def test_slow_readers_keep_memory_flat(launch: Any) -> None:
    server: ServerProcess = launch("tests.streams.test_events:endless", "--lifespan", "off")
    clients = [server.connect(receive_buffer=8192) for _ in range(20)]
    for c in clients:
        c.get("/").head()
    time.sleep(0.5)
    before = server.rss()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        for c in clients:
            c.sock.recv(1000)
        time.sleep(0.02)
    assert server.rss() - before < 4 << 20
    for c in clients:
        c.close()
    with server.connect() as c:
        assert c.get("/").head().status == 200


def test_a_reader_that_takes_nothing_is_dropped(start: Starter) -> None:
    gone: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        try:
            for _ in range(10_000):
                await send(piece(bytes(65536)))
        except OSError as exc:
            gone.put(exc)

        gone.put((await receive())["type"])
        gone.put((await receive())["type"])

    with start(app, timeout_send=0.4).connect(receive_buffer=4096) as c:
        c.get("/")
        while True:
            if (got := gone.get(timeout=10)) == "http.disconnect":
                break
            assert got in ("http.request",) or isinstance(got, OSError)


def test_shutdown_tells_streams_and_they_may_say_goodbye(start: Starter) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(piece(b"data: hello\n\n"))
        while (await receive())["type"] != "http.disconnect":
            pass
        await send(piece(b"data: bye\n\n"))
        await send(piece(b"", False))

    server = start(app, timeout_shutdown_streams=0.3)
    with server.connect() as c:
        r = c.get("/").head()
        server.server.should_exit = True
        c.content(r, "GET", time.monotonic() + 10)
        assert r.body == b"data: hello\n\ndata: bye\n\n"
        c.expect_closed_clean()


# ------------------------------------------------------------------- early hints and trailers


def test_early_hints(serve: Served) -> None:
    links = [b"</a.css>; rel=preload; as=style", b"</b.js>; rel=preload"]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert "http.response.early_hint" in scope["extensions"]
        await send({"type": "http.response.early_hint", "links": links})
        await ok(scope, receive, send)

    c = serve(app)
    r = c.get("/").response()
    (hint,) = r.informational
    assert (hint.status, r.status) == (103, 200)
    assert hint.all("link") == [link.decode() for link in links]
    c.get("/", version="1.0")  # a client of 1.0 knows no 1xx (RFC 9110 15.2)
    assert c.response().informational == []


def test_trailers(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert "http.response.trailers" in scope["extensions"]
        await send({**START, "headers": [(b"trailer", b"x-sum")], "trailers": True})
        await send(piece(b"content", False))
        await send({"type": "http.response.trailers", "headers": [(b"x-a", b"1")], "more_trailers": True})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"2")]})

    c = serve(app)
    r = c.get("/", "TE: trailers").response()
    assert (r.body, r.trailers) == (b"content", [("x-a", "1"), ("x-sum", "2")])
    assert c.get("/").response().body == b"content"
    assert c.get("/", method="HEAD").response("HEAD").body == b""
    assert c.get("/", version="1.0").response().body == b"content"


@pytest.mark.parametrize("value", [b"a\r\nb: c", b"\0"])
def test_wrong_trailers_are_an_error(serve: Served, value: bytes) -> None:
    got: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "trailers": True})
        await send(piece(b"x", False))
        try:
            await send({"type": "http.response.trailers", "headers": [(b"x", value)]})
        except Exception as exc:
            got.put(exc)
        await send({"type": "http.response.trailers", "headers": []})

    c = serve(app)
    assert c.get("/", "TE: trailers").response().trailers == []
    assert isinstance(got.get(timeout=5), Exception)
