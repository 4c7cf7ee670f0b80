"""getaddrinfo and getnameinfo: what is an address already needs no thread, and has the system's answer."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from capicorn.loop import Loop

HOSTS: list[Any] = [
    "127.0.0.1",
    b"127.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "192.0.2.7",
    "::1",
    b"::1",
    "::",
    "::ffff:192.0.2.7",
    "2001:db8::1",
    "fe80::1%lo",
    "fe80::1%1",
    "fe80::1%nosuchinterface",
    None,
]
PORTS: list[Any] = [80, 0, "80", b"80", None, 65535, 65536, -1, "0080", "99999"]
HINTS: list[dict[str, int]] = [
    {},
    {"type": socket.SOCK_STREAM},
    {"type": socket.SOCK_DGRAM, "proto": socket.IPPROTO_UDP},
    {"proto": socket.IPPROTO_TCP},
    {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_UDP},
    {"type": socket.SOCK_RAW},
    {"family": socket.AF_INET},
    {"family": socket.AF_INET6, "type": socket.SOCK_STREAM},
    {"family": socket.AF_INET6, "flags": socket.AI_V4MAPPED, "type": socket.SOCK_STREAM},
    {"family": socket.AF_UNIX},
    {"flags": socket.AI_PASSIVE, "type": socket.SOCK_STREAM},
    {"flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV, "type": socket.SOCK_STREAM},
    {"flags": socket.AI_CANONNAME, "type": socket.SOCK_STREAM},
    {"flags": socket.AI_ADDRCONFIG, "type": socket.SOCK_STREAM},
]


def outcome(call: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return call(*args, **kwargs)
    except (OSError, OverflowError) as e:
        return type(e), e.args


@pytest.fixture
def no_threads(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Loop:
    def refuse(*args: Any) -> Any:
        raise AssertionError(f"run_in_executor{args}")

    monkeypatch.setattr(loop, "run_in_executor", refuse)
    return loop


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("host", HOSTS, ids=repr)
def test_addresses_get_the_systems_answer_without_a_thread(no_threads: Loop, host: Any, debug: bool) -> None:
    no_threads.set_debug(debug)

    async def all_of_them() -> None:
        for port in PORTS:
            for hints in HINTS:
                expected = outcome(socket.getaddrinfo, host, port, **hints)
                try:
                    got = await no_threads.getaddrinfo(host, port, **hints)
                except (OSError, OverflowError) as e:
                    got = type(e), e.args
                assert got == expected, (host, port, hints)

    no_threads.run_until_complete(all_of_them())


@pytest.mark.parametrize("host", ["localhost", "", "127.1", "1", "name.invalid", "127.0.0.1 ", "[::1]", 7])
def test_names_are_looked_up_in_a_thread(loop: Loop, monkeypatch: pytest.MonkeyPatch, host: Any) -> None:
    asked: list[Any] = []

    async def run(executor: Any, function: Any, *args: Any) -> Any:
        asked.append(args[:2])
        return []

    monkeypatch.setattr(loop, "run_in_executor", run)
    loop.run_until_complete(loop.getaddrinfo(host, 80))
    loop.run_until_complete(loop.getaddrinfo("127.0.0.1", "http"))
    loop.run_until_complete(loop.getnameinfo(("127.0.0.1", 80)))
    assert asked == [(host, 80), ("127.0.0.1", "http"), (("127.0.0.1", 80), 0)]


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 80), ("::1", 443), ("fe80::1", 1, 0, 1), ("192.0.2.7", "80"), (None, 1)]
)
def test_numbers_of_an_address(no_threads: Loop, address: Any) -> None:
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV

    async def ask() -> Any:
        try:
            return await no_threads.getnameinfo(address, flags)
        except (OSError, TypeError) as e:
            return type(e)

    try:
        expected: Any = socket.getnameinfo(address, flags)
    except (OSError, TypeError) as e:
        expected = type(e)
    assert no_threads.run_until_complete(ask()) == expected


def test_connections_to_addresses_need_no_thread(no_threads: Loop) -> None:
    async def connect() -> None:
        server = await no_threads.create_server(asyncio.Protocol, "127.0.0.1", 0)
        everywhere = await no_threads.create_server(asyncio.Protocol, None, 0)
        transport, _ = await no_threads.create_connection(
            asyncio.Protocol, *server.sockets[0].getsockname(), local_addr=("127.0.0.1", 0)
        )
        transport.close()
        datagrams, _ = await no_threads.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0), remote_addr=("127.0.0.1", 9)
        )
        datagrams.close()
        for one in (server, everywhere):
            one.close()
            await one.wait_closed()

    no_threads.run_until_complete(connect())
    no_threads.run_until_complete(asyncio.sleep(0.01))
