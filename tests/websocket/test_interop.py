"""The client of the `websockets` package."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.conftest import Starter

from .app import app

pytest.importorskip("websockets", minversion="13")

from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402
from websockets.sync.client import connect  # noqa: E402


def url(server: Any, path: str = "/") -> str:
    return f"ws://127.0.0.1:{server.port}{path}"


@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize("loop", ["auto", "asyncio"])
def test_echo(start: Starter, compression: str | None, loop: str) -> None:
    server = start(app, loop=loop)
    random.seed(1)
    with connect(url(server), compression=compression, max_size=None) as ws:  # type: ignore[arg-type]
        assert ("permessage-deflate" in ws.response.headers.get("sec-websocket-extensions", "")) == bool(compression)
        for size in (0, 1, 125, 126, 1000, 65535, 65536, 300_000):
            noise = random.randbytes(size)
            for message in ("x" * size, "ü" * size, noise, bytes(size)):
                ws.send(message)
                assert ws.recv(timeout=10) == message


def test_pieces_and_pings(start: Starter) -> None:
    with connect(url(start(app))) as ws:
        ws.send(["one ", "two ", "three"])
        assert ws.recv(timeout=5) == "one two three"
        ws.send(iter([b"1", b"", b"2"]))
        assert ws.recv(timeout=5) == b"12"
        assert ws.ping("hello").wait(5)


def test_subprotocols(start: Starter) -> None:
    with connect(url(start(app)), subprotocols=["a", "b"]) as ws:  # type: ignore[list-item]
        assert ws.subprotocol == "b"


def test_codes(start: Starter) -> None:
    server = start(app)
    with connect(url(server, "/close")) as ws:
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv(timeout=5)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4000, "because")
    with connect(url(server)) as ws:
        ws.close(4001, "mine")
        assert ws.close_code == 4001


def test_a_refusal(start: Starter) -> None:
    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.close"})

    with pytest.raises(InvalidStatus) as caught:
        connect(url(start(refusing)))
    assert caught.value.response.status_code == 403


def test_shutdown(start: Starter) -> None:
    server = start(app)
    with connect(url(server)) as ws:
        ws.send("a")
        assert ws.recv(timeout=5) == "a"
        server.server.should_exit = True
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv(timeout=5)
        assert caught.value.rcvd is not None and caught.value.rcvd.code == 1012
    server.stop()
