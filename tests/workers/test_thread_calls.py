"""Requests that are answered by threads: how many at once, and what happens to them at the end."""

from __future__ import annotations

import importlib.util
import signal
import time
from collections.abc import Callable

import pytest

from tests.harness.process import ServerProcess

pytestmark = [
    pytest.mark.ours,
    pytest.mark.skipif(importlib.util.find_spec("anyio") is None, reason="AnyIO is not installed"),
]
Launch = Callable[..., ServerProcess]
APP = "tests.apps.threads:app"


@pytest.mark.parametrize("kind", ["sleep", "executor"])
def test_as_many_at_once_as_threads_says(launch: Launch, kind: str) -> None:
    server = launch(APP, "--threads", "12")
    clients = [server.connect() for _ in range(24)]
    begin = time.monotonic()
    for c in clients:
        c.get(f"/{kind}/0.5")
    for c in clients:
        assert c.response().status == 200
        c.close()
    assert 0.9 < time.monotonic() - begin < 4
    server.stop()


def test_names_and_the_switch(launch: Launch) -> None:
    ours, theirs = launch(APP), launch(APP, "--no-native-threads")
    for server, kind in ((ours, "Thread"), (theirs, "WorkerThread")):
        with server.connect() as c:
            assert c.get("/kind").response().text == kind
            assert c.get("/sleep/0").response().text == "AnyIO worker thread"
            assert c.get("/back").response().text == "0,1,2,3,4"
        server.stop()


def test_error_of_a_thread_is_the_applications(launch: Launch) -> None:
    server = launch(APP)
    with server.connect() as c:
        assert c.get("/raise").response().status == 500
    server.log.wait_for("ValueError: of a thread")
    with server.connect() as c:
        assert c.get("/back").response().status == 200
    server.stop()


def test_client_that_goes_away_does_not_disturb(launch: Launch) -> None:
    server = launch(APP, "--threads", "2")
    for _ in range(4):
        c = server.connect()
        c.get("/sleep/0.2")
        server.log.wait_for("thread begins")
        c.close()
    with server.connect() as c:
        assert c.get("/sleep/0").response().status == 200
    assert server.stop() == 0
    text = server.log.text()
    assert text.count("thread begins") == text.count("thread ends") == 5
    assert "Traceback" not in text


@pytest.mark.parametrize("kind", ["sleep", "executor"])
def test_end_waits_for_the_answer_of_a_thread(launch: Launch, kind: str) -> None:
    server = launch(APP)
    with server.connect() as c:
        c.get(f"/{kind}/0.5")
        server.log.wait_for("thread begins")
        server.signal(signal.SIGTERM)
        assert c.response().status == 200
    assert server.wait() == -signal.SIGTERM
    assert "thread ends" in server.log.text()


def test_end_does_not_wait_for_its_request_for_ever(launch: Launch) -> None:
    """The request is cancelled; the thread cannot be, and is not waited for longer than it takes."""
    server = launch(APP, "--timeout-graceful-shutdown", "1")
    with server.connect() as c:
        c.get("/sleep/2.5")
        server.log.wait_for("thread begins")
        begin = time.monotonic()
        server.signal(signal.SIGTERM)
        server.log.wait_for("Cancel 1 running task")
        server.wait()
        assert time.monotonic() - begin < 6
    assert "Exception ignored" not in server.log.text()


def test_workers_with_threads_are_replaced_without_a_failure(launch: Launch) -> None:
    server = launch(APP, "--workers", "2", "--threads", "4")
    for _ in range(2):
        clients = [server.connect() for _ in range(8)]
        for c in clients:
            c.get("/sleep/0.3", "Connection: close")
        server.signal(signal.SIGHUP)
        for c in clients:
            assert c.response().text == "AnyIO worker thread"
            c.close()
    assert server.stop() == 0
