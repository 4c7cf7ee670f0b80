"""A WebSocket's memory has bounds in both directions."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.conftest import Starter
from tests.harness.client import Client
from tests.harness.thread import Receive, Scope, Send

HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
MIB = 1 << 20


def frame(opcode: int, data: bytes) -> bytes:
    assert len(data) < 126
    return bytes([0x80 | opcode, 0x80 | len(data)]) + bytes(4) + data


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


def read_exactly(c: Client, n: int) -> None:
    n -= len(c.buffer)
    c.buffer = b""
    while n > 0:
        data = c.sock.recv(min(n, MIB))
        assert data, "closed"
        n -= len(data)


@pytest.mark.parametrize("at_once", [True, False])
def test_session_goes_on_after_its_queue_was_full(start: Starter, at_once: bool) -> None:
    """Also when the queue became full with the last octet that was there."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.sleep(0.5)
        for _ in range(9):
            message = await receive()
        await send({"type": "websocket.send", "text": message["text"]})
        await receive()

    with start(app, ws_max_queue=4).connect(5.0) as c:
        c.send(HANDSHAKE)
        assert c.head().status == 101
        for group in (4, 4) if at_once else (1,) * 8:
            c.sock.sendall(frame(1, b"a") * group)
            time.sleep(0.05)
        c.sock.sendall(frame(1, b"last"))
        assert c.sock.recv(100) == b"\x81\x04last"


def test_pongs_for_a_client_that_reads_nothing_do_not_pile_up(start: Starter) -> None:
    """RFC 6455 5.5.2 wants a Pong for each Ping; then the client's own sending has to wait."""
    with start(echo).connect(10.0, receive_buffer=65536) as c:
        c.send(HANDSHAKE)
        assert c.head().status == 101
        ping = frame(9, b"p" * 125)
        block = ping * 1000
        sent = 0
        c.sock.settimeout(1.0)
        with pytest.raises(TimeoutError):
            while sent < 64 * MIB:
                sent += c.sock.send(block[sent % len(block) :])
        # It reads now, so all goes on: every Pong comes, and the session lives.
        c.sock.settimeout(10.0)
        whole = sent // len(ping)
        read_exactly(c, whole * 127)
        if sent % len(ping):
            c.sock.sendall(ping[sent % len(ping) :])
            read_exactly(c, 127)
        c.sock.sendall(frame(1, b"still there"))
        assert c.sock.recv(100) == b"\x81\x0bstill there"
