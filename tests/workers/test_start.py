"""How workers start, and what happens when they cannot."""

from __future__ import annotations

import functools
import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from ..harness.process import Process, free_port
from .conftest import APP, Launch, Workers, alive, until, wait_gone


def both(server: Workers) -> set[str]:
    """The workers that answer, once there are two of them."""
    seen: set[str] = set()
    until(lambda: seen.add(server.get("/pid")) or len(seen) >= 2, 10, "answers of two workers")
    return seen


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_both_workers_serve_and_are_children_of_the_parent(workers: Launch, how: str) -> None:
    server = workers("--workers", "2", "--worker-start", how)
    assert both(server) == {str(pid) for pid in server.children()}
    pids = server.children()
    assert server.stop() == 0
    assert server.log.text().count("app: lifespan.shutdown") == 2
    wait_gone(pids)


def test_the_number_of_workers_from_web_concurrency(workers: Launch) -> None:
    assert len(workers(env={"WEB_CONCURRENCY": "3"}).children()) == 3


def test_it_is_ready_only_when_every_lifespan_has_started(workers: Launch) -> None:
    server = workers("--workers", "3", env={"WORKING_START": "0.3"})
    lines = server.log.lines
    ready = next(i for i, line in enumerate(lines) if "Capicorn running on" in line)
    assert sum("app: lifespan.startup" in line for line in lines[:ready]) == 3
    assert any(re.search(rf"Started parent process \[{server.pid}\]", line) for line in lines[:ready])


def test_preload_imports_once_before_the_fork(workers: Launch) -> None:
    server = workers("--workers", "3", "--preload", env={"WORKING_SAY_IMPORT": "1"})
    assert re.findall(r"app: imported in (\d+)", server.log.text()) == [str(server.pid)]
    assert len(both(server)) == 2


def test_with_preload_a_worker_imports_nothing_more_that_it_could_share(workers: Launch, tmp_path: Path) -> None:
    config = tmp_path / "conf.py"
    config.write_text(
        "import sys\npreload_app = True\nworkers = 2\n"
        "def post_fork(server, worker): worker.imported = set(sys.modules)\n"
        "def post_worker_init(worker): sys.stderr.write(f'hook: {sorted(set(sys.modules) - worker.imported)}\\n')\n"
    )
    server = workers("-c", str(config), app="tests.apps.threads:app")
    assert re.findall(r"hook: (.*)", server.log.text()) == ["[]", "[]"]


def test_without_preload_the_parent_does_not_import(workers: Launch) -> None:
    server = workers("--workers", "2", env={"WORKING_SAY_IMPORT": "1"})
    assert {int(pid) for pid in re.findall(r"app: imported in (\d+)", server.log.text())} == set(server.children())


FAILURES = {
    "no module": ("nosuchmodule:app", {}, 'Could not import module "nosuchmodule"'),
    "no attribute": ("tests.apps.working:nosuch", {}, 'Attribute "nosuch" not found'),
    "raises at import": (APP, {"WORKING_RAISE": "/nowhere"}, "RuntimeError: this application cannot be imported"),
    "lifespan fails": ("tests.workers.test_start:fails", {}, "the database is away"),
    "killed at import": ("tests.workers.test_start:dies", {"WORKING_DIE": "1"}, "killed by SIGKILL"),
}


async def fails(scope: dict[str, object], receive: object, send: object) -> None:
    assert scope["type"] == "lifespan"
    await receive()  # type: ignore[operator]
    await send({"type": "lifespan.startup.failed", "message": "the database is away"})  # type: ignore[operator]


def __getattr__(name: str) -> object:
    if name == "dies" and os.environ.get("WORKING_DIE"):
        os.kill(os.getpid(), 9)
    raise AttributeError(name)


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
@pytest.mark.parametrize("case", FAILURES)
def test_a_start_that_fails_ends_all_at_once_with_code_3(workers: Launch, case: str, preload: bool) -> None:
    app, env, text = FAILURES[case]
    if preload and case == "killed at import":
        pytest.skip("it is the parent then")
    server = workers("--workers", "3", *(["--preload"] if preload else []), app=app, env=env, wait=False)
    code = server.wait(10)
    assert text in server.log.text()
    assert "running on" not in server.log.text()
    if not preload or case == "lifespan fails":
        assert code == 3
        assert re.search(r"Child process \[\d+\] failed to start.*, stopping the parent process", server.log.text())
    else:
        assert code in (1, 3)
    wait_gone([int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", server.log.text())])


def test_a_port_in_use_is_told_before_any_worker_starts(workers: Launch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = workers("--workers", "2", "--bind", f"127.0.0.1:{port}", wait=False)
        assert server.wait(10) == 3
    assert "address already in use" in server.log.text().lower()
    assert "Started" not in server.log.text() and "Traceback" not in server.log.text()


def test_a_socket_path_that_cannot_be_written(workers: Launch) -> None:
    server = workers("--workers", "2", "--uds", "/proc/no/such.sock", wait=False)
    assert server.wait(10) == 3
    assert "/proc/no/such.sock" in server.log.text() and "Traceback" not in server.log.text()


def test_a_unix_socket_is_removed_at_the_end_and_not_before(workers: Launch, tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    server = workers("--workers", "2", "--uds", path)
    victim = int(server.get("/pid"))
    os.kill(victim, 9)
    server.wait_children(2, without=[victim])
    assert os.path.exists(path) and server.get("/pid")
    assert server.stop() == 0
    assert not os.path.exists(path)


def test_several_addresses(workers: Launch, tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    server = workers("--workers", "2", "-b", "127.0.0.1:0", "-b", f"unix:{path}")
    found = server.log.wait_for(r"running on http://127.0.0.1:(\d+)")
    server.log.wait_for(f"running on unix socket {path}")
    for address in (("127.0.0.1", int(found[1])), path):
        server.address = address
        assert int(server.get("/pid")) in server.children()
    assert server.stop() == 0


def test_importing_longer_than_the_timeout_is_no_death(workers: Launch) -> None:
    server = workers("--workers", "2", "--timeout", "1", env={"WORKING_IMPORT": "2.5"})
    assert "died" not in server.log.text() and len(server.children()) == 2


def test_one_worker_with_a_timeout_has_a_supervisor(workers: Launch) -> None:
    server = workers("--workers", "1", "--timeout", "30")
    assert int(server.get("/pid")) != server.pid and len(server.children()) == 1


def test_reload_with_workers_says_that_they_are_ignored(workers: Launch) -> None:
    server = workers("--workers", "2", "--reload", "--reload-dir", os.path.dirname(__file__))
    assert '"workers" flag is ignored when reloading is enabled.' in server.log.text()


def test_a_stale_pid_file_is_replaced_and_a_living_one_is_not(workers: Launch, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("4194303\n")
    server = workers("--workers", "2", "--pid", str(path))
    assert path.read_text() == f"{server.pid}\n"
    second = workers("--workers", "2", "--pid", str(path), wait=False)
    assert second.wait(10) == 3
    assert f"process {server.pid} is running" in second.log.text()
    assert path.read_text() == f"{server.pid}\n"
    server.stop()
    assert not path.exists()


def test_in_the_background_the_command_ends_when_it_serves(workers: Launch, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    command = workers(
        "--workers", "2", "--daemon", "--pid", str(path), "--error-logfile", str(tmp_path / "log"), wait=False
    )
    assert command.process.wait(15) == 0
    pid = int(path.read_text())
    try:
        assert pid != command.pid and alive(pid)
        assert "Capicorn running on" in (tmp_path / "log").read_text()
    finally:
        os.kill(pid, 15)
    wait_gone([pid])
    assert not path.exists()


def test_in_the_background_a_failure_is_the_commands_exit_code(workers: Launch) -> None:
    command = workers("--workers", "2", "--daemon", app="nosuchmodule:app", wait=False)
    assert command.process.wait(15) == 3


def test_workers_run_as_another_user_in_another_folder(workers: Launch, is_root: None, tmp_path: Path) -> None:
    server = workers("--workers", "2", "--user", "65534", "--group", "65534", "--chdir", "/usr", "--umask", "027")
    assert server.get("/ids").split() == ["65534", "65534", "/usr"]
    assert f"\nUid:\t{os.getuid()}\t" in Path(f"/proc/{server.pid}/status").read_text()
    assert "\nUmask:\t0027\n" in Path(f"/proc/{server.children()[0]}/status").read_text()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--user", "nosuchuser"), "there is no user 'nosuchuser'"),
        (("--group", "nosuchgroup"), "there is no group 'nosuchgroup'"),
        (("--umask", "9z"), "umask"),
        (("--chdir", "/no/such/folder"), "/no/such/folder"),
    ],
)
def test_what_cannot_be_is_told(workers: Launch, flags: tuple[str, str], text: str) -> None:
    server = workers("--workers", "2", *flags, wait=False)
    assert server.wait(10) != 0
    assert text in server.log.text() and "Traceback" not in server.log.text()


PROGRAM = """
import capicorn

if __name__ == "__main__":
    {}
"""


@pytest.mark.parametrize("how", ["fork", "spawn"])
@pytest.mark.parametrize("what", ["run", "Multiprocess"])
def test_from_a_program(tmp_path: Path, what: str, how: str) -> None:
    (tmp_path / "program.py").write_text(
        PROGRAM.format(
            f"capicorn.run({APP!r}, port=0, workers=2, worker_start={how!r})"
            if what == "run"
            else f"config = capicorn.Config({APP!r}, port=0, workers=2, worker_start={how!r}); "
            "capicorn.supervisors.Multiprocess(config, capicorn.Server(config).run, [config.bind_socket()]).run()"
        )
    )
    with Process([sys.executable, str(tmp_path / "program.py")]) as process:
        until(lambda: process.log.text().count("Application startup complete.") == 2, 15, "two workers")
        process.log.wait_for("running on")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        assert process.log.text().count("app: lifespan.shutdown") == 2


def test_hooks_with_spawned_workers(workers: Launch, tmp_path: Path) -> None:
    config = tmp_path / "conf.py"
    config.write_text(
        "import sys\nworker_start = 'spawn'\nworkers = 2\n"
        "def post_fork(server, worker): sys.stderr.write(f'hook: {worker.pid}\\n')\n"
    )
    server = workers("-c", str(config))
    for pid in server.children():
        server.log.wait_for(f"hook: {pid}")


def answers(server: Workers) -> bool:
    try:
        return bool(server.get("/pid"))
    except OSError:
        return False


def test_a_full_disk_for_the_logs_is_one_line_and_the_requests_go_on(workers: Launch) -> None:
    server = workers(
        *("--workers", "2", "--error-logfile", "/dev/full", "--access-logfile", "/dev/full"),
        *("--bind", f"127.0.0.1:{(port := free_port())}"),
        wait=False,
    )
    server.address = ("127.0.0.1", port)
    until(functools.partial(answers, server), 15, "an answer")
    assert [int(server.get("/pid")) in server.children() for _ in range(10)] == [True] * 10
    assert server.stop() == 0
    assert "cannot write to the log /dev/full: No space left on device" in server.log.text()
    assert "Traceback" not in server.log.text()
    assert server.log.text().count("cannot write") <= 3
