"""The lifespan protocol: start, state, end, and what goes wrong in it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.apps.basic import ok
from tests.conftest import Records, Starter
from tests.harness.process import ServerProcess
from tests.harness.thread import Receive, Scope, Send, StartFailed

pytestmark = pytest.mark.ours
Launch = Callable[..., ServerProcess]
LIFE = "tests.apps.life:"


def test_scope_and_messages(start: Starter) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        seen.append(await receive())
        await send({"type": "lifespan.startup.complete"})
        seen.append(await receive())
        await send({"type": "lifespan.shutdown.complete"})

    start(app, lifespan="on").stop()
    scope, first, second = seen
    assert scope == {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    assert (first, second) == ({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})


def test_off_asks_nobody(start: Starter) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])
        await ok(scope, receive, send)

    with start(app, lifespan="off").connect() as c:
        assert c.get("/").response().status == 200
    assert seen == ["http"]


def test_auto_serves_an_application_that_raises(start: Starter, records: Records) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await ok(scope, receive, send)

    with start(app, lifespan="auto").connect() as c:
        assert c.get("/").response().status == 200
    assert "ASGI 'lifespan' protocol appears unsupported." in records.text()


@pytest.mark.logs("Exception in 'lifespan' protocol")
@pytest.mark.logs("Application startup failed. Exiting.")
@pytest.mark.logs("no lifespan here")
def test_on_does_not(start: Starter) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "no lifespan here"

    with pytest.raises(StartFailed) as caught:
        start(app, lifespan="on")
    assert isinstance(caught.value.__cause__, SystemExit)
    assert caught.value.__cause__.code == 3


def test_application_is_started_before_the_first_connection(start: Starter) -> None:
    order: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            order.append("started")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            order.append("ended")
            await send({"type": "lifespan.shutdown.complete"})
            return
        order.append("request")
        await ok(scope, receive, send)

    server = start(app, lifespan="on")
    with server.connect() as c:
        assert c.get("/").response().status == 200
    server.stop()
    assert order == ["started", "request", "ended"]


def test_lines_of_a_good_life(launch: Launch) -> None:
    server = launch(LIFE + "good")
    assert server.stop() == 0
    order = ["Started server process [", "Waiting for application startup.", "told lifespan.startup", "Application startup complete.",
             "Capicorn running on http://127.0.0.1:", "Shutting down", "Waiting for application shutdown.", "told lifespan.shutdown",
             "Application shutdown complete.", "Finished server process ["]  # fmt: skip
    text = server.log.text()
    places = [text.find(line) for line in order]
    assert -1 not in places, f"{order[places.index(-1)]!r} is not in the log:\n{text}"
    assert places == sorted(places), text


def test_failed_start_exits_3_with_its_cause(launch: Launch) -> None:
    server = launch(LIFE + "failing", wait=False)
    assert server.wait() == 3
    assert "the database is not there" in server.log.text()
    assert "Application startup failed. Exiting." in server.log.text()
    assert "running on" not in server.log.text()


def test_raised_start_with_on_exits_3_with_its_traceback(launch: Launch) -> None:
    server = launch(LIFE + "raising", "--lifespan", "on", wait=False)
    assert server.wait() == 3
    assert "RuntimeError: raised in lifespan" in server.log.text()


@pytest.mark.parametrize("app", ["raising", "unsupported"])
def test_raised_start_with_auto_serves(launch: Launch, app: str) -> None:
    server = launch(LIFE + app)
    with server.connect() as c:
        assert c.get("/").response().status == 200
    assert server.stop() == 0


def test_failed_end_is_logged(launch: Launch) -> None:
    server = launch(LIFE + "failing_end")
    server.stop()
    assert "the cache would not close" in server.log.text()
    assert "Application shutdown failed. Exiting." in server.log.text()


def test_second_signal_ends_a_start_that_takes_for_ever(launch: Launch) -> None:
    server = launch(LIFE + "never_starts", wait=False)
    server.log.wait_for("starting")
    server.signal(signal.SIGINT)
    server.log.wait_for("force quit")  # two signals that come together are one
    server.signal(signal.SIGINT)
    server.wait(5)


def test_second_signal_ends_an_end_that_takes_for_ever(launch: Launch) -> None:
    server = launch(LIFE + "never_ends")
    server.signal(signal.SIGINT)
    server.log.wait_for("ending")
    server.signal(signal.SIGINT)
    server.wait(5)


def test_factory(launch: Launch) -> None:
    server = launch(LIFE + "factory", "--factory")
    with server.connect() as c:
        assert c.get("/pid").response().text == str(server.pid)


def test_factory_found_without_the_flag(launch: Launch) -> None:
    server = launch(LIFE + "factory")
    with server.connect() as c:
        assert c.get("/pid").response().text == str(server.pid)
    assert "ASGI app factory detected." in server.log.text()


@pytest.mark.parametrize("options", [(), ("--interface", "asgi2")])
def test_asgi2(launch: Launch, options: tuple[str, ...]) -> None:
    server = launch(LIFE + "Two", *options)
    with server.connect() as c:
        for _ in range(3):
            assert c.get("/").response().body == b"ok"


@pytest.mark.parametrize("loop", ["auto", "asyncio", "uvloop"])
def test_loops(launch: Launch, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    server = launch(LIFE + "good", "--loop", loop)
    with server.connect() as c:
        for _ in range(3):
            assert c.get("/").response().body == b"ok"
    assert server.stop() == 0
