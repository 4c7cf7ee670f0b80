"""Clients that people use inside a request, on the loop that serves it: HTTP, WebSockets, databases, anyio, TLS.

What is not installed is skipped. Each calls back into the server that serves the request, where it can.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib.util
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.apps.basic import read_all, reply
from tests.conftest import serving
from tests.harness.thread import App, Receive, Scope, Send, Served, ThreadServer, Trampoline, is_capicorn

LOOPS = ["capicorn", "asyncio", "uvloop"] if is_capicorn() else ["asyncio", "uvloop"]
BIG = 300_000


@pytest.fixture(autouse=True)
def dev_null(request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params.get("shared_server") == "uvloop":
        request.applymarker(pytest.mark.stays("descriptors", "uvloop keeps /dev/null from some moment on"))


@pytest.fixture(scope="module", params=LOOPS)
def shared_server(request: pytest.FixtureRequest, warm: None) -> Iterator[tuple[ThreadServer, Trampoline]]:
    """One server for each loop, in place of the module's usual one."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    for server, trampoline in serving(loop="auto" if request.param == "capicorn" else request.param):
        server.loop_name = request.param  # type: ignore[attr-defined]
        yield server, trampoline


def needs(*names: str) -> None:
    for name in names:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


def url(scope: Scope, path: str, scheme: str = "http") -> str:
    host, port = scope["server"]
    return f"{scheme}://{host}:{port}{path}"


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    """What the clients call: echoes at once, in pieces, late, or as a WebSocket."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"].upper()})
    elif scope["path"] == "/pieces":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for n in range(50):
            await send({"type": "http.response.body", "body": b"%03d" % n * 1000, "more_body": True})
        await send({"type": "http.response.body"})
    elif scope["path"] == "/late":
        message = await receive()
        while message["type"] != "http.disconnect":
            message = await receive()
    else:
        body, _ = await read_all(receive)
        await reply(send, body[::-1] or b"nothing")


def around(work: Any) -> App:
    """An application whose "/" answers with what `work(scope)` returns; the rest is `inner`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/":
            await reply(send, repr(await work(scope)).encode())
        else:
            await inner(scope, receive, send)

    return app


def ask(serve: Served, work: Any) -> str:
    r = serve(around(work), timeout=30).get("/").response()
    assert r.status == 200, r.text
    return str(r.text)


def test_httpx_streams_and_gives_up(serve: Served) -> None:
    needs("httpx")
    import httpx

    async def work(scope: Scope) -> tuple[int, int, bool, str]:
        async with httpx.AsyncClient(trust_env=False) as client:
            length = 0
            async with client.stream("GET", url(scope, "/pieces")) as r:
                async for piece in r.aiter_raw():
                    length += len(piece)

            async def pieces() -> Any:
                for _ in range(30):
                    yield b"z" * 10_000
                    await asyncio.sleep(0)

            sent = await client.post(url(scope, "/echo"), content=pieces())
            try:
                await client.get(url(scope, "/late"), timeout=0.1)
                late = False
            except httpx.ReadTimeout:
                late = True
            after = await client.get(url(scope, "/echo"))
            return length, len(sent.content), late, after.text

    assert ask(serve, work) == repr((150_000, BIG, True, "nothing"))


def test_aiohttp_requests_and_websocket(serve: Served) -> None:
    needs("aiohttp")
    import aiohttp

    async def work(scope: Scope) -> tuple[Any, ...]:
        async with aiohttp.ClientSession() as session:
            async with session.post(url(scope, "/echo"), data=b"a" * BIG + b"b") as r:
                first = await r.read()
            length = 0
            async with session.get(url(scope, "/pieces")) as r:
                async for piece in r.content.iter_any():
                    length += len(piece)
            try:
                async with session.get(url(scope, "/late"), timeout=aiohttp.ClientTimeout(total=0.1)):
                    late = False
            except TimeoutError:
                late = True
            words = []
            async with session.ws_connect(url(scope, "/ws", "ws")) as ws:
                for word in ("one", "two"):
                    await ws.send_str(word)
                    words.append((await ws.receive(timeout=10)).data)

            async def status() -> int:
                async with session.get(url(scope, "/echo")) as r:
                    await r.read()
                    return r.status

            many = await asyncio.gather(*(status() for _ in range(20)))
            return first[:1], len(first), length, late, words, set(many)

    assert ask(serve, work) == repr((b"b", BIG + 1, 150_000, True, ["ONE", "TWO"], {200}))


def test_websockets_client(serve: Served) -> None:
    needs("websockets")
    from websockets.asyncio.client import connect

    async def work(scope: Scope) -> tuple[Any, ...]:
        async with connect(url(scope, "/ws", "ws"), proxy=None) as ws:
            await ws.send("x" * BIG)
            first = await ws.recv()
            await ws.send("end")
            pong = await ws.ping()
            await asyncio.wait_for(pong, 10)
            return len(first), await ws.recv()

    assert ask(serve, work) == repr((BIG, "END"))


def test_urllib_in_an_executor(serve: Served) -> None:
    async def work(scope: Scope) -> list[bytes]:
        def fetch() -> bytes:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url(scope, "/echo"), b"abc") as r:
                return bytes(r.read())

        loop = asyncio.get_running_loop()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            return await asyncio.gather(*(loop.run_in_executor(pool, fetch) for _ in range(8)))

    assert ask(serve, work) == repr([b"cba"] * 8)


def test_http_by_asyncio_streams_under_a_timeout(serve: Served) -> None:
    async def work(scope: Scope) -> tuple[Any, ...]:
        host, port = scope["server"]
        reader, writer = await asyncio.open_connection(host, port)
        writer.writelines([b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", b"abc"])
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(3)
        writer.write(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        try:
            async with asyncio.timeout(0.05):
                await reader.read(1)
            late = False
        except TimeoutError:
            late = True
        writer.close()
        await writer.wait_closed()
        return head.startswith(b"HTTP/1.1 200"), body, late

    assert ask(serve, work) == repr((True, b"cba", True))


@pytest.mark.stays("threads", "anyio keeps its worker threads while the loop runs")
def test_anyio_sockets_processes_and_threads(serve: Served) -> None:
    needs("anyio")
    import anyio
    from anyio import to_thread

    async def work(scope: Scope) -> tuple[Any, ...]:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")

        async def echo(stream: Any) -> None:
            async with stream:
                async for data in stream:
                    await stream.send(data)

        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                got = b""

                async def send() -> None:
                    await stream.send(b"q" * BIG)
                    await stream.send_eof()

                async with anyio.create_task_group() as pair:
                    pair.start_soon(send)
                    async for data in stream:
                        got += data
            with anyio.move_on_after(0.05) as scope_:
                await anyio.sleep_forever()
            group.cancel_scope.cancel()
        done = await anyio.run_process([sys.executable, "-S", "-c", "print(input()[::-1])"], input=b"abc\n")
        with anyio.fail_after(10):
            number = await to_thread.run_sync(lambda: anyio.from_thread.run(anyio.sleep, 0) or 5)
        return len(got), scope_.cancelled_caught, done.stdout, number

    assert ask(serve, work) == repr((BIG, True, b"cba\n", 5))


def test_many_subprocesses_at_once(serve: Served) -> None:
    async def work(scope: Scope) -> tuple[Any, ...]:
        async def one(n: int) -> tuple[bytes, int | None]:
            child = await asyncio.create_subprocess_exec(
                "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            out, _ = await asyncio.wait_for(child.communicate(b"%d" % n * 1000), 20)
            return out[:1], child.returncode

        several = await asyncio.gather(*(one(n) for n in range(5)))
        child = await asyncio.create_subprocess_exec("sleep", "30")
        try:
            async with asyncio.timeout(0.05):
                await child.wait()
        except TimeoutError:
            child.kill()
        return several, await child.wait()

    assert ask(serve, work) == repr(([(b"%d" % n, 0) for n in range(5)], -9))


def test_sqlalchemy_with_aiosqlite(serve: Served, tmp_path: Path) -> None:
    needs("sqlalchemy", "aiosqlite", "greenlet")
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    async def work(scope: Scope) -> list[Any]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/base")
        try:
            async with engine.begin() as connection:
                await connection.execute(text("CREATE TABLE t (n INTEGER)"))
                await connection.execute(text("INSERT INTO t VALUES (:n)"), [{"n": n} for n in range(10)])
            async with engine.connect() as connection:
                result = await connection.stream(text("SELECT n FROM t WHERE n > 6 ORDER BY n"))
                return [row.n async for row in result]
        finally:
            await engine.dispose()

    assert ask(serve, work) == "[7, 8, 9]"


def test_cancelled_client_leaves_its_pool_sound(serve: Served) -> None:
    """A request that a timeout cancels in the middle, twenty at once, and then the same client goes on."""
    needs("httpx")
    import httpx

    async def work(scope: Scope) -> tuple[int, int]:
        # as many connections as calls: httpcore 1.0 can lose one whose call is cancelled while it waits for the pool
        limits = httpx.Limits(max_connections=21)
        async with httpx.AsyncClient(trust_env=False, limits=limits, timeout=10) as client:

            async def one() -> int:
                try:
                    async with asyncio.timeout(0.1):
                        await client.get(url(scope, "/late"))
                except TimeoutError:
                    return 1
                return 0

            cut = sum(await asyncio.gather(*(one() for _ in range(20))))
            return cut, (await client.get(url(scope, "/echo"))).status_code

    assert ask(serve, work) == repr((20, 200))
