"""Connections are spread evenly over the workers that share a listening socket."""

from __future__ import annotations

import os
import socket
from collections import Counter

import pytest
from capicorn._core import Scoreboard

from ..harness.client import Client
from .conftest import Launch, until


@pytest.mark.parametrize("together", [True, False], ids=["at once", "one by one"])
@pytest.mark.parametrize("number", [4, 6])
def test_no_worker_holds_more_than_1_3_times_the_mean(workers: Launch, number: int, together: bool) -> None:
    server = workers("--workers", str(number), "--no-access-log", "--timeout-keep-alive", "60")
    clients: list[Client] = []
    held: Counter[str] = Counter()
    try:
        for _ in range(64):
            clients.append(server.connect().get("/pid"))
            if not together:
                held[clients[-1].response().text] += 1
        if together:
            for client in clients:
                held[client.response().text] += 1
    finally:
        for client in clients:
            client.close()
    assert len(held) == number and max(held.values()) <= 1.3 * 64 / number, held


def test_when_one_worker_is_busy_the_other_takes_what_comes(workers: Launch) -> None:
    server = workers("--workers", "2")
    with server.connect() as busy:
        busy.get("/block/2")
        server.log.wait_for("app: blocks")
        clients = [server.connect().get("/pid") for _ in range(20)]
        answers = Counter(client.response(timeout=1.5).text for client in clients)
        for client in clients:
            client.close()
    assert len(answers) == 1


def test_a_worker_stops_accepting_above_the_mean_until_its_siblings_have_as_many() -> None:
    board = Scoreboard(4)
    for slot in (0, 1):
        board.take(slot)
        board.beat(slot)
        board.set_state(slot, "serving")
    assert board.may_accept(0) and board.may_accept(1)
    assert board.read(0)["pid"] == os.getpid() and board.read(0)["state"] == "serving"
    assert board.read(2)["state"] == "free" and board.read(2)["beat_age"] is None


def test_a_board_that_another_process_made_is_opened_by_its_descriptor() -> None:
    board = Scoreboard(3)
    board.take(1)
    other = Scoreboard(fd=os.dup(board.fileno()))
    assert other.slots == 3 and other.read(1)["state"] == "starting"
    other.set_state(1, "retiring")
    assert board.read(1)["state"] == "retiring"
    board.free(1)
    assert other.read(1)["state"] == "free"


def test_what_is_no_board_is_refused() -> None:
    with pytest.raises(OSError):
        Scoreboard(fd=os.open(os.devnull, os.O_RDWR))
    with pytest.raises(OSError):
        Scoreboard(0)
    with pytest.raises(IndexError):
        Scoreboard(2).read(2)
    with pytest.raises(TypeError):
        Scoreboard(2).attach(0, object())  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        Scoreboard(2).set_state(0, "asleep")


def test_the_lifeline_kills_a_process_whose_other_end_is_closed() -> None:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        Scoreboard(1).end_with_parent(theirs.fileno(), 0)
        sum(range(10**13))  # the GIL is held
        os._exit(0)
    theirs.close()
    ours.close()
    assert os.waitstatus_to_exitcode(until(lambda: os.waitpid(pid, os.WNOHANG)[1], 10, "its end")) == -9
