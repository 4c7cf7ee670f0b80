"""Signals and the end: what is waited for, what is told, what is cancelled."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Launch = Callable[..., Any]


def rest(sock: object) -> bytes:
    data = b""
    while part := sock.recv(65536):  # type: ignore[attr-defined]
        data += part
    return data


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -15), (signal.SIGINT, 0)])
def test_a_signal_ends_an_idle_server_promptly(launch: Launch, number: signal.Signals, code: int) -> None:
    process = launch()
    process.get()
    begin = time.monotonic()
    process.signal(number)
    assert process.exit_code() == code
    assert time.monotonic() - begin < 2
    process.wait_for("Finished server process")


def test_a_running_request_is_finished(launch: Launch) -> None:
    process = launch()
    sock = process.open("/sleep?0.6")
    process.wait_for("app: sleeping")
    process.signal(signal.SIGTERM)
    assert rest(sock).endswith(b"slept")
    assert process.exit_code() == -15
    process.wait_for(r"Waiting for connections to close\. \(CTRL\+C to force quit\)$")


def test_an_endless_response_is_told_after_the_grace(launch: Launch) -> None:
    process = launch("--timeout-shutdown-streams", "0.2")
    sock = process.open("/endless")
    process.wait_for("app: streaming")
    process.signal(signal.SIGTERM)
    process.wait_for("app: http.disconnect")
    rest(sock)
    assert process.exit_code() == -15
    assert "Cancel" not in process.text


def test_the_grace_of_streams_is_at_most_half_of_the_graceful_timeout(launch: Launch) -> None:
    process = launch("--timeout-shutdown-streams", "60", "--timeout-graceful-shutdown", "2")
    sock = process.open("/endless")
    process.wait_for("app: streaming")
    process.signal(signal.SIGTERM)
    process.wait_for("app: http.disconnect")
    rest(sock)
    process.exit_code()
    assert "Cancel" not in process.text


def test_after_the_graceful_timeout_requests_are_cancelled_and_named(launch: Launch) -> None:
    process = launch("--timeout-graceful-shutdown", "0.3")
    sock = process.open("/sleep?60")
    process.wait_for("app: sleeping")
    process.signal(signal.SIGTERM)
    assert process.exit_code() == -15
    assert "ERROR:    Cancel 1 running task(s), timeout graceful shutdown exceeded" in process.lines
    process.wait_for(r"^ERROR: +Cancelled: GET /sleep")
    process.wait_for("app: cancelled")
    process.wait_for("app: lifespan.shutdown")
    sock.close()


@pytest.mark.parametrize(
    "pair", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)]
)
def test_a_second_signal_forces(launch: Launch, pair: tuple[signal.Signals, signal.Signals]) -> None:
    process = launch()
    sock = process.open("/sleep?60")
    process.wait_for("app: sleeping")
    process.signal(pair[0])
    process.wait_for("Waiting for connections to close")
    begin = time.monotonic()
    process.signal(pair[1])
    process.exit_code()
    assert time.monotonic() - begin < 3
    assert "app: lifespan.shutdown" not in process.text
    sock.close()


def test_a_second_signal_ends_a_start_that_hangs(launch: Launch) -> None:
    process = launch(app="apps:slow_start")
    process.wait_for("app: starting")
    process.signal(signal.SIGTERM)
    process.wait_for(r"Waiting for application startup to end\. \(CTRL\+C to force quit\)$")
    process.signal(signal.SIGINT)
    assert process.exit_code() == 3


def test_idle_connections_do_not_hold_up_the_end_beyond_their_moment(launch: Launch) -> None:
    process = launch("--timeout-shutdown-idle", "0.3", "--timeout-keep-alive", "60")
    sock = process.open("/")
    assert sock.recv(65536)
    begin = time.monotonic()
    process.signal(signal.SIGTERM)
    rest(sock)
    assert process.exit_code() == -15
    assert time.monotonic() - begin < 2


def test_a_half_sent_head_does_not_hold_up_the_end(launch: Launch) -> None:
    process = launch("--timeout-shutdown-streams", "0.2", "--timeout-shutdown-idle", "0.1")
    sock = process.open("/")
    assert sock.recv(65536)
    sock.sendall(b"GET /half HT")
    begin = time.monotonic()
    process.signal(signal.SIGTERM)
    rest(sock)
    assert process.exit_code() == -15
    assert time.monotonic() - begin < 3


def test_a_connection_kept_alive_by_a_response_that_had_begun_is_idle_afterwards(launch: Launch) -> None:
    process = launch("--timeout-shutdown-streams", "0.2", "--timeout-keep-alive", "60")
    sock = process.open("/endless")
    process.wait_for("app: streaming")
    begin = time.monotonic()
    process.signal(signal.SIGTERM)
    assert rest(sock).endswith(b"3\r\nend\r\n0\r\n\r\n")
    assert process.exit_code() == -15
    assert time.monotonic() - begin < 3


def test_a_connection_that_waits_to_be_accepted_is_served(launch: Launch, folder: Path) -> None:
    (folder / "busy.py").write_text(
        "import sys, time\nfrom apps import app as inner\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'http' and scope['path'] == '/block':\n"
        "        print('app: blocking', file=sys.stderr, flush=True)\n        time.sleep(0.5)\n"
        "    await inner(scope, receive, send)\n"
    )
    process = launch(app="busy:app")
    first = process.open("/block")
    process.wait_for("app: blocking")
    waiting = [process.open("/") for _ in range(5)]  # nobody accepts while the loop is blocked
    process.signal(signal.SIGTERM)
    assert b" 200 " in rest(first)
    for sock in waiting:
        assert b" 200 " in rest(sock)
    assert process.exit_code() == -15
