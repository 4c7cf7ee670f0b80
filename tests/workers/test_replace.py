"""Workers that die, block or have done enough are replaced."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

from .conftest import Launch, alive, until, wait_gone
from .load import Load


def test_a_killed_worker_is_replaced_and_the_other_serves_meanwhile(workers: Launch) -> None:
    server = workers("--workers", "2")
    victim = int(server.get("/pid"))
    os.kill(victim, signal.SIGKILL)
    wait_gone([victim])
    for _ in range(20):
        assert server.get("/pid") != str(victim)
    server.wait_children(2, without=[victim])
    assert f"Child process [{victim}] died: killed by SIGKILL" in server.log.text()
    until(lambda: server.started() == 3, 10, "the new worker's start")


def test_a_killed_worker_takes_only_its_own_requests_with_it(workers: Launch) -> None:
    server = workers("--workers", "2", "--no-access-log")
    with Load(server.port) as load:
        load.wait(300)
        for _ in range(3):
            before = server.children()
            os.kill(before[-1], signal.SIGKILL)
            server.wait_children(2, without=[before[-1]])
            load.wait(300)
    assert len(load.failures) <= 3 * 16


@pytest.mark.skipif(sys.platform != "linux", reason="another process's limits")
def test_without_a_descriptor_for_the_next_worker_the_supervisor_tries_again(workers: Launch) -> None:
    server = workers("--workers", "2")
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir(f"/proc/{server.pid}/fd")}
    first_free = min(set(range(len(used) + 1)) - used)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (first_free, limits[1]))
    victim = server.children()[0]
    os.kill(victim, signal.SIGKILL)
    server.log.wait_for("Cannot start a worker: .*Too many open files")
    assert server.get("/pid") != str(victim)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
    server.wait_children(2, without=[victim])


def test_a_worker_that_exits_by_itself_is_replaced(workers: Launch) -> None:
    server = workers("--workers", "2")
    with server.connect() as client:
        client.get("/exit")
        client.expect_close()
    server.log.wait_for(r"Child process \[\d+\] died: exit code 9")
    until(lambda: server.started() == 3, 10, "the new worker's start")


def test_workers_that_keep_dying_are_started_ever_more_slowly(workers: Launch) -> None:
    server = workers("--workers", "2", env={"WORKING_CRASH": "1"}, wait=False)
    server.log.wait_for("The next worker is started in")
    time.sleep(2)
    assert server.log.text().count("Started server process") < 14
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def test_when_none_can_be_started_any_more_it_gives_up(workers: Launch, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch()
    server = workers("--workers", "1", "--timeout", "60", env={"WORKING_RAISE": str(there)})
    there.unlink()
    os.kill(server.children()[0], signal.SIGKILL)
    assert server.wait(30) == 3
    assert "No worker can be started" in server.log.text()


def test_a_worker_whose_loop_stands_still_is_killed_and_its_stack_shown(workers: Launch) -> None:
    server = workers("--workers", "2", "--timeout", "1.5")
    server.connect().get("/block/60")
    server.log.wait_for("app: blocks")
    found = server.log.wait_for(r"Worker \[(\d+)\] has not run its event loop for \d+ seconds")
    wait_gone([int(found[1])])
    assert "working.py" in server.log.text()
    server.wait_children(2, without=[int(found[1])])


def test_a_worker_that_computes_with_the_gil_held_is_left_alone_by_default(workers: Launch) -> None:
    server = workers("--workers", "2")
    before = server.children()
    with server.connect(60) as client:
        assert client.get("/compute/150000000").response().text == "computed"
    assert server.children() == before and "died" not in server.log.text()


def test_a_supervisor_that_was_stopped_does_not_take_its_workers_for_dead(workers: Launch) -> None:
    server = workers("--workers", "2", "--timeout", "1.5")
    before = server.children()
    for pid in (server.pid, *before):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(5)
    for pid in (server.pid, *before):
        os.kill(pid, signal.SIGCONT)
    server.get("/pid")
    time.sleep(1.5)
    assert server.children() == before


def test_the_limit_of_requests_costs_no_request(workers: Launch) -> None:
    server = workers("--workers", "2", "--no-access-log", "--max-requests", "300", "--max-requests-jitter", "50")
    with Load(server.port) as load:
        until(lambda: server.started() >= 8, 30, "six replacements")
    assert not load.failures, load.failures[:5]
    assert "Maximum request limit of" in server.log.text()


def test_a_worker_with_too_much_memory_is_replaced(workers: Launch) -> None:
    server = workers("--workers", "2", "--max-worker-memory", "8")
    found = server.log.wait_for(r"Worker \[(\d+)\] has \d+ MiB of memory, more than 8", timeout=15)
    wait_gone([int(found[1])], 20)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


@pytest.mark.parametrize(("rescue", "expected"), [("--rescue", 3), ("--no-rescue", 1)])
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_no_descriptor_of_the_parent_is_left_in_a_worker(workers: Launch, how: str, rescue: str, expected: int) -> None:
    server = workers("--workers", "3", "--worker-start", how, rescue)
    held = [sockets_of(pid) for pid in server.children()]
    parent = sockets_of(server.pid)
    shared = set.intersection(*held) & parent
    assert len(shared) == expected, "the listening socket, and the two ends of the channel for rescued connections"
    for one in held:
        assert one & parent == shared


def sockets_of(pid: int) -> set[str]:
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


def test_children_are_counted_right(workers: Launch) -> None:
    server = workers("--workers", "2")
    assert all(alive(pid) for pid in server.children())
    assert re.search(r"Started parent process \[\d+\]", server.log.text())
