"""What the suites of projects that stand on a loop found: each once more, in short."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import ssl
import sys
import weakref
from typing import Any

import pytest
from capicorn.loop import Loop


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_in_tls(loop: Loop, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext], trusted: bool) -> None:
    """As through an HTTPS proxy (websockets). A certificate that is refused ends both, with that error."""
    server_context, client_context = tls_contexts
    errors: list[Any] = []
    loop.set_exception_handler(lambda loop, context: errors.append(context.get("exception")))
    ended: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await writer.start_tls(server_context)
            writer.write((await reader.readline()).upper())
            await writer.drain()
            ended.append("answered")
        except (ssl.SSLError, ConnectionError) as e:
            ended.append(type(e).__name__)
        finally:
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_context, server_hostname="localhost"
        )
        if trusted:
            await writer.start_tls(client_context, server_hostname="localhost")
            writer.write(b"hello\n")
            assert await reader.readline() == b"HELLO\n"
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                await writer.start_tls(ssl.create_default_context(), server_hostname="localhost")
        writer.close()
        try:
            await writer.wait_closed()
        except (ssl.SSLError, ConnectionError):
            assert not trusted
        async with asyncio.timeout(5):
            while not ended:
                await asyncio.sleep(0.01)
        server.close()
        await asyncio.sleep(0.05)

    loop.run_until_complete(main())
    assert (ended == ["answered"]) is trusted
    assert not [e for e in errors if isinstance(e, (TypeError, AttributeError))], errors


def test_a_socket_that_reads_in_its_own_way_is_asked(loop: Loop) -> None:
    """A subclass whose recv() or send() is its own, as of a tunnel (websockets' legacy tests)."""
    used: list[str] = []

    class Tunnel(socket.socket):
        def recv(self, *args: Any) -> bytes:
            used.append("recv")
            return super().recv(*args)

        def send(self, data: Any, *args: Any) -> int:
            used.append("send")
            return super().send(data, *args)

    class Plain(socket.socket):
        pass

    async def ask(kind: type[socket.socket]) -> None:
        a, b = socket.socketpair()
        sock = kind(fileno=a.detach())
        with b:
            reader, writer = await asyncio.open_connection(sock=sock)
            writer.write(b"hello")
            b.setblocking(False)
            assert await loop.sock_recv(b, 10) == b"hello"
            await loop.sock_sendall(b, b"world")
            assert await reader.readexactly(5) == b"world"
            writer.close()
            await writer.wait_closed()

    loop.run_until_complete(ask(Tunnel))
    assert set(used) == {"recv", "send"}
    used.clear()
    loop.run_until_complete(ask(Plain))
    assert not used


def test_a_server_that_is_late_for_start_tls(loop: Loop, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """The client has begun the handshake when it calls start_tls() (gh-142352, test_streams of CPython 3.14)."""
    server_context, client_context = tls_contexts

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader._buffer:  # type: ignore[attr-defined]
            await asyncio.sleep(0.001)
        await writer.start_tls(server_context)
        writer.write((await reader.readline()).upper())
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        async with asyncio.timeout(5):
            await writer.start_tls(client_context, server_hostname="localhost")
            writer.write(b"hello\n")
            assert await reader.readline() == b"HELLO\n"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_start_tls_that_fails_leaves_no_cycle(loop: Loop, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """gh-159049, test_sslproto of CPython 3.14."""
    server_context, _ = tls_contexts

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await writer.start_tls(server_context)
        except (ssl.SSLError, ConnectionError):
            pass
        writer.close()

    async def client(address: Any) -> weakref.ref[asyncio.Transport]:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(asyncio.Protocol, *address)
        with pytest.raises(ssl.SSLCertVerificationError):
            await loop.start_tls(transport, protocol, ssl.create_default_context(), server_hostname="localhost")
        return weakref.ref(transport)

    async def is_gone() -> bool:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        gc.collect()
        gc.disable()
        try:
            transport = await client(server.sockets[0].getsockname())
            await asyncio.sleep(0.05)
            return transport() is None
        finally:
            gc.enable()
            server.close()
            await server.wait_closed()

    theirs = asyncio.SelectorEventLoop()
    for one in (theirs, loop):
        one.set_exception_handler(lambda loop, context: None)
    asyncio_passes = theirs.run_until_complete(is_gone())
    theirs.close()
    assert loop.run_until_complete(is_gone()) or not asyncio_passes


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a thread waits for the process, and takes its number away")
def test_no_signal_goes_to_a_process_that_is_gone(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be another's (gh-127049, test_subprocess of CPython 3.14)."""
    gone: set[int] = set()
    stale: list[int] = []
    waitpid, kill = os.waitpid, os.kill

    def seen_waitpid(pid: int, options: int) -> tuple[int, int]:
        found = waitpid(pid, options)
        gone.add(found[0])
        return found

    def seen_kill(pid: int, number: int) -> None:
        if pid in gone:
            stale.append(pid)
        else:
            kill(pid, number)

    async def main() -> None:
        process = await asyncio.create_subprocess_exec("sleep", "100")
        monkeypatch.setattr(os, "waitpid", seen_waitpid)
        monkeypatch.setattr(os, "kill", seen_kill)
        async with asyncio.timeout(5):
            while process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await asyncio.sleep(0)
        await process.wait()

    loop.run_until_complete(main())
    assert gone and not stale
