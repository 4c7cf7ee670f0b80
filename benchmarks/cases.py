"""What is measured: one table. README.md says what each line is for."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import apps

RAW = "benchmarks.apps:raw"
STARLETTE = "benchmarks.apps_starlette:app"
FASTAPI = "benchmarks.apps_fastapi:app"

HELLO_JSON = b'{"hello":"world"}'
ITEM = b'{"name":"a","price":1.5,"tags":["x","y"]}'
USER = (
    b'{"session":"3f2a9c41d7","agent":"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",'
    b'"language":"en-GB,en;q=0.7,de;q=0.3"}'
)

# As a browser sends them behind a proxy: 20 with Host.
BROWSER_HEADERS = [
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-GB,en;q=0.7,de;q=0.3"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "https://example.org/catalogue?page=3&sort=price"),
    ("Cookie", "session=3f2a9c41d7; theme=dark; csrftoken=9xWq2LkD0pRv7TzB; _ga=GA1.1.1093847.1700000000; cart=17"),
    ("DNT", "1"),
    ("Upgrade-Insecure-Requests", "1"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Sec-Fetch-User", "?1"),
    ("Priority", "u=0, i"),
    ("Cache-Control", "no-cache"),
    ("Pragma", "no-cache"),
    ("X-Forwarded-For", "203.0.113.7"),
    ("X-Forwarded-Proto", "https"),
    ("X-Request-Id", "4b1f7c1e-0d0a-4c55-8f6f-7a3c3d1a9a10"),
    ("Authorization", "Bearer 0123456789abcdef0123456789abcdef0123456789abcdef"),
]


@dataclass(frozen=True, eq=False)
class Case:
    """`kind` is http, websocket, or one of the functions of special.py. For http, `path` is asked for with `method`,
    `headers` and `body`, and each answer has to have `want` as its body."""

    name: str
    title: str
    kind: str = "http"
    app: str = RAW
    path: str = "/"
    method: str = "GET"
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    want: bytes = apps.HELLO
    connections: int = 64
    pipelined: int = 1
    each_its_own: bool = False
    """A connection for each request."""
    access_log: bool = False
    workers: int = 1
    tls: bool = False
    octets: int = 0
    """Of a WebSocket message."""
    in_flight: int = 1
    binary: bool = False
    floors: tuple[str, ...] = ("app",)
    """Which floors apply: the app in a plain loop, nginx."""
    unit: str = "requests/s"
    lower_is_better: bool = False
    only_alone: bool = False
    """Starts each server by itself; nothing is shared in turns."""

    def request(self, port: int) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.method == "POST":
            lines.append(f"Content-Length: {len(self.body)}")
        if self.each_its_own:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def upload(name: str, size: int) -> Case:
    body = bytes(33 + (i * 7 + i // 90) % 90 for i in range(size))
    title = f"raw ASGI, {size // 1024} KiB upload"
    return Case(f"upload-{name}", title, path="/upload", method="POST", body=body, want=b"%d" % size)


def download(name: str, size: int, tls: bool = False) -> Case:
    title = f"raw ASGI, {size // 1024} KiB download" + (" over TLS" if tls else "")
    return Case(f"{'tls-' if tls else ''}download-{name}", title, path=f"/{name}", want=b"x" * size, tls=tls)


BOTH = ("app", "nginx")
JSON_TYPE = [("Content-Type", "application/json")]

CASES: list[Case] = [
    Case("raw", "raw ASGI, hello", floors=BOTH),
    Case(
        "headers",
        "raw ASGI, 20 headers with cookies, 8 of the response",
        path="/headers",
        headers=BROWSER_HEADERS,
    ),
    Case("starlette", "Starlette, JSON", app=STARLETTE, want=HELLO_JSON),
    Case("fastapi", "FastAPI, JSON", app=FASTAPI, want=HELLO_JSON),
    Case(
        "fastapi-body",
        "FastAPI, JSON with a pydantic body",
        app=FASTAPI,
        path="/item",
        method="POST",
        headers=JSON_TYPE,
        body=ITEM,
        want=ITEM,
    ),
    Case("fastapi-def", "FastAPI, `def` endpoint", app=FASTAPI, path="/def", want=HELLO_JSON),
    Case(
        "fastapi-headers",
        "FastAPI, 20 headers with cookies, three read",
        app=FASTAPI,
        path="/user",
        headers=BROWSER_HEADERS,
        want=USER,
    ),
    *[upload(name, size) for name, size in apps.SIZES.items()],
    *[download(name, size) for name, size in apps.SIZES.items()],
    Case("stream", "raw ASGI, 100 chunks", path="/stream", want=apps.EVENT * apps.EVENTS),
    Case("file", "Starlette, 64 KiB file", app=STARLETTE, path="/file", want=apps.BODIES["/64k"], floors=()),
    Case(
        "file-100m",
        "Starlette, 100 MiB file",
        "transfer",
        app=STARLETTE,
        path="/large",
        want=bytes(apps.LARGE),
        connections=2,
        floors=(),
        unit="MiB/s of processor",
    ),
    Case("websocket", "WebSocket echo, 32 octets, 1 in flight", "websocket", octets=32, floors=(), unit="messages/s"),
    Case(
        "websocket-10",
        "WebSocket echo, 32 octets, 10 in flight",
        "websocket",
        octets=32,
        in_flight=10,
        floors=(),
        unit="messages/s",
    ),
    Case(
        "websocket-16k",
        "WebSocket echo, 16 KiB, 1 in flight",
        "websocket",
        octets=16384,
        binary=True,
        floors=(),
        unit="messages/s",
    ),
    Case("pipelining", "raw ASGI, 16 requests pipelined", pipelined=16, floors=BOTH),
    Case("connect", "raw ASGI, a connection for each request", each_its_own=True, floors=BOTH),
    Case("tls", "raw ASGI over TLS", tls=True),
    Case("tls-connect", "raw ASGI over TLS, a handshake for each request", tls=True, each_its_own=True),
    download("1m", apps.SIZES["1m"], tls=True),
    Case("log", "raw ASGI with an access log", access_log=True),
    Case("workers-2", "raw ASGI, 2 workers", workers=2, connections=128, floors=()),
    Case("workers-4", "raw ASGI, 4 workers", workers=4, connections=256, floors=()),
    Case(
        "latency",
        "p99 of raw ASGI at 70 % of uvicorn's own rate",
        "latency",
        floors=("nginx",),
        unit="us",
        lower_is_better=True,
    ),
    Case(
        "latency-own",
        "p99 of raw ASGI at 70 % of the server's own rate",
        "latency",
        floors=("nginx",),
        unit="us",
        lower_is_better=True,
    ),
    Case(
        "blocked",
        "p99 wait of new connections, 1 of 2 workers blocked",
        "blocked",
        workers=2,
        each_its_own=True,
        floors=(),
        unit="us",
        lower_is_better=True,
    ),
    Case(
        "blocked-kept",
        "p99 wait on 64 kept connections, 1 of 2 workers blocked",
        "blocked",
        workers=2,
        floors=(),
        unit="us",
        lower_is_better=True,
    ),
    Case(
        "idle",
        "process memory for an idle connection",
        "idle",
        floors=("nginx",),
        unit="KiB",
        lower_is_better=True,
        only_alone=True,
    ),
    Case(
        "idle-websocket",
        "process memory for an idle WebSocket",
        "idle-websocket",
        octets=32,
        unit="KiB",
        lower_is_better=True,
        only_alone=True,
    ),
    Case(
        "start-raw",
        "from start to the first answer, raw ASGI",
        "start",
        floors=(),
        unit="ms",
        lower_is_better=True,
        only_alone=True,
    ),
    Case(
        "start-fastapi",
        "from start to the first answer, FastAPI",
        "start",
        app=FASTAPI,
        want=HELLO_JSON,
        floors=(),
        unit="ms",
        lower_is_better=True,
        only_alone=True,
    ),
    Case(
        "memory",
        "memory for each of 4 workers, FastAPI",
        "memory",
        app=FASTAPI,
        want=HELLO_JSON,
        workers=4,
        floors=(),
        unit="MiB",
        lower_is_better=True,
        only_alone=True,
    ),
]
