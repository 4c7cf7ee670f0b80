"""New workers for old ones while clients do not notice: SIGHUP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2 and SIGWINCH."""

from __future__ import annotations

import functools
import os
import signal
import textwrap
from pathlib import Path

import pytest

from .conftest import Launch, alive, until, wait_gone
from .load import Load


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_sighup_replaces_every_worker_and_fails_no_request(workers: Launch, how: str) -> None:
    server = workers("--workers", "2", "--no-access-log", "--worker-start", how)
    before = server.children()
    with Load(server.port) as load:
        load.wait(200)
        server.signal(signal.SIGHUP)
        server.wait_children(2, without=before, timeout=20)
        load.wait(200)
    assert not load.failures, load.failures[:5]
    assert "Received SIGHUP, restarting processes." in server.log.text()
    assert server.stop() == 0


def test_twenty_sighups_in_a_row(workers: Launch) -> None:
    server = workers("--workers", "2", "--no-access-log")
    with Load(server.port) as load:
        for _ in range(20):
            server.signal(signal.SIGHUP)
            load.wait(100)
        before = server.children()[-1:]
        load.wait(500)
        server.signal(signal.SIGHUP)
        server.wait_children(2, without=before, timeout=30)
    assert not load.failures, load.failures[:5]


def test_the_new_worker_serves_before_the_old_one_ends(workers: Launch) -> None:
    server = workers("--workers", "1", "--timeout", "60", env={"WORKING_START": "0.5"})
    (old,) = server.children()
    mark = server.log.mark()
    server.signal(signal.SIGHUP)
    server.wait_children(1, without=[old])
    lines = server.log.lines[mark:]
    started = next(i for i, line in enumerate(lines) if line.startswith("app: lifespan.startup"))
    ended = next(i for i, line in enumerate(lines) if "Shutting down" in line)
    assert started < ended


def test_sighup_loads_new_code_and_environment_of_the_configuration_file(workers: Launch, tmp_path: Path) -> None:
    text, config = tmp_path / "text", tmp_path / "conf.py"
    text.write_text("one")
    config.write_text("raw_env = ['WORKING_RAW=first']\nworkers = 2\n")
    server = workers("-c", str(config), env={"WORKING_TEXT": str(text)})
    before = server.children()
    assert server.get("/text") == "one" and server.get("/ids").endswith(" first")
    text.write_text("two")
    config.write_text("raw_env = ['WORKING_RAW=second']\nworkers = 3\n")
    server.signal(signal.SIGHUP)
    server.wait_children(3, without=before)
    until(lambda: server.get("/text") == "two" and server.get("/ids").endswith(" second"), 5, "the new worker's answer")


def test_sighup_loads_new_code_although_it_was_preloaded(workers: Launch, tmp_path: Path) -> None:
    module = tmp_path / "changing.py"
    code = """
    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
            await send({"type": "http.response.body", "body": b"%s"})
        elif scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
    """
    code = textwrap.dedent(code)
    module.write_text(code % "one")
    options = ("--workers", "2", "--preload", "--no-access-log", "--app-dir", str(tmp_path))
    server = workers(*options, app="changing:app", env={"PYTHONDONTWRITEBYTECODE": "1"})
    before = server.children()
    assert server.get("/") == "one"
    with Load(server.port) as load:
        load.wait(100)
        for text in ("two", "six"):
            module.write_text(code % text)
            server.signal(signal.SIGHUP)
            before = server.wait_children(2, without=before, timeout=30)
            until(lambda text=text: {server.get("/") for _ in range(8)} == {text}, 10, "the new code's answer")
        load.wait(100)
    assert not load.failures, load.failures[:5]
    assert server.log.text().count("load the application themselves") == 1
    module.write_text("raise RuntimeError('cannot be imported')")
    server.signal(signal.SIGHUP)
    server.log.wait_for("failed to start")
    assert server.get("/") == "six"
    assert server.stop() == 0


def test_a_request_that_runs_is_finished_by_the_old_worker(workers: Launch) -> None:
    server = workers("--workers", "2")
    before = server.children()
    with server.connect() as client:
        client.get("/sleep/2")
        server.log.wait_for("app: sleeps")
        server.signal(signal.SIGHUP)
        until(lambda: len(set(server.children()) - set(before)) == 2, 15, "two new workers")
        response = client.response()
    assert response.text == "slept" and response.closes
    wait_gone(before)


def test_code_that_cannot_start_is_not_taken(workers: Launch, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch()
    server = workers("--workers", "2", env={"WORKING_RAISE": str(there)})
    before = server.children()
    there.unlink()
    server.signal(signal.SIGHUP)
    server.log.wait_for(r"New child process \[\d+\] failed to start; keeping worker \[\d+\] and aborting the restart")
    server.wait_children(2)
    assert server.children() == before and server.get("/pid")
    there.touch()
    server.signal(signal.SIGHUP)
    server.wait_children(2, without=before)


def test_a_configuration_that_is_wrong_is_not_taken(workers: Launch, tmp_path: Path) -> None:
    config = tmp_path / "conf.py"
    config.write_text("workers = 2\n")
    server = workers("-c", str(config))
    before = server.children()
    config.write_text("workers = 'many'\nbacklog = -1\n")
    server.signal(signal.SIGHUP)
    server.log.wait_for("The configuration cannot be loaded, so the old one stays")
    server.wait_children(2, without=before)


def test_more_and_fewer_workers(workers: Launch) -> None:
    server = workers("--workers", "2", "--no-access-log")
    with Load(server.port) as load:
        server.signal(signal.SIGTTIN)
        server.log.wait_for("Received SIGTTIN, increasing the number of processes.")
        server.signal(signal.SIGTTIN)
        server.wait_children(4)
        for left in (3, 2, 1):
            server.signal(signal.SIGTTOU)
            server.wait_children(left)
        server.log.wait_for("Received SIGTTOU, decreasing number of processes.")
        server.signal(signal.SIGTTOU)
        load.wait(200)
        assert len(server.children()) == 1
    assert not load.failures, load.failures[:5]


def test_sigusr1_opens_the_logs_anew(workers: Launch, tmp_path: Path) -> None:
    access, error = tmp_path / "access", tmp_path / "error"
    server = workers(
        *("--workers", "2", "--access-logfile", str(access), "--error-logfile", str(error), "-b", "127.0.0.1:0"),
        wait=False,
    )
    text = until(lambda: error.exists() and "running on" in error.read_text() and error.read_text(), 15, "the log")
    server.address = ("127.0.0.1", int(text.partition("running on http://127.0.0.1:")[2].split()[0]))
    server.get("/pid")
    until(lambda: "GET /pid" in access.read_text(), 5, "the first line")
    os.rename(access, tmp_path / "access.old")
    os.rename(error, tmp_path / "error.old")
    server.signal(signal.SIGUSR1)
    until(lambda: error.exists() and "opened anew" in error.read_text(), 5, "the new log")
    until(lambda: access.exists(), 5, "the new access log")
    for pid in server.children():
        until(functools.partial(has_open, pid, access), 5, f"process {pid} has the new log")
    for _ in range(6):
        server.get("/text")
    until(lambda: access.read_text().count("GET /text") == 6, 5, "six lines")
    assert "GET /text" not in (tmp_path / "access.old").read_text()
    assert server.stop() == 0


def has_open(pid: int, path: Path) -> bool:
    return str(path) in {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}


def test_an_upgrade_hands_the_sockets_to_a_new_supervisor(workers: Launch, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    server = workers("--workers", "2", "--no-access-log", "--pid", str(pidfile))
    old = server.children()
    with Load(server.port) as load:
        load.wait(100)
        server.signal(signal.SIGUSR2)
        server.log.wait_for("started the new parent process")
        new = until(lambda: pidfile.exists() and int(pidfile.read_text()), 15, "the new pid file")
        try:
            assert (tmp_path / "pid.oldbin").read_text() == f"{server.pid}\n"
            until(lambda: server.started() == 4, 15, "its workers")
            server.signal(signal.SIGWINCH)
            wait_gone(old, 20)
            assert alive(server.pid)
            load.wait(200)
            server.signal(signal.SIGTERM)
            assert server.process.wait(10) == 0
            load.wait(200)
            assert not (tmp_path / "pid.oldbin").exists() and pidfile.read_text() == f"{new}\n"
        finally:
            left = [new, *all_children(new)]
            os.kill(new, signal.SIGTERM)
            wait_gone(left, 20)
    failures = [failure for failure in load.failures if "refused" not in failure.lower()]
    assert len(failures) <= 16, failures[:5]  # those in flight when the new one was ended above


def all_children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_an_upgrade_that_fails_changes_nothing(workers: Launch, tmp_path: Path) -> None:
    there, pidfile = tmp_path / "there", tmp_path / "pid"
    there.touch()
    server = workers("--workers", "2", "--pid", str(pidfile), env={"WORKING_RAISE": str(there)})
    before = server.children()
    there.unlink()
    server.signal(signal.SIGUSR2)
    server.log.wait_for(r"The new parent process \[\d+\] ended \(exit code 3\); this one goes on.", timeout=15)
    assert server.children() == before and server.get("/pid")
    assert pidfile.read_text() == f"{server.pid}\n"


def test_after_sigwinch_the_old_supervisor_can_take_over_again(workers: Launch) -> None:
    server = workers("--workers", "2")
    before = server.children()
    server.signal(signal.SIGWINCH)
    server.wait_children(0)
    server.signal(signal.SIGHUP)
    server.wait_children(2, without=before)
    assert server.get("/pid")
