"""Server as people embed it: in threads, in their own loop, derived from, started anew."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import pickle
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from capicorn import Config, Server

LOOPS = ["auto", "asyncio"]


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body = json.dumps({"loop": type(asyncio.get_running_loop()).__module__}).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]}
    )
    await send({"type": "http.response.body", "body": body})


def config(**more: Any) -> Config:
    return Config(more.pop("app", app), **{"port": 0, "lifespan": "off", "log_level": "warning", **more})


def port_of(server: Server) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


def get(port: int) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


async def aget(port: int) -> int:
    return (await asyncio.get_running_loop().run_in_executor(None, get, port))[0]


async def started(server: Server, task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(20):
        while not server.started:
            assert not task.done(), task
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def serving(server: Server) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(server.serve())
    await started(server, task)
    yield task
    server.should_exit = True
    await asyncio.wait_for(task, 20)


@contextlib.contextmanager
def in_thread(server: Server) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.001)
    yield thread
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_server_in_a_thread(loop: str) -> None:
    server = Server(config(loop=loop))
    with in_thread(server):
        assert server.started
        status, body = get(port_of(server))
        assert status == 200
        assert json.loads(body)["loop"].startswith("capicorn" if loop == "auto" else "asyncio")
        assert server.server_state.total_requests == 1
        assert len(server.server_state.tasks) == 0


def test_should_exit_set_in_another_thread_is_seen_at_once() -> None:
    server = Server(config())
    with in_thread(server) as thread:
        begin = time.monotonic()
        server.should_exit = True
        thread.join(20)
        assert time.monotonic() - begin < 1


def test_a_busy_port_is_system_exit_in_that_thread() -> None:
    ended: list[object] = []
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        server = Server(config(port=sock.getsockname()[1], log_level="critical"))

        def run() -> None:
            try:
                server.run()
            except SystemExit as exc:
                ended.append(exc.code)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(20)
    assert ended == [3]
    assert not server.started


def test_serve_in_the_running_loop() -> None:
    async def main() -> None:
        server = Server(config())
        async with serving(server):
            assert await aget(port_of(server)) == 200

    asyncio.run(main())


def test_two_servers_in_one_loop_and_the_next_on_the_same_port() -> None:
    async def main() -> None:
        first, second = Server(config()), Server(config())
        async with serving(first):
            async with serving(second):
                assert await aget(port_of(first)) == await aget(port_of(second)) == 200
            port = port_of(first)
            assert await aget(port) == 200
        third = Server(config(port=port))
        async with serving(third):
            assert await aget(port) == 200

    asyncio.run(main())


def test_one_object_is_started_again_while_serve_goes_on() -> None:
    """As httpx's tests do it."""

    async def main() -> None:
        server = Server(config(port=0))
        async with serving(server):
            port = server.config.port = port_of(server)
            assert await aget(port) == 200
            server.started = False
            await server.shutdown()
            await server.startup()
            assert server.started and port_of(server) == port
            assert await aget(port) == 200
            assert server.server_state.total_requests == 2

    asyncio.run(main())


@pytest.mark.parametrize("shut_down_first", [True, False])
def test_a_cancelled_serve_ends_with_cancelled_error_and_frees_the_port(shut_down_first: bool) -> None:
    async def main() -> int:
        server = Server(config())
        task = asyncio.create_task(server.serve())
        await started(server, task)
        port = port_of(server)
        if shut_down_first:
            await asyncio.wait_for(server.shutdown(), 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)
        return port

    port = asyncio.run(main())
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))


@pytest.mark.parametrize("loop", LOOPS)
def test_a_second_shutdown_waits_for_the_first(loop: str) -> None:
    """As uvicorn's own tests end a server that a signal ends already: serve() is not cut short, and the signal that
    it captured is raised again."""
    ending = asyncio.Event()
    seen: list[int] = []

    class Slow(Server):
        async def _pause(self, seconds: float) -> None:
            if ending.is_set():
                seconds += 0.2  # between two looks at what still runs
            await super()._pause(seconds)

    async def brief(scope: Any, receive: Any, send: Any) -> None:
        await ending.wait()
        await app(scope, receive, send)

    async def main() -> None:
        server = Slow(config(app=brief))
        task = asyncio.create_task(server.serve())
        await started(server, task)
        request = asyncio.create_task(aget(port_of(server)))
        while not server.server_state.tasks:
            await asyncio.sleep(0.001)
        server.handle_exit(signal.SIGINT, None)
        while server.servers[0].sockets:
            await asyncio.sleep(0.001)
        ending.set()
        await asyncio.wait_for(request, 20)
        await asyncio.wait_for(server.shutdown(), 20)
        task.cancel()
        await asyncio.wait([task], timeout=20)
        assert task.done() and not task.cancelled()

    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with asyncio.Runner(loop_factory=config(loop=loop).get_loop_factory()) as runner:
            runner.run(main())
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]


def test_given_sockets_are_served_without_a_line_and_closed(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> socket.socket:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        server = Server(Config(app, log_config=None, lifespan="off"))
        task = asyncio.create_task(server.serve(sockets=[sock]))
        await started(server, task)
        assert await aget(sock.getsockname()[1]) == 200
        server.should_exit = True
        await asyncio.wait_for(task, 20)
        return sock

    caplog.set_level("INFO")
    assert asyncio.run(main()).fileno() == -1
    assert "Started server process" in caplog.text and "running on" not in caplog.text


def test_every_step_is_a_method_that_a_subclass_may_override() -> None:
    calls: list[str] = []

    class Own(Server):
        def __init__(self, config: Config) -> None:
            super().__init__(config)
            self.anything = 1

        async def serve(self, sockets: Any = None) -> None:
            calls.append("serve")
            await super().serve(sockets)

        async def startup(self, sockets: Any = None) -> None:
            calls.append("startup")
            await super().startup(sockets=sockets)

        async def main_loop(self) -> None:
            calls.append("main_loop")
            await super().main_loop()

        async def on_tick(self, counter: int) -> bool:
            calls.append(f"tick {counter}")
            return await super().on_tick(counter) or counter == 2

        async def shutdown(self, sockets: Any = None) -> None:
            calls.append("shutdown")
            await super().shutdown(sockets=sockets)

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            calls.append("capture_signals")
            yield

    before = signal.getsignal(signal.SIGTERM)
    Own(config()).run()
    assert calls == [*"serve capture_signals startup main_loop".split(), "tick 0", "tick 1", "tick 2", "shutdown"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_signal_handler_is_a_method_of_the_server() -> None:
    """sse-starlette finds the server that way."""

    async def main() -> None:
        server = Server(config())
        task = asyncio.create_task(server.serve())
        await started(server, task)
        assert signal.getsignal(signal.SIGTERM).__self__ is server  # type: ignore[union-attr]
        server.handle_exit(signal.SIGINT, None)
        server._captured_signals.clear()
        await asyncio.wait_for(task, 20)

    asyncio.run(main())


def test_callback_notify_is_called() -> None:
    calls: list[int] = []

    async def notify() -> None:
        calls.append(1)

    with in_thread(Server(config(callback_notify=notify))):
        pass
    assert calls == [1]


def test_an_app_given_after_the_config_was_made() -> None:
    late = Config(None, port=0, lifespan="off", log_level="warning")
    late.app = app
    with in_thread(server := Server(late)):
        assert get(port_of(server))[0] == 200


def test_limit_max_requests_with_jitter_is_drawn_once() -> None:
    server = Server(config(limit_max_requests=10, limit_max_requests_jitter=5))
    assert server.limit_max_requests is not None and 10 <= server.limit_max_requests <= 15
    assert server.limit_max_requests == server.limit_max_requests


def test_a_server_that_has_not_started_can_be_pickled() -> None:
    server = pickle.loads(pickle.dumps(Server(Config("apps:app", log_config=None))))
    assert server.config.app == "apps:app" and not server.started


def test_state_before_the_start() -> None:
    server = Server(config())
    state = server.server_state
    assert (server.started, server.should_exit, server.force_exit) == (False, False, False)
    assert (state.total_requests, len(state.connections), len(state.tasks)) == (0, 0, 0)
    assert server.servers == []
