"""A raw-socket HTTP/1 client that sends what it is told and reads strictly (RFC 9112).

It never repairs: a response that a careful peer could misread is an error in the
test. Everything is bounded in time by the socket's time-out.
"""

from __future__ import annotations

import re
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from types import TracebackType

TIMEOUT = 10.0
Address = tuple[str, int] | str
"""(host, port), or the path of a unix socket."""

_STATUS = re.compile(rb"HTTP/(\d\.\d) (\d{3}) ([\t \x21-\x7e\x80-\xff]*)\Z")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t \x21-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?\Z")
_CHUNK = re.compile(rb"[0-9A-Fa-f]{1,16}\Z")
_DATE = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d:\d\d GMT\Z"
)
MAX_HEAD = 1 << 20


class ProtocolError(AssertionError):
    """The server's bytes are not what RFC 9112 allows."""


class Closed(AssertionError):
    """The connection ended where a response was expected.

    `data`: what had come before; `reset`: it ended by RST.
    """

    def __init__(self, message: str, data: bytes = b"", reset: bool = False) -> None:
        super().__init__(f"{message}; had {data[:200]!r}")
        self.data = data
        self.reset = reset


class Silent(AssertionError):
    """Nothing came in time. `data`: what had come before."""

    def __init__(self, message: str, data: bytes = b"") -> None:
        super().__init__(f"{message}; had {data[:200]!r}")
        self.data = data


@dataclass
class Response:
    """One response as it was on the wire."""

    version: str
    status: int
    reason: str
    headers: list[tuple[str, str]]
    """Names in lower case, in order, values as latin-1."""
    raw_names: list[str] = field(default_factory=list)
    body: bytes = b""
    framing: str = "none"
    """none, length, chunked, or close."""
    chunks: list[bytes] = field(default_factory=list)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    informational: list[Response] = field(default_factory=list)
    complete: bool = True

    def all(self, name: str) -> list[str]:
        """Every value of a field, in order."""
        return [v for n, v in self.headers if n == name]

    def get(self, name: str) -> str | None:
        """The value of a field that may be there once; an error when it is repeated."""
        values = self.all(name)
        if len(values) > 1:
            raise ProtocolError(f"{name} is repeated: {values}")
        return values[0] if values else None

    @property
    def closes(self) -> bool:
        """Does it announce that the connection ends?"""
        tokens = [t.strip().lower() for v in self.all("connection") for t in v.split(",")]
        if "close" in tokens or self.framing == "close":
            return True
        return self.version == "1.0" and "keep-alive" not in tokens

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


class Client:
    """One connection. A context manager; closes without complaint."""

    def __init__(self, address: Address, timeout: float = TIMEOUT, receive_buffer: int | None = None) -> None:
        self.timeout = timeout
        if isinstance(address, str):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            self.sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(timeout)
        self.sock.connect(address)
        self.address = address
        self.local = self.sock.getsockname()
        self.buffer = b""
        self.eof = False
        self.was_reset = False

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # ------------------------------------------------------------------ sending

    def send(self, *pieces: bytes | str) -> Client:
        """Each piece in a system call of its own; a connection that the server closed meanwhile is no error here."""
        for piece in pieces:
            data = piece.encode("latin-1") if isinstance(piece, str) else piece
            try:
                self.sock.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                break
        return self

    def send_read(self, *pieces: bytes | str) -> Client:
        """As send(), and after each piece wait until the server has taken it from its socket."""
        for piece in pieces:
            self.send(piece)
            self.wait_taken()
        return self

    def get(self, target: str = "/", *fields: str, method: str = "GET", version: str = "1.1") -> Client:
        """A request without content."""
        lines = [f"{method} {target} HTTP/{version}", "Host: a", *fields, "", ""]
        return self.send("\r\n".join(lines))

    def post(self, target: str, body: bytes, *fields: str, method: str = "POST") -> Client:
        """A request with Content-Length, in one piece."""
        head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *fields, "", ""])
        return self.send(head.encode("latin-1") + body)

    def half_close(self) -> Client:
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def reset(self) -> None:
        """End with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def wait_taken(self, timeout: float = TIMEOUT) -> bool:
        """Wait until the server's socket holds no byte that was not read. False when it does not come to that."""
        if isinstance(self.address, str):
            return True
        end = time.monotonic() + timeout
        while True:
            waiting = _waiting_bytes(self.local[1], int(self.address[1]))
            if waiting is None or waiting == 0:
                return True
            if time.monotonic() > end:
                return False
            time.sleep(0.0005)

    def untaken(self) -> int:
        """Octets that the server's kernel has and the server did not read."""
        return _waiting_bytes(self.local[1], int(self.address[1])) or 0

    # ------------------------------------------------------------------ reading

    def _fill(self, deadline: float) -> bool:
        """More bytes into the buffer; False at the end of the stream."""
        if self.eof:
            return False
        self.sock.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            raise Silent("no (further) bytes from the server in time", self.buffer) from None
        except ConnectionResetError:
            self.was_reset = self.eof = True
            return False
        if not data:
            self.eof = True
            return False
        self.buffer += data
        return True

    def _line(self, deadline: float) -> bytes:
        while (i := self.buffer.find(b"\n")) < 0:
            if len(self.buffer) > MAX_HEAD:
                raise ProtocolError("a line without an end")
            if not self._fill(deadline):
                raise Closed("the connection ended inside a line", self.buffer, self.was_reset)
        line, self.buffer = self.buffer[:i], self.buffer[i + 1 :]
        if not line.endswith(b"\r"):
            raise ProtocolError(f"a line that ends in a bare LF: {line!r}")
        line = line[:-1]
        if b"\r" in line or b"\0" in line:
            raise ProtocolError(f"CR or NUL inside a line: {line!r}")
        return line

    def _fields(self, deadline: float) -> tuple[list[tuple[str, str]], list[str]]:
        fields: list[tuple[str, str]] = []
        names: list[str] = []
        while line := self._line(deadline):
            name, colon, value = line.partition(b":")
            if not colon or not _TOKEN.match(name):
                raise ProtocolError(f"not a field line: {line!r}")
            value = value.strip(b" \t")
            if not _VALUE.match(value):
                raise ProtocolError(f"a field value with control characters: {line!r}")
            names.append(name.decode("ascii"))
            fields.append((name.decode("ascii").lower(), value.decode("latin-1")))
        return fields, names

    def _exactly(self, n: int, deadline: float) -> bytes:
        while len(self.buffer) < n:
            if not self._fill(deadline):
                raise Closed(f"the connection ended {n - len(self.buffer)} octets early", self.buffer, self.was_reset)
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def head(self, timeout: float | None = None) -> Response:
        """One response's head (also of an informational response), not its content."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        if not self.buffer and not self._fill(deadline):
            raise Closed("no response", b"", self.was_reset)
        line = self._line(deadline)
        m = _STATUS.match(line)
        if m is None:
            raise ProtocolError(f"not a status line: {line!r}")
        fields, names = self._fields(deadline)
        response = Response(m[1].decode(), int(m[2]), m[3].decode("latin-1"), fields, names)
        response.complete = False
        return response

    def response(self, method: str = "GET", timeout: float | None = None) -> Response:
        """The next final response, with the informational ones before it; `method` is that of its request."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        informational: list[Response] = []
        while True:
            r = self.head(deadline - time.monotonic())
            if not 100 <= r.status < 200 or r.status == 101:
                break
            if r.get("content-length") is not None or r.get("transfer-encoding") is not None:
                raise ProtocolError("an informational response with framing (RFC 9110 6.4.1, 9112 6.1)")
            r.complete = True
            informational.append(r)
        r.informational = informational
        self.content(r, method, deadline)
        check_response(r)
        return r

    def content(self, r: Response, method: str, deadline: float) -> None:
        """Read the content of a response whose head was read (RFC 9112 6.3)."""
        encoding, length = r.get("transfer-encoding"), r.get("content-length")
        if encoding is not None and length is not None:
            raise ProtocolError("both Transfer-Encoding and Content-Length (RFC 9112 6.2)")
        if length is not None and re.fullmatch("[0-9]+", length) is None:
            raise ProtocolError(f"Content-Length: {length!r}")
        if r.status == 204 and (encoding is not None or length is not None):
            raise ProtocolError("204 with Content-Length or Transfer-Encoding (RFC 9110 8.6, 9112 6.1)")
        if method == "HEAD" or r.status in (204, 304):
            r.framing = "none"
        elif encoding is not None:
            if encoding.lower() != "chunked":
                raise ProtocolError(f"Transfer-Encoding: {encoding!r}")
            r.framing = "chunked"
            while True:
                size = self._line(deadline)
                if not _CHUNK.match(size):
                    raise ProtocolError(f"chunk size {size!r}")
                n = int(size, 16)
                if n == 0:
                    break
                piece = self._exactly(n, deadline)
                if self._exactly(2, deadline) != b"\r\n":
                    raise ProtocolError("a chunk without CRLF at its end")
                r.chunks.append(piece)
                r.body += piece
            r.trailers, _ = self._fields(deadline)
        elif length is not None:
            r.framing = "length"
            r.body = self._exactly(int(length), deadline)
        else:
            r.framing = "close"
            while self._fill(deadline):
                pass
            if self.was_reset:
                raise Closed("a reset inside content that the connection's end delimits", self.buffer, True)
            r.body, self.buffer = self.buffer, b""
        r.complete = True

    def responses(self, *methods: str) -> list[Response]:
        """A response for each of the methods, in order."""
        return [self.response(m) for m in methods]

    def read_some(self, n: int = 65536) -> bytes:
        """Whatever comes next, at most n octets; b"" at the end."""
        if not self.buffer:
            self._fill(time.monotonic() + self.timeout)
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def expect_close(self, timeout: float | None = None) -> bytes:
        """Wait until the server closes; returns what came before that. Silent when it does not."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while self._fill(deadline):
            pass
        data, self.buffer = self.buffer, b""
        return data

    def expect_closed_clean(self, timeout: float | None = None) -> None:
        """The server closes and not one octet comes before."""
        rest = self.expect_close(timeout)
        if rest:
            raise ProtocolError(f"octets after the last response: {rest[:200]!r}")

    def is_open(self, seconds: float = 0.0) -> bool:
        """Does the connection stay open and silent for so long?"""
        if self.buffer or self.eof:
            return False
        return not select.select([self.sock], [], [], seconds)[0]


def check_response(r: Response) -> None:
    """What has to hold for every response of every server."""
    date = r.all("date")
    if len(date) > 1:
        raise ProtocolError(f"Date is repeated (RFC 9110 5.3): {date}")
    if date and not _DATE.match(date[0]):
        raise ProtocolError(f"Date is no IMF-fixdate (RFC 9110 5.6.7): {date[0]!r}")
    if len(r.all("server")) > 1:
        raise ProtocolError(f"Server is repeated: {r.all('server')}")
    if r.version not in ("1.0", "1.1"):
        raise ProtocolError(f"version {r.version}")


def _waiting_bytes(client_port: int, server_port: int) -> int | None:
    """rx_queue of the server's side of a loopback TCP connection, from /proc; None when there is no such row."""
    want = f":{server_port:04X}"
    peer = f":{client_port:04X}"
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(name) as f:
                next(f)
                for row in f:
                    parts = row.split()
                    if parts[1].endswith(want) and parts[2].endswith(peer):
                        return int(parts[4].split(":")[1], 16)
        except (OSError, StopIteration):
            continue
    return None


def exchange(address: Address, data: bytes | str, method: str = "GET", timeout: float = TIMEOUT) -> Response:
    """One request on a connection of its own."""
    with Client(address, timeout) as c:
        c.send(data)
        return c.response(method)
