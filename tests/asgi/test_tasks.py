"""What runs inside a request: tasks, contexts, cancellation, threads, processes, clients; on each event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apps.basic import read_all, reply
from tests.conftest import serving
from tests.harness.client import Closed
from tests.harness.thread import Receive, Scope, Send, Served, ThreadServer, Trampoline, is_capicorn

LOOPS = ["capicorn", "asyncio", "uvloop"] if is_capicorn() else ["asyncio", "uvloop"]
var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)


@pytest.fixture(scope="module", params=LOOPS)
def shared_server(request: pytest.FixtureRequest, warm: None) -> Iterator[tuple[ThreadServer, Trampoline]]:
    """One server for each loop, in place of the module's usual one."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    for server, trampoline in serving(loop="auto" if request.param == "capicorn" else request.param):
        server.loop_name = request.param  # type: ignore[attr-defined]
        yield server, trampoline


def test_loop_is_the_one_asked_for(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        loop = type(asyncio.get_running_loop())
        await reply(send, f"{loop.__module__}.{loop.__qualname__}".encode())

    assert serve.server.loop_name in serve(app).get("/").response().text  # type: ignore[attr-defined]


def test_current_task_is_a_real_task(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert isinstance(task, asyncio.Task)
        assert task in asyncio.all_tasks()
        await receive()
        assert asyncio.current_task() is task
        await asyncio.sleep(0)
        assert asyncio.current_task() is task
        await reply(send)
        assert asyncio.current_task() is task

    c = serve(app)
    for _ in range(3):
        assert c.get("/").response().status == 200


def test_current_task_is_right_when_the_content_comes_later(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        await read_all(receive)
        assert asyncio.current_task() is task and task is not None
        await reply(send)

    c = serve(app)
    c.send_read("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", "a", "b").send("c")
    assert c.response().status == 200


def test_every_request_has_a_context_of_its_own(serve: Served) -> None:
    seen: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(var.get())
        var.set(var.get() + 1)
        await asyncio.sleep(0)
        seen.append(var.get())
        await receive()
        await reply(send)
        seen.append(var.get())

    c = serve(app)
    for _ in range(3):
        assert c.get("/").response().status == 200
    serve.wait_idle()
    assert seen == [0, 1, 1] * 3


def test_contexts_of_requests_that_overlap(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        n = int(scope["path"][1:])
        var.set(n)
        for _ in range(5):
            await asyncio.sleep(0.001 * (n % 3))
            assert var.get() == n
        await reply(send, str(var.get()).encode())

    clients = [serve(app) for _ in range(20)]
    for i, c in enumerate(clients):
        c.get(f"/{i}")
    assert [c.response().text for c in clients] == [str(i) for i in range(20)]


def test_requests_on_different_connections_run_side_by_side(serve: Served) -> None:
    barrier: list[asyncio.Event] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        event = asyncio.Event()
        barrier.append(event)
        if len(barrier) == 10:
            for e in barrier:
                e.set()
        await asyncio.wait_for(event.wait(), 5)
        await reply(send)

    clients = [serve(app) for _ in range(10)]
    for c in clients:
        c.get("/")
    assert [c.response().status for c in clients] == [200] * 10


def test_sleep_takes_its_time_and_not_more(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begin = time.monotonic()
        await asyncio.sleep(0.05)
        await reply(send, str(time.monotonic() - begin).encode())

    passed = float(serve(app).get("/").response().text)
    assert 0.045 <= passed < 0.5


def test_task_goes_on_after_the_response(serve: Served) -> None:
    """Starlette's background tasks: the client has its response, the application still works."""
    ended: queue.Queue[str] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send)
        await asyncio.sleep(0.05)
        ended.put("background")

    c = serve(app)
    begin = time.monotonic()
    assert c.get("/").response().status == 200
    assert ended.empty() or time.monotonic() - begin > 0.05
    assert ended.get(timeout=5) == "background"
    assert c.get("/").response().status == 200
    assert ended.get(timeout=5) == "background"


def test_background_work_does_not_end_with_the_client(serve: Served) -> None:
    ended: queue.Queue[str] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send)
        try:
            await asyncio.sleep(0.1)
            ended.put("done")
        except asyncio.CancelledError:
            ended.put("cancelled")
            raise

    c = serve(app)
    assert c.get("/").response().status == 200
    c.close()
    assert ended.get(timeout=5) == "done"


def test_disconnect_does_not_cancel(serve: Served) -> None:
    events: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.put("running")
        try:
            await asyncio.sleep(0.15)
            events.put("slept")
            await reply(send)
            events.put("sent")
            events.put(await receive())
        except BaseException as e:
            events.put(repr(e))
            raise

    c = serve(app)
    c.get("/")
    assert events.get(timeout=5) == "running"
    c.close()
    assert [events.get(timeout=5) for _ in range(2)] == ["slept", "sent"], "send() after a disconnect returns silently"
    assert events.get(timeout=5) == {"type": "http.disconnect"}


def test_send_that_waits_ends_when_the_client_goes(serve: Served) -> None:
    """A pending send() is woken, silently, and so are the ones after it."""
    events: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        events.put("started")
        for _ in range(200):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        await send({"type": "http.response.body"})
        events.put("all sent")

    c = serve(app, receive_buffer=4096)
    c.get("/")
    assert events.get(timeout=5) == "started"
    with pytest.raises(queue.Empty):
        events.get(timeout=0.2)
    c.reset()
    assert events.get(timeout=5) == "all sent"


def test_cancelled_send_leaves_the_connection_sound(serve: Served) -> None:
    """wait_for(send(...)) that runs out: nothing is half written in a way that the client misreads."""
    events: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        sent = 0
        try:
            while True:
                await asyncio.wait_for(
                    send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True}), 0.1
                )
                sent += 1
        except TimeoutError:
            events.put(sent)
        await send({"type": "http.response.body", "body": b"end"})

    c = serve(app, receive_buffer=4096)
    c.get("/")
    sent = events.get(timeout=10)
    r = c.response()
    assert r.body.endswith(b"end")
    assert (len(r.body) - 3) in (sent * 65536, (sent + 1) * 65536)


@pytest.mark.logs("")
def test_cancelling_oneself_ends_the_request(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(5)

    with contextlib.suppress(Closed):
        assert serve(app).get("/").response().status == 500
    serve.wait_idle()


def test_task_groups_and_timeouts(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        done: list[int] = []

        async def child(n: int) -> None:
            await asyncio.sleep(0.001 * n)
            done.append(n)

        async with asyncio.TaskGroup() as group:
            for n in (3, 1, 2):
                group.create_task(child(n))
        try:
            async with asyncio.timeout(0.02):
                await asyncio.sleep(5)
        except TimeoutError:
            done.append(9)
        await reply(send, repr(done).encode())

    assert serve(app).get("/").response().text == "[1, 2, 3, 9]"


@pytest.mark.stays("threads", "anyio keeps its worker threads while the loop runs")
def test_anyio_task_groups_and_scopes(serve: Served) -> None:
    anyio = pytest.importorskip("anyio")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        out: list[str] = []
        async with anyio.create_task_group() as group:

            async def first() -> None:
                await anyio.sleep(0.01)
                out.append("first")
                group.cancel_scope.cancel()

            async def second() -> None:
                try:
                    await anyio.sleep(5)
                finally:
                    out.append("second")

            group.start_soon(first)
            group.start_soon(second)
        with anyio.move_on_after(0.01) as moved:
            await receive()
            await receive()
        out.append(str(moved.cancelled_caught))
        out.append(await anyio.to_thread.run_sync(lambda: "thread"))
        with anyio.fail_after(5):
            await reply(send, " ".join(out).encode())

    assert serve(app).get("/").response().text == "first second True thread"


def test_executor(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        var.set(7)
        loop = asyncio.get_running_loop()
        here = threading.get_ident()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            there = await loop.run_in_executor(pool, threading.get_ident)
            assert there != here
            values = await asyncio.gather(*(loop.run_in_executor(pool, pow, n, 2) for n in range(20)))
        assert values == [n * n for n in range(20)]
        await reply(send)

    assert serve(app).get("/").response().status == 200


def test_call_soon_threadsafe_wakes_a_sleeping_loop(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(20):
            future = loop.create_future()
            begin = time.monotonic()
            thread = threading.Thread(
                target=lambda f=future: (time.sleep(0.005), loop.call_soon_threadsafe(f.set_result, 1))
            )
            thread.start()
            await asyncio.wait_for(future, 2)
            assert time.monotonic() - begin < 1
            thread.join()
        await reply(send)

    assert serve(app).get("/").response().status == 200


def test_run_coroutine_threadsafe(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()

        async def double(n: int) -> int:
            await asyncio.sleep(0)
            return 2 * n

        def work() -> int:
            return asyncio.run_coroutine_threadsafe(double(21), loop).result(5)

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            await reply(send, str(await loop.run_in_executor(pool, work)).encode())

    assert serve(app).get("/").response().text == "42"


def test_subprocess(serve: Served, request: pytest.FixtureRequest) -> None:
    """Child processes need a watcher that works in a thread that is not the main one."""
    if serve.server.loop_name == "uvloop":  # type: ignore[attr-defined]
        request.applymarker(pytest.mark.stays("descriptors", "uvloop keeps /dev/null from its first child on"))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        code = "import sys; data = sys.stdin.read(); print(data.upper()); sys.exit(4)"
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-c", code, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(child.communicate(b"hello"), 20)
        await reply(send, out.strip() + str(child.returncode).encode())

    assert serve(app).get("/").response().text == "HELLO4"


def test_streams_in_a_request(serve: Served) -> None:
    """A server and a client of asyncio's own streams, as database drivers use them."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readline()).upper())
            await writer.drain()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello\n")
        line = await asyncio.wait_for(reader.readline(), 5)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await reply(send, line)

    assert serve(app).get("/").response().text == "HELLO\n"


def test_httpx_in_a_request(serve: Served) -> None:
    """A request to the same server from within a request."""
    httpx = pytest.importorskip("httpx")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/inner":
            body, _ = await read_all(receive)
            return await reply(send, body[::-1])
        host, port = scope["server"]
        async with httpx.AsyncClient(trust_env=False) as client:
            r = await client.post(f"http://{host}:{port}/inner", content=b"x" * 100_000 + b"y")
            assert r.text[0] == "y" and len(r.content) == 100_001
            many = await asyncio.gather(*(client.get(f"http://{host}:{port}/inner") for _ in range(10)))
        await reply(send, str([m.status_code for m in many]).encode())

    assert serve(app).get("/").response().text == str([200] * 10)


def test_async_generators_are_closed(serve: Served) -> None:
    closed: queue.Queue[str] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def numbers() -> Any:
            try:
                for i in range(100):
                    yield i
            finally:
                closed.put("closed")

        async for n in numbers():
            if n == 3:
                break
        await reply(send)

    assert serve(app).get("/").response().status == 200
    assert closed.get(timeout=5) == "closed"


@pytest.mark.logs("Exception in ASGI application")
def test_deep_recursion_in_the_application_is_its_error(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        def down(n: int) -> int:
            return down(n + 1)

        down(0)

    c = serve(app)
    assert c.get("/").response().status == 500
    c.expect_closed_clean()


@pytest.mark.stays("threads", "anyio keeps its worker threads while the loop runs")
def test_starlette_application(serve: Served) -> None:
    """The parts of Starlette that lean on a server: BaseHTTPMiddleware, streaming, background, is_disconnected."""
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
    from starlette.routing import Route

    done: queue.Queue[str] = queue.Queue()

    async def upload(request: Request) -> JSONResponse:
        body = await request.body()
        assert not await request.is_disconnected()
        return JSONResponse({"length": len(body)}, background=BackgroundTask(done.put, "background"))

    async def stream(request: Request) -> StreamingResponse:
        async def pieces() -> Any:
            for i in range(5):
                yield f"{i},"
                await asyncio.sleep(0)

        return StreamingResponse(pieces())

    def sync(request: Request) -> PlainTextResponse:
        return PlainTextResponse(threading.current_thread().name)

    class Adds(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            response = await call_next(request)
            response.headers["x-added"] = "1"
            return response

    routes = [Route("/upload", upload, methods=["POST"]), Route("/stream", stream), Route("/sync", sync)]
    c = serve(Starlette(routes=routes, middleware=[Middleware(Adds)]))
    r = c.post("/upload", b"x" * 300_000).response()
    assert (r.text, r.get("x-added")) == ('{"length":300000}', "1")
    assert done.get(timeout=5) == "background"
    r = c.get("/stream").response()
    assert (r.text, r.framing) == ("0,1,2,3,4,", "chunked")
    assert c.get("/missing").response().status == 404
    assert c.get("/sync").response().status == 200
