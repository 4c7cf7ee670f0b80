# ruff: noqa: E501 - the tables have a case a line
"""send(): responses, and the mistakes that an application can make with it. Texts are uvicorn's."""

from __future__ import annotations

import asyncio
import queue
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.apps.basic import read_all, reply
from tests.asgi.test_receive import step
from tests.conftest import Records
from tests.harness.client import Closed
from tests.harness.thread import Message, Receive, Scope, Send, Served

START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
STREAM: Message = {"type": "http.response.start", "status": 200, "headers": []}
BODY: Message = {"type": "http.response.body", "body": b"ok"}


def sending(*messages: Message) -> Callable[..., Awaitable[None]]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def test_send_gives_none_without_suspension(serve: Served) -> None:
    got: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.put(step(send(START)))
        got.put(step(send(BODY)))

    assert serve(app).get("/").response().body == b"ok"
    assert (got.get(timeout=5), got.get(timeout=5)) == (None, None)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-a", b"1"), (b"x-b", b"2")],
        [[b"x-a", b"1"], [b"x-b", b"2"]],
        ((b"x-a", b"1"), (b"x-b", b"2")),
        iter([(b"x-a", b"1"), (b"x-b", b"2")]),
        {b"x-a": b"1", b"x-b": b"2"}.items(),
    ],
    ids=["tuples", "lists", "tuple", "iterator", "items"],
)
def test_forms_of_headers(serve: Served, headers: Any) -> None:
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    r = serve(sending(start, BODY)).get("/").response()
    assert (r.get("x-a"), r.get("x-b")) == ("1", "2")


def test_headers_may_be_missing(serve: Served) -> None:
    r = serve(sending({"type": "http.response.start", "status": 200}, BODY)).get("/").response()
    assert (r.framing, r.body) == ("chunked", b"ok")


@pytest.mark.parametrize(
    "body",
    [b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"xxabc")[2:]],
    ids=["bytes", "bytearray", "memoryview", "slice"],
)
def test_bytes_like_content(serve: Served, body: Any) -> None:
    r = serve(sending(STREAM, {"type": "http.response.body", "body": body})).get("/").response()
    assert r.body == b"abc"


def test_a_bytearray_that_changes_after_send(serve: Served) -> None:
    """What was sent is what it was at the time, also when it could not be written at once."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(STREAM)
        for i in range(40):
            data = bytearray(bytes([65 + i]) * 50_000)
            await send({"type": "http.response.body", "body": data, "more_body": True})
            data[:] = b"!" * 50_000
        await send({"type": "http.response.body"})

    r = serve(app).get("/").response()
    assert r.body == b"".join(bytes([65 + i]) * 50_000 for i in range(40))


def test_body_and_more_body_are_optional(serve: Served) -> None:
    r = serve(sending(STREAM, {"type": "http.response.body", "body": b"a", "more_body": True},
                      {"type": "http.response.body"})).get("/").response()  # fmt: skip
    assert (r.framing, r.body) == ("chunked", b"a")


def test_empty_pieces_are_no_last_chunk(serve: Served) -> None:
    """RFC 9112 7.1: a chunk of size zero ends the content."""
    more = {"type": "http.response.body", "body": b"", "more_body": True}
    piece = {"type": "http.response.body", "body": b"x", "more_body": True}
    r = serve(sending(STREAM, more, piece, more, more, piece, {"type": "http.response.body"})).get("/").response()
    assert r.body == b"xx"


def test_head_is_written_at_once(serve: Served) -> None:
    """A client sees the head of a stream before its first piece."""
    go: queue.Queue[asyncio.Event] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        event = asyncio.Event()
        loop = asyncio.get_running_loop()
        await send(STREAM)
        go.put(lambda: loop.call_soon_threadsafe(event.set))  # type: ignore[arg-type]
        await event.wait()
        await send(BODY)

    c = serve(app)
    c.get("/")
    release = go.get(timeout=5)
    try:
        assert c.head().status == 200
    finally:
        release()  # type: ignore[operator]


def test_pieces_are_written_at_once(serve: Served) -> None:
    go: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        await send(STREAM)
        for i in range(3):
            event = asyncio.Event()
            await send({"type": "http.response.body", "body": b"piece %d" % i, "more_body": True})
            go.put((loop, event))
            await event.wait()
        await send({"type": "http.response.body"})

    c = serve(app)
    c.get("/")
    c.head()
    got = b""
    for i in range(3):
        loop, event = go.get(timeout=5)
        while b"piece %d" % i not in got:
            got += c.read_some()
        loop.call_soon_threadsafe(event.set)
    while not got.endswith(b"0\r\n\r\n"):
        got += c.read_some()


def test_names_are_lower_case_on_the_wire(serve: Served) -> None:
    start = {"type": "http.response.start", "status": 200, "headers": [(b"X-Mixed-Case", b"Value")]}
    r = serve(sending(start, BODY)).get("/").response()
    assert r.get("x-mixed-case") == "Value"
    assert "x-mixed-case" in r.raw_names


def test_order_of_fields(serve: Served) -> None:
    start = {"type": "http.response.start", "status": 200,
             "headers": [(b"b", b"1"), (b"a", b"2"), (b"set-cookie", b"x=1"), (b"set-cookie", b"y=2"), (b"content-length", b"2")]}  # fmt: skip
    r = serve(sending(start, BODY)).get("/").response()
    names = [n for n, _ in r.headers]
    assert names[:2] == ["date", "server"]
    assert [h for h in r.headers if h[0] in ("a", "b", "set-cookie")] == [
        ("b", "1"),
        ("a", "2"),
        ("set-cookie", "x=1"),
        ("set-cookie", "y=2"),
    ]


@pytest.mark.ours
def test_the_applications_date_and_server_replace_ours(serve: Served) -> None:
    """RFC 9110 5.3: neither may be repeated."""
    date = b"Sun, 06 Nov 1994 08:49:37 GMT"
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"Date", date), (b"server", b"mine"), (b"content-length", b"2")],
    }
    r = serve(sending(start, BODY)).get("/").response()
    assert (r.all("date"), r.all("server")) == ([date.decode()], ["mine"])


def test_own_chunked_is_respected(serve: Served) -> None:
    start = {"type": "http.response.start", "status": 200, "headers": [(b"transfer-encoding", b"chunked")]}
    r = serve(sending(start, BODY)).get("/").response()
    assert (r.framing, r.body, r.all("transfer-encoding")) == ("chunked", b"ok", ["chunked"])


@pytest.mark.ours
@pytest.mark.parametrize("length", [b"2", b"200"])
@pytest.mark.parametrize("turned", [False, True])
def test_own_chunked_beside_a_length_wins(serve: Served, length: bytes, turned: bool) -> None:
    """RFC 9112 6.2: never both on the wire. What a gateway sends that copies the fields of another server."""
    headers = [(b"Transfer-Encoding", b"chunked"), (b"content-length", length), (b"server", b"other")]
    start = {"type": "http.response.start", "status": 200, "headers": headers[::-1] if turned else headers}
    c = serve(sending(start, BODY))
    r = c.get("/").response()
    assert (r.framing, r.body, r.get("server")) == ("chunked", b"ok", "other")
    c.get("/", method="HEAD")
    assert c.response("HEAD").status == 200
    r = c.get("/", "Connection: keep-alive", version="1.0").response()
    assert (r.framing, r.body) == ("close", b"ok")


def test_own_connection_close(serve: Served) -> None:
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"Connection", b"Close"), (b"content-length", b"2")],
    }
    c = serve(sending(start, BODY))
    r = c.get("/").response()
    assert [v.lower() for v in r.all("connection")] == ["close"]
    c.expect_closed_clean()


@pytest.mark.parametrize(("value", "want"), [(b"Upgrade", ["upgrade"]), (b"upgrade, close", ["upgrade", "close"])])
def test_own_connection_upgrade(serve: Served, value: bytes, want: list[str]) -> None:
    """RFC 9110 15.5.22 and 7.8: Upgrade in a 426, and its name in Connection."""
    headers = [(b"upgrade", b"HTTP/3.0"), (b"connection", value), (b"content-length", b"2")]
    c = serve(sending({"type": "http.response.start", "status": 426, "headers": headers}, BODY))
    r = c.get("/").response()
    assert [t.strip().lower() for t in (r.get("connection") or "").split(",")] == want
    assert r.get("upgrade") == "HTTP/3.0"
    if "close" in want:
        c.expect_closed_clean()
    else:
        assert c.get("/").response().status == 426


@pytest.mark.parametrize("more", [[], [(b"content-length", b"2")], [(b"transfer-encoding", b"chunked")]])
@pytest.mark.parametrize("target", ["a:80", "/x"])
def test_2xx_to_connect_has_no_framing(serve: Served, target: str, more: list[tuple[bytes, bytes]]) -> None:
    """RFC 9110 9.3.6: a client takes what follows for a tunnel."""
    for status, framing in ((200, "close"), (404, "length" if (b"content-length", b"2") in more else "chunked")):
        c = serve(sending({"type": "http.response.start", "status": status, "headers": more}, BODY))
        c.send(f"CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        r = c.response()
        assert (r.status, r.framing, r.body) == (status, framing, b"ok")
        assert r.closes
        c.expect_closed_clean()


def test_content_of_a_head_request_is_dropped(serve: Served) -> None:
    c = serve(sending(START, BODY))
    c.get("/", method="HEAD")
    assert c.response("HEAD").get("content-length") == "2"
    assert c.get("/").response().body == b"ok"


def test_head_request_with_a_length_and_no_content(serve: Served) -> None:
    """What frameworks do for HEAD; it is not `shorter than Content-Length`."""
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]}
    c = serve(sending(start, {"type": "http.response.body"}))
    for _ in range(2):
        c.get("/", method="HEAD")
        assert c.response("HEAD").get("content-length") == "1000"


def test_304_with_a_length(serve: Served) -> None:
    """RFC 9110 8.6 allows it."""
    start = {"type": "http.response.start", "status": 304, "headers": [(b"content-length", b"1000"), (b"etag", b'"x"')]}
    c = serve(sending(start, {"type": "http.response.body"}))
    for _ in range(2):
        assert c.get("/").response().status == 304


@pytest.mark.logs("")
@pytest.mark.ours
def test_204_with_content_is_no_garbage(serve: Served) -> None:
    """RFC 9110 15.3.5: dropped or refused, never written."""
    c = serve(sending({"type": "http.response.start", "status": 204, "headers": []}, BODY))
    c.get("/")
    r = c.response()
    assert r.status in (204, 500)
    try:
        c.get("/")
        assert c.response().status == r.status
    except Closed as e:
        assert not e.data


# ------------------------------------------------------------------ mistakes


class Mistake:
    """An application that makes one and keeps what came of it."""

    def __init__(self, *messages: Any, before: int | None = None) -> None:
        self.messages = messages
        self.raised: queue.Queue[BaseException | None] = queue.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        try:
            for message in self.messages:
                await send(message)
        except BaseException as e:
            self.raised.put(e)
            raise
        self.raised.put(None)

    def error(self) -> BaseException | None:
        return self.raised.get(timeout=5)


def start_with(*headers: tuple[Any, Any], status: Any = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


LONGER = "Response content longer than Content-Length"
SHORTER = "Response content shorter than Content-Length"


@pytest.mark.logs("Exception in ASGI application")
@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([BODY], "Expected ASGI message 'http.response.start', but got 'http.response.body'."),
        ([{"type": "http.nonsense"}], "Expected ASGI message 'http.response.start', but got 'http.nonsense'."),
        ([{"type": "websocket.accept"}], "Expected ASGI message 'http.response.start', but got 'websocket.accept'."),
        ([START, START], "Expected ASGI message 'http.response.body', but got 'http.response.start'."),
        ([START, {"type": "http.nonsense"}], "Expected ASGI message 'http.response.body', but got 'http.nonsense'."),
        ([START, BODY, BODY], "Unexpected ASGI message 'http.response.body' sent, after response already completed."),
        ([START, BODY, START], "Unexpected ASGI message 'http.response.start' sent, after response already completed."),
        ([START, {"type": "http.response.body", "body": b"toolong"}], LONGER),
        ([START, {"type": "http.response.body", "body": b"a", "more_body": True},
          {"type": "http.response.body", "body": b"bc"}], LONGER),
        ([START, {"type": "http.response.body", "body": b"a"}], SHORTER),
        ([START, {"type": "http.response.body"}], SHORTER),
        ([start_with((b"x y", b"z")), BODY], "Invalid HTTP header name."),
        ([start_with((b"", b"z")), BODY], "Invalid HTTP header name."),
        ([start_with((b"x:", b"z")), BODY], "Invalid HTTP header name."),
        ([start_with((b"x\r\ny", b"z")), BODY], "Invalid HTTP header name."),
        ([start_with((b"x\x00", b"z")), BODY], "Invalid HTTP header name."),
        ([start_with((b"x\xe9", b"z")), BODY], "Invalid HTTP header name."),
        ([start_with((b"x", b"a\r\nset-cookie: y=z")), BODY], "Invalid HTTP header value."),
        ([start_with((b"x", b"a\nb")), BODY], "Invalid HTTP header value."),
        ([start_with((b"x", b"a\rb")), BODY], "Invalid HTTP header value."),
        ([start_with((b"x", b"a\x00b")), BODY], "Invalid HTTP header value."),
        ([start_with((b"x", b"a\x01b")), BODY], "Invalid HTTP header value."),
        ([start_with((b"x", b"a\x7fb")), BODY], "Invalid HTTP header value."),
    ],
)  # fmt: skip
def test_mistake_raises_in_the_application(serve: Served, records: Records, messages: list[Message], text: str) -> None:
    app = Mistake(*messages)
    c = serve(app)
    c.get("/")
    error = app.error()
    assert isinstance(error, RuntimeError), error
    assert str(error) == text
    _no_corruption(c, started=messages[0] is START)
    records.wait_for("Exception in ASGI application")


def _no_corruption(c: Any, started: bool) -> None:
    """Before the head: 500 and close. After it: what is there is right or cut off, and the connection ends."""
    try:
        r = c.response()
    except Closed:
        assert started, "no answer although nothing had been sent"
        return
    if started and r.status == 200:
        assert len(r.body) == 2, "content of another length than said"
        try:
            rest = c.expect_close(1)
            assert rest == b""
        except AssertionError as e:
            assert "no (further) bytes" in str(e)  # complete and still open: as good
        return
    assert r.status == 500
    assert r.closes
    assert r.body == b"Internal Server Error"
    assert r.get("x") is None and r.get("set-cookie") is None
    c.expect_closed_clean()


@pytest.mark.ours
@pytest.mark.logs("Exception in ASGI application")
@pytest.mark.parametrize(
    "messages",
    [
        [start_with(("x", "y")), BODY],
        [start_with((b"x", "y")), BODY],
        [start_with((b"x", 1)), BODY],
        [start_with((b"x",)), BODY],  # type: ignore[arg-type]
        [start_with((b"x", b"y", b"z")), BODY],  # type: ignore[arg-type]
        [start_with(5), BODY],  # type: ignore[arg-type]
        [{"type": "http.response.start", "status": 200, "headers": 5}, BODY],
        [start_with(status="200"), BODY],
        [start_with(status=None), BODY],
        [start_with(status=99), BODY],
        [start_with(status=0), BODY],
        [start_with(status=-200), BODY],
        [start_with(status=1000), BODY],
        [start_with(status=2**70), BODY],
        [start_with(status=100), BODY],
        [start_with(status=101), BODY],
        [{"type": "http.response.start", "headers": []}, BODY],
        [start_with((b"content-length", b"-1")), BODY],
        [start_with((b"content-length", b"2x")), BODY],
        [start_with((b"content-length", b"2"), (b"content-length", b"3")), BODY],
        [start_with((b"transfer-encoding", b"gzip")), BODY],
        [{"status": 200}],
        ["http.response.start"],
        [None],
        [{"type": 5}],
        [{"type": None, "status": 200}],
    ],
    ids=lambda m: re.sub(r"[^a-z0-9-]+", "-", repr(m[0]).lower().replace("http.response.start", ""))[-60:],
)  # fmt: skip
def test_wrong_types_are_an_error_in_the_application_and_a_500(serve: Served, messages: list[Any]) -> None:
    app = Mistake(*messages)
    c = serve(app)
    c.get("/")
    assert app.error() is not None, "it was accepted"
    _no_corruption(c, started=False)


@pytest.mark.ours
@pytest.mark.logs("Exception in ASGI application")
@pytest.mark.parametrize("body", ["text", None, 5, [b"x"], object()], ids=["str", "None", "int", "list", "object"])
def test_wrong_content_is_an_error_and_ends_the_connection(serve: Served, body: Any) -> None:
    app = Mistake(STREAM, {"type": "http.response.body", "body": body})
    c = serve(app)
    c.get("/")
    assert isinstance(app.error(), Exception)
    with pytest.raises(Closed):
        c.response()


@pytest.mark.ours
@pytest.mark.logs("Exception in ASGI application")
def test_headers_that_raise_when_iterated(serve: Served) -> None:
    def bad() -> Any:
        yield (b"x", b"y")
        raise LookupError("from the generator")

    app = Mistake({"type": "http.response.start", "status": 200, "headers": bad()}, BODY)
    c = serve(app)
    c.get("/")
    assert isinstance(app.error(), LookupError)
    _no_corruption(c, started=False)


def test_a_mistake_that_the_application_catches(serve: Served) -> None:
    """The error leaves the response as it was; a right message may follow."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(RuntimeError):
            await send(BODY)
        with pytest.raises(RuntimeError):
            await send(start_with((b"x\n", b"y")))
        await reply(send)
        with pytest.raises(RuntimeError):
            await send(BODY)

    c = serve(app)
    for _ in range(2):
        assert c.get("/").response().body == b"ok"


@pytest.mark.logs("ASGI callable returned without starting response.")
def test_return_without_a_response(serve: Served, records: Records) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        return

    c = serve(app)
    r = c.get("/").response()
    assert (r.status, r.body, r.closes) == (500, b"Internal Server Error", True)
    assert "ASGI callable returned without starting response." in records.text()


@pytest.mark.logs("ASGI callable returned without completing response.")
@pytest.mark.parametrize("first", [START, STREAM], ids=["length", "chunked"])
def test_return_in_the_middle_of_a_response(serve: Served, records: Records, first: Message) -> None:
    c = serve(sending(first, {"type": "http.response.body", "body": b"x", "more_body": True}))
    with pytest.raises(Closed):
        c.get("/").response()
    assert "ASGI callable returned without completing response." in records.text()


@pytest.mark.logs("ASGI callable returned without completing response.")
def test_what_the_connections_end_delimits_is_cut_by_a_reset(serve: Served) -> None:
    # HTTP/1.0 has no chunks: an orderly end would be the end of the content (RFC 9112 8).
    c = serve(sending(STREAM, {"type": "http.response.body", "body": b"x", "more_body": True}))
    with pytest.raises(Closed) as caught:
        c.get("/", version="1.0").response()
    assert caught.value.reset


@pytest.mark.logs("ASGI callable should return None")
def test_return_of_something(serve: Served, records: Records) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> Any:
        await reply(send)
        return "something"

    c = serve(app)
    assert c.get("/").response().status == 200
    records.wait_for("ASGI callable should return None, but returned 'something'.")


@pytest.mark.logs("Exception in ASGI application")
@pytest.mark.parametrize("error", [ValueError, KeyError, RuntimeError, TimeoutError, StopAsyncIteration])
def test_error_before_the_response(serve: Served, records: Records, error: type[Exception]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error("x")

    c = serve(app)
    r = c.get("/").response()
    assert (r.status, r.body, r.get("content-type")) == (500, b"Internal Server Error", "text/plain; charset=utf-8")
    c.expect_closed_clean()
    assert error.__name__ in records.text()


@pytest.mark.logs("Exception in ASGI application")
def test_error_behind_the_response_leaves_the_response(serve: Served, records: Records) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send)
        raise ValueError("late")

    c = serve(app)
    assert c.get("/").response().body == b"ok"
    serve.wait_idle()


@pytest.mark.ours
@pytest.mark.logs("")
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_errors_that_are_no_exceptions(start: Any, error: type[BaseException]) -> None:
    """They may end the server (asyncio hands SystemExit and KeyboardInterrupt on) or the request. The client is
    never left waiting."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    server = start(app)
    with server.connect() as c:
        try:
            r = c.get("/").response()
            assert r.status == 500
        except Closed:
            pass


@pytest.mark.logs("Exception in ASGI application")
def test_callable_that_is_no_coroutine_function(start: Any, records: Records) -> None:
    def app(scope: Scope, receive: Receive, send: Send) -> int:
        return 5

    with start(app, interface="asgi3").connect() as c:
        assert c.get("/").response().status == 500


def test_application_may_return_any_awaitable(start: Any) -> None:
    """`await app(...)` is all that the specification has a server do."""

    class Later:
        def __init__(self, send: Send) -> None:
            self.send = send

        def __await__(self) -> Any:
            return reply(self.send).__await__()

    def app(scope: Scope, receive: Receive, send: Send) -> Any:
        return Later(send)

    with start(app, interface="asgi3").connect() as c:
        assert c.get("/").response().status == 200
