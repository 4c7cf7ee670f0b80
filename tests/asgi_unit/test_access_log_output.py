"""AccessLog: when lines are written, what a slow or broken reader gets, what memory and processes do to it."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import pty
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from typing import Any

import pytest
from capicorn import _core

from tests.asgi_unit.bench import CLIENT, Bench, Pipe, numbers

# ---------------------------------------------------------------- when lines are written


def test_a_line_is_written_within_50_ms_of_a_running_loop(bench: Bench) -> None:
    log = bench.log()

    async def main() -> tuple[str, float, str]:
        log._write(CLIENT, "GET", b"/1")
        early = bench.path.read_text()
        start = time.monotonic()
        while not bench.path.read_text():
            await asyncio.sleep(0.005)
        took = time.monotonic() - start
        log._write(CLIENT, "GET", b"/2")  # the timer works a second time
        while log.buffered:
            await asyncio.sleep(0.005)
        return early, took, bench.path.read_text()

    early, took, text = bench.loop.run_until_complete(main())
    assert early == "" and took < 1
    assert text.count("\n") == 2


def test_no_timer_while_nothing_is_buffered(bench: Bench) -> None:
    log = bench.log()
    log._write(CLIENT, "GET", b"/")
    bench.loop.run_until_complete(asyncio.sleep(0.12))
    assert log.buffered == 0
    assert not [h for h in bench.loop._scheduled if not h.cancelled()]  # type: ignore[attr-defined]
    log._write(CLIENT, "GET", b"/")
    log.close()
    assert not [h for h in bench.loop._scheduled if not h.cancelled()]  # type: ignore[attr-defined]


def test_32_kib_are_written_without_waiting_for_the_timer(bench: Bench) -> None:
    log = bench.log()
    for _ in range(700):
        log._write(CLIENT, "GET", b"/")
    assert log.buffered < 32 * 1024 < bench.path.stat().st_size + 1024
    log.flush()
    assert bench.read() == 'INFO:     127.0.0.1:40000 - "GET / HTTP/1.1" 200 OK\n' * 700


def test_after_close_and_on_a_closed_loop_lines_are_written_at_once(bench: Bench) -> None:
    log, other = bench.log(), bench.log()
    log.close()
    log.close()
    log._write(CLIENT, "GET", b"/1")
    assert "/1" in bench.read()
    bench.loop.close()
    other._write(CLIENT, "GET", b"/2")
    assert "/2" in bench.read()


def test_a_log_that_is_dropped_writes_what_it_has(bench: Bench) -> None:
    log = bench.make()
    log._write(CLIENT, "GET", b"/kept")
    gone = weakref.ref(log)
    del log
    bench.loop.run_until_complete(asyncio.sleep(0.1))
    gc.collect()
    assert gone() is None
    assert "/kept" in bench.read()

    log = bench.make()
    log._write(CLIENT, "GET", b"/cycle")
    bench.loop.close()
    del log
    gc.collect()
    assert "/cycle" in bench.read()


def test_a_terminal_gets_each_line_at_once(bench: Bench) -> None:
    master, slave = pty.openpty()
    try:
        log = bench.log(fd=slave)
        log._write(CLIENT, "GET", b"/tty")
        assert log.buffered == 0
        assert os.read(master, 1000).startswith(b"INFO:     127.0.0.1:40000 - ")
    finally:
        os.close(master)
        os.close(slave)


# ---------------------------------------------------------------- readers that are slow, gone or full


@pytest.mark.parametrize("nonblocking", [True, False])
@pytest.mark.parametrize("size", [10, 3000, 9000])
def test_slow_reader_loses_whole_lines_in_order_beyond_a_mebibyte(
    bench: Bench, warnings: list[str], nonblocking: bool, size: int
) -> None:
    pipe = Pipe(nonblocking)
    try:
        log = bench.log(fd=pipe.w)
        total = 0
        start = time.monotonic()
        while log.dropped < 5:
            log._write(CLIENT, "GET", b"/%d/" % total + b"x" * size)
            total += 1
        assert time.monotonic() - start < 10  # a blocking reader is waited for a second, once
        assert 1024 * 1024 - 64 * 1024 < log.buffered <= 1024 * 1024
        assert warnings == [
            "WARNING Access log cannot be written: its reader is too slow. Lines are dropped until it can."
        ]
        data = pipe.read()
        for _ in range(100):
            log.flush() if not log.buffered else log._tick()
            more = pipe.read()
            if not more and not log.buffered:
                break
            data += more
        assert numbers(data) == list(range(total - log.dropped))
        assert warnings[1:] == ["WARNING Access log is written again; 5 lines were lost."]
        log._write(CLIENT, "GET", b"/7/")
        log.flush()
        assert numbers(pipe.read()) == [7]
    finally:
        pipe.close()


def test_flush_waits_for_a_reader_up_to_a_second(bench: Bench) -> None:
    pipe = Pipe(False)
    try:
        log = bench.log(fd=pipe.w)
        for i in range(5000):
            log._write(CLIENT, "GET", b"/%d/" % i)
        assert log.buffered > 0
        start = time.monotonic()
        log.flush()
        assert 0.8 < time.monotonic() - start < 3
        assert log.buffered > 0 and log.dropped == 0

        parts: list[bytes] = []
        os.set_blocking(pipe.r, True)

        def read() -> None:
            while part := os.read(pipe.r, 65536):
                parts.append(part)

        reader = threading.Thread(target=read)
        reader.start()
        log.flush()
        assert log.buffered == 0
        os.close(pipe.w)
        reader.join(10)
        assert numbers(b"".join(parts)) == list(range(5000))
    finally:
        pipe.close()


def test_lines_of_several_writers_stay_whole_in_one_pipe(bench: Bench) -> None:
    pipe = Pipe(False)
    parts: list[bytes] = []
    os.set_blocking(pipe.r, True)

    def read() -> None:
        while part := os.read(pipe.r, 1000):
            parts.append(part)
            time.sleep(0.0002)

    def write(number: int) -> None:
        for i in range(1000):
            logs[number]._write(CLIENT, "GET", b"/%d/" % (number * 1000 + i) + b"x" * (i % 300))
        logs[number].flush()

    reader = threading.Thread(target=read)
    try:
        logs = [bench.log(fd=pipe.w) for _ in range(3)]
        reader.start()
        writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(30)
        for log in logs:
            while log.buffered:
                log.flush()
        os.close(pipe.w)
        reader.join(30)
        found = numbers(b"".join(parts))
        assert sorted(found) == list(range(3000))
        for n in range(3):
            assert [x for x in found if x // 1000 == n] == list(range(n * 1000, n * 1000 + 1000))
    finally:
        pipe.close()


def test_reader_that_is_gone_is_said_once_and_kills_nobody(bench: Bench, warnings: list[str]) -> None:
    pipe = Pipe(False)
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        log = bench.log(fd=pipe.w)
        os.close(pipe.r)
        for _ in range(3):
            log._write(CLIENT, "GET", b"/")
            log._write(CLIENT, "GET", b"/")
            log.flush()
        assert log.dropped == 6 and log.buffered == 0
        assert warnings == ["WARNING Access log cannot be written: Broken pipe. Lines are dropped until it can."]
        assert signal.SIGPIPE not in signal.sigpending()
        assert signal.SIGPIPE not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.signal(signal.SIGPIPE, before)
        pipe.close()


def test_full_disk_loses_whole_lines_and_is_said_once(bench: Bench, warnings: list[str]) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        log = bench.log(fd=fd)
        for _ in range(2):
            log._write(CLIENT, "GET", b"/")
            log.flush()
        assert log.dropped == 2
        os.dup2(bench.fd, fd)
        log._write(CLIENT, "GET", b"/again")
        log.flush()
        assert "/again" in bench.read() and log.dropped == 2
        assert warnings == [
            f"WARNING Access log cannot be written: {os.strerror(errno.ENOSPC)}. Lines are dropped until it can.",
            "WARNING Access log is written again; 2 lines were lost.",
        ]
    finally:
        os.close(fd)


def test_file_that_may_not_grow_gets_the_rest_of_its_torn_line(bench: Bench, warnings: list[str]) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log = bench.log()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        for i in range(5):
            log._write(CLIENT, "GET", b"/%d/" % i)
        log.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert bench.path.stat().st_size == 100 and log.dropped == 3
    log._write(CLIENT, "GET", b"/9/")
    log.flush()
    assert numbers(bench.read().encode()) == [0, 1, 9]
    assert [w.split(":")[0] for w in warnings] == [
        "WARNING Access log cannot be written",
        "WARNING Access log is written again; 3 lines were lost.",
    ]


def test_descriptor_that_is_closed(bench: Bench, warnings: list[str]) -> None:
    fd = os.dup(bench.fd)
    log = bench.log(fd=fd)
    os.close(fd)
    log._write(CLIENT, "GET", b"/")
    log.flush()
    assert log.dropped == 1 and os.strerror(errno.EBADF) in warnings[0]


def test_socket_that_is_full_does_not_block(bench: Bench) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        log = bench.log(fd=ours.fileno())
        start = time.monotonic()
        for i in range(8000):
            log._write(CLIENT, "GET", b"/%d/" % i)
        assert time.monotonic() - start < 0.9 and log.buffered > 0
        data = b""
        while log.buffered:
            data += theirs.recv(65536)
            log._tick()
        ours.close()
        while part := theirs.recv(65536):
            data += part
        assert numbers(data) == list(range(8000))


# ---------------------------------------------------------------- processes


def run(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    start = """
        import asyncio, atexit, logging, os, sys
        from capicorn import _core
        logger = logging.getLogger("capicorn.access")
        logger.propagate = False
        logger.setLevel(logging.INFO)
        handler = logging.StreamHandler(sys.stdout)
        logger.addHandler(handler)
        loop = asyncio.new_event_loop()
        log = _core.AccessLog(loop, logger, handler=handler, fd=1, prefix="")
        def write(path):
            log._write(("h", 1), "GET", path)
    """
    program = textwrap.dedent(start) + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_nothing_is_lost_when_the_application_calls_sys_exit() -> None:
    done = run("""
        async def main():
            write(b"/1")
            sys.exit(3)
        atexit.register(log.flush)
        loop.run_until_complete(main())
    """)
    assert (done.returncode, done.stdout) == (3, 'h:1 - "GET /1 HTTP/1.1" 200 OK\n')


def test_nothing_is_lost_when_nobody_flushes_before_the_end() -> None:
    done = run("write(b'/1')\nloop.close()\ndel loop, log")
    assert done.stdout == 'h:1 - "GET /1 HTTP/1.1" 200 OK\n'


def test_child_of_fork_does_not_write_its_parents_lines() -> None:
    done = run("""
        write(b"/parent")
        pid = os.fork()
        if pid == 0:
            write(b"/child")
            log.flush()
            del log
            os._exit(0)
        os.waitpid(pid, 0)
        log.flush()
    """)
    assert sorted(line.split()[3] for line in done.stdout.splitlines()) == ["/child", "/parent"]


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize(
    "options", [{}, {"format": '%(h)s %(r)s "%({a}i)s"'}, {"json": True}, {"exclude": ["/a", "/b*"]}]
)
def test_without_memory_a_log_is_a_memory_error_and_a_line_is_counted(
    bench: Bench, warnings: list[str], options: Any
) -> None:
    for n in range(1, 100):
        _core._mem_fail(n)
        try:
            log = bench.make(**options)
        except MemoryError:
            continue
        finally:
            _core._mem_fail(0)
        break
    else:
        pytest.fail("allocations without end")
    assert n > 1
    bench.logs.append(log)
    for n in range(1, 20):
        before = log.dropped
        _core._mem_fail(n)
        log._write(CLIENT, "GET", b"/" + b"x" * 5000 * n, request_headers=[(b"a", b"b")])
        _core._mem_fail(0)
        log.flush()
        assert len(bench.read().splitlines()) == 1 - (log.dropped - before)


def test_a_log_in_a_cycle_is_collected(bench: Bench) -> None:
    class Handler(logging.StreamHandler[Any]):
        pass

    handler = Handler()
    log = bench.make(handler=handler)
    handler.log = log  # type: ignore[attr-defined]
    gone = weakref.ref(log)
    del log, handler
    gc.collect()
    assert gone() is None


def test_the_type_is_immutable() -> None:
    with pytest.raises(TypeError):
        _core.AccessLog.flush = None  # type: ignore[method-assign,assignment]
