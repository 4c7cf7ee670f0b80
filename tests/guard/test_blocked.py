"""A blocked loop is reported while it lasts and when it is over, with its request, its stack and its duration."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from .conftest import Guarded, Launch

pytestmark = pytest.mark.ours

FAST = ("--block-warn", "0.3")
BLOCKED = r"WARNING:  Event loop blocked for (\d\.\d+) s in GET %s at .*tests/guard/app.py:\d+ \((\w+)\)$"
OVER = r"WARNING:  Event loop was blocked for (\d\.\d+) s in GET %s at .*tests/guard/app.py:\d+ \((\w+)\)$"
HELD = r"WARNING:  Event loop blocked for (\d\.\d) s in GET %s: a C call holds the GIL"


def stack(server: Guarded, mark: int) -> str:
    """The report's lines and what follows it up to the next line of the log."""
    text = server.log.text(mark)
    return text[text.index("Event loop blocked") :].partition("Event loop was")[0]


@pytest.mark.parametrize("loop", ["auto", "asyncio", "uvloop"])
@pytest.mark.parametrize(("path", "function"), [("/sleep", "sleep"), ("/compute", "compute"), ("/later", "sleep")])
def test_a_blocking_call_is_reported_with_request_stack_and_duration(
    guarded: Launch, loop: str, path: str, function: str
) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    server = guarded(*FAST, "--loop", loop)
    mark = server.log.mark()
    thread = server.ask_soon(f"{path}?1.0")
    found = server.log.wait_for(BLOCKED % path, mark)
    assert "Event loop was" not in server.log.text(mark)
    assert thread.is_alive(), "the report came only afterwards"
    assert 0.3 <= float(found[1]) < 0.9
    assert found[2] == function
    thread.join()
    over = server.log.wait_for(OVER % path, mark)
    slack = 0.0 if loop == "auto" else 0.1  # a loop of others has its beat from a timer
    assert 0.99 - slack <= float(over[1]) < 1.4
    lines = stack(server, mark)
    assert re.search(r"\n  File \".*tests/guard/app.py\", line \d+, in app\n", lines)
    assert "run_forever" not in lines
    assert server.log.text(mark).count("Event loop") == 2
    assert server.stop() == 0


def test_a_call_that_holds_the_gil_is_announced_at_once_and_its_stack_follows(guarded: Launch) -> None:
    server = guarded(*FAST)
    mark = server.log.mark()
    thread = server.ask_soon("/hold?1.2")
    found = server.log.wait_for(HELD % "/hold", mark)
    assert thread.is_alive()
    assert 0.5 <= float(found[1]) < 1.1
    server.log.wait_for(BLOCKED % "/hold", mark)
    server.log.wait_for(OVER % "/hold", mark)
    assert "PyDLL" in stack(server, mark)
    thread.join()


def test_a_thread_that_keeps_the_gil_from_the_loop_is_shown(guarded: Launch) -> None:
    server = guarded(*FAST)
    mark = server.log.mark()
    server.ask("/starve?1.2")
    server.log.wait_for(r"Event loop blocked for \d\.\d s: a C call in another thread holds the GIL", mark)
    server.log.wait_for(r"Event loop blocked for \d\.\d+ s: other threads hold the GIL", mark)
    server.log.wait_for(r"Event loop was blocked for \d\.\d+ s: other threads held the GIL", mark)
    assert re.search(r"Thread greedy:\n(.*\n)*  File .*, in greedy\n", server.log.text(mark))


def test_what_blocks_outside_of_a_request_is_reported_without_one(guarded: Launch) -> None:
    server = guarded(*FAST)
    mark = server.log.mark()
    server.ask("/task?0.6")
    found = server.log.wait_for(r"Event loop was blocked for \d\.\d+ s(.*)", mark)
    assert re.match(r" at .*app.py:\d+ \(sleep\)$", found[1])


def test_the_query_is_not_logged_and_a_long_path_is_cut(guarded: Launch) -> None:
    server = guarded(*FAST)
    mark = server.log.mark()
    server.ask("/blocks/" + "x" * 500 + "?0.6")
    found = server.log.wait_for(r"Event loop was blocked for \S+ s in GET (\S+) at", mark)
    assert found[1] == "/blocks/" + "x" * 224


def test_one_block_after_another_gets_its_own_report(guarded: Launch) -> None:
    server = guarded("--block-warn", "0.1")
    mark = server.log.mark()
    for _ in range(5):
        server.ask("/sleep?0.3")
    server.log.wait_for(r"Event loop was blocked", mark)
    time.sleep(0.1)
    text = server.log.text(mark)
    assert text.count("Event loop blocked") == text.count("Event loop was blocked") == 5


@pytest.mark.parametrize("loop", ["auto", "asyncio"])
def test_no_report_of_an_idle_or_a_busy_loop(guarded: Launch, loop: str) -> None:
    server = guarded("--block-warn", "0.2", "--loop", loop, "--no-access-log")
    mark = server.log.mark()
    time.sleep(1.0)
    server.ask("/wait?0.8")
    end = time.monotonic() + 1.5
    with server.connect() as client:
        while time.monotonic() < end:
            assert client.get("/").response().status == 200
    assert "Event loop" not in server.log.text(mark)


def test_blocks_that_are_shorter_are_not_reported(guarded: Launch) -> None:
    server = guarded("--block-warn", "2")
    mark = server.log.mark()
    for _ in range(3):
        server.ask("/sleep?0.9")
    assert "Event loop" not in server.log.text(mark)


def test_a_process_that_was_stopped_is_not_called_blocked(guarded: Launch) -> None:
    """SIGSTOP, a debugger, a frozen container: the loop had no chance to turn."""
    server = guarded(*FAST)
    mark = server.log.mark()
    for _ in range(3):
        thread = server.ask_soon("/compute?0.15")
        time.sleep(0.05)
        os.kill(server.pid, signal.SIGSTOP)
        time.sleep(0.35)
        os.kill(server.pid, signal.SIGCONT)
        thread.join()
    assert "Event loop" not in server.log.text(mark)


def test_block_warn_0_starts_no_thread_and_reports_nothing(guarded: Launch) -> None:
    off, on = guarded("--block-warn", "0", health=False), guarded(health=False)
    assert on.threads() == off.threads() + 1
    mark = off.log.mark()
    off.ask("/sleep?1.3")
    assert "Event loop" not in off.log.text(mark)


@pytest.mark.parametrize("path", ["/sleep", "/hold"])
def test_a_signal_during_a_block_ends_the_server_in_order(guarded: Launch, path: str) -> None:
    server = guarded(*FAST)
    thread = server.ask_soon(f"{path}?1.0")
    time.sleep(0.6)
    assert server.stop() == 0
    thread.join()
    assert "Finished server process" in server.log.text()


def test_workers_have_guards_of_their_own(guarded: Launch) -> None:
    server = guarded(*FAST, "--workers", "2")
    mark = server.log.mark()
    threads = [server.ask_soon("/sleep?0.8"), server.ask_soon("/compute?0.8")]
    server.log.wait_for(BLOCKED % "/sleep", mark)
    server.log.wait_for(BLOCKED % "/compute", mark)
    for thread in threads:
        thread.join()
    assert server.stop() == 0


def test_hundreds_of_blocks_leave_nothing_behind(guarded: Launch) -> None:
    server = guarded("--block-warn", "0.005", "--no-access-log", health=False)
    with server.connect() as client:
        client.get("/sleep?0.02").response()
        server.log.wait_for("Event loop was blocked")
        descriptors = server.descriptors()
        for _ in range(300):
            assert client.get("/sleep?0.012").response().status == 200
        assert server.descriptors() == descriptors
    assert server.threads() <= 3  # the loop's, the guard's, and one reporter's at most
    text = server.log.text()
    assert text.count("Event loop blocked") > 250
    assert server.stop() == 0
