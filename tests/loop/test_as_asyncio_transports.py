"""asyncio's own loop and ours, side by side: streams, servers, datagrams, pipes and processes.

Each scenario runs on both (side_by_side.py). Where ours differs on purpose, a test at the end says so.
"""

from __future__ import annotations

import array
import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from capicorn.loop import Loop

from .side_by_side import Seen, compare, fail, nothing, pair, told

SCENARIOS: list[Callable[[Seen], Any]] = []


def scenario(function: Callable[[Seen], Any]) -> Callable[[Seen], Any]:
    SCENARIOS.append(function)
    return function


class Protocol(asyncio.Protocol):
    """Notes all that it is called with. What `fails` names raises after that."""

    def __init__(
        self, seen: Seen, *fails: str, keep: bool | None = None, error: type[BaseException] = ValueError
    ) -> None:
        self.seen, self.fails, self.keep, self.error = seen, fails, keep, error
        self.got = b""
        self.lost = seen.loop.create_future()
        self.transport: Any = None

    def __repr__(self) -> str:
        return "<the protocol>"

    def _called(self, name: str, *args: object) -> None:
        self.seen.note(name, *args)
        if name in self.fails:
            raise self.error(f"in {name}")

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._called("connection_made")

    def data_received(self, data: bytes) -> None:
        self.got += data
        self._called("data_received", type(data).__name__, len(data))

    def eof_received(self) -> bool | None:
        self._called("eof_received")
        return self.keep

    def pause_writing(self) -> None:
        self._called("pause_writing", self.transport.get_write_buffer_size() > 0)

    def resume_writing(self) -> None:
        self._called("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        self._called("connection_lost", told(exc))


async def connected(seen: Seen, *fails: str, **kwargs: Any) -> tuple[Any, Protocol, socket.socket]:
    """A transport, its protocol and the socket at the other end."""
    a, b = pair()
    transport, protocol = await seen.loop.create_connection(lambda: Protocol(seen, *fails, **kwargs), sock=a)
    return transport, protocol, b


def fill(transport: Any) -> None:
    """More than the socket takes."""
    transport.write(b"x" * 4_000_000)


async def drain(sock: socket.socket, loop: Any) -> int:
    """Reads what there is until nothing comes for a moment."""
    total = 0
    while True:
        try:
            got = await asyncio.wait_for(loop.sock_recv(sock, 1 << 20), 0.05)
        except (TimeoutError, ConnectionError):
            return total
        if not got:
            return total
        total += len(got)


# ---- a connection's life


@scenario
async def written_and_closed(seen: Seen) -> None:
    transport, protocol, b = await connected(seen)
    seen.attempt("write", transport.write, b"hello")
    seen.attempt("is_closing", transport.is_closing)
    seen.attempt("close", transport.close)
    seen.attempt("close again", transport.close)
    seen.note(transport.is_closing(), transport.is_reading(), transport.get_write_buffer_size())
    await seen.turns()
    seen.note(protocol.lost.done())
    await seen.wait("what came", seen.loop.sock_recv(b, 100))
    await seen.wait("the end", seen.loop.sock_recv(b, 100))
    seen.attempt("close after the end", transport.close)
    seen.attempt("abort after the end", transport.abort)
    seen.attempt("write after the end", transport.write, b"x")
    seen.attempt("writelines after the end", transport.writelines, [b"x"])
    seen.attempt("pause_reading after the end", transport.pause_reading)
    seen.attempt("resume_reading after the end", transport.resume_reading)
    seen.attempt("is_reading", transport.is_reading)
    seen.attempt("write_eof after the end", transport.write_eof)
    seen.attempt("get_write_buffer_size", transport.get_write_buffer_size)
    seen.attempt("get_extra_info", transport.get_extra_info, "nothing", "default")
    seen.note(transport.get_protocol(), transport.is_closing())
    b.close()


@scenario
async def the_order_of_a_close(seen: Seen) -> None:
    transport, _, b = await connected(seen)
    seen.loop.call_soon(seen.note, "before")
    transport.close()
    seen.loop.call_soon(seen.note, "behind")
    await seen.turns()
    b.close()


@scenario
async def the_order_of_a_beginning(seen: Seen) -> None:
    a, b = pair()
    b.send(b"early")
    seen.loop.call_soon(seen.note, "before")
    transport, protocol = await seen.loop.create_connection(lambda: Protocol(seen), sock=a)
    seen.note("connected", protocol.got)
    await seen.until(lambda: protocol.got)
    transport.close()
    await protocol.lost
    b.close()


@scenario
async def aborted(seen: Seen) -> None:
    for first in (nothing, fill):
        transport, protocol, b = await connected(seen)
        first(transport)
        seen.attempt("abort", transport.abort)
        seen.note(transport.is_closing(), transport.get_write_buffer_size())
        seen.attempt("abort again", transport.abort)
        seen.attempt("close after abort", transport.close)
        await protocol.lost
        b.close()


@scenario
async def closed_with_much_to_write(seen: Seen) -> None:
    transport, protocol, b = await connected(seen)
    fill(transport)
    transport.close()
    seen.note(transport.get_write_buffer_size() > 0, transport.is_closing())
    seen.attempt("write after close", transport.write, b"late")
    await seen.turns()
    seen.note(protocol.lost.done())
    seen.note(await drain(b, seen.loop) >= 4_000_000)
    await protocol.lost
    b.close()


@scenario
async def ended_by_the_peer(seen: Seen) -> None:
    for keep in (None, False, True):
        transport, protocol, b = await connected(seen, keep=keep)
        b.send(b"last")
        b.shutdown(socket.SHUT_WR)
        if keep:
            await seen.until(lambda protocol=protocol: protocol.got)
            await asyncio.sleep(0.01)
            seen.note(transport.is_closing(), transport.is_reading())
            seen.attempt("write", transport.write, b"answer")
            await seen.wait("answer", seen.loop.sock_recv(b, 100))
            transport.close()
        await protocol.lost
        b.close()


@scenario
async def reset_by_the_peer(seen: Seen) -> None:
    protocols: list[Protocol] = []

    def factory() -> Protocol:
        protocols.append(Protocol(seen))
        return protocols[-1]

    server = await seen.loop.create_server(factory, "127.0.0.1", 0)
    with socket.socket() as sock:
        sock.connect(server.sockets[0].getsockname())
        await seen.until(lambda: protocols)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await protocols[0].lost
    server.close()
    await server.wait_closed()


@scenario
async def written_to_who_is_gone(seen: Seen) -> None:
    transport, protocol, b = await connected(seen)
    transport.pause_reading()
    b.close()
    seen.attempt("write", transport.write, b"x")
    await seen.turns()
    seen.note(transport.is_closing())
    await protocol.lost
    for number in range(8):
        seen.attempt(f"write {number}", transport.write, b"x")


# ---- what is written


@scenario
async def kinds_of_what_is_written(seen: Seen) -> None:
    transport, protocol, b = await connected(seen)
    for what in (
        b"",
        b"bytes",
        bytearray(b"bytearray"),
        memoryview(b"memoryview"),
        memoryview(array.array("H", [1, 2, 3])),
    ):
        seen.attempt(f"write {type(what).__name__}", transport.write, what)
        await seen.turns()
    for what in ("str", None, 5, [b"list"], array.array("B", [1]), object()):
        seen.kind(f"write {type(what).__name__}", transport.write, what)
    seen.kind("write of nothing", transport.write)
    await asyncio.sleep(0.01)
    await seen.wait("what came", seen.loop.sock_recv(b, 1000))
    transport.close()
    await protocol.lost
    b.close()


@scenario
async def lines_written(seen: Seen) -> None:
    transport, protocol, b = await connected(seen)
    for name, lines in (
        ("a list", [b"a", bytearray(b"b"), memoryview(b"c")]),
        ("a tuple", (b"a", b"")),
        ("a generator", (c for c in (b"d", b"e"))),
        ("nothing", []),
    ):
        seen.attempt(name, transport.writelines, lines)
        await seen.turns()
    for name, wrong in (
        ("a number", 5),
        ("a str", "abc"),
        ("a list of str", ["x"]),
        ("mixed", [b"x", 5]),
    ):
        seen.kind(name, transport.writelines, wrong)
    await asyncio.sleep(0.01)
    got = await seen.loop.sock_recv(b, 1000)
    seen.note(got[:7])
    fill(transport)
    seen.attempt("while full", transport.writelines, [b"y", b"z"])
    seen.note(await drain(b, seen.loop) >= 4_000_002)
    transport.close()
    await protocol.lost
    b.close()


@scenario
async def the_writing_side_ended(seen: Seen) -> None:
    transport, protocol, b = await connected(seen)
    seen.attempt("can_write_eof", transport.can_write_eof)
    transport.write(b"last")
    seen.attempt("write_eof", transport.write_eof)
    seen.attempt("write_eof again", transport.write_eof)
    seen.attempt("write", transport.write, b"x")
    seen.attempt("write nothing", transport.write, b"")
    seen.kind("writelines", transport.writelines, [b"x"])  # 3.11: of write(), which they go to
    seen.kind("writelines nothing", transport.writelines, [])
    await seen.wait("last", seen.loop.sock_recv(b, 100))
    await seen.wait("the end", seen.loop.sock_recv(b, 100))
    b.send(b"answer")
    await seen.until(lambda: protocol.got)
    transport.close()
    seen.attempt("write_eof after close", transport.write_eof)
    await protocol.lost
    b.close()


@scenario
async def the_writing_side_ended_while_full(seen: Seen) -> None:
    transport, protocol, b = await connected(seen)
    fill(transport)
    seen.attempt("write_eof", transport.write_eof)
    seen.attempt("write", transport.write, b"x")
    seen.note(await drain(b, seen.loop) == 4_000_000)
    seen.note(transport.is_closing())
    transport.close()
    await protocol.lost
    b.close()


# ---- reading


@scenario
async def reading_paused_and_resumed(seen: Seen) -> None:
    transport, protocol, b = await connected(seen)
    seen.attempt("is_reading", transport.is_reading)
    seen.attempt("pause_reading", transport.pause_reading)
    seen.attempt("pause_reading again", transport.pause_reading)
    seen.attempt("is_reading", transport.is_reading)
    b.send(b"waits")
    await asyncio.sleep(0.01)
    seen.note(protocol.got)
    seen.attempt("resume_reading", transport.resume_reading)
    seen.attempt("resume_reading again", transport.resume_reading)
    await seen.until(lambda: protocol.got)
    transport.pause_reading()
    seen.attempt("close while paused", transport.close)
    seen.attempt("resume_reading after close", transport.resume_reading)
    seen.attempt("pause_reading after close", transport.pause_reading)
    seen.attempt("is_reading", transport.is_reading)
    await protocol.lost
    b.close()


@scenario
async def paused_from_the_start(seen: Seen) -> None:
    a, b = pair()
    b.send(b"early")

    class Pauses(Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()
            seen.loop.call_later(0.01, transport.resume_reading)
            seen.loop.call_later(0.005, seen.note, "still paused")

    transport, protocol = await seen.loop.create_connection(lambda: Pauses(seen), sock=a)
    await seen.until(lambda: protocol.got)
    transport.close()
    await protocol.lost
    b.close()


@scenario
async def buffered_protocols(seen: Seen) -> None:
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self, size: int) -> None:
            self.buffer = bytearray(size)
            self.hints: set[int] = set()
            self.lost = seen.loop.create_future()
            self.count = 0

        def __repr__(self) -> str:
            return "<a buffered protocol>"

        def get_buffer(self, sizehint: int) -> Any:
            self.hints.add(sizehint)
            if self.buffer == bytearray(2):
                fail("in get_buffer")
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            seen.note("buffer_updated", nbytes, bytes(self.buffer[:nbytes]))
            self.count += nbytes
            if bytes(self.buffer[:1]) == b"!":
                fail("in buffer_updated")

        def eof_received(self) -> None:
            seen.note("eof_received")

        def connection_lost(self, exc: BaseException | None) -> None:
            seen.note("connection_lost", told(exc))
            self.lost.set_result(None)

    for size, data in ((5, b"12345678"), (5, b"!"), (0, b"x"), (2, b"x")):
        a, b = pair()
        _, protocol = await seen.loop.create_connection(lambda size=size: Buffered(size), sock=a)
        b.send(data)
        await asyncio.sleep(0.01)
        b.close()
        await protocol.lost
        seen.note(protocol.hints)


@scenario
async def another_protocol(seen: Seen) -> None:
    transport, protocol, b = await connected(seen)
    other = Protocol(seen)
    other.transport = transport
    seen.attempt("set_protocol", transport.set_protocol, other)
    seen.note(transport.get_protocol() is other)
    b.send(b"to the other")
    await seen.until(lambda: other.got)
    b.close()
    await other.lost
    seen.note(protocol.got, protocol.lost.done())


# ---- errors in protocols


@scenario
async def errors_in_connection_made(seen: Seen) -> None:
    transport, protocol, b = await connected(seen, "connection_made")
    b.send(b"hello")
    await seen.until(lambda: protocol.got)
    transport.close()
    await protocol.lost
    b.close()


@scenario
async def errors_in_data_received(seen: Seen) -> None:
    for error in (ValueError, ConnectionResetError, asyncio.CancelledError):
        _, protocol, b = await connected(seen, "data_received", error=error)
        b.send(b"hello")
        try:
            await asyncio.wait_for(asyncio.shield(protocol.lost), 0.05)
        except TimeoutError:
            seen.note("still there")
            protocol.transport.abort()
            await protocol.lost
        b.close()


@scenario
async def errors_in_eof_received(seen: Seen) -> None:
    _, protocol, b = await connected(seen, "eof_received")
    b.close()
    await protocol.lost


@scenario
async def errors_in_connection_lost(seen: Seen) -> None:
    transport, protocol, b = await connected(seen, "connection_lost")
    transport.close()
    await protocol.lost
    await seen.turns()
    seen.note(transport.is_closing(), transport.get_extra_info("socket").fileno())
    b.close()


@scenario
async def errors_in_flow_control(seen: Seen) -> None:
    transport, protocol, b = await connected(seen, "pause_writing", "resume_writing")
    fill(transport)
    await seen.turns()
    seen.note(await drain(b, seen.loop) == 4_000_000)
    seen.note(transport.is_closing())
    transport.close()
    await protocol.lost
    b.close()


@scenario
def errors_that_end_the_run(seen: Seen) -> None:
    for where in ("connection_made", "data_received", "eof_received", "pause_writing", "connection_lost"):
        protocols: list[Protocol] = []

        async def begin(where: str = where, protocols: list[Protocol] = protocols) -> socket.socket:
            a, b = pair()

            def factory() -> Protocol:
                protocols.append(Protocol(seen, where, error=SystemExit))
                return protocols[-1]

            task = seen.loop.create_task(seen.loop.create_connection(factory, sock=a))
            await asyncio.wait([task], timeout=0.01)
            return b

        b: Any = None
        try:
            b = seen.loop.run_until_complete(begin())
            b.send(b"hello")
            seen.loop.run_until_complete(asyncio.sleep(0.005))
            fill(protocols[0].transport)
            b.shutdown(socket.SHUT_WR)
            seen.loop.run_until_complete(asyncio.sleep(0.02))
        except SystemExit as exc:
            seen.note(where, told(exc))
        if b is not None:
            b.close()
        try:
            seen.loop.run_until_complete(asyncio.sleep(0.005))
            if protocols[0].transport is not None:
                protocols[0].transport.abort()
            seen.loop.run_until_complete(asyncio.sleep(0.005))
        except SystemExit as exc:
            seen.note(where, "later", told(exc))


# ---- limits and what is known


@scenario
async def limits_of_the_write_buffer(seen: Seen) -> None:
    transport, protocol, b = await connected(seen)
    seen.attempt("get_write_buffer_limits", transport.get_write_buffer_limits)
    for kwargs in (
        {"high": 100},
        {"low": 50},
        {"high": 100, "low": 100},
        {"high": 0},
        {},
        {"high": 10, "low": 20},
        {"low": -1},
        {"high": -1},
        {"high": 1.5},
        {"high": 5, "low": None},
    ):
        seen.attempt(f"set_write_buffer_limits {kwargs}", transport.set_write_buffer_limits, **kwargs)
        seen.note([int(limit) for limit in transport.get_write_buffer_limits()])
    seen.kind("set_write_buffer_limits of str", transport.set_write_buffer_limits, "x")
    transport.set_write_buffer_limits(high=10)
    fill(transport)
    seen.note(await drain(b, seen.loop) == 4_000_000)
    fill(transport)
    transport.set_write_buffer_limits(high=10_000_000)
    seen.note("raised")
    seen.note(await drain(b, seen.loop) == 4_000_000)
    transport.close()
    await protocol.lost
    b.close()


@scenario
async def what_is_known_of_a_connection(seen: Seen) -> None:
    transports: list[Any] = []

    class Serves(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transports.append(transport)

    server = await seen.loop.create_server(Serves, "127.0.0.1", 0)
    transport, _ = await seen.loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    await seen.until(lambda: transports)
    for one in (transport, *transports):
        for name in ("socket", "sockname", "peername", "sslcontext", "ssl_object", "cipher", "peercert", "x", None):
            value = one.get_extra_info(name)
            seen.note(
                name, type(value).__name__, [type(part).__name__ for part in value] if isinstance(value, tuple) else ""
            )
        seen.note(one.get_extra_info("x", 5), one.get_extra_info("peername", 5) != 5)
        seen.kind("no name", one.get_extra_info)
        sock = one.get_extra_info("socket")
        seen.note(
            sock.type, sock.family, sock.gettimeout(), sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        )
        seen.note(isinstance(one, asyncio.Transport), one.is_reading())
        one.close()
    await asyncio.sleep(0.01)
    for one in (transport, *transports):
        seen.note(type(one.get_extra_info("peername")).__name__, type(one.get_extra_info("sockname")).__name__)
    server.close()
    await server.wait_closed()


@scenario
async def what_a_transport_is_called(seen: Seen) -> None:
    transport, protocol, b = await connected(seen)
    seen.note(repr(transport))
    transport.pause_reading()
    seen.note(repr(transport))
    transport.resume_reading()
    fill(transport)
    seen.note(repr(transport).partition("bufsize")[0])
    transport.close()
    seen.note(repr(transport).partition("bufsize")[0])
    transport.abort()
    await protocol.lost
    await seen.turns()
    seen.note(repr(transport))
    b.close()


@scenario
async def a_transport_that_is_dropped(seen: Seen) -> None:
    a, b = pair()
    transport, _ = await seen.loop.create_connection(asyncio.Protocol, sock=a)
    transport.pause_reading()
    del transport, _
    import gc

    gc.collect()
    b.close()


# ---- streams


@scenario
async def readers_and_writers(seen: Seen) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        seen.note("server got", line)
        writer.write(line * 2)
        if line.startswith(b"fail"):
            fail("in the server's callback")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    for word in (b"hello\n", b"fail\n"):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(word)
        await seen.wait("drain", writer.drain())
        await seen.wait("readexactly", reader.readexactly(len(word)))
        await seen.wait("too much", reader.readexactly(1000))
        seen.note(reader.at_eof(), writer.is_closing())
        writer.close()
        await seen.wait("wait_closed", writer.wait_closed())
        await seen.wait("drain after close", writer.drain())
    reader, writer = await asyncio.open_connection(*address, limit=10)
    writer.write(b"x" * 100 + b"\n")
    await seen.wait("too long", reader.readline())
    writer.transport.abort()
    await seen.wait("drain after abort", writer.drain())
    await seen.wait("wait_closed", writer.wait_closed())
    server.close()
    await server.wait_closed()


# ---- servers


@scenario
async def a_servers_life(seen: Seen) -> None:
    server = await seen.loop.create_server(asyncio.Protocol, "127.0.0.1", 0, start_serving=False)
    seen.note(server.is_serving(), len(server.sockets), type(server.sockets).__name__, server.get_loop() is seen.loop)
    seen.note(repr(server).partition("sockets")[0])
    await seen.wait("start_serving", server.start_serving())
    await seen.wait("start_serving again", server.start_serving())
    seen.note(server.is_serving())
    task = seen.loop.create_task(server.serve_forever())
    await seen.turns()
    await seen.wait("serve_forever twice", server.serve_forever())
    task.cancel()
    await seen.wait("serve_forever", task)
    seen.note(server.is_serving(), len(server.sockets))
    seen.attempt("close", server.close)
    seen.attempt("close again", server.close)
    await seen.wait("wait_closed", server.wait_closed())
    await seen.wait("start_serving after close", server.start_serving())
    await seen.wait("serve_forever after close", server.serve_forever())
    for name in ("close_clients", "abort_clients"):
        if hasattr(server, name):
            seen.attempt(name, getattr(server, name))
    async with await seen.loop.create_server(asyncio.Protocol, "127.0.0.1", 0) as server:
        seen.note(server.is_serving())
    seen.note(server.is_serving())


@scenario
async def a_server_closed_with_connections(seen: Seen) -> None:
    for how in ("nothing", "close_clients", "abort_clients"):
        protocols: list[Protocol] = []

        def factory(protocols: list[Protocol] = protocols) -> Protocol:
            protocols.append(Protocol(seen))
            return protocols[-1]

        server = await seen.loop.create_server(factory, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await seen.until(lambda protocols=protocols: protocols)
        server.close()
        waiting = seen.loop.create_task(server.wait_closed())
        await seen.turns()
        seen.note(how, waiting.done())
        if hasattr(server, how):
            seen.attempt(how, getattr(server, how))
        else:
            writer.close()
        await protocols[0].lost
        await seen.wait("wait_closed", waiting)
        writer.close()
        await asyncio.sleep(0.005)


@scenario
async def a_protocol_factory_that_fails(seen: Seen) -> None:
    a, b = pair()
    await seen.wait("a client's", seen.loop.create_connection(lambda: fail("no protocol"), sock=a))
    seen.note(a.fileno() >= 0)
    a.close()
    b.close()


@scenario
async def options_of_servers(seen: Seen) -> None:
    first = await seen.loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    port = first.sockets[0].getsockname()[1]
    try:
        await seen.loop.create_server(asyncio.Protocol, "127.0.0.1", port)
    except OSError as exc:
        seen.note(type(exc).__name__, exc.errno, str(exc).replace(str(port), "N"))
    for kwargs in ({"reuse_port": True}, {"reuse_address": False}, {"backlog": 1}, {"keep_alive": True}):
        try:
            server = await seen.loop.create_server(asyncio.Protocol, "127.0.0.1", 0, **kwargs)
        except TypeError:
            seen.note(kwargs, "refused")
            continue
        sock = server.sockets[0]
        options = (socket.SO_REUSEPORT, socket.SO_REUSEADDR, socket.SO_KEEPALIVE, socket.SO_ACCEPTCONN)
        seen.note(kwargs, [sock.getsockopt(socket.SOL_SOCKET, option) for option in options])
        server.close()
    server = await seen.loop.create_server(asyncio.Protocol, ["127.0.0.1", "127.0.0.2"], 0)
    seen.note(len(server.sockets))
    server.close()
    first.close()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/s"
        server = await seen.loop.create_unix_server(asyncio.Protocol, path)
        transport, _ = await seen.loop.create_unix_connection(asyncio.Protocol, path)
        seen.note(transport.get_extra_info("peername") == path, repr(transport.get_extra_info("sockname")))
        transport.close()
        await asyncio.sleep(0.01)
        server.close()
        seen.note(os.path.exists(path))


# ---- datagrams


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, seen: Seen, *fails: str) -> None:
        self.seen, self.fails = seen, fails
        self.lost = seen.loop.create_future()
        self.count = 0

    def __repr__(self) -> str:
        return "<the datagram protocol>"

    def _called(self, name: str, *args: object) -> None:
        self.count += 1
        self.seen.note(name, *args)
        if name in self.fails:
            fail(f"in {name}")

    def connection_made(self, transport: Any) -> None:
        self._called("connection_made")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._called("datagram_received", type(data).__name__, data[:20], type(addr).__name__, addr and addr[0])

    def error_received(self, exc: Exception) -> None:
        self._called("error_received", told(exc))

    def pause_writing(self) -> None:
        self._called("pause_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        self._called("connection_lost", type(exc).__name__)


async def datagrams(seen: Seen, *fails: str, **kwargs: Any) -> tuple[Any, Datagrams]:
    return await seen.loop.create_datagram_endpoint(lambda: Datagrams(seen, *fails), **kwargs)  # type: ignore[no-any-return]


@scenario
async def datagrams_sent(seen: Seen) -> None:
    here, got = await datagrams(seen, local_addr=("127.0.0.1", 0))
    address = here.get_extra_info("sockname")
    there, _ = await datagrams(seen, local_addr=("127.0.0.1", 0))
    for what in (b"bytes", bytearray(b"bytearray"), memoryview(b"memoryview")):
        before = got.count
        seen.attempt(f"sendto {type(what).__name__}", there.sendto, what, address)
        await asyncio.sleep(0.005)
        seen.note(got.count - before)
    for what in ("str", None, 5, [b"x"]):
        seen.kind(f"sendto {what!r}", there.sendto, what, address)
    seen.note(there.is_closing(), here.is_closing(), there.get_write_buffer_size())
    there.close()
    seen.attempt("close again", there.close)
    seen.attempt("after close", there.sendto, b"after close", address)
    await asyncio.sleep(0.01)
    here.abort()
    await got.lost
    await seen.turns()


@scenario
async def datagrams_to_what_is_no_address(seen: Seen) -> None:
    for wrong in (("127.0.0.1",), ("127.0.0.1", "x"), 5, "x"):
        here, got = await datagrams(seen, local_addr=("127.0.0.1", 0))
        seen.loop.set_exception_handler(
            lambda loop, context: seen.note(context["message"], type(context["exception"]).__name__)
        )
        seen.kind(f"to {wrong!r}", here.sendto, b"x", wrong)
        await asyncio.wait([got.lost], timeout=0.02)
        seen.note(here.is_closing())
        here.close()
        await got.lost


@scenario
async def datagrams_over_a_connected_socket(seen: Seen) -> None:
    here, got = await datagrams(seen, local_addr=("127.0.0.1", 0))
    address = here.get_extra_info("sockname")
    there, _ = await datagrams(seen, remote_addr=address)
    seen.note(there.get_extra_info("peername") == address, here.get_extra_info("peername"))
    seen.attempt("sendto", there.sendto, b"x")
    seen.attempt("to its address", there.sendto, b"y", address)
    try:
        there.sendto(b"z", ("127.0.0.1", 1))
    except ValueError as exc:
        seen.note(told(exc).replace(str(address[1]), "N"))
    await seen.until(lambda: got.count == 3)
    here.close()
    await got.lost
    for _ in range(3):
        there.sendto(b"nobody")
        await asyncio.sleep(0.005)
    there.close()
    await seen.turns()


@scenario
async def datagrams_that_are_too_large(seen: Seen) -> None:
    here, got = await datagrams(seen, local_addr=("127.0.0.1", 0))
    seen.attempt("sendto", here.sendto, b"x" * 70_000, here.get_extra_info("sockname"))
    await seen.turns()
    here.close()
    await got.lost


@scenario
async def errors_in_datagram_protocols(seen: Seen) -> None:
    here, got = await datagrams(seen, "datagram_received", "connection_lost", local_addr=("127.0.0.1", 0))
    here.sendto(b"to myself", here.get_extra_info("sockname"))
    await asyncio.sleep(0.01)
    seen.note(here.is_closing())
    here.close()
    await got.lost
    await seen.turns()
    seen.note(repr(here))


@scenario
async def limits_of_datagrams(seen: Seen) -> None:
    here, got = await datagrams(seen, local_addr=("127.0.0.1", 0))
    seen.attempt("limits", here.get_write_buffer_limits)
    seen.attempt("set", here.set_write_buffer_limits, high=5)
    seen.attempt("limits", here.get_write_buffer_limits)
    seen.attempt("wrong", here.set_write_buffer_limits, high=1, low=5)
    seen.note(repr(here), here.get_protocol() is got)
    seen.note(type(here.get_extra_info("socket")).__name__, here.get_extra_info("x", 1))
    here.close()
    await got.lost


# ---- pipes


@scenario
async def pipes(seen: Seen) -> None:
    r, w = os.pipe()
    reading, protocol = await seen.loop.connect_read_pipe(lambda: Protocol(seen, keep=True), os.fdopen(r, "rb", 0))
    writing, other = await seen.loop.connect_write_pipe(lambda: Protocol(seen), os.fdopen(w, "wb", 0))
    for one in (reading, writing):
        seen.note(repr(one), type(one.get_extra_info("pipe")).__name__, one.get_extra_info("x", 1), one.is_closing())
        seen.note(isinstance(one, asyncio.ReadTransport), isinstance(one, asyncio.WriteTransport))
    for what in (b"bytes", bytearray(b"bytearray"), memoryview(b"memoryview"), b""):
        seen.attempt("write", writing.write, what)
        await asyncio.sleep(0.005)
    seen.note(writing.can_write_eof(), writing.get_write_buffer_size(), writing.get_write_buffer_limits())
    seen.attempt("pause_reading", reading.pause_reading)
    seen.attempt("pause_reading again", reading.pause_reading)
    seen.attempt("is_reading", reading.is_reading)
    seen.attempt("resume_reading", reading.resume_reading)
    seen.attempt("resume_reading again", reading.resume_reading)
    seen.attempt("write_eof", writing.write_eof)
    seen.attempt("write_eof again", writing.write_eof)
    await protocol.lost
    await other.lost
    await seen.turns()
    for one in (reading, writing):
        seen.note(repr(one), one.is_closing())
        seen.attempt("close", one.close)
    seen.attempt("write after the end", writing.write, b"x")
    seen.attempt("pause_reading after the end", reading.pause_reading)
    seen.attempt("resume_reading after the end", reading.resume_reading)


@scenario
async def pipes_nobody_reads(seen: Seen) -> None:
    r, w = os.pipe()
    writing, protocol = await seen.loop.connect_write_pipe(lambda: Protocol(seen), os.fdopen(w, "wb", 0))
    writing.write(b"x" * 1_000_000)
    seen.note(writing.get_write_buffer_size() > 0)
    os.close(r)
    await protocol.lost
    for _ in range(3):
        seen.attempt("write", writing.write, b"x")


@scenario
async def errors_in_protocols_of_pipes(seen: Seen) -> None:
    for where in ("connection_made", "data_received", "eof_received", "connection_lost"):
        r, w = os.pipe()
        reading, protocol = await seen.loop.connect_read_pipe(
            lambda where=where: Protocol(seen, where), os.fdopen(r, "rb", 0)
        )
        os.write(w, b"hello")
        await asyncio.sleep(0.005)
        os.close(w)
        await protocol.lost
        await seen.turns()
        seen.note(reading.is_closing())


# ---- processes


class Processes(asyncio.SubprocessProtocol):
    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.lost = seen.loop.create_future()
        self.parts: dict[int, bytes] = {}
        self.ends: list[str] = []

    def connection_made(self, transport: Any) -> None:
        self.seen.note("connection_made", isinstance(transport, asyncio.SubprocessTransport))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.parts[fd] = self.parts.get(fd, b"") + data

    def pipe_connection_lost(self, fd: int, exc: BaseException | None) -> None:
        self.ends.append(f"{fd} {told(exc)}")

    def process_exited(self) -> None:
        self.ends.append("exited")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.seen.note(sorted(self.ends), sorted(self.parts.items()))
        self.seen.note("connection_lost", told(exc))
        self.lost.set_result(None)


@scenario
async def a_process(seen: Seen) -> None:
    transport, protocol = await seen.loop.subprocess_shell(
        lambda: Processes(seen), "read x; echo got $x; echo e >&2; exit 3"
    )
    seen.note(transport.get_pid() > 0, transport.get_returncode(), transport.is_closing())
    seen.note(sorted(transport._pipes), transport.get_pipe_transport(5))
    for fd in range(3):
        pipe = transport.get_pipe_transport(fd)
        seen.note(fd, isinstance(pipe, asyncio.WriteTransport), isinstance(pipe, asyncio.ReadTransport))
    transport.get_pipe_transport(0).write(b"word\n")
    await protocol.lost
    seen.note(transport.get_returncode(), transport.is_closing())
    for name, args in (("kill", ()), ("terminate", ()), ("send_signal", (signal.SIGUSR1,))):
        seen.attempt(f"{name} after the end", getattr(transport, name), *args)
    seen.attempt("close", transport.close)
    seen.attempt("close again", transport.close)
    seen.note(repr(transport))


@scenario
async def processes_that_are_ended(seen: Seen) -> None:
    for name, args in (("kill", ()), ("terminate", ()), ("send_signal", (signal.SIGUSR1,)), ("close", ())):
        transport, protocol = await seen.loop.subprocess_exec(lambda: Processes(seen), "sleep", "100")
        seen.attempt(name, getattr(transport, name), *args)
        await protocol.lost
        seen.note(name, transport.get_returncode())
        transport.close()


@scenario
async def processes_by_streams(seen: Seen) -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
    await seen.wait("communicate", process.communicate(b"hello"))
    seen.note(process.returncode)
    await seen.wait("wait again", process.wait())
    seen.attempt("kill after the end", process.kill)
    process = await asyncio.create_subprocess_exec("true", stdin=pipe)
    await process.wait()
    await seen.wait("communicate with the dead", process.communicate(b"x" * 1_000_000))
    process = await asyncio.create_subprocess_shell("exit 7")
    await seen.wait("wait", process.wait())
    process = await asyncio.create_subprocess_exec("sleep", "100")
    await seen.wait("too long", asyncio.wait_for(process.wait(), 0.02))
    process.kill()
    await seen.wait("wait", process.wait())
    await seen.wait("no program", asyncio.create_subprocess_exec("/nowhere/at/all"))
    await seen.wait("no folder", asyncio.create_subprocess_exec("true", cwd="/nowhere/at/all"))


@pytest.mark.parametrize("function", SCENARIOS, ids=lambda f: f.__name__)
def test_the_same_is_seen(function: Callable[[Seen], Any]) -> None:
    compare(function)


# ---- on purpose


def test_what_cannot_be_written_is_refused_at_once(loop: Loop) -> None:
    """asyncio ends the connection for it, and has an assertion in the place of a TypeError for pipes."""

    async def main() -> None:
        a, b = pair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
        with pytest.raises(BufferError):
            transport.write(memoryview(b"every other")[::2])
        transport.write(b"goes on")
        assert await loop.sock_recv(b, 100) == b"goes on"
        transport.close()
        b.close()
        r, w = os.pipe()
        writing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(w, "wb", 0))
        for wrong in ("str", None, 5):
            with pytest.raises(TypeError):
                writing.write(wrong)  # type: ignore[arg-type]
        writing.abort()
        await asyncio.sleep(0)
        writing.abort()  # asyncio: AttributeError
        os.close(r)

    loop.run_until_complete(main())


def test_what_changes_after_write_was_written_as_it_was(loop: Loop) -> None:
    """asyncio sends a bytearray that waits as it is when there is room (since 3.12)."""

    async def main() -> None:
        a, b = pair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
        fill(transport)
        data = bytearray(b"before")
        transport.write(data)
        transport.write(memoryview(data))
        data[:] = b"behind"
        transport.write(b"end")
        total = b""
        while not total.endswith(b"end"):
            total = (total + await loop.sock_recv(b, 1 << 20))[-30:]
        assert total.endswith(b"xbeforebeforeend")
        transport.close()
        b.close()

    loop.run_until_complete(main())


@pytest.mark.parametrize("debug", [False, True])
def test_a_connection_without_a_protocol_is_closed(loop: Loop, debug: bool) -> None:
    """asyncio leaves it to the garbage collector, so that the client waits."""
    loop.set_debug(debug)
    loop.slow_callback_duration = 60
    errors: list[Any] = []
    loop.set_exception_handler(lambda loop, context: errors.append(context["message"]))

    async def main() -> None:
        server = await loop.create_server(lambda: fail("no protocol"), "127.0.0.1", 0)
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, server.sockets[0].getsockname())
            assert await asyncio.wait_for(loop.sock_recv(sock, 1), 5) == b""
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    assert errors == (["Error on transport creation for incoming connection"] if debug else [])


def test_a_datagram_without_an_address_is_an_error_of_the_datagram(loop: Loop) -> None:
    """asyncio ends the transport for it."""

    async def main() -> None:
        errors: list[Exception] = []

        class Keeps(asyncio.DatagramProtocol):
            def error_received(self, exc: Exception) -> None:
                errors.append(exc)

        transport, _ = await loop.create_datagram_endpoint(Keeps, local_addr=("127.0.0.1", 0))
        transport.sendto(b"x")
        await asyncio.sleep(0)
        assert [type(error) for error in errors] == [OSError] and not transport.is_closing()
        transport.close()

    loop.run_until_complete(main())
