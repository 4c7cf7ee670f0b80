"""What a hostile or clumsy peer may send once a session is open: RFC 6455 sections 5 to 8, rule by rule."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from tests.conftest import Starter
from tests.harness.client import Silent
from tests.harness.thread import Served

from .raw import BINARY, CLOSE, FIN, PING, PONG, TEXT, WebSocket, close, frame
from .test_messages import ACCEPT, Noting, echo

CONTROL = {"close": CLOSE, "ping": PING, "pong": PONG}


def fails(ws: WebSocket, *codes: int) -> None:
    """The server fails the connection: a Close frame with one of these codes and a reason, then the end."""
    code, reason = ws.closed()
    assert code in codes, (code, reason)
    assert reason
    ws.c.expect_closed_clean()


# ------------------------------------------------------------------- control frames (5.5)


@pytest.mark.parametrize("opcode", CONTROL.values(), ids=CONTROL)
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside-a-message"])
def test_5_5_control_frames_are_not_fragmented(serve: Served, opcode: int, inside: bool) -> None:
    ws = WebSocket(serve(echo)).opened()
    if inside:
        ws.send(frame(TEXT, b"a", flags=0))
    ws.send(frame(opcode, struct.pack("!H", 1000), flags=0))
    fails(ws, 1002)


@pytest.mark.parametrize("opcode", CONTROL.values(), ids=CONTROL)
@pytest.mark.parametrize("size", [126, 127, 65535, 65536])
def test_5_5_control_frames_have_at_most_125_octets(serve: Served, opcode: int, size: int) -> None:
    # Nothing behind the length is sent: the length is enough.
    head = frame(opcode, bytes(size))[: 4 if size < 65536 else 10]
    fails(WebSocket(serve(echo)).opened().send(head), 1002)


@pytest.mark.parametrize("size", [0, 1, 124, 125])
def test_5_5_3_a_pong_has_the_pings_data(serve: Served, size: int) -> None:
    data = bytes(range(size))
    ws = WebSocket(serve(echo)).opened().send(frame(PING, data))
    assert ws.frame() == (FIN, PONG, data)
    ws.end()


@pytest.mark.parametrize("size", [0, 4, 125])
def test_5_5_3_pongs_that_nobody_asked_for_are_nothing(serve: Served, size: int) -> None:
    ws = WebSocket(serve(echo)).opened().send(frame(PONG, bytes(size)) * 3).text("a")
    assert ws.message() == "a"
    ws.end()


def test_5_4_control_frames_come_between_all_fragments(serve: Served) -> None:
    ws = WebSocket(serve(echo)).opened().send(frame(TEXT, b"", flags=0))
    for i in range(20):
        ws.send(frame(PING, b"%d" % i), frame(PONG), frame(0, b"%d," % i, flags=0))
        assert ws.frame() == (FIN, PONG, b"%d" % i)
    ws.send(frame(0))
    assert ws.message() == "".join(f"{i}," for i in range(20))
    ws.end()


def test_5_5_1_a_close_inside_a_message_is_a_close(serve: Served) -> None:
    app = Noting(ACCEPT)
    ws = WebSocket(serve(app)).opened().send(frame(TEXT, b"half", flags=0), close(1001, "bye"))
    assert ws.closed()[0] == 1001
    ws.c.expect_closed_clean()
    app.next()
    assert app.next() == {"type": "websocket.disconnect", "code": 1001, "reason": "bye"}


# ------------------------------------------------------------------- reserved (5.2)


@pytest.mark.parametrize("opcode", [0, TEXT, BINARY, CLOSE, PING, PONG])
@pytest.mark.parametrize("bits", range(1, 8))
def test_5_2_reserved_bits_without_an_extension(serve: Served, opcode: int, bits: int) -> None:
    ws = WebSocket(serve(echo)).opened()
    if opcode == 0:
        ws.send(frame(TEXT, b"", flags=0))
    fails(ws.send(frame(opcode, b"", flags=FIN | bits << 4)), 1002)


@pytest.mark.parametrize("opcode", [0, TEXT, BINARY, CLOSE, PING, PONG])
@pytest.mark.parametrize("bits", range(1, 8))
def test_5_2_reserved_bits_with_one(serve: Served, opcode: int, bits: int) -> None:
    ws = WebSocket(serve(echo), offer="permessage-deflate").opened()
    if opcode == 0:
        ws.send(frame(TEXT, b"", flags=0))
    ws.send(frame(opcode, b"", flags=FIN | bits << 4))
    if opcode in (TEXT, BINARY) and bits == 4:  # RFC 7692: compressed, and empty
        assert ws.frame()[1] == opcode
        ws.end()
    else:
        fails(ws, 1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("flags", [FIN, 0], ids=["whole", "piece"])
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside-a-message"])
def test_5_2_reserved_opcodes(serve: Served, opcode: int, flags: int, inside: bool) -> None:
    ws = WebSocket(serve(echo)).opened()
    if inside:
        ws.send(frame(TEXT, b"a", flags=0))
    fails(ws.send(frame(opcode, b"data", flags=flags)), 1002)


# ------------------------------------------------------------------- fragments (5.4)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_5_4_a_continuation_of_nothing(serve: Served, opcode: int) -> None:
    ws = WebSocket(serve(echo)).opened().send(frame(opcode, b"a"))
    ws.frame()
    fails(ws.send(frame(0, b"b")), 1002)


@pytest.mark.parametrize("first", [TEXT, BINARY])
@pytest.mark.parametrize("second", [TEXT, BINARY])
@pytest.mark.parametrize("flags", [FIN, 0], ids=["whole", "piece"])
def test_5_4_a_message_inside_a_message(serve: Served, first: int, second: int, flags: int) -> None:
    ws = WebSocket(serve(echo)).opened().send(frame(first, b"a", flags=0), frame(second, b"b", flags=flags))
    fails(ws, 1002)


def test_5_4_pieces_may_be_empty(serve: Served) -> None:
    ws = WebSocket(serve(echo)).opened()
    ws.send(frame(TEXT, b"", flags=0) + frame(0, b"", flags=0) * 50_000 + frame(0, b"", flags=FIN))
    assert ws.message() == ""
    ws.send(frame(BINARY, b"a", flags=0) + frame(0, b"", flags=0) * 1000 + frame(0, b"b", flags=FIN))
    assert ws.message() == b"ab"
    ws.end()


# ------------------------------------------------------------------- masks and lengths (5.1, 5.2, 5.3)


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
@pytest.mark.parametrize("size", [0, 2, 125])
def test_5_1_frames_of_clients_are_masked(serve: Served, opcode: int, size: int) -> None:
    data = struct.pack("!H", 1000) + b"x" * (size - 2) if size else b""
    fails(WebSocket(serve(echo)).opened().send(frame(opcode, data, mask=None)), 1002)


@pytest.mark.parametrize("size", [126, 65536])
def test_5_1_the_missing_mask_is_seen_before_the_content(serve: Served, size: int) -> None:
    head = frame(BINARY, bytes(size), mask=None)[: 4 if size == 126 else 10]
    fails(WebSocket(serve(echo)).opened().send(head), 1002)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("n", [0, 1, 125])
def test_5_2_a_length_in_16_bits_that_fits_into_7(serve: Served, opcode: int, n: int) -> None:
    fails(WebSocket(serve(echo)).opened().send(struct.pack("!BBH", FIN | opcode, 0x80 | 126, n) + b"mask"), 1002)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("n", [0, 125, 126, 65535])
def test_5_2_a_length_in_64_bits_that_fits_into_less(serve: Served, opcode: int, n: int) -> None:
    fails(WebSocket(serve(echo)).opened().send(struct.pack("!BBQ", FIN | opcode, 0x80 | 127, n) + b"mask"), 1002)


@pytest.mark.parametrize("n", [1 << 63, (1 << 63) + 5, (1 << 64) - 1])
def test_5_2_the_highest_bit_of_a_length_is_0(serve: Served, n: int) -> None:
    fails(WebSocket(serve(echo)).opened().send(struct.pack("!BBQ", FIN | BINARY, 0x80 | 127, n) + b"mask"), 1002, 1009)


@pytest.mark.parametrize("n", [(1 << 24) + 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 32) + 5, (1 << 63) - 1])
@pytest.mark.parametrize("inside", [False, True], ids=["first", "continuation"])
def test_10_4_a_length_beyond_the_limit_is_refused_at_its_head(serve: Served, n: int, inside: bool) -> None:
    ws = WebSocket(serve(echo)).opened()
    if inside:
        ws.send(frame(BINARY, b"abc", flags=0))
    fails(ws.send(struct.pack("!BBQ", FIN | (0 if inside else BINARY), 0x80 | 127, n) + b"mask"), 1009)


@pytest.mark.parametrize("at", range(15))
def test_heads_cut_anywhere(serve: Served, at: int) -> None:
    data = frame(BINARY, bytes(range(256)) * 300)
    ws = WebSocket(serve(echo)).opened()
    ws.c.send_read(data[:at], data[at:])
    assert ws.message() == bytes(range(256)) * 300
    ws.end()


# ------------------------------------------------------------------- closing (5.5.1, 7)


GOOD = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3001, 3999, 4000, 4500, 4999]
BAD = [
    *range(12), 125, 126, 127, 128, 255, 256, 500, *range(990, 1000), 1004, 1005, 1006, *range(1015, 1030), 1100, 1999,
    2000, 2001, 2500, 2998, 2999, 5000, 5001, 9999, 10000, 32767, 32768, 65534, 65535,
]  # fmt: skip


def test_7_4_codes_that_may_be_sent(serve: Served) -> None:
    for code in GOOD:
        app = Noting(ACCEPT)
        ws = WebSocket(serve(app)).opened().send(close(code, "why"))
        assert ws.closed()[0] == code
        ws.c.expect_closed_clean()
        ws.c.close()
        app.next()
        assert app.next() == {"type": "websocket.disconnect", "code": code, "reason": "why"}


def test_7_4_codes_that_may_not(serve: Served) -> None:
    for code in BAD:
        app = Noting(ACCEPT)
        ws = WebSocket(serve(app)).opened().send(close(code, "why"))
        got, reason = ws.closed()
        assert got == 1002 and reason, (code, got, reason)
        ws.c.expect_closed_clean()
        ws.c.close()
        app.next()
        told = app.next()
        assert told["type"] == "websocket.disconnect" and told["code"] in (1002, 1006), (code, told)


@pytest.mark.parametrize("octet", [b"\0", b"\x03", b"\xff"])
def test_5_5_1_a_close_with_one_octet(serve: Served, octet: bytes) -> None:
    fails(WebSocket(serve(echo)).opened().send(frame(CLOSE, octet)), 1002)


@pytest.mark.parametrize("reason", [b"\xff", b"ab\xc3", b"\xed\xa0\x80", b"x" * 120 + b"\xe2\x82"])
def test_5_5_1_a_reason_is_utf_8(serve: Served, reason: bytes) -> None:
    fails(WebSocket(serve(echo)).opened().send(frame(CLOSE, struct.pack("!H", 1000) + reason)), 1002, 1007)


def test_5_5_1_a_reason_of_123_octets(serve: Served) -> None:
    app = Noting(ACCEPT)
    ws = WebSocket(serve(app)).opened().send(close(1000, "ü" * 61 + "x"))
    assert ws.closed()[0] == 1000
    app.next()
    assert app.next() == {"type": "websocket.disconnect", "code": 1000, "reason": "ü" * 61 + "x"}


def test_5_5_1_a_close_without_content_is_1005(serve: Served) -> None:
    app = Noting(ACCEPT)
    ws = WebSocket(serve(app)).opened().send(frame(CLOSE))
    assert ws.closed()[0] in (0, 1000)
    ws.c.expect_closed_clean()
    app.next()
    assert app.next()["code"] == 1005


@pytest.mark.parametrize(
    "more",
    [frame(TEXT, b"late"), frame(PING, b"late"), frame(CLOSE, struct.pack("!H", 1001)), frame(3), b"\xff" * 100, bytes(100_000)],
    ids=["text", "ping", "close", "reserved", "garbage", "long"],
)  # fmt: skip
def test_5_5_1_what_comes_behind_a_close_is_nothing(serve: Served, more: bytes) -> None:
    app = Noting(ACCEPT)
    ws = WebSocket(serve(app)).opened().send(close(1000) + more)
    assert ws.closed()[0] == 1000
    if len(more) < 1000:  # else what is unread may end it with RST
        ws.c.expect_closed_clean()
    else:
        ws.c.expect_close()
    app.next()
    assert app.next()["type"] == "websocket.disconnect"
    assert app.got.empty()


@pytest.mark.parametrize("opcode", [TEXT, CLOSE, PING])
def test_a_connection_that_ends_inside_a_frame(serve: Served, opcode: int) -> None:
    data = frame(opcode, b"abcdef" if opcode != CLOSE else struct.pack("!H", 1000) + b"why")
    for at in range(1, len(data)):
        app = Noting(ACCEPT)
        ws = WebSocket(serve(app)).opened().send(data[:at])
        ws.c.half_close()
        ws.c.expect_close()
        ws.c.close()
        app.next()
        told = app.next()
        assert told["type"] == "websocket.disconnect" and told["code"] in (1005, 1006), (at, told)


# ------------------------------------------------------------------- UTF-8 (8.1)


WRONG = [
    b"\x80", b"\xbf", b"\xfe", b"\xff", b"\xc0\xaf", b"\xc1\xbf", b"\xe0\x80\xaf", b"\xe0\x9f\xbf", b"\xf0\x80\x80\xaf",
    b"\xf0\x8f\xbf\xbf", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80", b"\xed\xa0\x80", b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80", b"\xf4\x90\x80\x80", b"\xf7\xbf\xbf\xbf", b"\xc3\x28", b"\xe2\x28\xa1", b"\xe2\x82\x28",
    b"\xf0\x28\x8c\xbc", b"\xf0\x90\x28\xbc", b"\xf0\x90\x8c\x28", b"\xc3", b"\xe2\x82", b"\xf0\x90\x8c",
]  # fmt: skip
RIGHT = "\x00\x7f\x80\u07ff\u0800\ud7ff\ue000\ufffd\uffff\U00010000\U0010ffff κόσμε ﷐﷯\ufdd0"


@pytest.mark.parametrize("wrong", WRONG, ids=lambda b: b.hex())
def test_8_1_wrong_text_cut_at_each_octet(serve: Served, wrong: bytes) -> None:
    data = b"Hello-\xc2\xb5@\xc3\x9f" + wrong + b"edited"
    if wrong in (b"\xc3", b"\xe2\x82", b"\xf0\x90\x8c"):
        data = data.removesuffix(b"edited")  # it just ends too early
    for cut in range(len(data) + 1):
        for pieces in (False, True):
            ws = WebSocket(serve(echo)).opened()
            if pieces:
                ws.send(frame(TEXT, data[:cut], flags=0), frame(0, data[cut:]))
            else:
                whole = frame(TEXT, data)
                ws.c.send_read(whole[: 6 + cut], whole[6 + cut :])
            assert ws.closed()[0] == 1007, (cut, pieces)
            ws.c.close()


def test_8_1_right_text_cut_at_each_two_octets(serve: Served) -> None:
    data = RIGHT.encode("utf-8", "surrogatepass")
    text = data.decode()
    ws = WebSocket(serve(echo)).opened()
    for a in range(len(data) + 1):
        for b in range(a, len(data) + 1, 3):
            ws.send(frame(TEXT, data[:a], flags=0) + frame(0, data[a:b], flags=0) + frame(0, data[b:]))
            assert ws.message() == text
    ws.end()


def test_8_1_wrong_text_is_failed_as_soon_as_it_is_wrong(serve: Served) -> None:
    for wrong, seen in (
        (b"\xf4\x90", 2),
        (b"\xc0", 1),
        (b"\xed\xa0", 2),
        (b"\xe0\x80", 2),
        (b"\xf0\x8f", 2),
        (b"\xf5", 1),
    ):
        ws = WebSocket(serve(echo)).opened()
        ws.send(frame(TEXT, b"ok" * 100 + wrong[:seen], flags=0))
        assert ws.closed(2.0)[0] == 1007, wrong
        ws.c.close()


def test_8_1_binary_is_not_looked_at(serve: Served) -> None:
    ws = WebSocket(serve(echo)).opened()
    for wrong in WRONG:
        assert ws.send(frame(BINARY, wrong)).message() == wrong
    ws.end()


def test_5_5_a_ping_may_hold_anything(serve: Served) -> None:
    ws = WebSocket(serve(echo)).opened()
    for wrong in WRONG:
        assert ws.send(frame(PING, wrong)).frame() == (FIN, PONG, wrong)
    ws.end()


# ------------------------------------------------------------------- floods


def test_pings_of_a_client_that_does_not_read_are_not_collected(start: Starter) -> None:
    server = start(echo, ws_ping_interval=None)
    with server.connect(receive_buffer=4096) as c:
        WebSocket(c).opened()
        flood = frame(PING, b"x" * 125) * 1000
        c.sock.settimeout(1.0)
        sent = 0
        try:
            while sent < 64_000_000:
                sent += c.sock.send(flood)
        except TimeoutError:
            pass
        assert sent < 64_000_000, "nothing stopped it"
        c.reset()


def test_many_empty_messages_wait_in_the_socket_not_in_memory(start: Starter) -> None:
    accepted: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        go = asyncio.Event()
        accepted.append((asyncio.get_running_loop(), go))
        await go.wait()
        n = 0
        while (await receive())["type"] == "websocket.receive":
            n += 1
            if n == 1000:
                await send({"type": "websocket.send", "text": "all"})

    server = start(app)
    with server.connect() as c:
        ws = WebSocket(c).opened()
        c.sock.settimeout(1.0)
        ws.send(frame(TEXT, b"") * 1000)
        with pytest.raises(Silent):
            ws.frame(0.1)
        loop, go = accepted[0]
        loop.call_soon_threadsafe(go.set)
        assert ws.message() == "all"
        ws.end()
