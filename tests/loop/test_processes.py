"""Signals, forks and subprocesses."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest
from capicorn.loop import Loop


def python(code: str, *, send: int | None = None) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own; with `send`, that signal is sent once it has printed "ready"."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    timer = threading.Timer(20, process.kill)
    timer.start()
    try:
        first = ""
        if send is not None:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first.strip() == "ready", process.communicate()
            process.send_signal(send)
        out, err = process.communicate()
    finally:
        timer.cancel()
    return subprocess.CompletedProcess(process.args, process.returncode, first + out, err)


def test_ctrl_c_ends_a_loop_that_sleeps() -> None:
    done = python(
        """
        import asyncio, capicorn
        async def main():
            asyncio.get_running_loop().call_later(0.05, print, "ready", flush=True)
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                print("cancelled")
                raise
        try:
            with asyncio.Runner(loop_factory=capicorn.new_event_loop) as runner:
                runner.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """.replace('"ready", flush=True', '"ready"').replace("import asyncio, capicorn", PRINT_FLUSHES),
        send=signal.SIGINT,
    )
    assert done.stdout.split() == ["ready", "cancelled", "interrupted"], done.stderr


PRINT_FLUSHES = "import asyncio, capicorn, functools; print = functools.partial(print, flush=True)"


def test_ctrl_c_comes_out_of_run_forever() -> None:
    done = python(
        """
        import asyncio, capicorn
        loop = capicorn.new_event_loop()
        loop.call_later(0.05, print, "ready")
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            print("interrupted", loop.is_running())
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        """.replace("import asyncio, capicorn", PRINT_FLUSHES),
        send=signal.SIGINT,
    )
    assert done.stdout.split() == ["ready", "interrupted", "False"], done.stderr


def test_handlers_of_both_kinds_run_while_the_loop_sleeps(loop: Loop) -> None:
    seen: list[Any] = []
    previous = signal.signal(signal.SIGUSR1, lambda *a: seen.append("signal"))
    loop.add_signal_handler(signal.SIGUSR2, seen.append, "loop")
    try:
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
            timer = threading.Timer(0.02, os.kill, (os.getpid(), number))
            timer.start()
            loop.run_until_complete(asyncio.sleep(0.06))
            timer.join()
            if number == signal.SIGUSR2:
                assert loop.remove_signal_handler(signal.SIGUSR2) is True
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert seen == ["signal", "loop", "signal"]


def test_signal_handlers_work_after_the_last_loop_handler_is_removed(loop: Loop) -> None:
    timers: list[threading.Timer] = []

    class Stop(Exception):
        pass

    def handler(*args: Any) -> None:
        raise Stop

    async def main() -> None:
        loop.add_signal_handler(signal.SIGUSR2, print)
        loop.remove_signal_handler(signal.SIGUSR2)
        timers.append(threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1)))
        timers[0].start()
        await asyncio.sleep(10)

    previous = signal.signal(signal.SIGUSR1, handler)
    stopped = False
    try:
        loop.run_until_complete(main())
    except Stop:  # not pytest.raises(), which keeps the traceback, and with it the task
        stopped = True
    finally:
        signal.signal(signal.SIGUSR1, previous)
        timers[0].join()
    assert stopped


def test_the_wake_up_descriptor_is_put_back(loop: Loop) -> None:
    r, w = os.pipe()
    os.set_blocking(w, False)
    before = signal.set_wakeup_fd(w)
    try:
        loop.run_until_complete(asyncio.sleep(0))
        assert signal.set_wakeup_fd(before) == w
    finally:
        signal.set_wakeup_fd(before)
        os.close(r)
        os.close(w)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_that_closes_its_parents_loop_does_the_parent_no_harm(loop: Loop) -> None:
    a, b = os.pipe()
    seen: list[bytes] = []
    loop.add_reader(a, lambda: seen.append(os.read(a, 10)))
    loop.run_until_complete(asyncio.sleep(0))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            try:
                loop.run_until_complete(asyncio.sleep(0))
            except RuntimeError as e:
                status = 2 if "fork" in str(e) else 3
            loop.remove_reader(a)
            loop.close()
            other = Loop()
            other.run_until_complete(asyncio.sleep(0.001))
            other.close()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 2
    os.write(b, b"x")
    loop.run_until_complete(asyncio.sleep(0.02))
    assert seen == [b"x"]
    loop.call_later(0.01, loop.stop)
    threading.Thread(target=loop.call_soon_threadsafe, args=(seen.append, b"y")).start()
    loop.run_forever()
    assert seen == [b"x", b"y"]
    loop.remove_reader(a)
    os.close(a)
    os.close(b)


def test_subprocesses_talk_and_end(loop: Loop) -> None:
    async def main() -> list[tuple[bytes, int | None]]:
        async def one(n: int) -> tuple[bytes, int | None]:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "import sys; print(sys.stdin.read()); sys.exit(3)", stdin=-1, stdout=-1
            )
            out, _ = await process.communicate(b"%d" % n)
            return out, process.returncode

        return await asyncio.gather(*[one(n) for n in range(4)])

    if sys.version_info < (3, 12):
        asyncio.get_child_watcher().attach_loop(loop)
    assert loop.run_until_complete(main()) == [(b"%d\n" % n, 3) for n in range(4)]
    for thread in threading.enumerate():
        if thread.name.startswith("waitpid-") or thread.name.startswith("asyncio-waitpid-"):
            thread.join(5)


def test_policy_and_install_give_our_loops() -> None:
    done = python(
        """
        import warnings
        warnings.simplefilter("error")
        import asyncio, capicorn, capicorn.loop
        warnings.simplefilter("ignore", DeprecationWarning)
        capicorn.install()
        loop = asyncio.new_event_loop()
        assert isinstance(loop, capicorn.Loop), loop
        loop.close()
        assert type(asyncio.get_event_loop_policy()) is capicorn.loop.EventLoopPolicy

        async def main():
            return type(asyncio.get_running_loop()) is capicorn.Loop
        assert asyncio.run(main())
        """
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.version_info < (3, 14), reason="python -m asyncio ps came with 3.14")
def test_tasks_can_be_listed_from_outside() -> None:
    code = """
        import asyncio, capicorn
        async def inner():
            print("ready", flush=True)
            await asyncio.sleep(20)
        async def outer():
            async with asyncio.TaskGroup() as group:
                group.create_task(inner(), name="the-inner-task")
        with asyncio.Runner(loop_factory=capicorn.new_event_loop) as runner:
            runner.run(outer())
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        command = [sys.executable, "-m", "asyncio", "ps", str(process.pid)]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=30)
    finally:
        process.kill()
        process.communicate()
    if "ermission" in shown.stderr:
        pytest.skip("this process may not look into another one")
    assert "the-inner-task" in shown.stdout, shown.stderr
    assert "sleep -> inner" in shown.stdout
