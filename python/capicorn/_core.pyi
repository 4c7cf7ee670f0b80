"""The C extension: HTTP protocol and event loop. Its Python face is `capicorn.Loop` and `capicorn.Server`."""

import asyncio
from collections.abc import Callable, MutableMapping, Sequence
from contextvars import Context
from logging import Logger
from ssl import SSLContext, SSLObject
from types import EllipsisType
from typing import Any, Literal

LIBUV_VERSION: str
LLHTTP_VERSION: str

def _counts() -> dict[str, int]: ...
def _mem_fail(n: int, count: int = 1, /) -> None: ...

class Handle:
    def cancel(self) -> None: ...
    def cancelled(self) -> bool: ...
    def get_context(self) -> Context | None: ...

class TimerHandle(Handle):
    def when(self) -> float: ...

class Loop:
    """The native part of `capicorn.Loop`; see python/capicorn/loop.py."""

    def _add_reader(
        self, fd: Any, callback: Callable[..., Any], /, *args: Any, context: Context | None = None
    ) -> Any: ...
    def _add_writer(
        self, fd: Any, callback: Callable[..., Any], /, *args: Any, context: Context | None = None
    ) -> Any: ...
    def _remove_reader(self, fd: Any, /) -> bool: ...
    def _remove_writer(self, fd: Any, /) -> bool: ...
    def _look_up(
        self, host: Any, port: Any, family: int, type: int, proto: int, flags: int, /
    ) -> asyncio.Future[list[tuple[int, int, int, str, Any]]] | None: ...
    def _forget_lookup(self, future: asyncio.Future[Any], /) -> None: ...
    def _accept(self, fd: int, limit: int, /) -> list[tuple[int, Any]]: ...

class ThreadPool:
    """Threads that run Python functions for a loop of ours; see python/capicorn/thread_pool.py."""

    def __init__(
        self,
        loop: Loop,
        start: Callable[[], None],  # starts a thread that calls work(), or lost()
        *,
        size: int = 0,  # 0: as many threads as calls
        idle: float = 10.0,  # seconds after which a thread that nobody needs ends
        local: Any = None,  # a threading.local whose attribute of that name is a call's `scope`, else None
        scope_name: str | None = None,
    ) -> None: ...
    busy: int
    queued: int
    threads: int
    closed: bool
    def call(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        context: Context | None = None,
        scope: Any = None,
        /,
    ) -> asyncio.Future[Any]: ...
    def run(self, func: Callable[..., Any], args: tuple[Any, ...], /) -> None: ...
    def work(self) -> None: ...
    def lost(self) -> None: ...
    def close(self) -> None: ...
    def forget(self) -> list[Any]:
        """The futures of those that call() queued, the arguments of those that run() did."""

class _Transport:
    """What the native parts of all transports have."""

    _extra: dict[str, Any]
    _protocol: asyncio.BaseProtocol | None
    _closing: bool
    _paused: bool
    _polled: int
    def _open(
        self,
        loop: Loop,
        fd: int,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | EllipsisType | None,
        /,
    ) -> None: ...
    def _start_now(self, protocol: asyncio.BaseProtocol, /) -> None: ...
    def _detach(self) -> None: ...
    def _force_close(self, exc: BaseException | None, /) -> None: ...

class StreamTransport(_Transport, asyncio.Transport):
    """The native part of `capicorn.transports.StreamTransport`."""

    _loop: asyncio.AbstractEventLoop | None
    _empty_waiter: asyncio.Future[None] | None
    _protocol_paused: bool
    def _send_gathered(self) -> None: ...

class ReadPipeTransport(_Transport, asyncio.ReadTransport):
    """The native part of `capicorn.transports.ReadPipeTransport`."""

class WritePipeTransport(_Transport, asyncio.Transport):
    """The native part of `capicorn.transports.WritePipeTransport`."""

class DatagramTransport(_Transport, asyncio.Transport):
    """The native part of `capicorn.transports.DatagramTransport`."""

    def sendto(self, data: bytes | bytearray | memoryview, addr: Any = None) -> None: ...
    def _open_datagrams(self, sock: Any, remote: Any, connected: bool, /) -> None: ...

class Connection:
    """One client's connection. Only to be counted, listed and closed from Python."""

    client: tuple[str, int] | None
    state: str
    """What it is doing, as the logs say it: "idle", "reading request fields", ..."""
    def close(self) -> None: ...

class HTTPServer:
    """The HTTP side of one event loop: accepts, reads, calls the application, writes.

    Made and used in the loop's thread, while that loop runs; the loop may be a
    capicorn.Loop or any asyncio loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        app: Callable[..., Any],
        *,
        logger: Logger,
        state: MutableMapping[str, Any] | None = None,
        asgi_version: str = "3.0",
        root_path: str = "",
        scheme: str = "http",
        # (name, value) pairs in wire form that every response gets unless the application sets that name itself;
        # `server` is one of them
        default_headers: Sequence[tuple[bytes, bytes]] = (),
        date_header: bool = True,
        # called with the fresh scope of a request that carries X-Forwarded-For, X-Forwarded-Proto (or Forwarded);
        # changes it in place. None: such fields mean nothing
        proxy_headers: Callable[[MutableMapping[str, Any]], None] | None = None,
        # an AccessLog, or None: no access log
        access_log: AccessLog | None = None,
        # callable that returns the context in which a request begins (it is copied); None: that of this call
        reset_contextvars: bool = False,
        # sizes in octets, counts; 0 means no limit where options.md allows it
        limit_request_line: int = 16384,
        limit_request_head: int = 65536,
        limit_request_fields: int = 128,
        limit_request_field_size: int = 0,
        limit_request_body: int = 0,
        limit_concurrency: int = 0,
        # after so many requests responses carry Connection: close and `wants_restart` is true
        limit_max_requests: int = 0,
        # seconds; 0: no limit
        timeout_first_byte: float = 30.0,
        timeout_request_head: float = 30.0,
        timeout_request_body: float = 30.0,
        timeout_send: float = 60.0,
        timeout_keep_alive: float = 5.0,
        timeout_request: float = 0.0,
        # WebSockets; False: an upgrade to them is ignored
        ws: bool = True,
        ws_max_size: int = 16777216,
        # messages that may wait for the application before reading stops
        ws_max_queue: int = 32,
        # seconds; 0: no pings, no limit
        ws_ping_interval: float | None = 20.0,
        ws_ping_timeout: float | None = 20.0,
        ws_per_message_deflate: bool = True,
        # an ssl.SSLContext: every connection speaks TLS
        ssl_context: SSLContext | None = None,
        # called with a connection's ssl.SSLObject, once; what it returns is the ASGI tls extension's dict
        tls_info: Callable[[SSLObject], dict[str, Any]] | None = None,
        # called with the peer's (host, port), or None for a Unix socket's: does its connection begin with a PROXY
        # header (version 1 or 2)? Then its addresses are the connection's. None: no connection does
        proxy_protocol: Callable[[tuple[str, int] | None], bool] | None = None,
    ) -> None: ...
    ssl_context: SSLContext | None
    """Of connections accepted from now on; may be set, so that certificates are renewed."""
    def listen(self, fd: int) -> None:
        """Accept from a listening socket. The descriptor stays the caller's, and has to stay open until stop_listening()."""
    def take_waiting(self) -> None:
        """Accept what waits in the kernel now: it would be reset when the listening sockets are closed."""
    def stop_listening(self) -> None:
        """Accept no more. The listening sockets stay open."""
    def shutdown(self, idle_grace: float = 0.0) -> None:
        """Let what runs end: every further response says Connection: close; idle connections are closed after
        `idle_grace` seconds in which a request that was on its way is still answered."""
    def disconnect(self) -> list[str]:
        """Tell every running request that its client is gone: receive() gives http.disconnect. The response still goes
        out when the application sends one. Returns what was told, "GET /path" each."""
    def cancel(self) -> list[str]:
        """Cancel the task of every running request. Returns which, "GET /path" each."""
    def close(self) -> None:
        """Close every connection at once and release the loop. Idempotent."""
    connections: set[Connection]
    """A snapshot, new with each access; len() of it is the number of open connections."""
    tasks: set[asyncio.Task[Any]]
    """The tasks of requests that run now; a snapshot."""
    connection_count: int
    request_count: int
    """Requests in flight."""
    total_requests: int
    wants_restart: bool
    app: Callable[..., Any]

class Scoreboard:
    """Facts about each worker process, in memory that the supervisor and its workers share. Slots are numbered from 0;
    IndexError for one that does not exist."""

    slots: int
    used: int
    """One more than the highest slot that was ever taken."""
    pid: int
    """Of the process that made it."""
    age: float
    """Seconds since then."""
    def __init__(self, slots: int = 256, *, fd: int = -1, readonly: bool = False) -> None:
        """A new one, or with `fd` (then the board's own) one that another process made; `readonly`: to look at only,
        what changes it raises, and `fd` is closed. Raises OSError."""
    def fileno(self) -> int: ...
    def take(self, index: int, /) -> None:
        """Empty a slot for a worker that starts. By the supervisor."""
    def free(self, index: int, /) -> None: ...
    def set_state(self, index: int, state: str, /) -> None:
        """This process is "starting", "serving" or "retiring"."""
    def attach(self, index: int, server: HTTPServer, /) -> None:
        """The server keeps the slot's number of connections, and takes new ones in balance with its siblings."""
    def beat(self, index: int, lag: float = 0.0, threads: int = 0, busy: int = 0, queued: int = 0, /) -> None:
        """The loop runs now, `lag` seconds late; its numbers."""
    def read(self, index: int, /) -> dict[str, Any]:
        """pid, generation, state, beat_age and age (seconds; beat_age None: no beat yet), connections, requests,
        total_requests, total_connections, threads, threads_busy, threads_queued, lag, resident (octets), awake (seconds
        for which what the loop does now has lasted), late (its loop's turn lasts too long)."""
    def inspect(self, index: int, /) -> dict[str, Any]:
        """read() and, unless the slot is free: tally (a dict as total()'s), running ("GET /path" whose step runs), place
        (where it is blocked, if known), wants_gil, listed (requests in flight, the oldest first: method, path, age,
        websocket)."""
    def total(self) -> dict[str, Any]:
        """What all workers counted, those that are gone as well: requests, connections, websockets, status (1xx to 5xx),
        errors, aborted, octets_in, octets_out, buckets and seconds of the durations, rescued (connections that
        went to a sibling while the loop was blocked), blocks, blocked, longest_block;
        and starts, how many workers there were."""
    def set_info(self, text: bytes, /) -> None: ...
    def info(self) -> bytes: ...
    def set_place(self, index: int, request: str, place: str, /) -> None:
        """By the guard's reporter: what blocks this process's loop now."""
    def ask(self, index: int, /) -> None:
        """Ask a worker's guard where its loop is blocked."""
    def answer(self, index: int, /) -> Literal["place", "gil", "over", "none"] | None:
        """What came of it: the place is known and the stack is logged, a C call holds the GIL, the loop went on, nobody
        can look. None: there is no answer yet."""
    def may_accept(self, index: int, /) -> bool: ...
    def end_with_parent(self, fd: int, seconds: int, /) -> None:
        """Kill this process so many seconds after the other end of the socket pair was closed, if it still lives."""

class Guard:
    """A native thread that watches an event loop, and answers health checks on a listening socket."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        # called in a thread of its own with event ("begin", "last": the process is about to be killed, "end"), "GET /path" or "", seconds, does it still go on,
        # does the loop wait for the GIL
        report: Callable[[str, str, float, bool, bool], None],
        *,
        warn: float = 1.0,  # seconds; 0: do not watch
        fd: int = -1,  # for a line that is written when the GIL cannot be had
        health_fd: int = -1,
        health_path: str = "",
        board: Scoreboard | None = None,  # ready is when one of its workers serves; None: what set_ready says
        slot: int = -1,  # ours on it: there is the loop's beat
        late: bool = True,  # ... and there it says when our loop is late, for our siblings
        channel: int = -1,  # a socket through which connections go to siblings meanwhile; -1: they wait
        own_path: str = "",  # of health checks on the server's own port
    ) -> None: ...
    foreign: bool
    """The loop is not ours: expect() is its beat."""
    blocks: int
    longest: float
    """Seconds of the longest block that is over."""
    def watch(self, on: bool, /) -> None: ...
    def set_ready(self, ready: bool, /) -> None: ...
    def expect(self, seconds: float, /) -> None:
        """The loop runs, and will call this again in so many seconds."""
    def join(self, server: HTTPServer, channel: int = -1, /) -> None:
        """The server's connections are looked after while the loop is blocked; those of its siblings come in through the
        channel (-1: they do not). Before it listens. Raises OSError."""
    def stop(self) -> None:
        """End its threads. Any thread. Idempotent."""
    def close(self) -> None:
        """stop(), and forget the loop. In the loop's thread. Idempotent."""

class AccessLog:
    """The access log, formatted and buffered in C.

    While `logger` has just the handler given here and no filter, lines go to `fd` directly; as soon as somebody attached
    handlers or filters or changed propagation, each record goes through `logger` (args are uvicorn's five).
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        logger: Logger,
        *,
        # the handler whose output this replaces, and its stream's descriptor; None: always through `logger`
        handler: Any = None,
        fd: int = -1,
        # a line as gunicorn's atoms spell it (`%(h)s "%(r)s" %(s)s`); None: uvicorn's line with `prefix` in front
        format: str | None = None,
        json: bool = False,
        prefix: str = "INFO:     ",
        # colours as uvicorn's formatter has them
        colors: bool = False,
        # exact paths, or with a trailing * prefixes, that are left out
        exclude: Sequence[str] = (),
    ) -> None: ...
    def flush(self) -> None:
        """Write what is buffered; waits up to a second for the reader of a full pipe. Any thread."""
    def close(self) -> None:
        """Flush and forget the loop: later lines are written at once. In the loop's thread. Idempotent."""
    dropped: int
    """Lines that could not be written (the disk was full, the pipe's reader gone or too slow)."""
    buffered: int
    """Octets not yet written; at most 1 MiB."""
    at_start: bool
    """Is a line written when its response begins (or only at its end: duration, size, response headers)?"""
    def _tick(self) -> None: ...
    def _write(
        self,
        client: tuple[str, int] | None,
        method: str,
        target: bytes,
        *,
        root_path: str = "",
        minor: int = 1,
        status: int = 200,
        body_octets: int = 0,
        duration_ns: int = 0,
        request_headers: Sequence[tuple[bytes, bytes]] | None = None,
        response_headers: Sequence[tuple[bytes, bytes]] | None = None,
    ) -> None:
        """Log one response, as the server does it. For tests."""
