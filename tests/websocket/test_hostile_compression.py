"""permessage-deflate pushed hard: RFC 7692 section 7.2, its examples, its limits, and streams that are none."""

from __future__ import annotations

import functools
import random
import time
import zlib

import pytest

from tests.conftest import Starter
from tests.harness.thread import Served

from .raw import BINARY, CLOSE, FIN, PING, PONG, RSV1, TAIL, TEXT, WebSocket, deflated, frame
from .test_messages import echo

D = "permessage-deflate"
HELLO = bytes.fromhex("f248cdc9c90700")


class Peer:
    """The client's two contexts over a session."""

    def __init__(self, ws: WebSocket, *, takeover: bool = True, bits: int = 15) -> None:
        self.ws = ws
        self.bits = bits
        self.takeover = takeover
        self.z = zlib.decompressobj(-bits)

    def read(self) -> bytes:
        """The next message, inflated within the window that was agreed upon."""
        flags, opcode, data = self.ws.frame()
        while not flags & FIN:
            more, continuation, piece = self.ws.frame()
            assert continuation == 0 and not more & RSV1
            flags |= more
            data += piece
        assert opcode in (TEXT, BINARY)
        if not flags & RSV1:
            return data
        z = self.z if self.takeover else zlib.decompressobj(-self.bits)
        return z.decompress(data + TAIL)


def opened(serve: Served, offer: str = D) -> WebSocket:
    ws = WebSocket(serve(echo), offer=offer).opened()
    assert (ws.response.get("sec-websocket-extensions") or "").startswith(D)
    return ws


@pytest.mark.parametrize(
    "payload",
    [
        HELLO,  # 7.2.3.1 one block
        bytes.fromhex("000500faff48656c6c6f00"),  # 7.2.3.3 no compression
        bytes.fromhex("f348cdc9c9070000"),  # 7.2.3.4 BFINAL
        bytes.fromhex("f24805000000ffffcac9c90700"),  # 7.2.3.5 two blocks
    ],
    ids=["one block", "stored", "final", "two blocks"],
)
def test_7_2_3_the_rfcs_examples(serve: Served, payload: bytes) -> None:
    ws = opened(serve)
    peer = Peer(ws)
    for _ in range(3):
        ws.send(frame(TEXT, payload, flags=FIN | RSV1))
        assert peer.read() == b"Hello"
    for cut in range(len(payload) + 1):  # and in pieces, cut anywhere (7.2.3.1)
        ws.send(frame(TEXT, payload[:cut], flags=RSV1), frame(0, payload[cut:]))
        assert peer.read() == b"Hello"
    ws.end()


def test_7_2_3_2_the_window_is_shared(serve: Served) -> None:
    ws = opened(serve)
    peer = Peer(ws)
    ws.send(frame(TEXT, HELLO, flags=FIN | RSV1))
    assert peer.read() == b"Hello"
    for _ in range(50):
        ws.send(frame(TEXT, bytes.fromhex("f200110000"), flags=FIN | RSV1))
        assert peer.read() == b"Hello"
    ws.end()


@pytest.mark.parametrize("between", [frame(PING, b"p"), frame(TEXT, b"plain"), frame(TEXT, b"", flags=FIN | RSV1)])
def test_what_comes_between_does_not_touch_the_window(serve: Served, between: bytes) -> None:
    ws = opened(serve)
    peer = Peer(ws)
    ws.send(frame(TEXT, HELLO, flags=FIN | RSV1))
    assert peer.read() == b"Hello"
    ws.send(between)
    if between[0] & 15 == PING:
        assert ws.frame() == (FIN, PONG, b"p")
    else:
        peer.read()
    ws.send(frame(TEXT, bytes.fromhex("f200110000"), flags=FIN | RSV1))
    assert peer.read() == b"Hello"
    ws.end()


def test_without_the_clients_context_there_is_no_window_to_point_into(serve: Served) -> None:
    ws = opened(serve, D + "; client_no_context_takeover")
    assert "client_no_context_takeover" in (ws.response.get("sec-websocket-extensions") or "")
    peer = Peer(ws)
    ws.send(frame(TEXT, HELLO, flags=FIN | RSV1))
    assert peer.read() == b"Hello"
    ws.send(frame(TEXT, bytes.fromhex("f200110000"), flags=FIN | RSV1))
    assert ws.closed()[0] in (1002, 1007)


def test_a_distance_before_the_first_message(serve: Served) -> None:
    ws = opened(serve).send(frame(TEXT, bytes.fromhex("f200110000"), flags=FIN | RSV1))
    assert ws.closed()[0] in (1002, 1007)


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("takeover", [True, False])
def test_7_1_2_1_what_we_send_fits_the_window_that_was_asked_for(serve: Served, bits: int, takeover: bool) -> None:
    offer = f"{D}; server_max_window_bits={bits}" + ("" if takeover else "; server_no_context_takeover")
    ws = opened(serve, offer)
    answer = ws.response.get("sec-websocket-extensions") or ""
    said = int(answer.partition("server_max_window_bits=")[2].partition(";")[0])
    assert said <= bits and ("server_no_context_takeover" in answer) == (not takeover)
    peer = Peer(ws, takeover=takeover, bits=said)
    rng = random.Random(bits)
    block = bytes(rng.randrange(256) for _ in range((1 << bits) - 100))
    for size in (100, 1 << bits, 3 << bits):  # what repeats lies just inside, on and beyond the window
        data = (block + bytes(rng.randrange(4) for _ in range(size)) + block)[:200_000]
        ws.send(frame(BINARY, data))
        assert peer.read() == data
    ws.end()


def test_garbage_of_every_kind_ends_the_session_and_no_other(serve: Served) -> None:
    rng = random.Random(7692)
    good = deflated(b"The quick brown fox jumps over the lazy dog. " * 40)
    for i in range(300):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        ws = opened(serve)
        ws.send(frame(BINARY, bytes(data), flags=FIN | RSV1))
        flags, opcode, answer = ws.frame()
        if opcode == CLOSE:
            assert int.from_bytes(answer[:2], "big") in (1002, 1007), (i, answer)
        else:
            assert opcode == BINARY  # it was a stream, only another one
        ws.c.close()


def test_a_reserved_block_type(serve: Served) -> None:
    ws = opened(serve).send(frame(BINARY, b"\x06\0\0", flags=FIN | RSV1))
    assert ws.closed()[0] in (1002, 1007)


def test_a_message_that_stops_inside_a_stored_block(serve: Served) -> None:
    # 5 octets are announced and 2 are there: the four that 7.2.2 puts behind them must not fill the block up.
    ws = opened(serve).send(frame(BINARY, bytes.fromhex("000900f6ff4865"), flags=FIN | RSV1))
    code = ws.closed()[0]
    assert code in (1002, 1007)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7])
def test_6_1_rsv1_in_each_fragment(serve: Served, bits: int) -> None:
    ws = opened(serve).send(frame(TEXT, HELLO[:3], flags=RSV1), frame(0, HELLO[3:], flags=FIN | bits << 4))
    assert ws.closed()[0] == 1002


def test_text_is_judged_inflated_and_as_it_comes(serve: Served) -> None:
    z = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = z.compress("ok ü".encode() + b"\xed\xa0\x80" + b"x" * 100) + z.flush(zlib.Z_SYNC_FLUSH)
    ws = opened(serve).send(frame(TEXT, start, flags=RSV1))  # its end never comes
    assert ws.closed()[0] == 1007
    text = "grüße κόσμε 🦀" * 20
    data = deflated(text.encode())
    ws = opened(serve)
    peer = Peer(ws)
    for cut in range(len(data)):
        ws.send(frame(TEXT, data[:cut], flags=RSV1), frame(0, data[cut:]))
        assert peer.read().decode() == text
    ws.end()


# ------------------------------------------------------------------- bombs


@functools.cache
def bomb(size: int) -> bytes:
    z = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(1 << 20)
    out = b"".join(z.compress(zeros) for _ in range(size >> 20))
    return (out + z.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_a_bomb_goes_off_at_the_limit(start: Starter, opcode: int, pieces: int) -> None:
    data = bomb(512 << 20)
    server = start(echo, ws_max_size=1 << 20)
    before = _rss()
    begun = time.process_time()
    with server.connect() as c:
        ws = WebSocket(c, offer=D).opened()
        step = len(data) // pieces + 1
        parts = [data[i : i + step] for i in range(0, len(data), step)]
        flags = [FIN if i == len(parts) - 1 else 0 for i in range(len(parts))]
        flags[0] |= RSV1
        ws.send(b"".join(frame(opcode if i == 0 else 0, p, flags=flags[i]) for i, p in enumerate(parts)))
        assert ws.closed()[0] == 1009
        c.expect_close()
    assert _rss() - before < 32 << 20
    assert time.process_time() - begun < 2.0


def test_the_limit_is_the_inflated_size_to_the_octet(start: Starter) -> None:
    server = start(echo, ws_max_size=5000)
    for size, code in ((4999, 0), (5000, 0), (5001, 1009)):
        stored = b"\0" + size.to_bytes(2, "little") + (65535 - size).to_bytes(2, "little") + b"x" * size + b"\0"
        for data in (deflated(b"x" * size), stored):
            with server.connect() as c:
                ws = WebSocket(c, offer=D).opened().send(frame(BINARY, data, flags=FIN | RSV1))
                if code:
                    assert ws.closed()[0] == code
                else:
                    assert Peer(ws).read() == b"x" * size
                    ws.end()


def test_blocks_of_nothing(start: Starter) -> None:
    # 4 MiB of empty blocks inflate to nothing: no limit is passed, and it is over soon.
    server = start(echo, ws_max_size=1 << 24)
    with server.connect() as c:
        ws = WebSocket(c, offer=D).opened()
        begun = time.process_time()
        ws.send(frame(BINARY, b"\0\0\0\xff\xff" * 800_000 + b"\0", flags=FIN | RSV1))
        assert Peer(ws).read() == b""
        assert time.process_time() - begun < 3.0
        ws.end()


def _rss() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096
