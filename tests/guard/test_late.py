"""A worker whose loop is late takes no connection: its siblings do."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from .conftest import Launch

pytestmark = pytest.mark.ours


@pytest.mark.parametrize("how", ["/sleep", "/compute", "/hold", "/starve"])
@pytest.mark.parametrize("loop", ["auto", "asyncio"])
def test_new_connections_go_to_the_sibling_while_a_worker_is_blocked(guarded: Launch, how: str, loop: str) -> None:
    server = guarded("--workers", "2", "--loop", loop, health=False)
    held = [server.connect() for _ in range(8)]  # so that the blocked one is not the fuller one by chance
    for client in held:
        assert client.get("/").response().status == 200
    thread = server.ask_soon(f"{how}?1.5")
    time.sleep(0.5 if how == "/starve" else 0.2)
    for _ in range(20):
        begin = time.monotonic()
        assert server.ask("/") == 200
        assert time.monotonic() - begin < 0.4
    thread.join()
    assert server.stop() == 0


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs /proc")
def test_the_guard_of_a_sleeping_loop_sleeps_too_and_wakes_when_it_is_blocked() -> None:
    """An application without a server around it, whose loop has nothing to do but what it is told."""
    from capicorn import Loop, _core

    board = _core.Scoreboard(2)
    for slot in range(2):
        board.take(slot)
        board.set_state(slot, "serving")
        board.beat(slot)
    seen: list[bool] = []

    def voluntary(tid: int) -> int:
        text = Path(f"/proc/self/task/{tid}/status").read_text()
        return int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0])

    async def main() -> None:
        before = {int(tid) for tid in os.listdir("/proc/self/task")}
        guard = _core.Guard(asyncio.get_running_loop(), lambda *_: None, warn=0, board=board, slot=0)
        guard.watch(True)
        (thread,) = {int(tid) for tid in os.listdir("/proc/self/task")} - before
        before_sleep = voluntary(thread)
        await asyncio.sleep(1.5)
        assert voluntary(thread) - before_sleep <= 40, "it ticks while the loop sleeps"

        def look() -> None:
            time.sleep(0.15)
            seen.append(board.read(0)["late"])

        other = threading.Thread(target=look)
        other.start()
        time.sleep(0.3)
        other.join()
        await asyncio.sleep(0.03)
        seen.append(board.read(0)["late"])
        guard.close()

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
    assert seen == [True, False]
