"""`capicorn status`: what is seen of a server from outside, whatever it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from capicorn import control, status
from capicorn._core import Scoreboard

from .conftest import APP, Launch, command

pytestmark = pytest.mark.ours


@pytest.mark.parametrize(
    "options", [(), ("--workers", "2"), ("--workers", "2", "--worker-start", "spawn")], ids=" ".join
)
def test_it_counts_what_was_served(served: Launch, options: tuple[str, ...]) -> None:
    server = served(*options)
    for path in ("/", "/", "/404", "/503", "/302", "/raise"):
        server.ask(path)
    with server.connect() as client:
        client.send(b"nonsense\r\n\r\n")
        assert client.response().status == 400
    seen = server.wait_status(lambda seen: sum(seen["total"]["status"]) == 7)
    total = seen["total"]
    assert total["status"] == [0, 2, 1, 2, 2]
    assert total["requests"] == 6 and total["errors"] == 1 and total["connections"] == 7
    assert sum(total["buckets"]) == 6 and 0 < total["seconds"] < 1
    assert total["octets_in"] > 6 * 18 and total["octets_out"] > 6 * 40
    assert seen["pid"] == server.pid and seen["app"] == APP
    assert seen["binds"] == [f"http://127.0.0.1:{server.port}"]
    assert len(seen["workers"]) == (2 if options else 1) and seen["supervised"] == bool(options)
    assert all(one["state"] == "serving" and one["resident"] > 1e6 for one in seen["workers"])
    assert seen["requests"] == seen["connections"] == 0


def test_requests_in_flight_are_listed_the_oldest_first(served: Launch) -> None:
    server = served()
    threads = []
    for path in ("/wait/first?2.5", "/wait/second?2.5", "/wait/" + "x" * 400 + "?2.5"):
        threads.append(server.ask_soon(path))
        server.wait_status(lambda seen: seen["requests"] == len(threads))
    (worker,) = server.status()["workers"]
    assert [one["path"] for one in worker["listed"]] == ["/wait/first", "/wait/second", "/wait/" + "x" * 194]
    ages = [one["age"] for one in worker["listed"]]
    assert ages == sorted(ages, reverse=True) and ages[0] < 6
    assert {one["method"] for one in worker["listed"]} == {"GET"} and worker["not_listed"] == 0
    for thread in threads:
        thread.join()
    assert server.wait_status(lambda seen: seen["requests"] == 0)["workers"][0]["listed"] == []


def test_more_requests_than_are_listed_are_counted(served: Launch) -> None:
    server = served()
    clients = [server.connect().get(f"/wait/{number}?30") for number in range(80)]
    (worker,) = server.wait_status(lambda seen: seen["requests"] == 80)["workers"]
    assert len(worker["listed"]) == 64 and worker["not_listed"] == 16
    for client in clients:
        client.close()


def test_a_websocket_is_listed_and_counted(served: Launch) -> None:
    pytest.importorskip("websockets")
    from websockets.sync.client import connect

    server = served()
    with connect(f"ws://127.0.0.1:{server.port}/feed"):
        seen = server.wait_status(lambda seen: seen["workers"][0]["listed"])
        assert [(one["path"], one["websocket"]) for one in seen["workers"][0]["listed"]] == [("/feed", True)]
        assert seen["total"]["status"][0] == 1 and seen["total"]["websockets"] == 1
    server.wait_status(lambda seen: seen["requests"] == 0)


@pytest.mark.parametrize("path", ["/block", "/in/task", "/hold"])
def test_a_blocked_worker_is_seen_with_the_request_that_blocks_it(served: Launch, path: str) -> None:
    server = served("--workers", "2", "--block-warn", "0.3")
    thread = server.ask_soon(f"{path}?3")
    name = f"GET {path}"
    seen = server.wait_status(lambda seen: any(one["state"] == "blocked" and one["running"] for one in seen["workers"]))
    (blocked,) = (one for one in seen["workers"] if one["state"] == "blocked")
    assert blocked["running"] == name and blocked["awake"] >= 0.5
    if path != "/hold":
        assert blocked["place"].endswith("(block)" if path == "/in/task" else "(app)")
        assert "tests/observe/app.py:" in blocked["place"]
    lines = "\n".join(status.lines(seen))
    assert f"{name}  BLOCKS" in lines
    thread.join()
    seen = server.wait_status(lambda seen: all(one["state"] == "serving" for one in seen["workers"]))
    assert seen["total"]["blocks"] == 1 and 2.5 < seen["total"]["longest_block"] < 4


def test_what_a_worker_counted_is_kept_when_it_is_replaced(served: Launch) -> None:
    server = served("--workers", "2")
    for _ in range(10):
        server.ask("/404")
    before = server.wait_status(lambda seen: seen["total"]["status"][3] == 10)
    for worker in before["workers"]:
        os.kill(worker["pid"], signal.SIGKILL)
    old = {worker["pid"] for worker in before["workers"]}
    after = server.wait_status(
        lambda seen: len([one for one in seen["workers"] if one["pid"] not in old and one["state"] == "serving"]) == 2
    )
    assert after["total"]["status"] == before["total"]["status"] and after["total"]["requests"] == 10
    assert after["workers_ended"] == 2


def test_a_stopped_supervisor_and_stopped_workers_are_seen(served: Launch) -> None:
    server = served("--workers", "2")
    pids = [worker["pid"] for worker in server.status()["workers"]]
    for pid in (server.pid, *pids):
        os.kill(pid, signal.SIGSTOP)
    try:
        assert [worker["pid"] for worker in server.status()["workers"]] == pids
    finally:
        for pid in (server.pid, *pids):
            os.kill(pid, signal.SIGCONT)


def test_the_text_fits_into_80_columns(served: Launch) -> None:
    server = served("--workers", "3", "--threads", "2", "--block-warn", "0.2")
    threads = [server.ask_soon(f"/wait/{'long' * 50}?3"), server.ask_soon("/block?3"), server.ask_soon("/thread?3")]
    server.wait_status(
        lambda seen: (
            seen["requests"] == 3 and any(one["place"] and one["state"] == "blocked" for one in seen["workers"])
        )
    )
    done = command("status", "--pid", str(server.pid))
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80 and 10 < len(lines) < 24
    assert lines[0].startswith("capicorn ") and f"pid {server.pid}" in lines[0]
    assert "BLOCKS" in done.stdout and "observe/app.py:" in done.stdout
    for thread in threads:
        thread.join()


# ---- finding it


def test_a_pid_file_names_the_server(served: Launch, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    server = served("--workers", "1", "--pid", str(path))
    assert command("status", "--pid", str(path), "--json").returncode == 0
    (worker,) = server.status()["workers"]
    assert f"pid {worker['pid']}" in command("status", "--pid", str(worker["pid"])).stdout, (
        "one of its processes will do"
    )


def test_several_servers_are_told_apart(served: Launch) -> None:
    servers = [served(), served("--workers", "1")]
    done = command("status")
    assert done.returncode == 1 and done.stdout == ""
    for server in servers:
        assert f"--pid {server.pid} " in done.stderr and f"http://127.0.0.1:{server.port}" in done.stderr
    assert "say which one" in done.stderr and "Traceback" not in done.stderr


def test_who_looks_is_not_taken_for_a_server(served: Launch) -> None:
    server = served()
    program = "import sys, time; from capicorn import control; seen = control.find(sys.argv[1]); print(flush=True); time.sleep(9)"
    with subprocess.Popen([sys.executable, "-c", program, str(server.pid)], stdout=subprocess.PIPE) as looking:
        assert looking.stdout is not None
        looking.stdout.readline()
        assert looking.pid not in [one.pid for one in control.everyone()]
        assert server.pid in [one.pid for one in control.everyone()]
        looking.kill()


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("{pid}", "process {pid} is no Capicorn server"),
        ("4194000", "process 4194000 does not run"),
        ("{file}", "{file} is stale: process 4194000 does not run"),
        ("{other}", "{other} is no pid file"),
        ("/nowhere/pid", "/nowhere/pid cannot be read"),
    ],
)
def test_what_is_not_there_is_one_sentence(tmp_path: Path, target: str, says: str) -> None:
    (tmp_path / "file").write_text("4194000\n")
    (tmp_path / "other").write_text("what?")
    names = {"pid": os.getpid(), "file": tmp_path / "file", "other": tmp_path / "other"}
    done = command("status", "--pid", target.format(**names))
    assert done.returncode == 1 and done.stdout == ""
    assert says.format(**names) in done.stderr and done.stderr.count("\n") == 1


def test_a_server_that_ends_is_not_there_any_more(served: Launch) -> None:
    server = served()
    server.status()
    server.stop()
    assert "does not run" in command("status", "--pid", str(server.pid)).stderr


def test_an_application_may_be_called_status(tmp_path: Path, served: Launch) -> None:
    (tmp_path / "status.py").write_text("from tests.observe.app import app\n")
    server = served("--app-dir", str(tmp_path), app="status:app")
    assert server.ask("/") == 200


# ---- the scoreboard itself


def test_a_reader_cannot_change_a_board_and_does_not_keep_its_descriptor() -> None:
    board = Scoreboard(2)
    board.take(0)
    board.set_info(b"{}")
    view = Scoreboard(fd=os.dup(board.fileno()), readonly=True)
    assert view.fileno() == -1 and view.info() == b"{}" and view.used == 1
    assert view.inspect(0)["state"] == "starting" and "tally" not in view.inspect(1)
    for change in (
        lambda: view.take(0),
        lambda: view.set_info(b""),
        lambda: view.ask(0),
        lambda: view.set_place(0, "", ""),
    ):
        with pytest.raises(OSError):
            change()


def test_a_board_full_of_rubbish_harms_no_reader() -> None:
    """What a process that has gone mad may have written, but for the first fields, which are looked at first."""
    import mmap

    board = Scoreboard(3)
    for slot in range(3):
        board.take(slot)
    view = Scoreboard(fd=os.dup(board.fileno()), readonly=True)
    size = os.fstat(board.fileno()).st_size
    with mmap.mmap(board.fileno(), size) as memory:
        for seed in range(20):
            rubbish = bytes((seed * 37 + at * (seed | 1)) & 255 for at in range(251))
            memory[64:size] = (rubbish * (size // 251 + 1))[: size - 64]
            for slot in range(3):
                assert isinstance(view.inspect(slot), dict)
            view.info()
            try:
                view.total()
            except BlockingIOError:
                pass
        memory[8:12] = b"\xff\xff\xff\xff"  # the number of slots
        with pytest.raises(OSError):
            view.inspect(0)
        with pytest.raises(IndexError):
            view.inspect(3)


def test_what_is_cut_in_size_is_no_board(tmp_path: Path) -> None:
    with open(tmp_path / "board", "wb+") as file, pytest.raises(OSError):
        file.truncate(1 << 20)
        Scoreboard(fd=os.dup(file.fileno()), readonly=True)


def test_a_slot_is_empty_for_its_next_worker() -> None:
    board = Scoreboard(1)
    board.take(0)
    board.set_state(0, "serving")
    board.beat(0, 0.25, 4, 3, 2)
    board.set_place(0, "GET /", "somewhere")
    first = board.inspect(0)
    assert (first["lag"], first["threads"], first["threads_busy"], first["threads_queued"]) == (0.25, 4, 3, 2)
    assert first["resident"] > 1e6
    board.ask(0)
    assert board.answer(0) is None
    board.free(0)
    board.take(0)
    second = board.inspect(0)
    assert second["generation"] == first["generation"] + 1 and second["beat_age"] is None
    assert (second["lag"], second["threads"], second["resident"], second["place"]) == (0.0, 0, 0, "")
    assert board.answer(0) == "none" and board.total()["starts"] == 2


def test_an_info_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError):
        Scoreboard(1).set_info(b"x" * 3000)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0004, "400 µs"),
        (0.0000123, "12.3 µs"),
        (0.0012, "1.2 ms"),
        (0.05, "50 ms"),
        (1.25, "1.2 s"),
        (75, "75 s"),
        (600, "10 min"),
        (7200, "2 h"),
        (9e5, "10 d"),
    ],
)
def test_spans_are_short(number: float, text: str) -> None:
    assert status.span(number) == text and len(text) <= 7


@pytest.mark.parametrize("number", [0, 7, 99999, 100000, 123456, 9999999, 1234567890, 10**12, 10**15 - 1])
def test_counts_are_short(number: int) -> None:
    assert len(status.count(number)) <= 6
    assert len(status.octets(number)) <= 6


def test_looking_is_quick_and_leaves_nothing_open(served: Launch) -> None:
    server = served("--workers", "4")
    found = control.find(str(server.pid))
    before = len(os.listdir("/proc/self/fd"))
    begin = time.monotonic()
    seen: dict[str, Any] = {}
    for _ in range(20):
        seen = control.look(found)
    assert (time.monotonic() - begin) / 20 < 0.05
    assert len(os.listdir("/proc/self/fd")) == before and len(seen["workers"]) == 4
