"""The ASGI side: scope, messages, denial, codes, errors."""

from __future__ import annotations

import asyncio
import queue
import time
from typing import Any

import pytest

from tests.conftest import Starter
from tests.harness.thread import Receive, Scope, Send, Served

from .raw import BINARY, CLOSE, FIN, PING, PONG, TEXT, WebSocket, close, frame

ACCEPT: dict[str, Any] = {"type": "websocket.accept"}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", **{k: v for k, v in message.items() if k != "type"}})


class Noting:
    """An application that accepts, notes every message, and sends what it is told to."""

    def __init__(self, *sends: dict[str, Any]) -> None:
        self.sends = sends
        self.got: queue.Queue[Any] = queue.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.got.put(scope)
        await receive()
        for message in self.sends:
            try:
                await send(message)
            except Exception as exc:
                self.got.put(exc)
        while True:
            message = await receive()
            self.got.put(message)
            if message["type"] == "websocket.disconnect":
                return

    def next(self) -> Any:
        return self.got.get(timeout=5)


# ------------------------------------------------------------------- scope


def test_the_scope(serve: Served) -> None:
    app = Noting(ACCEPT)
    ws = WebSocket(
        serve(app), "/a%20b/c?x=1&y=%20", "Cookie: k=v", "X-A: 1", "Sec-WebSocket-Protocol: chat, v2.chat"
    ).opened()
    scope = app.next()
    assert scope["type"] == "websocket"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b/c", b"/a%20b/c", b"x=1&y=%20")
    assert (scope["scheme"], scope["http_version"], scope["root_path"]) == ("ws", "1.1", "")
    assert scope["subprotocols"] == ["chat", "v2.chat"]
    assert scope["client"] == ws.c.local and scope["server"] == serve.address
    assert (b"cookie", b"k=v") in scope["headers"] and (b"x-a", b"1") in scope["headers"]
    assert "websocket.http.response" in scope["extensions"]
    assert scope["state"] == {} and "method" not in scope
    ws.end()
    assert app.next() == {"type": "websocket.disconnect", "code": 1000, "reason": ""}


def test_accept_without_anything(serve: Served) -> None:
    ws = WebSocket(serve(echo), "/", "Sec-WebSocket-Protocol: chat").opened()
    names = [name for name, _ in ws.response.headers]
    assert "sec-websocket-protocol" not in names and "sec-websocket-extensions" not in names
    assert "content-length" not in names and "transfer-encoding" not in names
    assert {"date", "server"} <= set(names)
    ws.end()


def test_accept_with_subprotocol_and_headers(serve: Served) -> None:
    app = Noting({**ACCEPT, "subprotocol": "chat", "headers": [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]})
    ws = WebSocket(serve(app), "/", "Sec-WebSocket-Protocol: chat, x").opened()
    assert ws.response.get("sec-websocket-protocol") == "chat"
    assert ws.response.all("set-cookie") == ["a=1", "b=2"]
    ws.end()


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({**ACCEPT, "subprotocol": "a b"}, "Invalid WebSocket subprotocol."),
        ({**ACCEPT, "subprotocol": "a\r\nX: y"}, "Invalid WebSocket subprotocol."),
        ({**ACCEPT, "subprotocol": b"a"}, "subprotocol is a str"),
        ({**ACCEPT, "headers": [(b"x", b"a\r\nb: c")]}, ""),
        ({**ACCEPT, "headers": 5}, "headers are an iterable"),
        ({"type": "websocket.send", "text": "a"}, "Expected ASGI message 'websocket.accept', 'websocket.close' or"),
        ({"type": "http.response.start", "status": 200}, "but got 'http.response.start'"),
        ({}, "'type'"),
        ([], "an ASGI message is a dict"),
    ],
)
def test_what_cannot_be_sent_before_accept_is_an_error_and_changes_nothing(
    serve: Served, message: Any, error: str
) -> None:
    app = Noting(message, ACCEPT)
    ws = WebSocket(serve(app)).opened()
    app.next()
    got = app.next()
    assert isinstance(got, Exception) and error in str(got)
    ws.end()


# ------------------------------------------------------------------- not accepted


def test_close_before_accept_is_403(serve: Served) -> None:
    app = Noting({"type": "websocket.close", "code": 1008})
    r = WebSocket(serve(app)).refused()
    assert (r.status, r.body) == (403, b"")
    app.next()
    assert app.next()["type"] == "websocket.disconnect"


def test_denial_response(serve: Served) -> None:
    start = {"type": "websocket.http.response.start", "status": 418, "headers": [(b"x-why", b"tea")]}
    app = Noting(
        start,
        {"type": "websocket.http.response.body", "body": b"short ", "more_body": True},
        {"type": "websocket.http.response.body", "body": b"and stout"},
    )
    r = WebSocket(serve(app)).refused()
    assert (r.status, r.body, r.get("x-why")) == (418, b"short and stout", "tea")
    app.next()
    assert app.next() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


def test_denial_response_wants_its_body(serve: Served) -> None:
    app = Noting(
        {"type": "websocket.http.response.start", "status": 401, "headers": []},
        ACCEPT,
        {"type": "websocket.http.response.body", "body": b"no"},
    )
    assert WebSocket(serve(app)).refused().body == b"no"
    app.next()
    assert "Expected ASGI message 'websocket.http.response.body'" in str(app.next())


@pytest.mark.logs("ValueError: before")
def test_an_error_before_accept_is_500(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("before")

    assert WebSocket(serve(app)).refused().status == 500


@pytest.mark.logs("ASGI callable returned without")
def test_returning_before_accept_is_500(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    assert WebSocket(serve(app)).refused().status == 500


def test_the_client_that_leaves_before_accept_is_a_disconnect(serve: Served) -> None:
    app = Noting()
    ws = WebSocket(serve(app))
    app.next()
    ws.c.close()
    assert app.next() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 12", 426),
        ("Sec-WebSocket-Version: 13\r\n", "", 400),
        ("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Key: AAAA", 400),
        ("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", "", 400),
        ("Connection: Upgrade\r\n", "", 200),
        ("GET", "POST", 400),
    ],
)
def test_a_handshake_that_is_none(serve: Served, old: str, new: str, status: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    good = (
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert old in good
    c = serve(app)
    r = c.send(good.replace(old, new)).response()
    assert r.status == status or (status == 400 and r.status in (400, 405)), r
    if status == 426:
        assert r.get("sec-websocket-version") == "13"


# ------------------------------------------------------------------- messages


@pytest.mark.parametrize("data", ["", "a", "grüße 🦀", "x" * 125, "x" * 126, "ü" * 40_000, "x" * 200_000])
def test_text_comes_and_goes(serve: Served, data: str) -> None:
    ws = WebSocket(serve(echo)).opened().text(data)
    assert ws.message() == data
    ws.end()


@pytest.mark.parametrize("size", [0, 1, 7, 8, 125, 126, 65535, 65536, 1_000_000])
def test_bytes_come_and_go(serve: Served, size: int) -> None:
    data = bytes(i * 7 & 255 for i in range(size))
    ws = WebSocket(serve(echo)).opened().send(frame(BINARY, data))
    assert ws.message() == data
    ws.end()


def test_a_message_has_one_of_text_and_bytes(serve: Served) -> None:
    app = Noting(ACCEPT)
    ws = WebSocket(serve(app)).opened().text("a").send(frame(BINARY, b"b"))
    app.next()
    assert app.next() == {"type": "websocket.receive", "text": "a"}
    assert app.next() == {"type": "websocket.receive", "bytes": b"b"}
    ws.end()


@pytest.mark.parametrize("value", [bytearray(b"ab"), memoryview(b"ab"), b"ab"])
def test_bytes_like_objects_are_sent(serve: Served, value: Any) -> None:
    app = Noting(ACCEPT, {"type": "websocket.send", "bytes": value, "text": None})
    ws = WebSocket(serve(app)).opened()
    assert ws.message() == b"ab"
    ws.end()


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"type": "websocket.send"}, "needs 'bytes' or 'text'"),
        ({"type": "websocket.send", "text": b"a"}, "text is a str"),
        ({"type": "websocket.send", "text": "\ud800"}, "surrogates"),
        ({"type": "websocket.send", "bytes": "a"}, ""),
        (ACCEPT, "Expected ASGI message 'websocket.send' or 'websocket.close', but got 'websocket.accept'."),
        ({"type": "websocket.close", "code": 1005}, "Invalid WebSocket close code 1005."),
        ({"type": "websocket.close", "code": 999}, "Invalid WebSocket close code 999."),
    ],
)
def test_what_cannot_be_sent_is_an_error_and_the_session_goes_on(serve: Served, message: Any, error: str) -> None:
    app = Noting(ACCEPT, message, {"type": "websocket.send", "text": "still"})
    ws = WebSocket(serve(app)).opened()
    assert ws.message() == "still"
    app.next()
    got = app.next()
    assert isinstance(got, Exception) and error in str(got)
    ws.end()


# ------------------------------------------------------------------- the end


@pytest.mark.parametrize(("code", "reason"), [(1000, "done"), (3000, ""), (4999, "ü"), (1008, "x" * 123)])
def test_the_application_closes(serve: Served, code: int, reason: str) -> None:
    app = Noting(ACCEPT, {"type": "websocket.close", "code": code, "reason": reason}, {"type": "websocket.send"})
    ws = WebSocket(serve(app)).opened()
    assert ws.closed() == (code, reason)
    app.next()
    assert "after sending 'websocket.close'" in str(app.next())
    assert app.next() == {"type": "websocket.disconnect", "code": code, "reason": reason}
    ws.send(close(code)).c.expect_closed_clean()


def test_code_that_changes_its_message(serve: Served) -> None:
    class Code:
        def __index__(self) -> int:
            message.clear()
            return 3000

    message = {"type": "websocket.close", "code": Code(), "reason": "".join(["d", "one", "!" * 50])}
    ws = WebSocket(serve(Noting(ACCEPT, message))).opened()
    assert ws.closed() == (3000, "done" + "!" * 50)


def test_a_reason_that_is_too_long_is_cut_between_characters(serve: Served) -> None:
    ws = WebSocket(serve(Noting(ACCEPT, {"type": "websocket.close", "reason": "ü" * 100}))).opened()
    code, reason = ws.closed()
    assert code == 1000 and "ü" * 100 == reason + "ü" * (100 - len(reason)) and len(reason) in (60, 61)


@pytest.mark.parametrize(
    ("data", "answer", "told"),
    [
        (close(1000, "bye"), (1000, "bye"), (1000, "bye")),
        (close(4321), (4321, ""), (4321, "")),
        (frame(CLOSE), (0, ""), (1005, "")),
        (frame(CLOSE, b"\x03"), (1002, None), (1002, None)),
        (close(1005), (1002, None), (1002, None)),
        (close(2999), (1002, None), (1002, None)),
        (frame(CLOSE, b"\x03\xe8\xff"), (1007, None), (1007, None)),
    ],
)
def test_the_client_closes(serve: Served, data: bytes, answer: Any, told: Any) -> None:
    app = Noting(ACCEPT)
    ws = WebSocket(serve(app)).opened().send(data)
    code, reason = ws.closed()
    assert code == answer[0] and answer[1] in (None, reason)
    ws.c.expect_closed_clean()
    app.next()
    message = app.next()
    assert message["type"] == "websocket.disconnect" and message["code"] == told[0]
    assert told[1] in (None, message["reason"])


def test_a_connection_that_breaks_is_told(serve: Served) -> None:
    app = Noting(ACCEPT)
    WebSocket(serve(app)).opened().c.close()
    app.next()
    assert app.next()["code"] in (1005, 1006)


def test_sending_to_a_client_that_has_gone_is_a_client_disconnected(serve: Served) -> None:
    from capicorn.protocols.utils import ClientDisconnected

    got: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        got.put(await receive())
        for message in ({"type": "websocket.send", "text": "late"}, {"type": "websocket.close"}):
            try:
                got.put(await send(message))
            except OSError as exc:
                got.put(exc)

    ws = WebSocket(serve(app)).opened()
    ws.end()
    assert got.get(timeout=5)["code"] == 1000
    assert isinstance(got.get(timeout=5), ClientDisconnected)
    assert got.get(timeout=5) is None, "a close that comes too late is none"


@pytest.mark.logs("ValueError: in the middle")
def test_an_error_in_the_session_is_1011(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        raise ValueError("in the middle")

    ws = WebSocket(serve(app)).opened().text("a")
    assert ws.closed()[0] == 1011


def test_returning_closes_with_1000(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)

    assert WebSocket(serve(app)).opened().closed()[0] == 1000


def test_what_comes_after_our_close_is_not_for_the_application(serve: Served) -> None:
    app = Noting(ACCEPT, {"type": "websocket.close"})
    ws = WebSocket(serve(app)).opened()
    assert ws.closed() == (1000, "")
    ws.text("late").send(frame(PING, b"p"), close()).c.expect_closed_clean()
    app.next()
    assert app.next()["type"] == "websocket.disconnect"


# ------------------------------------------------------------------- settings


def test_pings_are_answered_between_the_pieces_of_a_message(serve: Served) -> None:
    ws = WebSocket(serve(echo)).opened()
    ws.send(frame(TEXT, b"a", flags=0), frame(PING, b"hello"), frame(0, b"b"))
    assert ws.frame() == (FIN, PONG, b"hello")
    assert ws.message() == "ab"
    ws.end()


def test_a_client_that_answers_no_ping_is_dropped(start: Starter) -> None:
    app = Noting(ACCEPT)
    with start(app, ws_ping_interval=0.2, ws_ping_timeout=0.3).connect() as c:
        ws = WebSocket(c).opened()
        for _ in range(2):
            flags, opcode, data = ws.frame()
            assert (flags, opcode) == (FIN, PING)
            ws.send(frame(PONG, data))
        assert ws.frame()[1] == PING
        assert ws.closed(3) == (1011, "keepalive ping timeout")
    app.next()
    assert app.next() == {"type": "websocket.disconnect", "code": 1011, "reason": "keepalive ping timeout"}


def test_pings_can_be_turned_off(start: Starter) -> None:
    with start(echo, ws_ping_interval=None).connect() as c:
        ws = WebSocket(c).opened()
        assert c.is_open(0.6)
        ws.end()


def test_ws_none_ignores_the_upgrade(start: Starter) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    with start(app, ws="none").connect() as c:
        assert WebSocket(c).refused().status == 204


def test_the_queue_stops_reading_and_nothing_is_lost(start: Starter) -> None:
    go = asyncio.Event()
    loops: queue.Queue[asyncio.AbstractEventLoop] = queue.Queue()
    got: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        loops.put(asyncio.get_running_loop())
        await go.wait()
        while (message := await receive())["type"] == "websocket.receive":
            got.put(message["bytes"])

    with start(app, ws_max_queue=4).connect() as c:
        ws = WebSocket(c).opened()
        loop = loops.get(timeout=5)
        c.sock.settimeout(1.0)
        sent = 0
        try:
            while sent < 3000:  # 24 MB: more than any two kernel buffers
                c.sock.sendall(frame(BINARY, sent.to_bytes(8, "big") * 1000))
                sent += 1
        except TimeoutError:
            pass
        assert sent < 3000, "the server read on"
        loop.call_soon_threadsafe(go.set)
        numbers = [int.from_bytes(got.get(timeout=10)[:8], "big") for _ in range(sent)]
        assert numbers == list(range(sent))
        ws.c.close()


def test_a_slow_reader_holds_the_application(serve: Served) -> None:
    sent = [0]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        try:
            for _ in range(2000):
                await send({"type": "websocket.send", "bytes": bytes(16384)})
                sent[0] += 1
        except OSError:
            pass

    ws = WebSocket(serve(app, receive_buffer=8192)).opened()
    time.sleep(0.7)
    assert 0 < sent[0] < 1000, "32 MB would have gone into memory"
    for _ in range(20):
        assert len(ws.message()) == 16384
    ws.c.close()


@pytest.mark.parametrize("forced", [False, True])
def test_shutdown_is_1012_and_leaves_time_to_say_goodbye(start: Starter, forced: bool) -> None:
    app = Noting(ACCEPT)
    server = start(app)
    with server.connect() as c:
        ws = WebSocket(c).opened()
        ws.text("a")
        app.next()
        assert app.next()["text"] == "a"
        server.server.should_exit = True
        assert ws.closed()[0] == 1012
        assert app.next()["code"] == 1012
        if not forced:
            ws.send(close(1012))
        c.expect_close(5)  # without its goodbye: two seconds
    server.stop()


def test_the_log_has_uvicorns_lines(serve: Served, records: Any) -> None:
    app = Noting(ACCEPT)
    ws = WebSocket(serve(app), "/chat?a=b").opened()
    ws.end()
    host, port = ws.c.local[:2]
    records.wait_for(f'{host}:{port} - "WebSocket /chat?a=b" [accepted]')
    records.wait_for("connection open")
    records.wait_for("connection closed")


def test_frames_that_come_with_the_handshake_are_read(serve: Served) -> None:
    c = serve(echo)
    ws = WebSocket(c, more=frame(TEXT, b"early") + frame(TEXT, b"bird")).opened()
    assert (ws.message(), ws.message()) == ("early", "bird")
    ws.end()


def test_many_small_messages_in_one_piece(serve: Served) -> None:
    ws = WebSocket(serve(echo)).opened()
    ws.send(b"".join(frame(TEXT, str(i).encode()) for i in range(500)))
    assert [ws.message() for _ in range(500)] == [str(i) for i in range(500)]
    ws.end()


def test_after_a_denial_the_connection_is_as_after_any_response(serve: Served) -> None:
    app = Noting({"type": "websocket.http.response.start", "status": 403, "headers": [(b"content-length", b"2")]},
                 {"type": "websocket.http.response.body", "body": b"no"})  # fmt: skip
    c = serve(app)
    r = WebSocket(c).refused()
    assert r.body == b"no"
    if r.closes:
        c.expect_closed_clean()
