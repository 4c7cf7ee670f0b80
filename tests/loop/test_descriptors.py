"""add_reader, add_writer, sock_* and what happens when descriptors are closed under them."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Iterator

import pytest
from capicorn.loop import Loop


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        yield a, b


def run(loop: Loop, seconds: float = 0.02) -> None:
    loop.run_until_complete(asyncio.sleep(seconds))


def test_reader_and_writer_of_one_descriptor(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair
    seen: list[str] = []
    loop.add_reader(a, lambda: seen.append("r" + a.recv(10).decode()))
    loop.add_writer(a, lambda: (seen.append("w"), loop.remove_writer(a)))
    b.send(b"1")
    run(loop)
    assert sorted(seen) == ["r1", "w"]
    assert loop.remove_writer(a) is False
    assert loop.remove_reader(a.fileno()) is True
    assert loop.remove_reader(a) is False
    b.send(b"2")
    run(loop)
    assert len(seen) == 2


def test_a_second_callback_replaces_the_first(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair
    seen: list[str] = []
    loop.add_reader(a, seen.append, "never")
    loop.add_reader(a, lambda: seen.append(a.recv(10).decode()))
    b.send(b"1")
    run(loop)
    assert seen == ["1"]
    loop.remove_reader(a)


def test_a_callback_may_remove_what_is_ready_in_the_same_turn(loop: Loop) -> None:
    pairs = [socket.socketpair() for _ in range(5)]
    seen: list[int] = []

    def ready(n: int) -> None:
        seen.append(n)
        for a, _ in pairs:
            loop.remove_reader(a)
            a.close()

    for n, (a, b) in enumerate(pairs):
        loop.add_reader(a, ready, n)
        b.send(b"x")
    run(loop)
    assert len(seen) == 1
    for _, b in pairs:
        b.close()


def test_more_ready_descriptors_than_one_look_takes(loop: Loop) -> None:
    pairs = [socket.socketpair() for _ in range(200)]
    seen: set[int] = set()

    def ready(a: socket.socket, n: int) -> None:
        a.recv(1)
        seen.add(n)

    for n, (a, b) in enumerate(pairs):
        loop.add_reader(a, ready, a, n)
        b.send(b"x")
    run(loop)
    assert len(seen) == 200
    for a, b in pairs:
        loop.remove_reader(a)
        a.close()
        b.close()


def test_a_descriptor_closed_in_the_turn_in_which_it_was_added(loop: Loop) -> None:
    a, b = socket.socketpair()
    loop.add_reader(a, print)
    loop.add_writer(b.fileno(), print)
    number = b.fileno()
    a.close()
    b.close()
    run(loop)
    assert loop.remove_reader(a) is True  # found by identity: it has no number any more
    assert loop.remove_writer(number) is True


def test_the_number_of_a_closed_descriptor_comes_back(loop: Loop) -> None:
    a, b = socket.socketpair()
    loop.add_reader(a.fileno(), print)
    number = a.fileno()
    a.close()
    c, d = socket.socketpair()
    try:
        assert number in (c.fileno(), d.fileno())
        again, other = (c, d) if c.fileno() == number else (d, c)
        seen: list[bytes] = []
        again.setblocking(False)
        loop.add_reader(number, lambda: seen.append(again.recv(10)))
        other.send(b"new")
        run(loop)
        assert seen == [b"new"]
        assert loop.remove_reader(number) is True
    finally:
        b.close()
        c.close()
        d.close()


def test_a_hang_up_wakes_reader_and_writer(loop: Loop) -> None:
    r, w = os.pipe()
    seen: list[str] = []
    loop.add_writer(w, lambda: (seen.append("w"), loop.remove_writer(w)))
    run(loop)
    loop.add_reader(r, lambda: (seen.append("r"), loop.remove_reader(r)))
    os.close(w)
    run(loop)
    assert seen == ["w", "r"]
    os.close(r)


def test_what_cannot_be_watched_is_an_error_at_once(loop: Loop, tmp_path: os.PathLike[str]) -> None:
    with open(os.path.join(tmp_path, "file"), "w") as file, pytest.raises(PermissionError):
        loop.add_reader(file, print)
    with pytest.raises(ValueError):
        loop.add_reader(-1, print)
    with pytest.raises(ValueError):
        loop.add_reader(object(), print)  # type: ignore[arg-type]
    r, w = os.pipe()
    os.close(r)
    os.close(w)
    with pytest.raises(OSError):
        loop.add_reader(r, print)
    assert loop._selector.get_map().get(r) is None


def test_watching_does_not_make_a_descriptor_non_blocking(loop: Loop) -> None:
    r, w = os.pipe()
    loop.add_reader(r, print)
    run(loop)
    assert os.get_blocking(r)
    loop.remove_reader(r)
    os.close(r)
    os.close(w)


def test_the_selector_that_others_look_at_knows_what_is_watched(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    a, b = pair
    loop.add_reader(a, print)
    loop.add_writer(a, print)
    key = loop._selector.get_key(a)
    assert (key.fileobj, key.fd, key.events) == (a, a.fileno(), 3)
    assert a.fileno() in list(loop._selector.get_map())
    with pytest.raises(KeyError):
        loop._selector.get_key(b)
    loop.remove_reader(a)
    assert loop._selector.get_key(a).events == 2
    loop.remove_writer(a)


def test_the_descriptor_of_a_transport_is_refused(loop: Loop) -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        fd = writer.get_extra_info("socket").fileno()
        for call in (loop.add_reader, loop.add_writer):
            with pytest.raises(RuntimeError, match="is used by transport"):
                call(fd, print)
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_a_socket_closed_under_sock_recv_is_closed_when_it_ends(loop: Loop) -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        a.setblocking(False)
        task = asyncio.ensure_future(loop.sock_recv(a, 10))
        await asyncio.sleep(0)
        a.close()
        assert a.fileno() != -1
        b.send(b"late")
        assert await task == b"late"
        assert a.fileno() == -1
        b.close()

    loop.run_until_complete(main())


def test_a_cancelled_sock_recv_leaves_nothing_watched(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair

    async def main() -> None:
        task = asyncio.ensure_future(loop.sock_recv(a, 10))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert a.fileno() not in loop._watched_fds()
        b.send(b"x")
        assert await loop.sock_recv(a, 10) == b"x"

    loop.run_until_complete(main())


def test_a_refused_connection_ends_sock_connect(loop: Loop) -> None:
    async def main() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = unused.getsockname()
            with socket.socket() as sock:
                sock.setblocking(False)
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.wait_for(loop.sock_connect(sock, address), 5)

    loop.run_until_complete(main())


@pytest.mark.parametrize("number", [1_000_000, 2**31 - 1])
def test_number_that_is_no_descriptor_costs_no_memory(loop: Loop, number: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(OSError) as caught:
        loop.add_reader(number, int)
    assert caught.value.errno == errno.EBADF
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 4096
