"""An application whose pool of processes was forked from the server: the children hold all that was open."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

import pytest

from tests.harness.client import Client
from tests.harness.process import ServerProcess

pytestmark = pytest.mark.ours
APP = "tests.apps.forking:app"
Launch = Callable[..., ServerProcess]


@pytest.mark.parametrize("loop", ["auto", "asyncio"])
@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_server_ends_though_a_child_lives(launch: Launch, loop: str, workers: tuple[str, ...]) -> None:
    server = launch(APP, "--loop", loop, *workers)
    with Client(server.address) as client:
        child = int(client.get("/").response().body)
    server.signal(signal.SIGTERM)
    assert server.process.wait(15) in (0, -signal.SIGTERM)
    with contextlib.suppress(ProcessLookupError):  # where nobody waited for it
        os.kill(child, signal.SIGKILL)
    assert "blocked" not in server.log.text()


@pytest.mark.parametrize("protocol", ["1.0", "1.1"])
def test_a_connection_ends_though_a_child_has_a_copy_of_it(launch: Launch, protocol: str) -> None:
    server = launch(APP)
    with Client(server.address) as client:
        client.send(f"GET / HTTP/{protocol}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = client.expect_close()
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_what_was_cut_is_seen_as_cut_though_a_child_has_a_copy_of_the_connection(launch: Launch) -> None:
    server = launch(APP)
    with Client(server.address) as client:
        client.send(b"GET /cut HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = client.expect_close()
    assert answer.startswith(b"HTTP/1.1 200 ") and not answer.endswith(b"0\r\n\r\n")
