"""What an application does with the event loop, in one process; each part with a fault armed. Run by test_call_sites.

Prints a line for each part that a fault made hang (a wake-up that is lost in asyncio itself), and ends with 0."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import capicorn
from capicorn import _core
from capicorn.thread_pool import Executor, install_anyio

with contextlib.suppress(ImportError):
    importlib.import_module("anyio.to_thread")  # before install_anyio()

arm: Callable[[bool], bool] = _core._fault_arm  # type: ignore[attr-defined]


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.transport.writelines([data, data])

    def eof_received(self) -> bool:
        return False


class Buffered(asyncio.BufferedProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = bytearray(1000)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.buffer[:nbytes]))


async def streams() -> None:
    loop = asyncio.get_running_loop()
    for protocol in (Echo, Buffered):
        server = await loop.create_server(protocol, "127.0.0.1", 0)
        try:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"x" * 200_000)
            await writer.drain()
            await reader.readexactly(200_000)
            writer.get_extra_info("peername")
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        finally:
            server.close()


async def scheduling() -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    handles = [loop.call_later(0.001 * i, int) for i in range(100)]
    for handle in handles[::2]:
        handle.cancel()
        repr(handle)
    loop.call_soon(max, 1, 2, 3, 4, 5).cancel()
    loop.call_soon(max, 1, 2, 3, 4, 5)
    await loop.run_in_executor(None, lambda: loop.call_soon_threadsafe(done.set_result, None))
    await asyncio.wait_for(done, 1)
    await asyncio.gather(*[asyncio.sleep(0.001) for _ in range(300)])
    loop.call_soon(lambda: 1 / 0)
    await asyncio.sleep(0.005)


async def descriptors() -> None:
    loop = asyncio.get_running_loop()
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        await loop.sock_sendall(a, b"hello")
        await loop.sock_recv(b, 10)
        ready = loop.create_future()
        loop.add_reader(b, lambda: ready.done() or ready.set_result(None))
        a.send(b"x")
        await asyncio.wait_for(ready, 1)
        loop.remove_reader(b)
    loop.add_signal_handler(signal.SIGUSR1, print)
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.sleep(0.01)
    loop.remove_signal_handler(signal.SIGUSR1)


async def processes() -> None:
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    await process.communicate(b"hello")


async def datagrams() -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    transport.sendto(b"x", transport.get_extra_info("sockname"))
    await asyncio.sleep(0.005)
    transport.close()


async def threads() -> None:
    loop: Any = asyncio.get_running_loop()
    loop.set_default_executor(Executor(loop, 2))
    own = install_anyio(loop)
    try:
        await asyncio.gather(*(loop.run_in_executor(None, pow, n, 2) for n in range(5)), return_exceptions=True)
        calls = [loop.run_in_executor(None, time.sleep, 0.002) for _ in range(5)]
        calls[-1].cancel()
        await asyncio.gather(*calls, asyncio.to_thread(int, "x"), return_exceptions=True)
        if own is not None:
            import anyio.to_thread

            await anyio.to_thread.run_sync(int)
            with anyio.CancelScope():
                await anyio.to_thread.run_sync(int)
    finally:
        if own is not None:
            own.close()


def once(part: Callable[[], Awaitable[None]]) -> None:
    """With a loop of its own, of which making and closing are part of the scene."""
    arm(True)
    try:
        with asyncio.Runner(loop_factory=capicorn.new_event_loop) as runner:
            runner.get_loop().set_exception_handler(lambda loop, context: None)
            runner.run(asyncio.wait_for(part(), 5))
    except (MemoryError, OSError, asyncio.IncompleteReadError):
        pass
    except TimeoutError:
        print("hangs:", part.__name__)
    except ExceptionGroup as group:
        print("group:", group)
    finally:
        arm(False)


def main() -> None:
    seen = os.environ["CAPICORN_FAULTS_SEEN"]
    for part in (streams, scheduling, descriptors, processes, datagrams, threads):
        before = -1
        while before != (before := os.path.getsize(seen)):
            once(part)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
