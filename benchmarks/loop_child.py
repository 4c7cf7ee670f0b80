"""What loop.py measures, in a process of its own: python -m benchmarks.loop_child LOOP LINE SECONDS [CERT KEY]

Writes one JSON object: {"count", "seconds", "cpu"}, or {"port"} of a server that goes on until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

BULK = 64 * 1048576
PIECE = b"x" * 65536
Loop = asyncio.AbstractEventLoop


def new_loop(name: str) -> Loop:
    """All of these modules have new_event_loop."""
    loop: Loop = import_module(name).new_event_loop()
    return loop


def nothing(*args: object) -> None:
    pass


async def batches(seconds: float, size: int, batch: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """Runs batches of `size` operations for that long, after one that is not counted."""
    await batch()
    count = 0
    start, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        await batch()
        count += size
    return {"count": count, "seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}


async def call_soon(loop: Loop, seconds: float, args: tuple[object, ...]) -> dict[str, float]:
    async def batch() -> None:
        soon, waiter = loop.call_soon, loop.create_future()
        for _ in range(1000):
            soon(nothing, *args)
        soon(waiter.set_result, None)
        await waiter

    return await batches(seconds, 1000, batch)


async def threadsafe(loop: Loop, seconds: float) -> dict[str, float]:
    async def batch() -> None:
        waiter = loop.create_future()

        def other() -> None:
            soon = loop.call_soon_threadsafe
            for _ in range(20000):
                soon(nothing)
            soon(waiter.set_result, None)

        thread = threading.Thread(target=other)
        thread.start()
        await waiter
        thread.join()

    return await batches(seconds, 20000, batch)


async def timer_cancel(loop: Loop, seconds: float) -> dict[str, float]:
    async def batch() -> None:
        later = loop.call_later
        for _ in range(1000):
            later(60, nothing).cancel()
        await asyncio.sleep(0)

    return await batches(seconds, 1000, batch)


async def timer_fire(loop: Loop, seconds: float) -> dict[str, float]:
    async def batch() -> None:
        waiter, left = loop.create_future(), 5000

        def fired() -> None:
            nonlocal left
            left -= 1
            if not left:
                waiter.set_result(None)

        at = loop.time()
        for i in range(5000):
            loop.call_at(at + i * 37 % 5000 * 1e-6, fired)
        await waiter

    return await batches(seconds, 5000, batch)


async def sleep_0(loop: Loop, seconds: float) -> dict[str, float]:
    async def batch() -> None:
        for _ in range(1000):
            await asyncio.sleep(0)

    return await batches(seconds, 1000, batch)


async def task(loop: Loop, seconds: float) -> dict[str, float]:
    async def done() -> None:
        pass

    async def batch() -> None:
        for _ in range(1000):
            await loop.create_task(done())

    return await batches(seconds, 1000, batch)


async def getaddrinfo(loop: Loop, seconds: float) -> dict[str, float]:
    async def batch() -> None:
        for _ in range(20):
            await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)

    return await batches(seconds, 20, batch)


async def spawn(loop: Loop, seconds: float) -> dict[str, float]:
    async def batch() -> None:
        process = await asyncio.create_subprocess_exec("/bin/true")
        if await process.wait() != 0:
            raise RuntimeError("/bin/true failed")

    return await batches(seconds, 1, batch)


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Bulk(asyncio.Protocol):
    """On one octet: 64 MiB, as fast as they are taken, and the end."""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.left, self.paused = transport, 0, False

    def data_received(self, data: bytes) -> None:
        self.left = BULK
        self.more()

    def more(self) -> None:
        while self.left and not self.paused:
            self.transport.write(PIECE)
            self.left -= len(PIECE)
        if not self.left:
            self.transport.close()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.more()


async def echo_streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def echo_socket(loop: Loop, connection: socket.socket) -> None:
    with connection:
        while data := await loop.sock_recv(connection, 65536):
            await loop.sock_sendall(connection, data)


async def serve(loop: Loop, line: str, context: ssl.SSLContext | None) -> None:
    """Says the port and serves until it is killed."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    listening.setblocking(False)
    port = listening.getsockname()[1]
    server: Any = None
    if line.startswith("echo-streams"):
        server = await asyncio.start_server(echo_streams, sock=listening)
    elif line.startswith(("echo-protocol", "echo-tls")):
        server = await loop.create_server(Echo, sock=listening, ssl=context)
    elif line == "bulk":
        server = await loop.create_server(Bulk, sock=listening)
    print(json.dumps({"port": port}), flush=True)
    if server is None:
        tasks = set()
        while True:
            connection, _ = await loop.sock_accept(listening)
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tasks.add(loop.create_task(echo_socket(loop, connection)))
    await loop.create_future()


async def measured(loop: Loop, line: str, seconds: float) -> dict[str, float]:
    if line == "call-soon":
        return await call_soon(loop, seconds, ())
    if line == "call-soon-args":
        return await call_soon(loop, seconds, (1, 2, 3))
    lines: dict[str, Callable[[Loop, float], Awaitable[dict[str, float]]]] = {
        "threadsafe": threadsafe,
        "timer-cancel": timer_cancel,
        "timer-fire": timer_fire,
        "sleep-0": sleep_0,
        "task": task,
        "getaddrinfo": getaddrinfo,
        "subprocess": spawn,
    }
    return await lines[line](loop, seconds)


def main() -> None:
    name, line, seconds, *cert = sys.argv[1:]
    loop = new_loop(name)
    asyncio.set_event_loop(loop)
    context = None
    if cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*cert)
    if line.startswith("echo") or line == "bulk":
        loop.run_until_complete(serve(loop, line, context))
    else:
        print(json.dumps(loop.run_until_complete(measured(loop, line, float(seconds)))), flush=True)


if __name__ == "__main__":
    main()
