"""Input that ends, or comes late, where it matters."""

from __future__ import annotations

import queue
import time

from tests.conftest import Starter
from tests.harness.thread import Receive, Scope, Send


async def reply(send: Send, text: bytes = b"ok") -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


def test_end_of_input_is_told_to_each_pipelined_request(start: Starter) -> None:
    """The client ends its side while the first runs: the second has to hear of it, too."""
    heard: queue.Queue[str] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        message = await receive()
        heard.put(message["type"])
        await reply(send)

    with start(app).connect() as c:
        c.get("/1").get("/2").half_close()
        assert [r.status for r in c.responses("GET", "GET")] == [200, 200]
        c.expect_closed_clean()
    assert [heard.get(timeout=5), heard.get(timeout=5)] == ["http.disconnect"] * 2


def test_input_that_ends_inside_a_pipelined_head_is_400_at_once(start: Starter) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        await reply(send)

    with start(app).connect() as c:
        c.get("/").send("GET /2 HTT").half_close()
        begin = time.monotonic()
        assert c.response().status == 200
        assert c.response().status == 400
        c.expect_close()
        assert time.monotonic() - begin < 4


def test_input_that_ends_inside_a_pipelined_content_is_400_at_once(start: Starter) -> None:
    heard: queue.Queue[str] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/1":
            await receive()
            await receive()
            await reply(send)
            return
        while (message := await receive())["type"] == "http.request":
            pass
        heard.put(message["type"])

    with start(app).connect() as c:
        c.get("/1").send("POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").half_close()
        begin = time.monotonic()
        assert c.response().status == 200
        assert c.response().status == 400
        assert time.monotonic() - begin < 4
    assert heard.get(timeout=5) == "http.disconnect"


def test_a_head_longer_than_the_input_buffers_when_the_limits_allow_it(start: Starter) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, b"%d" % sum(len(v) for _, v in scope["headers"]))

    server = start(app, limit_request_head=1 << 20, limit_request_field_size=1 << 20)
    with server.connect() as c:
        c.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").send(*[b"y" * 50_000] * 10).send(b"\r\n\r\n")
        assert c.response().body == b"500001"


def test_client_that_waits_for_100_is_not_timed_out_before_it_was_asked(start: Starter) -> None:
    import asyncio

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(2.5)
        message = await receive()
        await reply(send, message["body"])

    server = start(app, timeout_request_body=1)
    with server.connect() as c:
        c.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert c.head().status == 100
        time.sleep(0.4)
        c.send(b"hi")
        assert c.response().body == b"hi"
