"""TLS on the loop: how connections end, and what reaches whom."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from capicorn import _core
from capicorn.loop import Loop
from capicorn.tls_protocol import TLSProtocol

from .test_transports import Recorder

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]  # server, client


def connect(
    loop: Loop, tls: Contexts, serve: Callable[[ssl.SSLSocket], None], factory: Any = Recorder
) -> tuple[Any, Any, threading.Thread]:
    """A transport and protocol of a client, and the thread that serves it: `serve` gets the other end, with TLS."""
    server, client = tls
    a, b = socket.socketpair()
    b.settimeout(10)

    def run() -> None:
        with b, server.wrap_socket(b, server_side=True, suppress_ragged_eofs=True) as sock:
            serve(sock)

    thread = threading.Thread(target=run)
    thread.start()
    transport, protocol = loop.run_until_complete(
        loop.create_connection(factory, sock=a, ssl=client, server_hostname="localhost")
    )
    assert isinstance(transport._ssl_protocol, TLSProtocol)  # type: ignore[attr-defined]
    return transport, protocol, thread


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def lost(protocol: Recorder) -> Callable[[], bool]:
    return lambda: isinstance(protocol.events[-1], tuple)


def test_nothing_is_received_after_close_and_close_notify_is_awaited(loop: Loop, tls_contexts: Contexts) -> None:
    go, seen = threading.Event(), []

    def serve(sock: ssl.SSLSocket) -> None:
        go.wait(10)
        sock.sendall(b"x" * 100_000)  # nobody wants it
        seen.append(sock.recv(100))
        sock.unwrap()

    transport, protocol, thread = connect(loop, tls_contexts, serve)
    transport.close()
    go.set()
    loop.run_until_complete(until(lost(protocol)))
    thread.join()
    assert protocol.events == ["made", "eof", ("lost", None)]
    assert seen == [b""]


def test_close_ends_a_connection_whose_end_came_while_reading_was_paused(loop: Loop, tls_contexts: Contexts) -> None:
    done = threading.Event()

    def serve(sock: ssl.SSLSocket) -> None:
        sock.sendall(b"unread")
        sock.shutdown(socket.SHUT_WR)  # no close_notify
        done.wait(10)

    class Pausing(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    transport, protocol, thread = connect(loop, tls_contexts, serve, Pausing)
    loop.run_until_complete(until(lambda: transport._ssl_protocol._eof_received))
    assert protocol.events == ["made"]
    transport.close()
    loop.run_until_complete(until(lost(protocol)))
    done.set()
    thread.join()
    assert protocol.events[-1] == ("lost", None)
    assert b"unread" not in protocol.events


def test_all_that_was_written_goes_out_when_the_peer_ends_first(loop: Loop, tls_contexts: Contexts) -> None:
    server, client = tls_contexts
    data = bytes(range(256)) * 16384
    got = bytearray()
    a, b = socket.socketpair()
    b.settimeout(10)

    def serve() -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = server.wrap_bio(incoming, outgoing, server_side=True)
        ended = said = False
        while not ended:
            try:
                if tls.version() is None:
                    tls.do_handshake()
                while chunk := tls.read(65536):
                    got.extend(chunk)
                ended = True
            except ssl.SSLZeroReturnError:
                ended = True
            except ssl.SSLWantReadError:
                if got and not said:  # close_notify, while much is on its way to us
                    said = True
                    with pytest.raises(ssl.SSLWantReadError):
                        tls.unwrap()
                if outgoing.pending:
                    b.sendall(outgoing.read())
                incoming.write(b.recv(65536))
        b.close()

    thread = threading.Thread(target=serve)
    thread.start()
    transport, protocol = loop.run_until_complete(
        loop.create_connection(Recorder, sock=a, ssl=client, server_hostname="localhost")
    )
    for i in range(0, len(data), 1 << 20):
        transport.write(data[i : i + (1 << 20)])
    loop.run_until_complete(until(lost(protocol)))
    thread.join()
    assert bytes(got) == data
    assert protocol.events[-1] == ("lost", None)


def test_callbacks_run_in_the_context_of_the_connection(loop: Loop, tls_contexts: Contexts) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[tuple[str, str]] = []
    names = "connection_made data_received eof_received pause_writing resume_writing connection_lost".split()

    class Watching(Recorder):
        def __getattribute__(self, name: str) -> Any:
            if name in names:
                seen.append((name, variable.get()))
            return super().__getattribute__(name)

    go = threading.Event()

    def serve(sock: ssl.SSLSocket) -> None:
        sock.sendall(b"one")
        go.wait(10)
        left = 4 << 20
        while left:
            left -= len(sock.recv(65536))
        sock.sendall(b"two")
        assert sock.recv(1) == b""
        sock.unwrap()

    variable.set("connection")
    transport, protocol, thread = connect(loop, tls_contexts, serve, Watching)
    variable.set("other")
    loop.run_until_complete(until(lambda: b"one" in protocol.events))
    transport.pause_reading()
    for _ in range(4):
        transport.write(b"x" * (1 << 20))
    go.set()
    loop.run_until_complete(until(lambda: "resume" in protocol.events))
    transport.resume_reading()
    loop.run_until_complete(until(lambda: b"two" in protocol.events))
    transport.close()
    loop.run_until_complete(until(lost(protocol)))
    thread.join()
    assert {name for name, _ in seen} == set(names)
    assert {where for _, where in seen} == {"connection"}


@pytest.mark.parametrize("small", [False, True])
def test_a_protocol_need_not_derive_from_bufferedprotocol(loop: Loop, tls_contexts: Contexts, small: bool) -> None:
    class Buffers(asyncio.BaseProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(3 if small else 100)
            self.got = b""
            self.lost = False

        def get_buffer(self, sizehint: int) -> memoryview:
            return memoryview(self.buffer)

        def buffer_updated(self, nbytes: int) -> None:
            self.got += self.buffer[:nbytes]

        def eof_received(self) -> None:
            pass

        def connection_lost(self, exc: BaseException | None) -> None:
            self.lost = True

    def serve(sock: ssl.SSLSocket) -> None:
        sock.sendall(b"0123456789")
        sock.unwrap()

    _, protocol, thread = connect(loop, tls_contexts, serve, Buffers)
    loop.run_until_complete(until(lambda: protocol.lost))
    thread.join()
    assert protocol.got == b"0123456789"


CLIENT = """
import os, signal, socket, ssl, sys, time
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
with context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1])))) as sock:
    sock.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    sock.recv(65536)
    sys.stdin.read(1)
    sock.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    time.sleep(0.05)
    os.kill(os.getppid(), signal.SIGUSR1)
    sys.stdin.read()
"""


def test_what_a_signals_handler_raises_while_the_http_server_reads(loop: Loop, tls_contexts: Contexts) -> None:
    """ssl looks for signals after each read: it comes out of run_forever(), as from anywhere else."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.append(1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})
        loop.call_soon(loop.stop)

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    served: list[int] = []
    http = _core.HTTPServer(loop, app, logger=logging.getLogger("capicorn.error"), ssl_context=tls_contexts[0])
    handler = signal.signal(signal.SIGUSR1, interrupt)
    listener = socket.create_server(("127.0.0.1", 0))
    http.listen(listener.fileno())
    command = [sys.executable, "-c", CLIENT, str(listener.getsockname()[1])]
    client = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        assert client.stdin is not None
        loop.run_forever()
        # In C and nothing but C: request and signal are both there when it is over.
        loop.call_soon(os.write, client.stdin.fileno(), b".")
        loop.call_soon(sum, range(10_000_000))
        loop.call_later(5, loop.stop)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        assert len(served) == 1
    finally:
        client.communicate()
        signal.signal(signal.SIGUSR1, handler)
        http.close()
        loop.run_until_complete(asyncio.sleep(0.01))
        listener.close()
