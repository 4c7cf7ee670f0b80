"""How a supervisor and its workers end."""

from __future__ import annotations

import os
import signal
import time

import pytest

from ..harness.client import Closed
from .conftest import Launch, until, wait_gone


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_a_signal_ends_all_gracefully_with_code_0(workers: Launch, number: signal.Signals) -> None:
    server = workers("--workers", "2")
    pids = server.children()
    clients = [server.connect().get("/sleep/0.7") for _ in range(6)]
    until(lambda: server.log.text().count("app: sleeps") == 6, 5, "six requests in flight")
    server.signal(number)
    assert [client.response().text for client in clients] == ["slept"] * 6
    assert server.wait() == 0
    wait_gone(pids)
    assert server.log.text().count("app: lifespan.shutdown") == 2
    assert f"Received {number.name}, exiting." in server.log.text()


def test_ctrl_c_goes_to_the_whole_group_and_is_graceful_all_the_same(workers: Launch) -> None:
    server = workers("--workers", "2")
    client = server.connect().get("/sleep/0.7")
    server.log.wait_for("app: sleeps")
    os.killpg(server.pid, signal.SIGINT)
    assert client.response().text == "slept"
    assert server.wait() == 0


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT, None], ids=str)
def test_a_second_signal_and_sigquit_do_not_wait(workers: Launch, first: signal.Signals | None) -> None:
    server = workers("--workers", "2")
    client = server.connect().get("/sleep/60")
    server.log.wait_for("app: sleeps")
    begin = time.monotonic()
    if first is None:
        server.signal(signal.SIGQUIT)
    else:
        server.signal(first)
        server.log.wait_for("exiting")
        server.signal(first)
    assert server.wait() == 0
    assert time.monotonic() - begin < 5
    with pytest.raises(Closed):
        client.response()


def test_sigquit_ends_also_a_worker_that_blocks(workers: Launch) -> None:
    server = workers("--workers", "2")
    pids = server.children()
    server.connect().get("/block/60")
    server.log.wait_for("app: blocks")
    server.signal(signal.SIGQUIT)
    assert server.wait(8) == 0
    wait_gone(pids)


def test_a_worker_that_blocks_is_killed_after_the_graceful_timeout(workers: Launch) -> None:
    server = workers("--workers", "2", "--graceful-timeout", "1")
    pids = server.children()
    server.connect().get("/block/60")
    server.log.wait_for("app: blocks")
    server.signal(signal.SIGTERM)
    assert server.wait(12) == 0
    wait_gone(pids)
    assert "does not end: it is killed" in server.log.text()


def test_sigterm_while_the_workers_import(workers: Launch) -> None:
    server = workers("--workers", "2", env={"WORKING_IMPORT": "60"}, wait=False)
    server.log.wait_for("Started parent process")
    pids = server.wait_children(2)
    time.sleep(0.3)  # into the import
    server.signal(signal.SIGTERM)
    assert server.wait(8) == 0
    wait_gone(pids)


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_workers_end_gracefully_when_their_supervisor_is_killed(workers: Launch, how: str) -> None:
    server = workers("--workers", "2", "--worker-start", how)
    pids = server.children()
    client = server.connect().get("/sleep/0.5")
    server.log.wait_for("app: sleeps")
    server.signal(signal.SIGKILL)
    assert client.response().text == "slept"
    wait_gone(pids)
    until(lambda: server.log.text().count("app: lifespan.shutdown") == 2, 5, "two shutdowns")


def test_a_worker_that_blocks_does_not_outlive_its_supervisor_for_long(workers: Launch) -> None:
    server = workers("--workers", "2", "--graceful-timeout", "0")
    pids = server.children()
    server.connect().get("/compute/100000000000")
    server.log.wait_for("app: computes")
    server.signal(signal.SIGKILL)
    wait_gone(pids, 12)


def test_workers_that_import_end_with_their_supervisor(workers: Launch) -> None:
    server = workers("--workers", "2", env={"WORKING_IMPORT": "60"}, wait=False)
    pids = server.wait_children(2)
    time.sleep(0.3)
    server.signal(signal.SIGKILL)
    wait_gone(pids)


def test_the_parent_reaps_children_that_are_not_its_own(workers: Launch) -> None:
    """As process 1 of a container has to: a grandchild whose parent is gone is adopted."""
    server = workers("--workers", "2", app="tests.workers.orphans:app", template=SUBREAPER)
    grandchild = int(server.get("/"))
    wait_gone([grandchild])
    until(lambda: not os.path.exists(f"/proc/{grandchild}"), 5, "the zombie's end")
    assert len(server.children()) == 2


SUBREAPER = (
    "{python} -c 'import ctypes, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); from capicorn.cli import main;"
    ' main(sys.argv[1:], prog_name="capicorn")\' {app} --port {port} {options}'
)
