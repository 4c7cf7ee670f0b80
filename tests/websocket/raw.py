"""A WebSocket client that sends the frames it is told and reads strictly (RFC 6455)."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import time
import zlib

from tests.harness.client import Client, ProtocolError, Response

TEXT, BINARY, CLOSE, PING, PONG, MORE = 1, 2, 8, 9, 10, 0
FIN, RSV1 = 0x80, 0x40
TAIL = b"\0\0\xff\xff"


def frame(opcode: int, data: bytes = b"", *, flags: int = FIN, mask: bytes | None = b"\x12\x34\x56\x78") -> bytes:
    """One frame, as a client sends it; mask None: without one."""
    n = len(data)
    bit = 0 if mask is None else 0x80
    if n < 126:
        head = struct.pack("!BB", flags | opcode, bit | n)
    elif n < 65536:
        head = struct.pack("!BBH", flags | opcode, bit | 126, n)
    else:
        head = struct.pack("!BBQ", flags | opcode, bit | 127, n)
    if mask is None:
        return head + data
    pad = (mask * (n // 4 + 1))[:n]
    return head + mask + (int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")).to_bytes(n, "big")


def close(code: int = 1000, reason: str = "") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason.encode())


def deflated(data: bytes) -> bytes:
    """A compressed message without context takeover (RFC 7692 7.2.1)."""
    z = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = z.compress(data) + z.flush(zlib.Z_SYNC_FLUSH)
    return packed.removesuffix(TAIL)


class WebSocket:
    """On a Client's connection. `response`: what the handshake was answered."""

    def __init__(self, client: Client, target: str = "/", *fields: str, offer: str = "", more: bytes = b"") -> None:
        self.c = client
        self.key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {target} HTTP/1.1",
            "Host: a",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {self.key}",
            "Sec-WebSocket-Version: 13",
            *([f"Sec-WebSocket-Extensions: {offer}"] if offer else []),
            *fields,
        ]
        client.send("\r\n".join([*lines, "", ""]).encode("latin-1") + more)
        self.response: Response

    def opened(self) -> WebSocket:
        """The handshake succeeded."""
        r = self.response = self.c.head()
        assert r.status == 101, r
        assert (r.get("upgrade") or "").lower() == "websocket"
        assert "upgrade" in (r.get("connection") or "").lower()
        digest = hashlib.sha1((self.key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        assert r.get("sec-websocket-accept") == base64.b64encode(digest).decode()
        return self

    def refused(self) -> Response:
        """It was answered with an HTTP response."""
        self.response = self.c.response()
        assert self.response.status != 101
        return self.response

    def send(self, *frames: bytes) -> WebSocket:
        self.c.send(*frames)
        return self

    def text(self, text: str) -> WebSocket:
        return self.send(frame(TEXT, text.encode()))

    def frame(self, timeout: float | None = None) -> tuple[int, int, bytes]:
        """(flags, opcode, content) of the next frame."""
        deadline = time.monotonic() + (self.c.timeout if timeout is None else timeout)
        first, second = self.c._exactly(2, deadline)
        if second & 0x80:
            raise ProtocolError("a masked frame from a server (RFC 6455 5.1)")
        n = second
        if n == 126:
            (n,) = struct.unpack("!H", self.c._exactly(2, deadline))
            assert n > 125, "the length is not the shortest (RFC 6455 5.2)"
        elif n == 127:
            (n,) = struct.unpack("!Q", self.c._exactly(8, deadline))
            assert n > 65535, "the length is not the shortest (RFC 6455 5.2)"
        if first & 15 >= 8 and (n > 125 or not first & FIN):
            raise ProtocolError("a control frame that is long or in pieces (RFC 6455 5.5)")
        return first & 0xF0, first & 15, self.c._exactly(n, deadline)

    def message(self) -> str | bytes:
        """The next message, which came in one frame and not compressed."""
        flags, opcode, data = self.frame()
        assert flags == FIN and opcode in (TEXT, BINARY), (flags, opcode, data)
        return data.decode() if opcode == TEXT else data

    def closed(self, timeout: float | None = None) -> tuple[int, str]:
        """(code, reason) of the server's Close frame, which is the next one; (0, "") when it has none."""
        flags, opcode, data = self.frame(timeout)
        assert (flags, opcode) == (FIN, CLOSE), (flags, opcode, data)
        if not data:
            return 0, ""
        return struct.unpack("!H", data[:2])[0], data[2:].decode()

    def end(self) -> None:
        """A closing handshake that we begin, and the end of the connection."""
        self.send(close())
        assert self.closed()[0] == 1000
        self.c.expect_closed_clean()
