"""What is still to be sent when something else happens on the connection: the next request, a time-out, shutdown."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.conftest import Starter
from tests.harness.thread import Receive, Scope, Send

MIB = 1 << 20


async def empty(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % (16 * MIB))]})
    await send({"type": "http.response.body", "body": bytes(16 * MIB)})


@pytest.mark.timeout(30)
def test_many_pipelined_requests_whose_responses_have_no_content(start: Starter) -> None:
    """So many that what is gathered passes the high-water mark although the kernel takes all of it at once."""
    server = start(empty)
    with server.connect(5.0) as c:
        c.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2400)
        for _ in range(2400):
            assert c.response().status == 200


def test_keep_alive_time_begins_when_the_response_has_left(start: Starter) -> None:
    server = start(large, timeout_keep_alive=1)
    with server.connect(20.0, receive_buffer=65536) as c:
        c.get("/")
        time.sleep(2.5)
        assert len(c.response(timeout=20).body) == 16 * MIB


def test_shutdown_does_not_cut_a_response_that_the_client_still_reads(start: Starter) -> None:
    server = start(large, timeout_shutdown_idle=0.2, timeout_shutdown_streams=0.4, timeout_graceful_shutdown=20)
    with server.connect(20.0, receive_buffer=65536) as c:
        c.get("/")
        time.sleep(0.3)
        server.server.should_exit = True
        time.sleep(1.5)
        assert len(c.response().body) == 16 * MIB
        c.expect_closed_clean()


def test_a_client_that_drips_unread_content_does_not_hold_the_connection(start: Starter) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await empty(scope, receive, send)

    server = start(app, timeout_request_body=1)
    with server.connect(10.0) as c:
        c.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        assert c.response().status == 200
        begin = time.monotonic()
        while time.monotonic() - begin < 6 and c.is_open(0.2):
            c.send(b"x")
        assert time.monotonic() - begin < 5, "it is still open"


def test_malformed_rest_of_content_after_the_response_gets_no_second_response(start: Starter) -> None:
    server = start(empty)
    with server.connect(10.0) as c:
        c.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        assert c.response().status == 200
        c.send(b"zz\r\n")
        c.expect_closed_clean()


def test_connections_in_their_last_states_do_not_hold_shutdown(start: Starter) -> None:
    """One whose content is dropped, one that lingers: neither is a request."""
    server = start(empty, timeout_graceful_shutdown=20, timeout_shutdown_streams=10)
    with server.connect() as draining, server.connect() as lingering:
        draining.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        assert draining.response().status == 200
        lingering.send(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 100000000\r\n\r\n")
        assert lingering.response().status == 200
        server.server.should_exit = True
        end = time.monotonic() + 8
        while server.thread.is_alive() and time.monotonic() < end:
            draining.send(b"x")
            lingering.send(b"x")
            time.sleep(0.1)
        assert not server.thread.is_alive()


@pytest.mark.parametrize("status", [503, 504])
@pytest.mark.logs("Request timed out")
@pytest.mark.logs("without starting response")
def test_head_request_gets_no_content_from_the_server_itself(start: Starter, status: int) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(3)

    options = {"timeout_request": 1} if status == 504 else {"limit_concurrency": 1}
    server = start(slow, **options)
    with server.connect() as first, server.connect() as c:
        if status == 503:
            first.get("/")
            time.sleep(0.2)
        c.get("/", method="HEAD")
        r = c.head(10)
        assert r.status == status
        assert c.expect_close() == b""
