"""Everything that a loop can begin and drop, again and again: `python -m tests.soak.loop_child SECONDS`.

Prints a line of JSON for each round, when all of it has come to rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import capicorn
from capicorn import _core

ROUNDS = 8


class Echo(asyncio.Protocol):
    """Answers, unless told to be rude."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"silence"):
            return
        if data.startswith(b"go"):
            self.transport.abort()
        elif data.startswith(b"close"):
            self.transport.write(data)
            self.transport.close()
        else:
            self.transport.write(data)


class Collect(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.lost.done():
            self.lost.set_result(exc)


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.got = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not self.got.done():
            self.got.set_result(data)


class Soak:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.done = 0
        self.address: Any = None
        self.path = ""

    async def protocols(self) -> None:
        loop = asyncio.get_running_loop()
        word = self.rng.choice([b"x" * 10, b"x" * 300_000, b"silence", b"go", b"close"])
        if self.rng.random() < 0.5:
            transport, protocol = await loop.create_connection(Collect, *self.address)
        else:
            transport, protocol = await loop.create_unix_connection(Collect, self.path)
        transport.write(word)
        try:
            await asyncio.sleep(self.rng.choice([0, 0, 0.001]))
        finally:
            self.rng.choice([transport.close, transport.abort])()
        await protocol.lost

    async def streams(self) -> None:
        reader, writer = await asyncio.open_connection(*self.address)
        word = self.rng.choice([b"x" * 1000, b"silence", b"go"])
        writer.write(word)
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                await asyncio.wait_for(reader.readexactly(1000), 0.005)
        finally:
            writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def cancelled(self) -> None:
        which = self.rng.choice([self.protocols, self.streams, self.sockets, self.datagrams, self.pipes])
        task = asyncio.create_task(which())
        await asyncio.sleep(self.rng.choice([0, 0, 0.0005]))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError, TimeoutError):
            await task

    async def sockets(self) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, self.address)
            await loop.sock_sendall(sock, self.rng.choice([b"word", b"silence"]))
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(0.003):
                    await loop.sock_recv(sock, 100)

    async def datagrams(self) -> None:
        loop = asyncio.get_running_loop()
        a, protocol = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
        try:
            b, _ = await loop.create_datagram_endpoint(Datagrams, remote_addr=a.get_extra_info("sockname"))
            b.sendto(b"x" * self.rng.randrange(2000))
            b.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(protocol.got, 1)
        finally:
            self.rng.choice([a.close, a.abort])()

    async def pipes(self) -> None:
        loop = asyncio.get_running_loop()
        r, w = os.pipe()
        with os.fdopen(w, "wb", 0) as file:
            reading, protocol = await loop.connect_read_pipe(Collect, os.fdopen(r, "rb", 0))
            file = os.fdopen(os.dup(w), "wb", 0)
        try:
            writing, _ = await loop.connect_write_pipe(Collect, file)
            writing.write(b"x" * self.rng.choice([1, 200_000]))
            self.rng.choice([writing.close, writing.abort, reading.close])()
            writing.close()
            await protocol.lost
        finally:
            reading.close()

    async def servers(self) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        server.close()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def timers(self) -> None:
        loop = asyncio.get_running_loop()
        handles = [loop.call_later(self.rng.random() / 100, int) for _ in range(200)]
        for handle in self.rng.sample(handles, 100):
            handle.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(loop.create_future(), 0.002)
        await loop.run_in_executor(None, loop.call_soon_threadsafe, int)

    async def watchers(self) -> None:
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        with a, b:
            seen = loop.create_future()
            loop.add_reader(a, lambda: seen.done() or seen.set_result(None))
            loop.add_writer(b, lambda: b.send(b"x") and loop.remove_writer(b))
            await seen
            loop.remove_reader(a)

    async def names(self) -> None:
        loop = asyncio.get_running_loop()
        lookups = [loop.create_task(loop.getaddrinfo("localhost", 80)) for _ in range(self.rng.randrange(1, 9))]
        await asyncio.sleep(0)
        self.rng.choice(lookups).cancel()
        await asyncio.gather(*lookups, return_exceptions=True)

    async def worker(self, until: float) -> None:
        kinds: list[Callable[[], Awaitable[None]]] = [
            self.protocols,
            self.protocols,
            self.streams,
            self.cancelled,
            self.cancelled,
            self.sockets,
            self.datagrams,
            self.pipes,
            self.servers,
            self.timers,
            self.watchers,
            self.names,
        ]
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                await self.rng.choice(kinds)()
            self.done += 1

    async def process(self) -> None:
        process = await asyncio.create_subprocess_exec("true", stdin=-1, stdout=-1)
        await process.communicate()


def rss() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def allocated() -> int | None:
    """Octets that were allocated and not freed, if AddressSanitizer counts them; with PYTHONMALLOC=malloc, all."""
    count = getattr(ctypes.CDLL(None), "__sanitizer_get_current_allocated_bytes", None)
    if count is None:
        return None
    count.restype = ctypes.c_size_t
    return int(count())


async def main(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    errors: list[str] = []
    loop.set_exception_handler(lambda _, context: errors.append(f"{context['message']}: {context.get('exception')!r}"))
    soak = Soak(random.Random(1))
    with tempfile.TemporaryDirectory() as folder:
        soak.path = os.path.join(folder, "socket")
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        unix_server = await loop.create_unix_server(Echo, soak.path)
        soak.address = server.sockets[0].getsockname()
        for number in range(ROUNDS + 1):  # the first is to get warm
            until = time.monotonic() + seconds / (ROUNDS + 1)
            await asyncio.gather(*(soak.worker(until) for _ in range(16)))
            await soak.process()
            while len(asyncio.all_tasks()) > 1 or threading.active_count() > 40:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            gc.collect()
            await asyncio.sleep(0.05)
            said = {
                "rss": rss(),
                "allocated": allocated(),
                "descriptors": len(os.listdir("/proc/self/fd")),
                "counts": _core._counts(),
                "done": soak.done,
                "errors": errors,
            }
            if number:
                print(json.dumps(said), flush=True)
        server.close()
        unix_server.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=capicorn.new_event_loop) as runner:
        runner.run(main(float(sys.argv[1])))
