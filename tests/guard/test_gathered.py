"""Responses that leave together at the end of a turn also leave when the turn does not end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from typing import Any

import pytest

from ..harness.client import Client
from ..harness.process import ServerProcess
from ..tls.client import TLSClient, context
from ..tls.conftest import Certificates, certificates
from ..workers.conftest import Workers
from .conftest import Guarded, Launch
from .test_rescue import SOON, ask, said
from .test_rescue import launch as launch_workers

__all__ = ["certificates", "launch_workers"]

pytestmark = pytest.mark.ours

APP = "tests.guard.rescue_app:app"
MANY = 12
SECONDS = 1.5


def has_come(clients: Iterable[Client]) -> None:
    """Wait until the kernel has it."""
    end = time.monotonic() + 5
    for client in clients:
        while client.untaken() == 0:
            assert time.monotonic() < end


def at_once(server: ServerProcess | Workers, pid: int, targets: list[tuple[Client, str]]) -> float:
    """What is asked arrives in one turn of the process. When that was."""
    os.kill(pid, signal.SIGSTOP)
    try:
        for client, target in targets:
            client.get(target)
        has_come(client for client, _ in targets)
    finally:
        begun = time.monotonic()
        os.kill(pid, signal.SIGCONT)
    return begun


@pytest.mark.parametrize("how", ["/sleep", "/compute", "/hold", "/sleep over TLS"])
def test_they_do_not_wait_for_a_request_that_blocks(guarded: Launch, how: str, request: pytest.FixtureRequest) -> None:
    how, _, over = how.partition(" ")
    if over:
        files: Certificates = request.getfixturevalue("certificates")
        server: Guarded = guarded("--ssl-certfile", files.cert, "--ssl-keyfile", files.key, app=APP)
        trusting = context(files.ca)
        clients: list[Client] = [TLSClient(("127.0.0.1", server.port), trusting) for _ in range(MANY + 1)]
    else:
        server = guarded(app=APP)
        clients = [server.connect() for _ in range(MANY + 1)]
    try:
        for client in clients:
            ask(client)
        blocking, *quick = clients  # who was asked last may be looked at first
        targets = [(c, f"/q?{n}") for n, c in enumerate(quick)] + [(blocking, f"{how}?{SECONDS}")]
        begun = at_once(server, server.pid, targets)
        for n, client in enumerate(quick):
            assert said(client)["query"] == str(n)
        assert time.monotonic() - begun < SOON
        assert said(blocking)["path"] == how
        assert time.monotonic() - begun > SECONDS - 0.1
        for n, client in enumerate(quick):  # each was sent once: nothing lies in front of this
            assert ask(client, f"/again?{n}")["query"] == str(n)
    finally:
        for client in clients:
            client.close()
    assert server.stop() == 0


def test_their_connections_can_be_rescued_then(launch_workers: Any) -> None:
    server = launch_workers("--workers", "2")
    clients: dict[int, list[Client]] = {}
    try:
        while max(map(len, clients.values()), default=0) < MANY + 1:
            client = server.connect()
            clients.setdefault(ask(client)["pid"], []).append(client)
        pid, (blocking, *quick) = max(clients.items(), key=lambda item: len(item[1]))
        targets = [(c, f"/q?{n}") for n, c in enumerate(quick)] + [(blocking, f"/sleep?{SECONDS}")]
        begun = at_once(server, pid, targets)
        for n, client in enumerate(quick):
            assert said(client)["query"] == str(n)
        answers = [ask(client, f"/again?{n}") for n, client in enumerate(quick)]
        assert time.monotonic() - begun < SOON
        assert [a["query"] for a in answers] == [str(n) for n in range(len(quick))]
        said(blocking)
    finally:
        for some in clients.values():
            for client in some:
                client.close()


def test_clients_that_are_gone_disturb_nobody(guarded: Launch) -> None:
    server: Guarded = guarded(app=APP)
    for leave in (Client.reset, Client.close):
        clients = [server.connect() for _ in range(MANY)]
        for client in clients:
            ask(client)
        os.kill(server.pid, signal.SIGSTOP)
        for n, client in enumerate(clients):
            client.get(f"/q?{n}")
        has_come(clients)
        for client in clients[::2]:
            leave(client)
        os.kill(server.pid, signal.SIGCONT)
        for n, client in list(enumerate(clients))[1::2]:
            assert said(client)["query"] == str(n)
            client.close()
    assert server.stop() == 0
    assert "Traceback" not in server.log.text()
