"""getaddrinfo and getnameinfo: the system's answer, and what needs which thread for it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import socket
import subprocess
import sys
import time
from asyncio import events
from typing import Any

import pytest
from capicorn import _core
from capicorn.loop import Loop

HOSTS: list[Any] = [
    "127.0.0.1",
    b"127.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "192.0.2.7",
    "::1",
    b"::1",
    "::",
    "::ffff:192.0.2.7",
    "2001:db8::1",
    "fe80::1%lo",
    "fe80::1%1",
    "fe80::1%nosuchinterface",
    None,
]
PORTS: list[Any] = [80, 0, "80", b"80", None, 65535, 65536, -1, "0080", "99999"]
HINTS: list[dict[str, int]] = [
    {},
    {"type": socket.SOCK_STREAM},
    {"type": socket.SOCK_DGRAM, "proto": socket.IPPROTO_UDP},
    {"proto": socket.IPPROTO_TCP},
    {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_UDP},
    {"type": socket.SOCK_RAW},
    {"family": socket.AF_INET},
    {"family": socket.AF_INET6, "type": socket.SOCK_STREAM},
    {"family": socket.AF_INET6, "flags": socket.AI_V4MAPPED, "type": socket.SOCK_STREAM},
    {"family": socket.AF_UNIX},
    {"flags": socket.AI_PASSIVE, "type": socket.SOCK_STREAM},
    {"flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV, "type": socket.SOCK_STREAM},
    {"flags": socket.AI_CANONNAME, "type": socket.SOCK_STREAM},
    {"flags": socket.AI_ADDRCONFIG, "type": socket.SOCK_STREAM},
]


def outcome(call: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return call(*args, **kwargs)
    except (OSError, OverflowError) as e:
        return type(e), e.args


@pytest.fixture
def no_threads(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Loop:
    def refuse(*args: Any) -> Any:
        raise AssertionError(f"run_in_executor{args}")

    monkeypatch.setattr(loop, "run_in_executor", refuse)
    return loop


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("host", HOSTS, ids=repr)
def test_addresses_get_the_systems_answer_without_a_thread(no_threads: Loop, host: Any, debug: bool) -> None:
    no_threads.set_debug(debug)

    async def all_of_them() -> None:
        for port in PORTS:
            for hints in HINTS:
                expected = outcome(socket.getaddrinfo, host, port, **hints)
                try:
                    got = await no_threads.getaddrinfo(host, port, **hints)
                except (OSError, OverflowError) as e:
                    got = type(e), e.args
                assert got == expected, (host, port, hints)

    no_threads.run_until_complete(all_of_them())


NAMES: list[Any] = [
    "localhost",
    b"localhost",
    "LocalHost",
    "localhost.",
    "127.1",
    "1",
    "name.invalid",
    "-",
    "_a.invalid",
    "x" * 63 + ".invalid",
    # not for the threads without Python
    "",
    ".",
    "a..invalid",
    "x" * 64 + ".invalid",
    "127.0.0.1 ",
    "[::1]",
    "b\xfccher.invalid",
    "local\0host",
    7,
]
SERVICES: list[Any] = [80, "http", b"http", "0080", None, "nosuchservice", 65536, -1, True, "", "b\xfc", 2.5]


@pytest.mark.parametrize("host", NAMES, ids=repr)
def test_names_get_the_systems_answer(loop: Loop, host: Any) -> None:
    def answer(call: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except Exception as e:
            return type(e), e.args

    async def all_of_them() -> None:
        hints = [*HINTS, {"family": 99}, {"flags": 1 << 30}, {"proto": -1}] if host == "localhost" else HINTS[:1]
        for port in SERVICES:
            for hint in hints:
                expected = answer(socket.getaddrinfo, host, port, **hint)
                try:
                    got = await loop.getaddrinfo(host, port, **hint)
                except Exception as e:
                    got = type(e), e.args
                assert repr(got) == repr(expected), (host, port, hint)

    loop.run_until_complete(all_of_them())


def test_names_need_no_thread_of_the_executor(loop: Loop) -> None:
    assert loop.run_until_complete(loop.getaddrinfo("localhost", 80)) == socket.getaddrinfo("localhost", 80)
    assert loop._default_executor is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["run_in_executor", "socket", "executor", "debug"])
def test_what_an_application_has_put_in_the_way_is_asked(loop: Loop, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    asked: list[Any] = []
    if how == "run_in_executor":

        async def run(executor: Any, function: Any, *args: Any) -> Any:
            asked.append(args[:2])
            return []

        monkeypatch.setattr(loop, "run_in_executor", run)
    elif how == "socket":
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args: asked.append(args[:2]) or [])
    elif how == "executor":

        class Executor(concurrent.futures.ThreadPoolExecutor):
            def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
                asked.append(args[:2])
                return super().submit(list)

        loop.set_default_executor(Executor())
    else:
        loop.set_debug(True)
        monkeypatch.setattr(loop, "_getaddrinfo_debug", lambda *args: asked.append(args[:2]) or [])
    assert loop.run_until_complete(loop.getaddrinfo("localhost", 80)) == []
    assert asked == [("localhost", 80)]


def test_audit_hooks_learn_of_a_lookup_and_may_forbid_it(loop: Loop) -> None:
    program = """if True:
        import asyncio, sys, capicorn
        seen = []
        def hook(event, args):
            if event == "socket.getaddrinfo":
                seen.append(args)
                if args[0] == "forbidden":
                    raise PermissionError(args[0])
        async def main():
            loop = asyncio.get_running_loop()
            await loop.getaddrinfo("localhost", 80, type=1)
            try:
                await loop.getaddrinfo("forbidden", "http")
            except PermissionError:
                print(seen)
        sys.addaudithook(hook)
        asyncio.Runner(loop_factory=capicorn.new_event_loop).run(main())
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[('localhost', 80, 0, 1, 0), ('forbidden', 'http', 0, 0, 0)]\n", "")


def test_lookups_that_are_cancelled_leave_the_others_alone(loop: Loop) -> None:
    async def main() -> None:
        tasks = [loop.create_task(loop.getaddrinfo("localhost", 80)) for _ in range(200)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results[::2]} == {asyncio.CancelledError}
        expected = socket.getaddrinfo("localhost", 80)
        assert all(result == expected for result in results[1::2])

    loop.run_until_complete(main())


@pytest.mark.parametrize("turns", [0, 1, 2, 20])
def test_a_loop_that_is_closed_with_lookups_under_way(turns: int) -> None:
    blocks = _core._counts()["blocks"]
    for _ in range(10):
        loop = Loop()

        async def main(loop: Loop = loop) -> list[Any]:
            tasks = [loop.create_task(loop.getaddrinfo("localhost", 80)) for _ in range(50)]
            for _ in range(turns):
                await asyncio.sleep(0)
            return tasks

        tasks = loop.run_until_complete(main())
        for task in tasks:
            task._log_destroy_pending = False
            task.get_coro().close()
        if turns == 20:
            del tasks, task, main, loop  # without close(): a cycle
            gc.collect()
        else:
            loop.close()
            with pytest.raises(RuntimeError):
                loop._look_up("localhost", 80, 0, 0, 0, 0)
            del loop, main, tasks, task
    gc.collect()
    deadline = time.monotonic() + 10
    while _core._counts()["blocks"] > blocks and time.monotonic() < deadline:
        time.sleep(0.001)  # threads end when their lookup does
    assert _core._counts()["blocks"] <= blocks


def test_a_child_process_of_a_loop_that_looks_names_up(loop: Loop) -> None:
    async def main() -> None:
        lookups = [loop.create_task(loop.getaddrinfo("localhost", 80)) for _ in range(20)]
        await asyncio.sleep(0)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                events._set_running_loop(None)
                with asyncio.Runner(loop_factory=Loop) as runner:
                    runner.run(in_child())
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        await asyncio.gather(*lookups)

    async def in_child() -> None:
        assert await asyncio.get_running_loop().getaddrinfo("localhost", 80)

    loop.run_until_complete(main())


def test_other_lookups_have_a_thread_of_the_executor(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    async def run(executor: Any, function: Any, *args: Any) -> Any:
        asked.append(args[:2])
        return []

    monkeypatch.setattr(loop, "run_in_executor", run)
    loop.run_until_complete(loop.getaddrinfo("127.0.0.1", "http"))
    loop.run_until_complete(loop.getnameinfo(("127.0.0.1", 80)))
    assert asked == [("127.0.0.1", "http"), (("127.0.0.1", 80), 0)]


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 80), ("::1", 443), ("fe80::1", 1, 0, 1), ("192.0.2.7", "80"), (None, 1)]
)
def test_numbers_of_an_address(no_threads: Loop, address: Any) -> None:
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV

    async def ask() -> Any:
        try:
            return await no_threads.getnameinfo(address, flags)
        except (OSError, TypeError) as e:
            return type(e)

    try:
        expected: Any = socket.getnameinfo(address, flags)
    except (OSError, TypeError) as e:
        expected = type(e)
    assert no_threads.run_until_complete(ask()) == expected


def test_connections_to_addresses_need_no_thread(no_threads: Loop) -> None:
    async def connect() -> None:
        server = await no_threads.create_server(asyncio.Protocol, "127.0.0.1", 0)
        everywhere = await no_threads.create_server(asyncio.Protocol, None, 0)
        transport, _ = await no_threads.create_connection(
            asyncio.Protocol, *server.sockets[0].getsockname(), local_addr=("127.0.0.1", 0)
        )
        transport.close()
        datagrams, _ = await no_threads.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0), remote_addr=("127.0.0.1", 9)
        )
        datagrams.close()
        for one in (server, everywhere):
            one.close()
            await one.wait_closed()

    no_threads.run_until_complete(connect())
    no_threads.run_until_complete(asyncio.sleep(0.01))
