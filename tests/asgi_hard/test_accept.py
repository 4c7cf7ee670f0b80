"""Accepting when it fails: descriptors that ran out, a socket that somebody shut down."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import socket
import sys
import time
from collections.abc import Iterator

import pytest
from capicorn import _core
from capicorn.loop import Loop

from tests.apps.basic import ok
from tests.conftest import Records, Starter


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    """The process's limit of descriptors is low; gives it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, hard))
    yield 120
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def cpu(seconds: float) -> float:
    """CPU seconds of this process while nothing is done for so long."""
    before = time.process_time()
    time.sleep(seconds)
    return time.process_time() - before


def test_listening_socket_that_was_shut_down_costs_no_time(start: Starter) -> None:
    """It stays readable for ever, and accept() says EINVAL."""
    server = start(ok)
    server.server.servers[0].sockets[0].shutdown(socket.SHUT_RD)
    assert cpu(1.0) < 0.4


def test_the_connection_that_is_idle_longest_makes_room(start: Starter, records: Records, few_descriptors: int) -> None:
    server = start(ok, timeout_keep_alive=30)
    with server.connect() as old, server.connect() as used:
        for c in (old, used):
            c.get("/")
            assert c.response().status == 200
        used.get("/")
        assert used.response().status == 200
        spare: list[socket.socket] = []
        try:
            while True:
                spare.append(socket.socket())
        except OSError:
            spare.pop().close()  # one for the client's side, none for the server's
        try:
            with server.connect(5.0) as c:
                c.get("/")
                assert c.response().status == 200
                old.expect_closed_clean()
                assert used.is_open(0.1)
        finally:
            for s in spare:
                s.close()
    records.wait_for("idle longest is closed for it")


@pytest.mark.skipif(sys.platform != "linux", reason="a socket that failed to connect may listen there")
def test_error_of_a_listening_socket_passes() -> None:
    """libuv stops looking at a descriptor that has one."""

    async def main() -> bytes:
        await asyncio.sleep(0.05)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        sock.connect_ex(nobody.getsockname())  # forgets that it was connecting
        sock.listen()
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        http.close()
        await asyncio.sleep(0.01)
        return answer

    with socket.socket() as sock, socket.socket() as nobody, contextlib.closing(Loop()) as loop:
        sock.bind(("127.0.0.1", 0))
        nobody.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect(nobody.getsockname())
        http = _core.HTTPServer(loop, ok, logger=logging.getLogger("capicorn.error"))
        http.listen(sock.fileno())
        assert loop.run_until_complete(main()).startswith(b"HTTP/1.1 200")
