"""receive(): the messages of a request, and what comes after them."""

from __future__ import annotations

import asyncio
import queue
from typing import Any

import pytest

from tests.apps.basic import read_all, reply
from tests.harness.thread import Message, Receive, Scope, Send, Served


class NeverAwaited(Exception):
    """The awaitable suspended although its result had to be there."""


def step(awaitable: Any) -> Any:
    """Run an awaitable that must not suspend; its result."""
    iterator = awaitable.__await__()
    try:
        next(iterator)
    except StopIteration as e:
        return e.value
    raise NeverAwaited


def test_no_content_is_one_message(serve: Served) -> None:
    got: queue.Queue[Message] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.put(await receive())
        await reply(send)

    assert serve(app).get("/").response().status == 200
    message = got.get(timeout=5)
    assert message == {"type": "http.request", "body": b"", "more_body": False}
    assert type(message) is dict


def test_content_is_bytes_and_ends_once(serve: Served) -> None:
    got: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.put(await read_all(receive))
        await reply(send)

    assert serve(app).post("/", b"hello").response().status == 200
    body, messages = got.get(timeout=5)
    assert body == b"hello"
    assert all(set(m) == {"type", "body", "more_body"} and type(m["body"]) is bytes for m in messages)
    assert [m["more_body"] for m in messages][-1] is False
    assert all(m["more_body"] for m in messages[:-1])


def test_content_arrives_as_it_comes(serve: Served) -> None:
    """A message for what is there, not only when all is there."""
    got: queue.Queue[Message] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            got.put(message)
            if not message["more_body"]:
                break
        await reply(send)

    c = serve(app)
    c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nab")
    assert got.get(timeout=5) == {"type": "http.request", "body": b"ab", "more_body": True}
    c.send("cd")
    assert got.get(timeout=5) == {"type": "http.request", "body": b"cd", "more_body": True}
    c.send("ef")
    rest = got.get(timeout=5)
    assert rest["body"] == b"ef"
    if rest["more_body"]:
        assert got.get(timeout=5) == {"type": "http.request", "body": b"", "more_body": False}
    assert c.response().status == 200


def test_disconnect_after_the_response_again_and_again(serve: Served) -> None:
    got: queue.Queue[list[Message]] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await reply(send)
        got.put([await receive() for _ in range(3)])

    c = serve(app)
    assert c.get("/").response().status == 200
    assert got.get(timeout=5) == [{"type": "http.disconnect"}] * 3
    assert c.get("/").response().status == 200, "the connection goes on"
    got.get(timeout=5)


def test_after_the_response_never_the_unread_content(serve: Served) -> None:
    got: queue.Queue[Message] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send)
        got.put(await receive())

    assert serve(app).post("/", b"hello").response().status == 200
    assert got.get(timeout=5) == {"type": "http.disconnect"}


def test_a_ready_message_comes_without_suspension(serve: Served) -> None:
    """Starlette's is_disconnected() polls receive() in a scope that is cancelled already."""
    got: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            got.put(step(receive()))
            await reply(send)
            got.put(step(receive()))
            got.put(step(receive()))
        except NeverAwaited as e:
            got.put(e)
            raise

    assert serve(app).get("/").response().status == 200
    assert got.get(timeout=5) == {"type": "http.request", "body": b"", "more_body": False}
    assert got.get(timeout=5) == {"type": "http.disconnect"}
    assert got.get(timeout=5) == {"type": "http.disconnect"}


def test_poll_for_disconnect_as_starlette_does(serve: Served) -> None:
    anyio = pytest.importorskip("anyio")
    got: queue.Queue[Any] = queue.Queue()
    go = asyncio.Event()

    async def poll(receive: Receive) -> Message | None:
        with anyio.CancelScope() as cancelled:
            cancelled.cancel()
            return await receive()
        return None

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        for _ in range(3):
            got.put(await poll(receive))
        while (message := await poll(receive)) is None:
            await asyncio.sleep(0.005)
        got.put(message)

    del go
    c = serve(app)
    c.get("/")
    assert [got.get(timeout=5) for _ in range(3)] == [None, None, None]
    c.close()
    assert got.get(timeout=5) == {"type": "http.disconnect"}
    serve.wait_idle()


def test_waiting_receive_ends_with_disconnect_when_the_client_goes(serve: Served) -> None:
    got: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.put(await receive())
        got.put(await receive())
        got.put(await receive())

    c = serve(app)
    c.get("/")
    got.get(timeout=5)
    c.close()
    assert got.get(timeout=5) == {"type": "http.disconnect"}
    assert got.get(timeout=5) == {"type": "http.disconnect"}
    serve.wait_idle()


def test_disconnect_in_the_middle_of_the_content(serve: Served) -> None:
    got: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.put(await read_all(receive))

    c = serve(app)
    c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello")
    c.wait_taken()
    c.reset()
    body, messages = got.get(timeout=5)
    assert messages[-1] == {"type": "http.disconnect"}
    assert not any(m.get("more_body") is False for m in messages)
    serve.wait_idle()


def test_half_close_is_no_disconnect_while_the_response_runs(serve: Served) -> None:
    """The client has only ended its own half; it still reads."""
    got: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        waiting = asyncio.ensure_future(receive())
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        got.put(len(done))
        await reply(send, b"still here")
        got.put(await waiting)

    c = serve(app)
    c.get("/").half_close()
    assert c.response().body == b"still here"
    got.get(timeout=5)
    assert got.get(timeout=5) == {"type": "http.disconnect"}


def test_receive_in_a_task(serve: Served) -> None:
    """create_task(receive()): Starlette and many others do it, so it has to be what create_task takes."""
    got: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        watcher = asyncio.create_task(receive())  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert not watcher.done()
        await reply(send)
        got.put(await watcher)

    assert serve(app).get("/").response().status == 200
    assert got.get(timeout=5) == {"type": "http.disconnect"}


def test_receive_with_wait_for_and_gather(serve: Served) -> None:
    got: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.put(await asyncio.wait_for(receive(), 5))
        try:
            await asyncio.wait_for(receive(), 0.02)
        except TimeoutError:
            got.put("time-out")
        await asyncio.gather(reply(send), asyncio.sleep(0))

    assert serve(app).get("/").response().status == 200
    assert got.get(timeout=5)["type"] == "http.request"
    assert got.get(timeout=5) == "time-out"


def test_cancelled_receive_loses_nothing(serve: Served) -> None:
    """A receive() that was cancelled while it waited; what comes then goes to the next one."""
    got: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        first = asyncio.create_task(receive())  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.wait([first])
        got.put(first.cancelled())
        body, _ = await read_all(receive)
        await reply(send, body)

    c = serve(app)
    c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
    assert got.get(timeout=5) is True
    c.send("hello")
    assert c.response().body == b"hello"


def test_two_receives_at_once_both_end(serve: Served) -> None:
    """Nobody should, somebody does: neither may hang when the client goes."""
    got: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        got.put(None)
        got.put(await asyncio.gather(receive(), receive(), return_exceptions=True))

    c = serve(app)
    c.get("/")
    got.get(timeout=5)
    c.close()
    results = got.get(timeout=5)
    assert all(isinstance(r, RuntimeError) or r == {"type": "http.disconnect"} for r in results), results
    serve.wait_idle()


def test_receive_that_is_never_awaited(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        receive()
        await reply(send)

    c = serve(app)
    for _ in range(3):
        assert c.get("/").response().status == 200


def test_receive_and_send_kept_beyond_the_request(serve: Served) -> None:
    """The next request has its own; the old ones stay harmless."""
    kept: list[tuple[Receive, Send]] = []
    got: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kept.append((receive, send))
        if len(kept) == 2:
            got.put(await kept[0][0]())
            try:
                await kept[0][1]({"type": "http.response.body", "body": b"from the first"})
            except RuntimeError as e:
                got.put(e)
            else:
                got.put("silent")
        await receive()
        await reply(send, str(len(kept)).encode())

    c = serve(app)
    assert c.get("/").response().text == "1"
    assert c.get("/").response().text == "2"
    assert got.get(timeout=5) == {"type": "http.disconnect"}
    assert isinstance(got.get(timeout=5), RuntimeError)
    kept.clear()


def test_receive_of_a_pipelined_request_gets_its_own_content(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body, _ = await read_all(receive)
        await reply(send, body)

    c = serve(app)
    for i in range(20):
        c.post("/", b"%d" % i * i)
    assert [c.response().body for _ in range(20)] == [b"%d" % i * i for i in range(20)]
