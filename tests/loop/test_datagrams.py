"""Datagram transports: order and bounds, errors, flow control, addresses."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import socket
import warnings
from typing import Any

import pytest
from capicorn.loop import Loop
from capicorn.transports import DatagramTransport


class Recorder(asyncio.DatagramProtocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.got: list[tuple[bytes, Any]] = []
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.events.append("made")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.append((data, addr))

    def error_received(self, exc: Exception) -> None:
        self.events.append(type(exc).__name__)

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.events.append(("lost", exc))


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def endpoint(loop: Loop, **arguments: Any) -> tuple[Any, Any]:
    arguments = arguments or {"local_addr": ("127.0.0.1", 0)}
    factory = arguments.pop("factory", Recorder)
    return loop.run_until_complete(loop.create_datagram_endpoint(factory, **arguments))


def end(loop: Loop, *given: Any) -> None:
    for transport in given:
        transport.close()
    loop.run_until_complete(asyncio.sleep(0.001))
    gc.collect()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


families = pytest.mark.parametrize(
    "host", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6"))]
)


@families
def test_both_directions_and_the_senders_address(loop: Loop, host: str) -> None:
    a, got_a = endpoint(loop, local_addr=(host, 0))
    b, got_b = endpoint(loop, remote_addr=a.get_extra_info("sockname")[:2])
    assert isinstance(a, DatagramTransport) and isinstance(a, asyncio.DatagramTransport)
    b.sendto(b"to a")
    loop.run_until_complete(until(lambda: got_a.got))
    assert got_a.got == [(b"to a", b.get_extra_info("sockname"))]
    a.sendto(b"to b", got_a.got[0][1])
    a.sendto(b"", got_a.got[0][1])
    a.sendto(memoryview(b"once more"), tuple(got_a.got[0][1]))
    a.sendto(data=bytearray(b"by name"), addr=got_a.got[0][1])
    loop.run_until_complete(until(lambda: len(got_b.got) == 4))
    assert [data for data, _ in got_b.got] == [b"to b", b"", b"once more", b"by name"]
    assert {addr for _, addr in got_b.got} == {a.get_extra_info("sockname")}
    end(loop, a, b)
    assert got_a.events == got_b.events == ["made", ("lost", None)]


def test_many_in_one_turn_keep_order_sizes_and_senders(loop: Loop) -> None:
    a, got = endpoint(loop)
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
    sent = []
    for i in range(90):
        data = bytes([i]) * (i * 7)
        sockets[i % 3].sendto(data, a.get_extra_info("sockname"))
        sent.append((data, sockets[i % 3].getsockname()[1]))
    loop.run_until_complete(until(lambda: len(got.got) == 90))
    assert [(data, addr[1]) for data, addr in got.got] == sent
    largest = b"x" * 65507
    sockets[0].sendto(largest, a.get_extra_info("sockname"))
    loop.run_until_complete(until(lambda: len(got.got) == 91))
    assert got.got[-1][0] == largest
    for sock in sockets:
        sock.close()
    end(loop, a)


def test_what_was_to_run_before_it_came_runs_before_it_is_delivered(loop: Loop) -> None:
    order: list[str] = []

    class Ordered(Recorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            order.append("datagram")

    a, protocol = endpoint(loop, factory=Ordered, local_addr=("127.0.0.1", 0))

    async def task() -> None:
        order.append("task")

    a.sendto(b"x", a.get_extra_info("sockname"))
    loop.run_until_complete(task())
    loop.run_until_complete(until(lambda: protocol.got))
    assert order == ["task", "datagram"]
    end(loop, a)


def test_a_flood_leaves_others_their_turn(loop: Loop) -> None:
    class Flooded(Recorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            self.transport.sendto(data, self.transport.get_extra_info("sockname"))

    a, protocol = endpoint(loop, factory=Flooded, local_addr=("127.0.0.1", 0))
    for _ in range(40):
        a.sendto(b"x", a.get_extra_info("sockname"))
    loop.run_until_complete(asyncio.wait_for(asyncio.sleep(0.02), 5))
    assert len(protocol.got) > 40
    end(loop, a)


def test_close_in_the_middle_of_a_batch_ends_it(loop: Loop) -> None:
    class Once(Recorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            self.transport.close()

    a, protocol = endpoint(loop, factory=Once, local_addr=("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(10):
            sock.sendto(b"x", a.get_extra_info("sockname"))
    loop.run_until_complete(until(lambda: protocol.events[-1] == ("lost", None)))
    assert len(protocol.got) == 1
    a.sendto(b"nobody", ("127.0.0.1", 9))


def test_a_protocol_that_fails_is_told_to_the_loop_and_goes_on(loop: Loop) -> None:
    class Failing(Recorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            raise ZeroDivisionError

    told: list[Any] = []
    loop.set_exception_handler(lambda _, context: told.append(type(context["exception"])))
    a, protocol = endpoint(loop, factory=Failing, local_addr=("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(10):
            sock.sendto(b"x", a.get_extra_info("sockname"))
    loop.run_until_complete(until(lambda: len(protocol.got) == 10))
    assert told == [ZeroDivisionError] * 10
    end(loop, a)


def test_errors_of_the_network_come_to_error_received(loop: Loop) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        nobody = sock.getsockname()
    connected, protocol = endpoint(loop, remote_addr=nobody)
    connected.sendto(b"x")
    loop.run_until_complete(until(lambda: "ConnectionRefusedError" in protocol.events))
    unconnected, other = endpoint(loop)
    unconnected.sendto(b"to whom?")  # EDESTADDRREQ
    unconnected.sendto(b"x" * 100_000, nobody)  # EMSGSIZE
    unconnected.sendto(b"x", ("name.invalid", 9))
    assert other.events == ["made", "OSError", "OSError", "gaierror"]
    assert not unconnected.is_closing()
    end(loop, connected, unconnected)


def test_names_and_other_addresses_are_the_socket_modules(loop: Loop) -> None:
    a, got = endpoint(loop)
    b, protocol = endpoint(loop)
    told: list[Any] = []
    loop.set_exception_handler(lambda _, context: told.append(type(context["exception"])))
    b.sendto(b"by name", ("localhost", a.get_extra_info("sockname")[1]))
    loop.run_until_complete(until(lambda: got.got))
    b.sendto(b"x", ("127.0.0.1", 1 << 20))  # OverflowError: the end, as with asyncio
    loop.run_until_complete(until(lambda: len(protocol.events) == 2))
    assert told == [OverflowError]
    assert isinstance(protocol.events[1][1], OverflowError)
    end(loop, a)


def test_only_its_own_peer_when_remote_addr_was_given(loop: Loop) -> None:
    a, got = endpoint(loop)
    address = a.get_extra_info("sockname")
    b, _ = endpoint(loop, remote_addr=address)
    b.sendto(b"x", address)
    with pytest.raises(ValueError, match="Invalid address: must be None or"):
        b.sendto(b"x", ("127.0.0.1", 9))
    with pytest.raises(TypeError, match="bytes-like"):
        b.sendto("text")
    with pytest.raises(TypeError):
        b.sendto(b"x", address=address)
    loop.run_until_complete(until(lambda: got.got))
    broadcasting, _ = endpoint(loop, remote_addr=address, allow_broadcast=True)  # not connected
    assert broadcasting.get_extra_info("peername") is None
    broadcasting.sendto(b"broadcast")
    loop.run_until_complete(until(lambda: len(got.got) == 2))
    end(loop, a, b, broadcasting)


def test_unix_datagrams_with_and_without_names_and_large_ones(loop: Loop, tmp_path: Any) -> None:
    path, abstract = str(tmp_path / "a"), b"\0capicorn-test-%d" % os.getpid()
    a, got = endpoint(loop, family=socket.AF_UNIX, local_addr=path)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as named,
    ):
        named.bind(abstract)
        named.settimeout(5)
        nameless.sendto(b"nameless", path)
        named.sendto(b"x" * 150_000, path)
        loop.run_until_complete(until(lambda: len(got.got) == 2))
        assert got.got == [(b"nameless", None), (b"x" * 150_000, abstract)]
        a.sendto(b"answer", abstract)
        a.sendto(b"again", abstract.decode())
        assert [named.recvfrom(100) for _ in range(2)] == [(b"answer", path), (b"again", path)]
        a.sendto(b"x", str(tmp_path / "nobody"))
        assert got.events[-1] == "FileNotFoundError"
        b, _ = endpoint(loop, family=socket.AF_UNIX, remote_addr=path)
        b.sendto(b"connected")
        loop.run_until_complete(until(lambda: len(got.got) == 3))
    end(loop, a, b)


def test_a_socket_pair_needs_no_address(loop: Loop) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a, _ = endpoint(loop, sock=left)
    b, got = endpoint(loop, sock=right)
    a.sendto(b"one")
    a.sendto(b"two", None)
    loop.run_until_complete(until(lambda: len(got.got) == 2))
    assert [data for data, _ in got.got] == [b"one", b"two"]
    end(loop, a, b)


def test_flow_control_counts_octets_and_headers_and_close_waits(loop: Loop) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    right.setblocking(False)
    a, protocol = endpoint(loop, sock=left)
    sent = 0
    while not a.get_write_buffer_size():
        a.sendto(b"%5d" % sent + b"x" * 1000)
        sent += 1
    assert a.get_write_buffer_size() == 1005 + 8
    a.sendto(b"")
    assert a.get_write_buffer_size() == 1005 + 16
    while "pause" not in protocol.events:
        a.sendto(bytearray(b"%5d" % sent) + b"x" * 1000)
        sent += 1
    a.close()
    got: list[bytes] = []

    async def drain() -> None:
        async with asyncio.timeout(10):
            while protocol.events[-1] != ("lost", None):
                try:
                    got.append(right.recv(2000))
                except BlockingIOError:
                    await asyncio.sleep(0)
        while True:
            try:
                got.append(right.recv(2000))
            except (BlockingIOError, ConnectionResetError):
                return

    loop.run_until_complete(drain())
    assert [int(data[:5]) for data in got if data] == list(range(sent))
    assert got.count(b"") == 1
    assert protocol.events == ["made", "pause", "resume", ("lost", None)]
    assert a.get_write_buffer_size() == 0
    right.close()


def test_abort_drops_what_waits(loop: Loop) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a, protocol = endpoint(loop, sock=left)
    while not a.get_write_buffer_size():
        a.sendto(b"x" * 1000)
    a.abort()
    a.abort()
    loop.run_until_complete(until(lambda: protocol.events[-1] == ("lost", None)))
    right.close()


def test_callbacks_run_in_the_context_of_the_creation(loop: Loop) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[tuple[str, str]] = []

    class Watching(Recorder):
        def __getattribute__(self, name: str) -> Any:
            if name in ("connection_made", "datagram_received", "error_received", "connection_lost"):
                seen.append((name, variable.get()))
            return super().__getattribute__(name)

    variable.set("creator")
    a, protocol = endpoint(loop, factory=Watching, local_addr=("127.0.0.1", 0))
    variable.set("later")
    a.sendto(b"x", a.get_extra_info("sockname"))
    a.sendto(b"x" * 100_000, a.get_extra_info("sockname"))
    loop.run_until_complete(until(lambda: protocol.got))
    end(loop, a)
    assert {name for name, _ in seen} == {"connection_made", "datagram_received", "error_received", "connection_lost"}
    assert {where for _, where in seen} == {"creator"}


def test_one_that_is_forgotten_warns_and_is_closed(loop: Loop) -> None:
    a, protocol = endpoint(loop)
    port = a.get_extra_info("sockname")[1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.close()
        del a, protocol
        gc.collect()
    assert any("unclosed transport <DatagramTransport" in str(w.message) for w in caught)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", port))
