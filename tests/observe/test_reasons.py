"""The reason of every killed worker is known, and for which request a task worked that blocked the loop."""

from __future__ import annotations

import re

import pytest

from .app import IN_A_CHILD
from .conftest import Launch

pytestmark = pytest.mark.ours

STANDS_STILL = r"Worker \[(\d+)\] has not run its event loop for (\d+) seconds \(timeout: 1.5\)(.*): it is replaced\.$"


@pytest.mark.parametrize("path", ["/block", "/in/task"])
@pytest.mark.parametrize("warn", ["0.5", "60"])
def test_a_worker_that_is_killed_said_where_it_was_blocked(served: Launch, path: str, warn: str) -> None:
    server = served("--workers", "2", "--timeout", "1.5", "--block-warn", warn)
    thread = server.ask_soon(f"{path}?60")
    found = server.log.wait_for(STANDS_STILL, timeout=20)
    assert re.fullmatch(rf" in GET {path} at \S*/tests/observe/app.py:\d+ \(\w+\)", found[3]), found[3]
    assert 1 <= int(found[2]) <= 6
    server.log.wait_for(rf"Child process \[{found[1]}\] was killed\.")
    thread.join()
    text = server.log.text()
    assert re.search(rf"Event loop still blocked for [\d.]+ s in GET {path} at .*app.py", text)
    assert "Fatal Python error" not in text
    server.wait_status(lambda seen: found[1] not in [str(one["pid"]) for one in seen["workers"]])


def test_that_the_gil_was_held_is_said_and_the_stack_shown(served: Launch) -> None:
    server = served("--workers", "1", "--timeout", "1.5", "--block-warn", "0.5")
    thread = server.ask_soon("/hold?60")
    found = server.log.wait_for(STANDS_STILL, timeout=20)
    assert found[3] == " in GET /hold: a C call holds the GIL, and its stack follows"
    server.log.wait_for(r"File .*tests/observe/app.py\", line \d+ in app")
    thread.join()


def test_without_a_guard_the_request_is_named_and_the_stack_shown(served: Launch) -> None:
    server = served("--workers", "1", "--timeout", "1.5", "--block-warn", "0")
    thread = server.ask_soon("/block?60")
    found = server.log.wait_for(STANDS_STILL, timeout=20)
    assert found[3] == " in GET /block; its stack follows"
    server.log.wait_for(r"File .*tests/observe/app.py\", line \d+ in app")
    thread.join()


def test_a_worker_whose_loop_goes_on_at_the_last_moment_lives(served: Launch) -> None:
    server = served("--workers", "1", "--timeout", "1.5", "--block-warn", "0.5")
    (before,) = server.status()["workers"]
    assert server.ask("/block?1.4") == 200
    assert server.ask("/block?1.4") == 200
    (after,) = server.status()["workers"]
    assert after["pid"] == before["pid"] and "killed" not in server.log.text()


@pytest.mark.parametrize("loop", ["auto", "asyncio"])
def test_a_block_in_a_child_task_is_told_with_its_request(served: Launch, loop: str) -> None:
    server = served("--block-warn", "0.2", "--loop", loop)
    for how in IN_A_CHILD:
        mark = server.log.mark()
        assert server.ask(f"/in/{how}?0.5") == 200
        server.log.wait_for(rf"Event loop blocked for \S+ s in GET /in/{how} at .*app.py:\d+ \(block\)$", mark)
        server.log.wait_for(rf"Event loop was blocked for \S+ s in GET /in/{how} at ", mark)


def test_a_block_below_a_middleware_of_starlettes_is_told_with_its_request(served: Launch) -> None:
    pytest.importorskip("starlette")
    server = served("--block-warn", "0.2", app="tests.observe.wrapped:app")
    mark = server.log.mark()
    assert server.ask("/block/me") == 200
    server.log.wait_for(r"Event loop blocked for \S+ s in GET /block/me at .*wrapped.py:\d+ \(block\)$", mark)
