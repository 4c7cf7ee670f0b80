"""asyncio's own loop and ours, side by side: descriptors, signals, sockets, names, and the arguments of what connects,
serves and starts.

Each scenario runs on both (side_by_side.py).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import pytest

from .side_by_side import Seen, compare, fail, nothing, pair, told

SCENARIOS: list[Callable[[Seen], Any]] = []


def scenario(function: Callable[[Seen], Any]) -> Callable[[Seen], Any]:
    SCENARIOS.append(function)
    return function


# ---- descriptors


@scenario
def watching_and_not(seen: Seen) -> None:
    loop = seen.loop
    a, b = pair()
    seen.attempt("remove_reader", loop.remove_reader, a)
    seen.attempt("add_reader", loop.add_reader, a, nothing)
    seen.attempt("add_reader again", loop.add_reader, a, nothing, 1)
    seen.attempt("add_writer", loop.add_writer, a.fileno(), nothing)
    seen.attempt("remove_reader", loop.remove_reader, a)
    seen.attempt("remove_reader again", loop.remove_reader, a)
    seen.attempt("remove_writer", loop.remove_writer, a)
    seen.attempt("remove_writer again", loop.remove_writer, a.fileno())
    a.close()
    b.close()


@scenario
def what_cannot_be_watched(seen: Seen) -> None:
    loop = seen.loop
    a, b = pair()
    closed = a.fileno()
    a.close()
    for name in ("add_reader", "add_writer"):
        for what in (-1, "x", None, 1.5, a, 10**6):
            seen.kind(f"{name} {what!r:.6}", getattr(loop, name), what, nothing)
        seen.kind(f"{name} closed", getattr(loop, name), closed, nothing)
        seen.kind(f"{name} without a callback", getattr(loop, name), b)
        with tempfile.TemporaryFile() as file:
            seen.kind(f"{name} of a file", getattr(loop, name), file, nothing)
        seen.attempt(f"{name} of -1", getattr(loop, name), -1, nothing)
    for name in ("remove_reader", "remove_writer"):
        for what in (-1, "x", None, a, 10**6):
            seen.kind(f"{name} {what!r:.6}", getattr(loop, name), what)
        seen.attempt(f"{name} of -1", getattr(loop, name), -1)
        seen.attempt(f"{name} closed", getattr(loop, name), closed)
    b.close()


@scenario
def a_watcher_replaced_and_removed_in_its_callback(seen: Seen) -> None:
    loop = seen.loop
    a, b = pair()
    b.send(b"xx")

    def first() -> None:
        seen.note("first", a.recv(1))
        loop.add_reader(a, second, "argument")

    def second(argument: str) -> None:
        seen.note("second", argument, a.recv(1))
        seen.note(loop.remove_reader(a))
        loop.call_later(0.005, loop.stop)

    loop.add_reader(a, nothing)
    loop.add_reader(a, first)
    loop.run_forever()
    a.close()
    b.close()


@scenario
def a_watcher_removed_by_another_of_the_turn(seen: Seen) -> None:
    loop = seen.loop
    a, b = pair()
    c, d = pair()
    called: list[str] = []

    def read(name: str, other: socket.socket) -> None:
        called.append(name)
        loop.remove_reader(other)

    b.send(b"x")
    d.send(b"x")
    loop.add_reader(a, read, "a", c)
    loop.add_reader(c, read, "c", a)
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    seen.note(len(set(called)))
    for sock in (a, c):
        loop.remove_reader(sock)
    for sock in (a, b, c, d):
        sock.close()


@scenario
async def descriptors_of_transports(seen: Seen) -> None:
    a, b = pair()
    transport, _ = await seen.loop.create_connection(asyncio.Protocol, sock=a)
    for name in ("add_reader", "add_writer", "remove_reader", "remove_writer"):
        args = (a, nothing) if name.startswith("add") else (a,)
        seen.attempt(name, getattr(seen.loop, name), *args)
    for name, extra in (("sock_recv", 1), ("sock_sendall", b"x"), ("sock_recv_into", bytearray(1))):
        await seen.wait(name, getattr(seen.loop, name)(a, extra))
    transport.close()
    await seen.turns()
    seen.kind("add_reader after close", seen.loop.add_reader, b, nothing)
    seen.loop.remove_reader(b)
    b.close()


# ---- signals


@scenario
def signal_handlers_and_their_errors(seen: Seen) -> None:
    loop = seen.loop

    async def coroutine() -> None: ...

    made = coroutine()
    for sig in (signal.SIGKILL, signal.SIGSTOP, 0, 10_000, -1, "x", 1.5, None):
        seen.attempt(f"add {sig}", loop.add_signal_handler, sig, nothing)
        seen.attempt(f"remove {sig}", loop.remove_signal_handler, sig)
    seen.attempt("a coroutine function", loop.add_signal_handler, signal.SIGUSR1, coroutine)
    seen.attempt("a coroutine", loop.add_signal_handler, signal.SIGUSR1, made)
    made.close()
    seen.attempt("remove what is not there", loop.remove_signal_handler, signal.SIGUSR1)
    seen.attempt("add", loop.add_signal_handler, signal.SIGUSR1, seen.note, "signal", 1)
    seen.attempt("add again", loop.add_signal_handler, signal.SIGUSR1, seen.note, "signal", 2)
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    loop.call_later(0.02, loop.stop)
    loop.run_forever()
    seen.attempt("remove", loop.remove_signal_handler, signal.SIGUSR1)
    seen.attempt("remove again", loop.remove_signal_handler, signal.SIGUSR1)
    seen.note(signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL)

    def other() -> None:
        seen.kind("in a thread", loop.add_signal_handler, signal.SIGUSR1, nothing)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()


@scenario
def a_signal_handler_that_fails(seen: Seen) -> None:
    seen.loop.add_signal_handler(signal.SIGUSR1, fail, "in a signal handler")
    seen.loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    seen.loop.call_later(0.02, seen.loop.stop)
    seen.loop.run_forever()


@scenario
def a_handler_of_the_signal_module_that_raises(seen: Seen) -> None:
    def handler(number: int, frame: Any) -> None:
        fail("out of run_forever")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        seen.loop.call_later(5, seen.loop.stop)
        seen.attempt("run_forever", seen.loop.run_forever)
        seen.note(seen.loop.is_running())
    finally:
        signal.signal(signal.SIGUSR1, before)


# ---- sockets


@scenario
async def sockets_and_their_errors(seen: Seen) -> None:
    loop = seen.loop
    a, b = pair()
    await seen.wait("sendall", loop.sock_sendall(a, b"hello"))
    await seen.wait("sendall of a memoryview", loop.sock_sendall(a, memoryview(b"hello")))
    await seen.wait("sendall of nothing", loop.sock_sendall(a, b""))
    await seen.wait("sendall of str", loop.sock_sendall(a, "x"))
    await seen.wait("sendall of None", loop.sock_sendall(a, None))
    await seen.wait("recv", loop.sock_recv(b, 7))
    await seen.wait("recv of a negative number", loop.sock_recv(b, -1))
    await seen.wait("recv of str", loop.sock_recv(b, "x"))
    into = bytearray(10)
    await seen.wait("recv_into", loop.sock_recv_into(b, into))
    seen.note(into)
    await seen.wait("recv_into of bytes", loop.sock_recv_into(b, b"xxx"))
    a.close()
    await seen.wait("recv at the end", loop.sock_recv(b, 7))
    for name, args in (
        ("sock_recv", (1,)),
        ("sock_sendall", (b"x",)),
        ("sock_accept", ()),
        ("sock_connect", (("127.0.0.1", 1),)),
    ):
        await seen.wait(f"{name} of a closed one", getattr(loop, name)(a, *args))
    await seen.wait("sendall to nobody", loop.sock_sendall(b, b"x"))
    await seen.wait("accept of what does not listen", loop.sock_accept(b))
    b.close()


@scenario
async def blocking_sockets_and_debug(seen: Seen) -> None:
    loop = seen.loop
    loop.set_debug(True)
    a, b = socket.socketpair()
    for name, args in (
        ("sock_recv", (1,)),
        ("sock_recv_into", (bytearray(1),)),
        ("sock_recvfrom", (1,)),
        ("sock_recvfrom_into", (bytearray(1),)),
        ("sock_sendall", (b"x",)),
        ("sock_sendto", (b"x", ("127.0.0.1", 1))),
        ("sock_connect", (("127.0.0.1", 1),)),
        ("sock_accept", ()),
    ):
        await seen.wait(name, getattr(loop, name)(a, *args))
    with tempfile.TemporaryFile() as file:
        await seen.wait("sock_sendfile", loop.sock_sendfile(a, file))
    loop.set_debug(False)
    a.close()
    b.close()


@scenario
async def sockets_of_the_ssl_module(seen: Seen) -> None:
    loop = seen.loop
    context = ssl.create_default_context()
    with context.wrap_socket(socket.socket(), server_hostname="x") as sock:
        for name, args in (
            ("sock_recv", (1,)),
            ("sock_recv_into", (bytearray(1),)),
            ("sock_sendall", (b"x",)),
            ("sock_connect", (("127.0.0.1", 1),)),
            ("sock_accept", ()),
        ):
            await seen.wait(name, getattr(loop, name)(sock, *args))
        seen.attempt("add_reader", loop.add_reader, sock, nothing)
        seen.attempt("add_writer", loop.add_writer, sock, nothing)
        seen.attempt("remove_reader", loop.remove_reader, sock)
        await seen.wait("create_connection", loop.create_connection(asyncio.Protocol, sock=sock))
        await seen.wait("create_server", loop.create_server(asyncio.Protocol, sock=sock))
        await seen.wait("connect_accepted_socket", loop.connect_accepted_socket(asyncio.Protocol, sock))


@scenario
async def connecting_to_nobody(seen: Seen) -> None:
    loop = seen.loop
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = unused.getsockname()
        with socket.socket() as sock:
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, address)
            except OSError as exc:
                seen.note(type(exc).__name__, exc.errno, str(exc).replace(str(address[1]), "N"))
        try:
            await loop.create_connection(asyncio.Protocol, *address)
        except OSError as exc:
            seen.note(type(exc).__name__, exc.errno, str(exc).replace(str(address[1]), "N"))
    with socket.socket() as sock:
        sock.setblocking(False)
        await seen.wait("no address", loop.sock_connect(sock, 5))
        await seen.wait("half an address", loop.sock_connect(sock, ("127.0.0.1",)))
        await seen.wait("no port", loop.sock_connect(sock, ("127.0.0.1", "no such service")))
        await seen.wait("too high a port", loop.sock_connect(sock, ("127.0.0.1", 70000)))
    await seen.wait("unix", loop.create_unix_connection(asyncio.Protocol, "/nowhere/at/all"))


@scenario
async def a_sock_call_that_is_cancelled(seen: Seen) -> None:
    loop = seen.loop
    a, b = pair()
    for call in (loop.sock_recv(a, 1), loop.sock_recv_into(a, bytearray(1))):
        task = loop.create_task(call)
        await seen.turns()
        task.cancel()
        await seen.wait("cancelled", task)
        seen.note(loop.remove_reader(a))
    b.send(b"x")
    await seen.wait("still there", loop.sock_recv(a, 5))
    a.close()
    b.close()


@scenario
async def names(seen: Seen) -> None:
    loop = seen.loop
    for args in (("127.0.0.1", 80), ("::1", 80), (None, 80), ("127.0.0.1", "http"), (b"127.0.0.1", b"80"), ("", 80)):
        await seen.wait(f"getaddrinfo{args}", loop.getaddrinfo(*args, type=socket.SOCK_STREAM))
    for args in (("127.0.0.1", "no such service"), (5, 80), ("127.0.0.1", 1.5), (None, None), ("x" * 300, 80)):
        await seen.wait(f"getaddrinfo{args}", loop.getaddrinfo(*args))
    await seen.wait("a flag", loop.getaddrinfo("localhost", 80, flags=socket.AI_NUMERICHOST))
    await seen.wait("a family", loop.getaddrinfo("127.0.0.1", 80, family=socket.AF_INET6))
    await seen.wait("no family", loop.getaddrinfo("127.0.0.1", 80, family=9999))
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    for address in (("127.0.0.1", 80), ("::1", 80), ("localhost", 80), 5, ("127.0.0.1",), ("127.0.0.1", "x"), ()):
        await seen.wait(f"getnameinfo {address}", loop.getnameinfo(address, flags))


# ---- arguments of what connects and serves


@scenario
async def arguments_of_create_connection(seen: Seen) -> None:
    loop, protocol = seen.loop, asyncio.Protocol
    stream, datagram = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    for kwargs in (
        {},
        {"host": "127.0.0.1", "port": 1, "sock": stream},
        {"sock": datagram},
        {"sock": stream, "server_hostname": "x"},
        {"sock": stream, "ssl": True},
        {"host": "127.0.0.1", "port": 1, "server_hostname": "x"},
        {"host": "127.0.0.1", "port": 1, "ssl_handshake_timeout": 1},
        {"host": "127.0.0.1", "port": 1, "ssl_shutdown_timeout": 1},
        {"sock": stream, "ssl": True, "server_hostname": "x", "ssl_handshake_timeout": 0},
        {"host": "127.0.0.1", "port": 1, "local_addr": 5},
        {"host": "127.0.0.1", "port": 1, "local_addr": ("203.0.113.7", 0)},
        {"host": "127.0.0.1", "port": "no such service"},
        {"host": "127.0.0.1", "port": 1, "all_errors": True},
        {"host": "127.0.0.1", "port": 1, "happy_eyeballs_delay": 1, "interleave": 1},
    ):
        name = ", ".join(f"{k}={v!r}" for k, v in kwargs.items() if k != "sock")
        await seen.wait(name, loop.create_connection(protocol, **kwargs))
    seen.note(stream.fileno() >= 0, datagram.fileno() >= 0)
    for name, kwargs in (
        ("create_unix_connection", {}),
        ("create_unix_connection", {"path": "x", "sock": stream}),
        ("create_unix_connection", {"sock": stream}),
        ("create_unix_connection", {"path": "/nowhere", "ssl": True}),
        ("create_unix_connection", {"path": "/nowhere", "server_hostname": "x"}),
        ("create_unix_connection", {"path": "/nowhere", "ssl_handshake_timeout": 1}),
        ("connect_accepted_socket", {"sock": datagram}),
        ("connect_accepted_socket", {"sock": stream, "ssl_handshake_timeout": 1}),
        ("connect_accepted_socket", {"sock": stream, "ssl": 5}),
    ):
        await seen.wait(name, getattr(loop, name)(protocol, **kwargs))
    stream.close()
    datagram.close()


@scenario
async def arguments_of_create_server(seen: Seen) -> None:
    loop, protocol = seen.loop, asyncio.Protocol
    stream, datagram = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    for kwargs in (
        {},
        {"host": "127.0.0.1", "port": 0, "sock": stream},
        {"sock": datagram},
        {"host": "127.0.0.1", "port": 0, "ssl": True},
        {"host": "127.0.0.1", "port": 0, "ssl_handshake_timeout": 1},
        {"host": "127.0.0.1", "port": 0, "ssl_shutdown_timeout": 1},
        {"host": "203.0.113.7", "port": 0},
        {"host": "127.0.0.1", "port": 70000},
        {"host": "127.0.0.1", "port": "no such service"},
        {"host": 5, "port": 0},
        {"host": "127.0.0.1", "port": 0, "backlog": "x"},
    ):
        name = ", ".join(f"{k}={v!r}" for k, v in kwargs.items() if k != "sock")
        await seen.wait(name, loop.create_server(protocol, **kwargs))
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(f"{folder}/folder")
        for kwargs in (
            {},
            {"path": f"{folder}/s", "sock": stream},
            {"sock": stream},
            {"path": f"{folder}/s", "ssl": True},
            {"path": f"{folder}/s", "ssl_handshake_timeout": 1},
            {"path": "/nowhere/at/all"},
            {"path": "x" * 200},
        ):
            await seen.wait("create_unix_server", loop.create_unix_server(protocol, **kwargs))
        try:
            await loop.create_unix_server(protocol, f"{folder}/folder")
        except OSError as exc:
            seen.note(told(exc).replace(folder, ""))
    stream.close()
    datagram.close()


@scenario
async def arguments_of_datagrams(seen: Seen) -> None:
    loop, protocol = seen.loop, asyncio.DatagramProtocol
    stream, datagram = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    for kwargs in (
        {},
        {"sock": stream},
        {"sock": datagram, "local_addr": ("127.0.0.1", 0)},
        {"sock": datagram, "family": socket.AF_INET},
        {"local_addr": "x"},
        {"local_addr": ("127.0.0.1",)},
        {"remote_addr": 5},
        {"local_addr": ("127.0.0.1", 0), "remote_addr": ("::1", 1)},
        {"local_addr": ("203.0.113.7", 0)},
        {"family": socket.AF_UNIX, "local_addr": 5},
        {"local_addr": ("127.0.0.1", 0), "allow_broadcast": True, "flags": "x"},
    ):
        name = ", ".join(f"{k}={v!r}" for k, v in kwargs.items() if k != "sock")
        await seen.wait(name, loop.create_datagram_endpoint(protocol, **kwargs))
    stream.close()
    datagram.close()


@scenario
async def arguments_of_pipes_and_processes(seen: Seen) -> None:
    loop = seen.loop
    with tempfile.TemporaryFile() as file:
        await seen.wait("connect_read_pipe", loop.connect_read_pipe(asyncio.Protocol, file))
        await seen.wait("connect_write_pipe", loop.connect_write_pipe(asyncio.BaseProtocol, file))
    await seen.wait("no file", loop.connect_read_pipe(asyncio.Protocol, 5))
    with open(os.devnull, "wb") as null:
        await seen.wait("to nowhere", loop.connect_write_pipe(fail, null))
    protocol = asyncio.SubprocessProtocol
    for name, args, kwargs in (
        ("subprocess_shell", (5,), {}),
        ("subprocess_shell", ("true",), {"universal_newlines": True}),
        ("subprocess_shell", ("true",), {"shell": False}),
        ("subprocess_shell", ("true",), {"bufsize": 5}),
        ("subprocess_shell", ("true",), {"text": True}),
        ("subprocess_shell", ("true",), {"encoding": "utf-8"}),
        ("subprocess_shell", ("true",), {"errors": "strict"}),
        ("subprocess_exec", ("true",), {"universal_newlines": True}),
        ("subprocess_exec", ("true",), {"shell": True}),
        ("subprocess_exec", ("true",), {"bufsize": 5}),
        ("subprocess_exec", ("true",), {"text": True}),
        ("subprocess_exec", ("true",), {"encoding": "utf-8"}),
        ("subprocess_exec", ("true",), {"errors": "strict"}),
        ("subprocess_exec", ("/nowhere/at/all",), {}),
        ("subprocess_exec", ("true",), {"cwd": "/nowhere/at/all"}),
    ):
        await seen.wait(f"{name} {args} {kwargs}", getattr(loop, name)(protocol, *args, **kwargs))


@scenario
async def sending_files_and_starting_tls(seen: Seen) -> None:
    loop = seen.loop
    a, b = pair()
    transport, protocol = await loop.create_connection(asyncio.Protocol, sock=a)
    context = ssl.create_default_context()
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile("w+") as text:
        file.write(b"0123456789")
        file.flush()
        await seen.wait("sendfile", loop.sendfile(transport, file, 2, 5))
        await seen.wait("what came", loop.sock_recv(b, 20))
        await seen.wait("text", loop.sendfile(transport, text))
        await seen.wait("no count", loop.sendfile(transport, file, 0, 0))
        await seen.wait("negative", loop.sendfile(transport, file, 0, -1))
        await seen.wait("negative offset", loop.sendfile(transport, file, -1))
        await seen.wait("offset of str", loop.sendfile(transport, file, "x"))
        await seen.wait("no transport", loop.sendfile(asyncio.Transport(), file))
        await seen.wait("sock_sendfile of text", loop.sock_sendfile(b, text))
        await seen.wait("sock_sendfile, no count", loop.sock_sendfile(b, file, 0, 0))
        await seen.wait("sock_sendfile, count of str", loop.sock_sendfile(b, file, 0, "x"))
        await seen.wait("sock_sendfile, offset of str", loop.sock_sendfile(b, file, "x"))
        await seen.wait("start_tls without a context", loop.start_tls(transport, protocol, None))
        await seen.wait("start_tls of no transport", loop.start_tls(asyncio.Transport(), protocol, context))
        await seen.wait("start_tls with no time", loop.start_tls(transport, protocol, context, ssl_handshake_timeout=0))
        transport.close()
        await seen.wait("sendfile after close", loop.sendfile(transport, file))
    b.close()


@pytest.mark.parametrize("function", SCENARIOS, ids=lambda f: f.__name__)
def test_the_same_is_seen(function: Callable[[Seen], Any]) -> None:
    compare(function)
