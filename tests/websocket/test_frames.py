"""Frames that break RFC 6455, UTF-8, sizes, compression; over raw sockets."""

from __future__ import annotations

import zlib

import pytest

from tests.conftest import Starter
from tests.harness.thread import Served

from .raw import BINARY, CLOSE, FIN, PING, RSV1, TAIL, TEXT, WebSocket, deflated, frame
from .test_messages import echo

DEFLATE = "permessage-deflate"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"a", mask=None), 1002),
        (frame(TEXT, b"a", flags=FIN | 0x20), 1002),
        (frame(TEXT, b"a", flags=FIN | 0x10), 1002),
        (frame(TEXT, b"a", flags=FIN | RSV1), 1002),
        (frame(3), 1002),
        (frame(11), 1002),
        (frame(PING, b"", flags=0), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(0, b"a"), 1002),
        (frame(TEXT, b"a", flags=0) + frame(TEXT, b"b"), 1002),
        (b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff" + b"mask", 1002),
        (b"\x82\xfe\x00\x05mask12345", 1002),
        (b"\x82\xff\0\0\0\0\0\0\0\x05mask12345", 1002),
    ],
)
def test_a_frame_that_is_none(serve: Served, data: bytes, code: int) -> None:
    ws = WebSocket(serve(echo)).opened().send(data)
    got = ws.closed()
    assert got[0] in (code, 1009 if b"\xff\xff\xff\xff" in data else code) and got[1]
    ws.c.expect_closed_clean()


@pytest.mark.parametrize(
    "data",
    [
        b"\xc3\x28", b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"x" * 1000 + b"\x80",
        b"\xf5\x80\x80\x80", b"abcdefg\xc1\xbfabcdefg", b"\xf0\x80\x80\x80",
    ],
)  # fmt: skip
@pytest.mark.parametrize("pieces", [False, True])
def test_text_that_is_not_utf_8(serve: Served, data: bytes, pieces: bool) -> None:
    ws = WebSocket(serve(echo)).opened()
    if pieces:
        ws.send(frame(TEXT, data[:1], flags=0), frame(0, data[1:]))
    else:
        ws.send(frame(TEXT, data))
    assert ws.closed()[0] == 1007
    ws.c.expect_closed_clean()


def test_wrong_utf_8_is_seen_before_the_message_ends(serve: Served) -> None:
    ws = WebSocket(serve(echo)).opened()
    ws.send(frame(TEXT, b"ok\xed\xa0\x80", flags=0))
    assert ws.closed()[0] == 1007


@pytest.mark.parametrize("cut", range(1, 9))
def test_characters_may_be_cut_anywhere(serve: Served, cut: int) -> None:
    data = "aü€🦀".encode()
    ws = WebSocket(serve(echo)).opened()
    ws.send(frame(TEXT, data[:cut], flags=0), frame(0, data[cut:]))
    assert ws.message() == "aü€🦀"
    ws.end()


def test_octet_by_octet(serve: Served) -> None:
    ws = WebSocket(serve(echo)).opened()
    data = frame(TEXT, "grüße".encode()) + frame(PING, b"x") + frame(BINARY, b"y" * 130)
    ws.c.send_read(*(data[i : i + 1] for i in range(len(data))))
    assert ws.message() == "grüße"
    assert ws.frame()[2] == b"x"
    assert ws.message() == b"y" * 130
    ws.end()


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x80\x7f\xfe"])
@pytest.mark.parametrize("size", [1, 3, 4, 5, 31, 32, 33, 63, 64, 65, 4097])
def test_masks(serve: Served, mask: bytes, size: int) -> None:
    data = bytes(i & 255 for i in range(size))
    ws = WebSocket(serve(echo)).opened().send(frame(BINARY, data, mask=mask))
    assert ws.message() == data
    ws.c.close()


# ------------------------------------------------------------------- sizes


@pytest.mark.parametrize("offer", ["", DEFLATE])
def test_the_longest_message(start: Starter, offer: str) -> None:
    server = start(echo, ws_max_size=1000)
    with server.connect() as c:
        ws = WebSocket(c, offer=offer).opened().send(frame(BINARY, bytes(1000)))
        assert ws.frame()[1] == BINARY
        ws.send(frame(BINARY, bytes(1001)))
        assert ws.closed()[0] == 1009
        c.expect_closed_clean()
    with server.connect() as c:  # in pieces, and before the last one came
        ws = WebSocket(c).opened().send(*[frame(BINARY if i == 0 else 0, bytes(300), flags=0) for i in range(4)])
        assert ws.closed()[0] == 1009
    with server.connect() as c:  # the announced length is enough
        ws = WebSocket(c).opened().send(b"\x82\xff\0\0\0\0\x10\0\0\0mask")
        assert ws.closed()[0] == 1009


def test_a_bomb_is_stopped_at_the_longest_message(start: Starter) -> None:
    bomb = deflated(bytes(200_000_000))
    assert len(bomb) < 250_000
    server = start(echo, ws_max_size=100_000)
    with server.connect() as c:
        ws = WebSocket(c, offer=DEFLATE).opened().send(frame(BINARY, bomb, flags=FIN | RSV1))
        assert ws.closed()[0] == 1009
        c.expect_close()


# ------------------------------------------------------------------- compression


def inflated(data: bytes, z: zlib._Decompress | None = None) -> bytes:
    return (z or zlib.decompressobj(-15)).decompress(data + TAIL)


def test_no_offer_no_compression(serve: Served) -> None:
    ws = WebSocket(serve(echo)).opened().text("x" * 1000)
    assert ws.frame()[0] == FIN
    assert ws.response.get("sec-websocket-extensions") is None
    ws.end()


@pytest.mark.parametrize(
    ("offer", "answered"),
    [
        (DEFLATE, True),
        (DEFLATE + "; client_max_window_bits", True),
        (DEFLATE + "; server_max_window_bits=9", True),
        (DEFLATE + "; server_no_context_takeover; client_no_context_takeover", True),
        (DEFLATE + "; client_max_window_bits=10; server_max_window_bits=15", True),
        (DEFLATE + "; unknown=1, " + DEFLATE, True),
        ("x-webkit-deflate-frame, " + DEFLATE, True),
        (DEFLATE + "; unknown", False),
        (DEFLATE + "; server_max_window_bits=16", False),
        (DEFLATE + "; server_max_window_bits=7", False),
        (DEFLATE + "; server_max_window_bits", False),
        (DEFLATE + "; server_no_context_takeover=1", False),
        (DEFLATE + "; server_no_context_takeover; server_no_context_takeover", False),
        ("foo", False),
    ],
)
def test_negotiation(serve: Served, offer: str, answered: bool) -> None:
    ws = WebSocket(serve(echo), offer=offer).opened()
    answer = ws.response.get("sec-websocket-extensions")
    assert (answer is not None) == answered
    text = "hello " * 200
    if answer is None:
        assert ws.text(text).message() == text
    else:
        assert answer.startswith(DEFLATE) and "," not in answer
        if "client_max_window_bits" in answer:
            assert "client_max_window_bits" in offer
        ws.send(frame(TEXT, deflated(text.encode()), flags=FIN | RSV1))
        flags, opcode, data = ws.frame()
        assert (flags, opcode) == (FIN | RSV1, TEXT) and len(data) < 200
        assert inflated(data).decode() == text
    ws.end()


def test_context_takeover_both_ways(serve: Served) -> None:
    ws = WebSocket(serve(echo), offer=DEFLATE).opened()
    out = zlib.compressobj(6, zlib.DEFLATED, -15)
    back = zlib.decompressobj(-15)
    sizes = []
    text = bytes(range(32, 127)) * 3
    for _ in range(3):
        packed = (out.compress(text) + out.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
        flags, _, data = ws.send(frame(TEXT, packed, flags=FIN | RSV1)).frame()
        assert flags == FIN | RSV1 and inflated(data, back) == text
        sizes.append(len(data))
    if "server_no_context_takeover" not in (ws.response.get("sec-websocket-extensions") or ""):
        assert sizes[2] < sizes[0]
    ws.end()


def test_a_compressed_message_in_pieces_with_a_ping_between(serve: Served) -> None:
    packed = deflated(b"abc" * 1000)
    ws = WebSocket(serve(echo), offer=DEFLATE).opened()
    ws.send(
        frame(TEXT, packed[:5], flags=RSV1), frame(PING, b"p"), frame(0, packed[5:7], flags=0), frame(0, packed[7:])
    )
    assert ws.frame()[2] == b"p"
    assert inflated(ws.frame()[2]) == b"abc" * 1000
    ws.end()


@pytest.mark.parametrize("data", [b"\xff" * 20, b"\x07\x00garbage garbage"])
def test_what_is_no_deflate_stream(serve: Served, data: bytes) -> None:
    ws = WebSocket(serve(echo), offer=DEFLATE).opened().send(frame(BINARY, data, flags=FIN | RSV1))
    assert ws.closed()[0] in (1002, 1007)
    ws.c.expect_closed_clean()


def test_an_uncompressed_message_among_compressed_ones(serve: Served) -> None:
    ws = WebSocket(serve(echo), offer=DEFLATE).opened()
    ws.send(frame(TEXT, deflated(b"one"), flags=FIN | RSV1), frame(TEXT, b"two"))
    got = []
    for _ in range(2):
        flags, _, data = ws.frame()
        got.append(inflated(data) if flags & RSV1 else data)
    assert got == [b"one", b"two"]
    ws.end()


def test_wrong_utf_8_in_a_compressed_message(serve: Served) -> None:
    ws = WebSocket(serve(echo), offer=DEFLATE).opened().send(frame(TEXT, deflated(b"a\xff"), flags=FIN | RSV1))
    assert ws.closed()[0] == 1007


def test_rsv1_in_a_continuation_and_in_a_control_frame(serve: Served) -> None:
    packed = deflated(b"abc" * 10)
    ws = WebSocket(serve(echo), offer=DEFLATE).opened()
    ws.send(frame(TEXT, packed[:3], flags=RSV1), frame(0, packed[3:], flags=FIN | RSV1))
    assert ws.closed()[0] == 1002
    ws = WebSocket(serve.connect(), offer=DEFLATE).opened().send(frame(PING, b"", flags=FIN | RSV1))
    assert ws.closed()[0] == 1002


def test_compression_can_be_turned_off(start: Starter) -> None:
    with start(echo, ws_per_message_deflate=False).connect() as c:
        ws = WebSocket(c, offer=DEFLATE).opened()
        assert ws.response.get("sec-websocket-extensions") is None
        ws.end()


def test_a_close_frame_is_never_compressed(serve: Served) -> None:
    ws = WebSocket(serve(echo), offer=DEFLATE).opened().send(frame(CLOSE, b"\x03\xe8" + b"a" * 100))
    assert ws.frame() == (FIN, CLOSE, b"\x03\xe8" + b"a" * 100)
