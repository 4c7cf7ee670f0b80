"""Stream transports: what they promise beyond the suites of others, and what Python may do in the middle of them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import resource
import select
import socket
import ssl
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from capicorn import _core
from capicorn.loop import Loop, new_event_loop
from capicorn.transports import StreamTransport


class Recorder(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.events.append(data)

    def eof_received(self) -> bool | None:
        self.events.append("eof")
        return None

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.events.append(("lost", type(exc).__name__ if exc is not None else None))


@pytest.fixture
def peer() -> Iterator[list[socket.socket]]:
    sockets: list[socket.socket] = []
    yield sockets
    for sock in sockets:
        sock.close()


def connect(loop: Loop, peer: list[socket.socket], factory: Callable[[], Any] = Recorder) -> tuple[Any, Any]:
    """A transport, its protocol; the other end, blocking, is appended to `peer`."""
    a, b = socket.socketpair()
    a.setblocking(False)
    b.settimeout(5)
    peer.append(b)
    return loop.run_until_complete(loop.create_connection(factory, sock=a))


def run(loop: Loop, seconds: float = 0.01) -> None:
    loop.run_until_complete(asyncio.sleep(seconds))


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(1 << 20):
        data += piece
    return data


def test_a_transport_is_asyncios(loop: Loop, peer: list[socket.socket]) -> None:
    transport, protocol = connect(loop, peer)
    assert type(transport) is StreamTransport
    assert isinstance(transport, asyncio.Transport)
    assert isinstance(transport, asyncio.transports._FlowControlMixin)
    assert transport.get_protocol() is protocol
    assert transport.get_extra_info("socket").fileno() == transport._sock_fd
    assert transport.get_extra_info("nothing", 5) == 5
    assert transport.can_write_eof() and transport.is_reading() and not transport.is_closing()
    assert transport.get_write_buffer_limits() == (16384, 65536)
    transport.write = lambda data: protocol.events.append("replaced")
    transport.write(b"1")
    del transport.write
    with pytest.raises(TypeError):
        transport.write("text")
    with pytest.raises(ValueError):
        transport.set_write_buffer_limits(high=1, low=2)
    assert weakref.ref(transport)() is transport
    transport.close()
    transport.close()
    assert transport.is_closing()
    run(loop)
    assert protocol.events == ["made", "replaced", ("lost", None)]
    assert transport._loop is None
    assert transport.get_extra_info("socket") is not None
    transport.write(b"nobody")
    transport.abort()
    assert "closed" in repr(transport)


def test_order_of_a_connection(loop: Loop, peer: list[socket.socket]) -> None:
    transport, protocol = connect(loop, peer)
    peer[0].sendall(b"1")
    run(loop)
    peer[0].sendall(b"2")
    peer[0].shutdown(socket.SHUT_WR)
    run(loop)
    assert protocol.events == ["made", b"1", b"2", "eof", ("lost", None)]
    assert read_all(peer[0]) == b""


def test_half_close(loop: Loop, peer: list[socket.socket]) -> None:
    class KeepsOpen(Recorder):
        def eof_received(self) -> bool:
            super().eof_received()
            return True

    transport, protocol = connect(loop, peer, KeepsOpen)
    peer[0].shutdown(socket.SHUT_WR)
    run(loop)
    assert protocol.events == ["made", "eof"]
    transport.write(b"still")
    transport.write(b" there")
    transport.write_eof()
    with pytest.raises(RuntimeError, match="write_eof"):
        transport.write(b"x")
    assert read_all(peer[0]) == b"still there"
    transport.close()
    run(loop)
    assert protocol.events[-1] == ("lost", None)


def test_writes_of_one_turn_go_together_and_in_order(loop: Loop, peer: list[socket.socket]) -> None:
    transport, protocol = connect(loop, peer)

    async def main() -> None:
        transport.write(b"a")
        view = bytearray(b"b")
        transport.write(view)
        view[0] = 0  # has been copied
        transport.write(memoryview(b"cde")[1:])
        transport.writelines([b"f", b"", bytearray(b"g")])
        transport.write(b"")
        assert transport.get_write_buffer_size() == 0  # nothing waits for the peer
        assert not select.select([peer[0]], [], [], 0)[0]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert peer[0].recv(10) == b"abdefg"
        large = bytes(40_000)  # leaves at once
        transport.write(large)
        assert select.select([peer[0]], [], [], 0)[0]
        assert await asyncio.to_thread(peer[0].makefile("rb").read, len(large)) == large
        transport.write(b"last")

    loop.run_until_complete(main())
    assert peer[0].recv(10) == b"last"
    transport.write(b"outside")  # no turn will end: at once
    assert peer[0].recv(10) == b"outside"
    transport.close()


@pytest.mark.parametrize("how", ["close", "abort", "write_eof"])
def test_what_was_written_in_the_turn_of_the_end_arrives(loop: Loop, peer: list[socket.socket], how: str) -> None:
    transport, protocol = connect(loop, peer)

    async def main() -> None:
        transport.write(b"1")
        transport.write(b"2")
        getattr(transport, how)()

    loop.run_until_complete(main())
    run(loop)
    assert peer[0].recv(10) == b"12"
    assert peer[0].recv(10) == b""
    transport.abort()
    run(loop)
    assert protocol.events == ["made", ("lost", None)]


def test_flow_control(loop: Loop, peer: list[socket.socket]) -> None:
    transport, protocol = connect(loop, peer)
    data = os.urandom(5 << 20)

    async def main() -> None:
        for i in range(0, len(data), 50000):
            transport.write(data[i : i + 50000])
        assert transport.get_write_buffer_size() > 65536
        assert "write=<polling" in repr(transport)
        transport.close()
        received = await asyncio.to_thread(read_all, peer[0])
        assert received == data
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    assert protocol.events == ["made", "pause", "resume", ("lost", None)]


def test_pause_and_resume_reading(loop: Loop, peer: list[socket.socket]) -> None:
    class Pauses(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()

    transport, protocol = connect(loop, peer, Pauses)
    for n in b"123":
        peer[0].sendall(bytes([n]))
        run(loop)
    assert protocol.events == ["made", b"1"]
    assert not transport.is_reading()
    assert transport._polled == 0  # something came: the poll has been told
    transport.pause_reading()
    transport.resume_reading()
    transport.resume_reading()
    run(loop)
    assert protocol.events == ["made", b"1", b"23"]
    transport.abort()


def test_buffered_protocol(loop: Loop, peer: list[socket.socket]) -> None:
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(4)
            self.events: list[Any] = []

        def get_buffer(self, sizehint: int) -> bytearray:
            assert sizehint == -1
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.events.append(bytes(self.buffer[:nbytes]))
            self.buffer = bytearray(4)

        def connection_lost(self, exc: BaseException | None) -> None:
            self.events.append(exc)

    transport, protocol = connect(loop, peer, Buffered)
    peer[0].sendall(b"abcdef")
    run(loop)
    assert protocol.events == [b"abcd", b"ef"]
    recorder = Recorder()
    transport.set_protocol(recorder)
    peer[0].sendall(b"gh")
    run(loop)
    assert recorder.events == [b"gh"]
    transport.set_protocol(protocol)
    errors: list[Any] = []
    loop.set_exception_handler(lambda loop, context: errors.append((context["message"], type(context["exception"]))))
    protocol.buffer = bytearray()
    peer[0].sendall(b"i")
    run(loop)
    assert errors == [("Fatal error: protocol.get_buffer() call failed.", RuntimeError)]
    assert isinstance(protocol.events[-1], RuntimeError)


@pytest.mark.parametrize(
    "where", ["data_received", "eof_received", "pause_writing", "connection_made", "connection_lost"]
)
def test_errors_of_a_protocol(loop: Loop, peer: list[socket.socket], where: str) -> None:
    class Fails(Recorder):
        pass

    def fail(self: Fails, *args: Any) -> None:
        getattr(Recorder, where)(self, *args)
        raise LookupError(where)

    setattr(Fails, where, fail)
    errors: list[Any] = []
    loop.set_exception_handler(lambda loop, context: errors.append(context))
    transport, protocol = connect(loop, peer, Fails)
    if where == "pause_writing":
        transport.write(b"x" * (4 << 20))
        assert transport.get_write_buffer_size()
        transport.abort()
    peer[0].sendall(b"1")
    peer[0].shutdown(socket.SHUT_WR)
    run(loop)
    assert [type(context["exception"]) for context in errors] == [LookupError]
    if where != "connection_made" and where != "connection_lost":
        assert errors[0]["protocol"] is protocol
    assert protocol.events[-1][0] == "lost"
    assert transport._sock is None
    errors.clear()


@pytest.mark.parametrize("exit_", [KeyboardInterrupt, SystemExit])
def test_interrupts_come_out_of_the_loop(loop: Loop, peer: list[socket.socket], exit_: type[BaseException]) -> None:
    class Fails(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            raise exit_

    transport, protocol = connect(loop, peer, Fails)
    peer[0].sendall(b"1")
    with pytest.raises(exit_):
        run(loop, 1)
    run(loop)
    assert not transport.is_closing()
    transport.abort()


def test_the_peer_resets(loop: Loop, peer: list[socket.socket]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        transport, protocol = loop.run_until_complete(loop.create_connection(Recorder, *listening.getsockname()))
        accepted, _ = listening.accept()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    accepted.close()
    run(loop, 0.05)
    assert protocol.events == ["made", ("lost", "ConnectionResetError")]
    for _ in range(10):
        transport.write(b"x")


def test_the_peer_resets_while_we_write_and_do_not_read(loop: Loop, peer: list[socket.socket]) -> None:
    transport, protocol = connect(loop, peer)
    transport.pause_reading()
    transport.write(b"x" * (4 << 20))
    run(loop)
    peer[0].close()
    run(loop, 0.05)
    assert protocol.events[:2] == ["made", "pause"]
    assert protocol.events[-1][0] == "lost" and protocol.events[-1][1] in ("BrokenPipeError", "ConnectionResetError")


def test_callbacks_run_in_the_context_of_the_connection(loop: Loop, peer: list[socket.socket]) -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="none")
    seen: list[tuple[str, str]] = []

    class Notes(asyncio.Protocol):
        def __getattribute__(self, name: str) -> Any:
            if name in ("connection_made", "data_received", "pause_writing", "resume_writing", "connection_lost"):
                return lambda *args: seen.append((name, var.get()))
            return super().__getattribute__(name)

    async def main() -> None:
        var.set("connection")
        a, b = socket.socketpair()
        b.setblocking(False)
        transport, _ = await loop.create_connection(Notes, sock=a)
        var.set("writer")
        transport.write(b"x" * (4 << 20))
        await loop.sock_sendall(b, b"1")
        size = 0
        while size < 4 << 20:
            size += len(await loop.sock_recv(b, 1 << 20))
        await asyncio.sleep(0.01)
        transport.close()
        await asyncio.sleep(0.01)
        b.close()

    loop.run_until_complete(main())
    assert sorted(seen) == [
        (name, "connection")
        for name in ("connection_lost", "connection_made", "data_received", "pause_writing", "resume_writing")
    ]


@pytest.mark.parametrize(
    "where", ["connection_made", "data_received", "eof_received", "pause_writing", "connection_lost"]
)
@pytest.mark.parametrize("what", ["close", "abort", "stop", "switch", "write", "collect"])
def test_anything_in_a_callback(loop: Loop, peer: list[socket.socket], where: str, what: str) -> None:
    class Does(Recorder):
        pass

    def do(self: Does, *args: Any) -> None:
        getattr(Recorder, where)(self, *args)
        transport = self.transport
        if what == "switch":
            transport.set_protocol(Recorder())
        elif what == "write":
            transport.write(b"x" * 200000)
            transport.writelines([b"y"] * 200)
        elif what == "collect":
            self.transport = None
            gc.collect()
        elif what == "stop":
            loop.stop()
        else:
            getattr(transport, what)()

    setattr(Does, where, do)
    a, b = socket.socketpair()
    a.setblocking(False)
    b.settimeout(5)
    peer.append(b)
    transport = loop._make_socket_transport(a, Does())
    loop.call_later(0.005, b.sendall, b"1")
    loop.call_later(0.01, transport.write, b"x" * (1 << 20))
    loop.call_later(0.015, b.shutdown, socket.SHUT_WR)
    for seconds in (0.05, 0.05, 0.05, 0.01, 0.01):
        if seconds == 0.01:
            transport.abort()
        stop = loop.call_later(seconds, loop.stop)
        loop.run_forever()
        stop.cancel()  # the callback was first: the fixture's end must not be stopped
    assert transport._sock is None


def test_many_connections_come_and_go(loop: Loop) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def client(port: int, n: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        data = os.urandom(1 + n * 5000)
        writer.write(data)
        if n % 3 == 2:
            writer.transport.abort()
            return
        if n % 3 == 1:
            writer.write_eof()
            assert await reader.read() == data
        else:
            assert await reader.readexactly(len(data)) == data
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        await asyncio.gather(*(client(port, n) for n in range(60)))
        server.close()
        await asyncio.sleep(0.05)

    loop.set_exception_handler(lambda loop, context: None)  # the aborted ones' writers
    loop.run_until_complete(main())


def test_unclosed_transports_warn(loop: Loop, peer: list[socket.socket]) -> None:
    transport, protocol = connect(loop, peer)
    transport.pause_reading()
    peer[0].sendall(b"1")
    run(loop)  # from now on nothing but us holds it
    with pytest.warns(ResourceWarning, match="unclosed transport <StreamTransport fd="):
        del transport, protocol
        gc.collect()
    with pytest.raises(ConnectionResetError):  # what had come was not read
        peer[0].recv(1)


def test_loop_closed_with_open_transports() -> None:
    loop = new_event_loop()
    sockets: list[socket.socket] = []
    transport, protocol = connect(loop, sockets)
    transport.write(b"x" * (4 << 20))
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        transport.abort()
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del transport, protocol
        gc.collect()
    sockets[0].close()


def test_a_loop_and_its_transport_as_garbage() -> None:
    loop = new_event_loop()
    sockets: list[socket.socket] = []
    transport, protocol = connect(loop, sockets)
    protocol.loop = loop
    ref = weakref.ref(protocol)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # recorded, it would keep the transport
        del loop, transport, protocol
        gc.collect()
    assert ref() is None
    sockets[0].close()


def test_the_makers_close_of_a_socket_is_put_off(loop: Loop, peer: list[socket.socket]) -> None:
    a, b = socket.socketpair()
    b.settimeout(5)
    peer.append(b)
    transport, protocol = loop.run_until_complete(loop.create_connection(Recorder, sock=a))
    fd = a.fileno()
    a.close()
    transport.write(b"1")
    assert b.recv(1) == b"1"
    with pytest.raises(RuntimeError, match="is used by transport"):
        loop.add_reader(fd, print)
    transport.close()
    run(loop)
    with pytest.raises(OSError):
        os.fstat(fd)


def test_sendfile_and_refused_writes(loop: Loop, peer: list[socket.socket], tmp_path: Any) -> None:
    data = os.urandom(3 << 20)
    path = tmp_path / "file"
    path.write_bytes(data)
    transport, protocol = connect(loop, peer)

    async def main() -> None:
        reading = asyncio.create_task(asyncio.to_thread(read_all, peer[0]))
        transport.write(b"head")
        transport.write(b"er")
        with open(path, "rb") as file:
            sending = asyncio.create_task(loop.sendfile(transport, file))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="sendfile is in progress"):
                transport.write(b"x")
            assert await sending == len(data)
        transport.close()
        assert await reading == b"header" + data

    loop.run_until_complete(main())


def test_a_fork_leaves_the_parents_transports_alone(loop: Loop, peer: list[socket.socket]) -> None:
    transport, protocol = connect(loop, peer)
    pid = os.fork()
    if pid == 0:
        try:
            transport._detach()
            transport._closed()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    peer[0].sendall(b"1")
    run(loop)
    assert protocol.events == ["made", b"1"]
    transport.close()


def test_tls_over_it(loop: Loop, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server_context, client_context = tls_contexts
    data = os.urandom(1 << 20)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(len(data)))
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context)
        host, port = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(host, port, ssl=client_context, server_hostname="localhost")
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())


def test_accepting(loop: Loop) -> None:
    """Each connection has a context of its own; a factory that fails costs its connection only."""
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)
    errors: list[str] = []
    seen: list[tuple[str, int]] = []
    loop.set_debug(True)
    loop.set_exception_handler(lambda loop, context: errors.append(context["message"]))

    class Answers(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            seen.append(("made", var.get()))
            self.transport.write(b"hello")
            self.transport.close()

    def factory() -> Answers:
        seen.append(("factory", var.get()))
        var.set(len(seen))
        if len(seen) == 3:
            raise LookupError
        return Answers()

    async def ask(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return await reader.read()
        finally:
            writer.close()

    async def main() -> None:
        server = await loop.create_server(factory, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        assert await ask(port) == b"hello"
        assert await ask(port) == b""
        assert await ask(port) == b"hello"
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    assert seen == [("factory", 0), ("made", 1), ("factory", 0), ("factory", 0), ("made", 4)]
    assert errors == ["Error on transport creation for incoming connection"]


def serve(loop: Loop, factory: Callable[[], Any] = Recorder) -> tuple[asyncio.Server, Any]:
    server = loop.run_until_complete(loop.create_server(factory, "127.0.0.1", 0))
    return server, server.sockets[0].getsockname()


def test_accepted_connections_have_a_socket_when_somebody_asks(loop: Loop) -> None:
    made: list[Any] = []

    class Protocol(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.append(self)

    server, address = serve(loop, Protocol)
    clients = [socket.create_connection(address) for _ in range(20)]
    loop.run_until_complete(asyncio.sleep(0.01))
    while len(made) < 20:
        loop.run_until_complete(asyncio.sleep(0.001))
    assert {p.transport.get_extra_info("peername") for p in made} == {c.getsockname() for c in clients}
    for protocol in made[::2]:
        transport = protocol.transport
        sock = transport.get_extra_info("socket")
        assert sock.fileno() == transport._sock_fd and sock.gettimeout() == 0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert transport.get_extra_info("sockname") == address
        assert transport.get_extra_info("nothing", 7) == 7
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_reader(transport._sock_fd, print)
    for client in clients:
        client.close()
    while not all(p.events[-1] == ("lost", None) for p in made):
        loop.run_until_complete(asyncio.sleep(0.001))
    assert made[0].transport.get_extra_info("sockname") == address
    assert "closed" in repr(made[1].transport)
    server.close()
    loop.run_until_complete(server.wait_closed())


def test_a_factory_or_connection_made_that_fails_loses_one_connection_at_most(loop: Loop) -> None:
    told: list[Any] = []
    loop.set_exception_handler(lambda _, context: told.append(repr(context["exception"])))
    made: list[Any] = []

    class Protocol(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.append(self)
            if len(made) == 2:
                raise ZeroDivisionError("made")

    def factory() -> Protocol:
        if len(made) == 1 and not told:
            told.append("factory")
            raise ZeroDivisionError("factory")
        return Protocol()

    server, address = serve(loop, factory)
    clients = [socket.create_connection(address) for _ in range(4)]
    while len(made) < 3:
        loop.run_until_complete(asyncio.sleep(0.001))
    assert told == ["factory", "ZeroDivisionError('made')"]
    for client in clients:
        client.close()
    while not all(p.events[-1] == ("lost", None) for p in made):
        loop.run_until_complete(asyncio.sleep(0.001))
    server.close()
    loop.run_until_complete(server.wait_closed())


def test_what_a_protocol_sets_in_its_context_stays_with_its_connection(loop: Loop) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    seen: list[int] = []

    class Protocol(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert variable.get() == 1
            variable.set(2)

        def data_received(self, data: bytes) -> None:
            seen.append(variable.get())

    variable.set(1)
    server, address = serve(loop, Protocol)
    variable.set(3)
    with socket.create_connection(address) as client:
        client.sendall(b"x")
        while not seen:
            loop.run_until_complete(asyncio.sleep(0.001))
    assert seen == [2]
    server.close()
    loop.run_until_complete(asyncio.sleep(0.01))


def test_no_descriptor_left_is_told_and_serving_goes_on_later(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncio.constants.ACCEPT_RETRY_DELAY", 0.05)
    told: list[Any] = []
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))
    server, address = serve(loop)
    client = socket.create_connection(address)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    hoard: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(fd) for fd in os.listdir("/proc/self/fd")) + 20, limit[1]))
    try:
        with pytest.raises(OSError):
            while True:
                hoard.append(os.dup(0))
        while not told:
            loop.run_until_complete(asyncio.sleep(0.01))
    finally:
        for fd in hoard:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert told[0] == "socket.accept() out of system resource"
    client.sendall(b"x")
    loop.run_until_complete(asyncio.sleep(0.2))
    client.close()
    loop.run_until_complete(asyncio.sleep(0.05))
    assert server.is_serving()
    server.close()
    loop.run_until_complete(server.wait_closed())


def test_connections_one_after_another_on_descriptors_of_all_kinds(loop: Loop) -> None:
    """Numbers of descriptors come again, for connections and for something else."""

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)
            if data.endswith(b"."):
                self.transport.close()

    async def ask(address: Any, word: bytes) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(word)
        assert await reader.readexactly(len(word)) == word
        if word.endswith(b"."):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for n in range(20):
            await ask(address, b"%d" % n + b"." * (n % 2))
        a, b = socket.socketpair()  # numbers that connections had, for something else
        with a, b:
            loop.add_reader(a, lambda: loop.remove_reader(a))
            b.send(b"x")
            await asyncio.gather(*(ask(address, b"x" * 300_000 * (n % 2) + b"%d." % n) for n in range(100)))
        await asyncio.gather(*(ask(address, b"%d" % n) for n in range(100)))
        server.close()
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())


def test_no_memory_for_what_the_kernel_did_not_take(loop: Loop, peer: list[socket.socket]) -> None:
    """A part of it is out, and nothing that fits would follow: the connection ends."""
    transport, protocol = connect(loop, peer)
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: told.append(context))
    _core._mem_fail(1)
    try:
        transport.write(bytes(10_000_000))
    finally:
        _core._mem_fail(0)
    transport.write(b"what follows")
    run(loop)
    assert [type(each["exception"]) for each in told] == [MemoryError]
    assert protocol.events[1:] == [("lost", "MemoryError")]
    assert not read_all(peer[0]).strip(b"\0")


NO_MEMORY_TO_READ = """
import asyncio, socket, _testcapi
from capicorn.loop import Loop

SENT = [bytes([n]) * 3000 for n in range(1, 5)]

class Protocol(asyncio.Protocol):
    def __init__(self):
        self.data, self.lost = [], False
    def data_received(self, data):
        self.data.append(data)
    def connection_lost(self, exc):
        self.lost = True

loop, failed = Loop(), 0
loop.set_exception_handler(lambda loop, context: None)
for n in range(1, 12):
    a, b = socket.socketpair()
    a.setblocking(False)
    transport, protocol = loop.run_until_complete(loop.create_connection(Protocol, sock=a))
    def send(i):
        if not protocol.lost:
            b.sendall(SENT[i])
        if i == 1:
            _testcapi.set_nomemory(n, n + 1)

    for i in range(4):
        loop.call_later(0.001, send, i)
        loop.call_later(0.02, _testcapi.remove_mem_hooks)
        loop.call_later(0.021, loop.stop)
        loop.run_forever()
    loop.run_until_complete(asyncio.sleep(0.001))
    got, lost = b"".join(protocol.data), protocol.lost
    assert b"".join(SENT).startswith(got), (n, "octets are missing in the middle")
    assert lost or len(got) == 12000, n
    failed += lost
    transport.abort()
    b.close()
    loop.run_until_complete(asyncio.sleep(0.001))
assert failed
"""


def test_no_memory_for_what_was_received() -> None:
    """It is lost: the connection ends, rather than to go on behind it."""
    pytest.importorskip("_testcapi")
    done = subprocess.run([sys.executable, "-c", NO_MEMORY_TO_READ], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
