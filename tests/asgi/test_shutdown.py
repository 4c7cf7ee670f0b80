"""Stopping: nobody's request is lost, streams are told, what does not end is ended; exit codes."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable

import pytest

from tests.harness.client import Client
from tests.harness.process import ServerProcess

pytestmark = pytest.mark.ours
Launch = Callable[..., ServerProcess]
GOOD = "tests.apps.life:good"


def refused(server: ServerProcess) -> bool:
    try:
        socket.create_connection(server.address, 2).close()  # type: ignore[arg-type]
    except OSError:
        return True
    return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_exit_codes(launch: Launch, number: int, code: int) -> None:
    """As uvicorn: SIGTERM is raised again after the graceful stop."""
    server = launch(GOOD)
    with server.connect() as c:
        assert c.get("/").response().status == 200
    assert server.stop(number) == code
    assert "Application shutdown complete." in server.log.text()
    assert "Traceback" not in server.log.text()


def test_idle_server_stops_soon(launch: Launch) -> None:
    server = launch(GOOD)
    begin = time.monotonic()
    server.stop()
    assert time.monotonic() - begin < 2


def test_idle_connections_do_not_hold_it_up(launch: Launch) -> None:
    server = launch(GOOD)
    clients = [server.connect() for _ in range(5)]
    for c in clients[:3]:
        assert c.get("/").response().status == 200
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < 3
    for c in clients:
        assert c.expect_close() == b""
        c.close()


def test_request_that_runs_is_finished(launch: Launch) -> None:
    server = launch(GOOD)
    with server.connect() as c:
        c.get("/slow")
        server.log.wait_for("slow begins")
        server.signal(signal.SIGTERM)
        server.log.wait_for("Shutting down")
        r = c.response()
        assert r.body == b"slow but whole"
        assert r.closes, "the client has to know that the connection ends"
        c.expect_closed_clean()
    server.wait()
    assert "slow ends" in server.log.text()


def test_nobody_is_accepted_meanwhile(launch: Launch) -> None:
    server = launch(GOOD)
    with server.connect() as c:
        c.get("/slow")
        server.log.wait_for("slow begins")
        server.signal(signal.SIGTERM)
        server.log.wait_for("Shutting down")
        end = time.monotonic() + 1
        while not refused(server):
            assert time.monotonic() < end
        assert c.response().status == 200
    server.wait()


def test_request_on_its_way_on_an_idle_connection_is_answered(launch: Launch) -> None:
    """The moment's grace: the client sent before it could know."""
    server = launch(GOOD, "--timeout-shutdown-idle", "1.5")
    with server.connect() as kept, server.connect() as fresh:
        assert kept.get("/").response().status == 200
        server.signal(signal.SIGTERM)
        server.log.wait_for("Shutting down")
        for c in (kept, fresh):
            c.get("/")
        for c in (kept, fresh):
            r = c.response()
            assert (r.status, r.closes) == (200, True)
            c.expect_closed_clean()
    server.wait()


def test_pipelined_request_behind_one_that_runs(launch: Launch) -> None:
    """Answered, or the connection ends behind an announced close; never half of it."""
    server = launch(GOOD)
    with server.connect() as c:
        c.get("/slow").get("/pid")
        server.log.wait_for("slow begins")
        server.signal(signal.SIGTERM)
        first = c.response()
        assert first.body == b"slow but whole"
        if first.closes:
            c.expect_closed_clean()
        else:
            assert c.response().status == 200
    server.wait()


def test_request_whose_head_is_arriving(launch: Launch) -> None:
    server = launch(GOOD, "--timeout-shutdown-idle", "1.5")
    with server.connect() as c:
        c.send_read("GET /pid HTTP/1.1\r\nHost")
        server.signal(signal.SIGTERM)
        server.log.wait_for("Shutting down")
        c.send(": a\r\n\r\n")
        r = c.response()
        assert (r.status, r.closes) == (200, True)
    server.wait()


def test_stream_is_told(launch: Launch) -> None:
    """receive() gives http.disconnect after the grace; the stream may say goodbye."""
    server = launch(GOOD, "--timeout-shutdown-streams", "0.5")
    with server.connect() as c:
        c.get("/events")
        c.head()
        begin = time.monotonic()
        server.signal(signal.SIGTERM)
        server.log.wait_for("stream told http.disconnect")
        assert 0.3 < time.monotonic() - begin < 2.5
        rest = c.expect_close()
        assert b"bye" in rest and rest.endswith(b"0\r\n\r\n")
    server.wait()
    assert "Cancel" not in server.log.text()


def test_slow_work_is_told_nothing_that_it_minds(launch: Launch) -> None:
    """Being told does not cancel: work that does not listen ends as it would have."""
    server = launch(GOOD, "--timeout-shutdown-streams", "0.2")
    with server.connect() as c:
        c.get("/slow")
        server.log.wait_for("slow begins")
        server.signal(signal.SIGTERM)
        assert c.response().body == b"slow but whole"
    server.wait()
    assert "Cancel" not in server.log.text()


def test_deaf_stream_is_cancelled_and_named(launch: Launch) -> None:
    server = launch(GOOD, "--timeout-graceful-shutdown", "1")
    with server.connect() as c:
        c.get("/deaf?x=1")
        c.head()
        begin = time.monotonic()
        server.signal(signal.SIGTERM)
        c.expect_close()
    server.wait(8)
    assert 0.8 < time.monotonic() - begin < 5
    text = server.log.text()
    assert "Cancel 1 running task(s), timeout graceful shutdown exceeded" in text
    assert "/deaf" in text.partition("Cancel 1 running")[2]
    assert "deaf cancelled" in text
    assert "Application shutdown complete." in text


def test_work_that_refuses_to_be_cancelled_does_not_hold_it_up(launch: Launch) -> None:
    server = launch(GOOD, "--timeout-graceful-shutdown", "0.5")
    with server.connect() as c:
        c.get("/stuck")
        server.log.wait_for("stuck begins")
        server.signal(signal.SIGTERM)
        try:
            server.wait(8)
        finally:
            server.kill()
    assert "stuck cancelled" in server.log.text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_forces(launch: Launch, number: int) -> None:
    server = launch(GOOD)
    with server.connect() as c:
        c.get("/deaf")
        c.head()
        server.signal(number)
        server.log.wait_for("Waiting for connections to close")
        assert server.alive
        begin = time.monotonic()
        server.signal(signal.SIGINT)
        server.wait(5)
        assert time.monotonic() - begin < 3
        assert not c.expect_close(3).endswith(b"0\r\n\r\n"), "cut off, not ended"


def test_the_port_is_free_at_once(launch: Launch) -> None:
    first = launch(GOOD)
    c = Client(first.address)
    assert c.get("/").response().status == 200
    first.stop()
    c.close()
    second = launch(GOOD, "--port", str(first.port))
    with second.connect() as c:
        assert c.get("/").response().status == 200


def test_a_taken_port_is_one_line_and_exits(launch: Launch) -> None:
    first = launch(GOOD)
    second = launch(GOOD, "--port", str(first.port), wait=False)
    assert second.wait() == 3
    assert "Traceback" not in second.log.text()
    assert "address already in use" in second.log.text().lower()


def test_killed_client_side_load_does_not_disturb_the_end(launch: Launch) -> None:
    server = launch(GOOD)
    for _ in range(50):
        server.connect().get("/").reset()
    clients = [server.connect().get("/slow") for _ in range(10)]
    server.log.wait_for("slow begins")
    for c in clients[:5]:
        c.reset()
    server.signal(signal.SIGTERM)
    for c in clients[5:]:
        assert c.response().body == b"slow but whole"
        c.close()
    assert server.wait() == -signal.SIGTERM
    assert "Traceback" not in server.log.text()
