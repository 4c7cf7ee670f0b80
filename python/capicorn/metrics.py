"""Prometheus: the scoreboard's numbers as text, and the little HTTP that hands it out on an address of its own.

The supervisor polls the connections beside its other work, a single process has a thread for it: neither waits for a
client, and neither needs the event loop, so the numbers are there when that is blocked.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from capicorn import control, listeners
from capicorn.presence import BOUNDS

if TYPE_CHECKING:
    from capicorn._core import Scoreboard

PATH = "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

MOST_CONNECTIONS = 16
"""A further one takes the place of the oldest."""

LONGEST_HEAD = 8192
TIMEOUT = 5.0
"""Seconds for a request and its response."""

ACCEPT_AGAIN = 0.1
"""Seconds after a connection that could not be accepted."""

logger = logging.getLogger("capicorn.error")


# ---- the text

Sample = tuple[str, dict[str, Any], float]


def render(board: Scoreboard) -> str:
    """All numbers of a scoreboard in the text format of Prometheus."""
    total, info = board.total(), control.info_of(board)
    slots = [(slot, board.inspect(slot)) for slot in range(board.used)]
    workers = [(slot, worker) for slot, worker in slots if worker["state"] in control.STATES]
    lines: list[str] = []

    def put(name: str, kind: str, text: str, samples: Iterable[Sample]) -> None:
        lines.append(f"# HELP {name} {text}")
        lines.append(f"# TYPE {name} {kind}")
        lines.extend(f"{name}{suffix}{_labels(labels)} {_number(value)}" for suffix, labels, value in samples)

    def single(name: str, kind: str, text: str, value: float) -> None:
        put(name, kind, text, [("", {}, value)])

    def each(name: str, text: str, value: Callable[[dict[str, Any]], float]) -> None:
        put(name, "gauge", text, [("", {"worker": slot}, value(worker)) for slot, worker in workers])

    put(
        "capicorn_build_info",
        "gauge",
        "The versions; always 1.",
        [("", {"version": info.get("version", ""), "python": info.get("python", "")}, 1)],
    )
    single(
        "process_start_time_seconds", "gauge", "When the server started, in seconds of Unix time.", info.get("since", 0)
    )
    put(
        "capicorn_requests_total",
        "counter",
        "Responses by class of status.",
        [("", {"status": f"{number}xx"}, count) for number, count in enumerate(total["status"], 1)],
    )
    single("capicorn_requests_received_total", "counter", "Requests whose head was read.", total["requests"])
    put(
        "capicorn_request_duration_seconds",
        "histogram",
        "Seconds from a request's head to the end of its response.",
        _histogram(total["buckets"], total["seconds"]),
    )
    single("capicorn_request_errors_total", "counter", "Exceptions that came out of the application.", total["errors"])
    single("capicorn_requests_aborted_total", "counter", "Requests whose client left before the end.", total["aborted"])
    single("capicorn_connections_accepted_total", "counter", "Connections accepted.", total["connections"])
    single("capicorn_websockets_accepted_total", "counter", "WebSockets accepted.", total["websockets"])
    single("capicorn_received_bytes_total", "counter", "Octets received, inside of TLS.", total["octets_in"])
    single("capicorn_sent_bytes_total", "counter", "Octets sent, inside of TLS.", total["octets_out"])
    single(
        "capicorn_loop_blocked_total", "counter", "Blocks of an event loop of --block-warn or more.", total["blocks"]
    )
    single("capicorn_loop_blocked_seconds_total", "counter", "Seconds of those that are over.", total["blocked"])
    single(
        "capicorn_connections_rescued_total",
        "counter",
        "Connections that went to another worker while their own was blocked.",
        total["rescued"],
    )
    single("capicorn_workers", "gauge", "Workers that are wanted.", info.get("workers") or 1)
    single("capicorn_worker_starts_total", "counter", "Workers started.", total["starts"])
    single(
        "capicorn_worker_restarts_total",
        "counter",
        "Workers that ended, of themselves or replaced.",
        max(0, total["starts"] - len(workers)),
    )
    each("capicorn_worker_up", "1: the worker serves.", lambda worker: worker["state"] == "serving")
    each("capicorn_worker_blocked", "1: its event loop does not turn.", _is_blocked)
    each("capicorn_worker_start_time_seconds", "When it started.", lambda worker: time.time() - float(worker["age"]))
    each("capicorn_requests_in_flight", "Requests that are being answered.", lambda worker: worker["requests"])
    each("capicorn_connections", "Open connections.", lambda worker: worker["connections"])
    each("capicorn_loop_lag_seconds", "By how much what is due in its event loop is late.", _lag)
    each("capicorn_threads_busy", "Threads at work.", lambda worker: worker["threads_busy"])
    each("capicorn_threads_queued", "Calls that wait for a thread.", lambda worker: worker["threads_queued"])
    each("capicorn_threads_max", "Threads that there may be.", lambda worker: worker["threads"])
    each("capicorn_worker_resident_memory_bytes", "Resident memory.", lambda worker: worker["resident"])
    return "\n".join(lines) + "\n"


def _lag(worker: dict[str, Any]) -> float:
    return max(float(worker["lag"]), float(worker["awake"]))


def _is_blocked(worker: dict[str, Any]) -> float:
    return float(worker["awake"] >= control.BLOCKED)


def _histogram(buckets: tuple[int, ...], seconds: float) -> list[Sample]:
    samples: list[Sample] = []
    count = 0
    for bound, number in zip((*BOUNDS, "+Inf"), buckets, strict=True):
        count += number
        samples.append(("_bucket", {"le": bound}, count))
    return [*samples, ("_sum", {}, seconds), ("_count", {}, count)]


def _labels(labels: dict[str, Any]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(str(value))}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


# ---- handing it out


class _Connection:
    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock = sock
        self.deadline = deadline
        self.head = b""
        self.response = memoryview(b"")
        self.answered = False


class MetricsServer:
    """Answers GET and HEAD of /metrics, one request on each connection. Not for several threads; handle() does not
    wait. Raises OSError, whose text names the address, when that cannot be listened on."""

    def __init__(self, address: str, text: Callable[[], str]) -> None:
        self.address = address
        self.text = text
        self._connections: dict[int, _Connection] = {}
        self._path: str | None = None
        self._accept_at = 0.0
        self.socket = self._bind()

    def _bind(self) -> socket.socket:
        host, port, path, _ = check_address(self.address)
        try:
            sock = listeners.bind_first(host, port) if path is None else listeners.bind_unix(path, 0o660)
            sock.listen(64)
        except OSError as exc:
            raise OSError(exc.errno, f"metrics_bind: {self.address}: {exc.strerror or exc}") from None
        sock.setblocking(False)
        self._path = listeners.file_of(sock)
        if path is None:
            host, port = sock.getsockname()[:2]
            where = f"http://[{host}]:{port}{PATH}" if ":" in str(host) else f"http://{host}:{port}{PATH}"
        else:
            where = f"unix socket {path}"
        logger.info("Metrics on %s", where)
        return sock

    def descriptors(self) -> list[tuple[int, int]]:
        """What to poll for."""
        found = [(self.socket.fileno(), select.POLLIN)] if time.monotonic() >= self._accept_at else []
        for fd, connection in self._connections.items():
            found.append((fd, select.POLLOUT if connection.answered else select.POLLIN))
        return found

    def pause(self, now: float) -> float | None:
        """Seconds until handle() is to be called in any case; None: it need not be."""
        deadlines = [connection.deadline for connection in self._connections.values()]
        if now < self._accept_at:
            deadlines.append(self._accept_at)
        return max(0.0, min(deadlines) - now) if deadlines else None

    def handle(self, ready: set[int], now: float) -> None:
        """These descriptors are ready; some may be others'."""
        for fd, connection in list(self._connections.items()):
            if fd in ready:
                self._serve(connection)
            elif now >= connection.deadline:
                self._drop(connection)
        if self.socket.fileno() in ready:
            self._accept(now)

    def _accept(self, now: float) -> None:
        try:
            sock, _ = self.socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:  # descriptors ran out, say: it stays readable
            self._accept_at = now + ACCEPT_AGAIN
            return
        sock.setblocking(False)
        if len(self._connections) >= MOST_CONNECTIONS:
            self._drop(next(iter(self._connections.values())))
        connection = _Connection(sock, now + TIMEOUT)
        self._connections[sock.fileno()] = connection
        self._serve(connection)

    def _serve(self, connection: _Connection) -> None:
        try:
            if not connection.answered:
                piece = connection.sock.recv(4096)
                connection.head += piece
                if not piece:
                    self._drop(connection)
                    return
                end = connection.head.find(b"\r\n\r\n")
                if end < 0 and len(connection.head) < LONGEST_HEAD:
                    return
                connection.response = memoryview(self._answer(connection.head if end >= 0 else None))
                connection.answered = True
            sent = connection.sock.send(connection.response)
            connection.response = connection.response[sent:]
            if not connection.response:
                self._drop(connection)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(connection)

    def _answer(self, head: bytes | None) -> bytes:
        line = b"" if head is None else head.partition(b"\r\n")[0]
        words = line.split(b" ")
        if head is None:
            status, text = "431 Request Header Fields Too Large", ""
        elif len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            status, text = "400 Bad Request", ""
        elif words[1].partition(b"?")[0] != PATH.encode():
            status, text = "404 Not Found", f"What there is to be seen is {PATH}.\n"
        elif words[0] not in (b"GET", b"HEAD"):
            status, text = "405 Method Not Allowed", ""
        else:
            status, text = self._metrics()
        fields = ["Content-Type: " + (CONTENT_TYPE if status == "200 OK" else "text/plain; charset=utf-8")]
        if status.startswith("405"):
            fields.append("Allow: GET, HEAD")
        body = text.encode()
        fields += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
        return "\r\n".join([f"HTTP/1.1 {status}", *fields]).encode() + (b"" if words[0] == b"HEAD" else body)

    def _metrics(self) -> tuple[str, str]:
        try:
            return "200 OK", self.text()
        except Exception:
            logger.exception("The metrics could not be collected")
            return "500 Internal Server Error", ""

    def _drop(self, connection: _Connection) -> None:
        self._connections = {fd: one for fd, one in self._connections.items() if one is not connection}
        connection.sock.close()

    def forget(self) -> None:
        """In a forked process: close the descriptors, and nothing more."""
        for connection in self._connections.values():
            connection.sock.close()
        self._connections = {}
        self.socket.close()

    def close(self) -> None:
        self.forget()
        if self._path is not None:
            _unlink(self._path)
            self._path = None


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def check_address(text: str) -> tuple[str | None, int, str | None, int | None]:
    """Host and port, or a path. Raises ValueError."""
    host, port, path, fd = listeners.parse_address(text)
    if fd is not None or (path is None and not text.rpartition(":")[2].isdigit()):
        raise ValueError(f"metrics_bind: {text!r} is no address; it should be HOST:PORT or unix:PATH.")
    return host, port, path, fd


class MetricsThread:
    """A MetricsServer in a thread of its own, for a server without a supervisor."""

    def __init__(self, address: str, board: Scoreboard) -> None:
        self._server = MetricsServer(address, lambda: render(board))
        self._end, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="capicorn metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        server = self._server
        while True:
            poll = select.poll()
            poll.register(self._end.fileno(), select.POLLIN)
            for fd, events in server.descriptors():
                poll.register(fd, events)
            pause = server.pause(time.monotonic())
            ready = {fd for fd, _ in poll.poll(None if pause is None else int(pause * 1000) + 1)}
            if self._end.fileno() in ready:
                return
            server.handle(ready, time.monotonic())

    def close(self) -> None:
        """Idempotent."""
        self._wake.close()
        self._thread.join()
        self._end.close()
        self._server.close()
