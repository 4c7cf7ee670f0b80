"""Accepting when it fails: descriptors that ran out, a socket that somebody shut down."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator

import pytest

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
