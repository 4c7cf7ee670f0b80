"""WSGI applications (PEP 3333) in threads, behind ASGI."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from capicorn.middleware.asgi2 import Receive, Scope, Send

Environ = dict[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

MEMORY = 1 << 20
"""Octets of a request's content kept in memory; more goes to a temporary file."""


class WSGIMiddleware:
    """`workers` threads run the application; each request's content is read before one of them is asked for."""

    def __init__(self, app: Callable[..., Iterable[bytes]], workers: int = 10) -> None:
        self.app = app
        self.executor = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="wsgi")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"a WSGI application does not serve {scope['type']!r}")
        with tempfile.SpooledTemporaryFile(max_size=MEMORY) as body:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body.write(message.get("body", b""))
                if not message.get("more_body", False):
                    break
            length = body.tell()
            body.seek(0)
            loop = asyncio.get_running_loop()
            call = _Call(self.app, build_environ(scope, body, length), send, loop)
            await loop.run_in_executor(self.executor, call.run)


def build_environ(scope: Scope, body: Any, length: int) -> Environ:
    """The environ of an http scope whose content of `length` octets is in the file `body`."""
    prefix = scope.get("root_path", "").encode().decode("latin-1")
    path = scope["path"].encode().decode("latin-1")
    server = scope.get("server") or ("localhost", 80)
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": prefix,
        "PATH_INFO": path[len(prefix) :] if path.startswith(prefix) else path,
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": str(server[0]),
        "SERVER_PORT": str(server[1] or 80),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": body,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    client = scope.get("client")
    if client is not None:
        environ["REMOTE_ADDR"] = client[0]
    for raw_name, raw_value in scope["headers"]:
        if b"_" in raw_name:  # would pass for the field of that name with hyphens
            continue
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        value = raw_value.decode("latin-1")
        key = name if name in ("CONTENT_LENGTH", "CONTENT_TYPE") else f"HTTP_{name}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    if "HTTP_TRANSFER_ENCODING" in environ:
        environ["CONTENT_LENGTH"] = str(length)
    return environ


class _Call:
    """One request, in a thread. `send` is awaited on the loop, so that a client that reads slowly slows the
    application down."""

    def __init__(self, app: Any, environ: Environ, send: Send, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.environ = environ
        self.asgi_send = send
        self.loop = loop
        self.head: dict[str, Any] | None = None
        self.started = False

    def run(self) -> None:
        chunks = self.app(self.environ, self.start_response)
        try:
            for chunk in chunks:
                if chunk:
                    self.write(chunk)
            self.send_head()
            self.send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()

    def start_response(
        self, status: str, headers: Iterable[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self.started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.head is not None:
            raise RuntimeError("start_response() was called before, without exc_info")
        self.head = {
            "type": "http.response.start",
            "status": int(status.split(" ", 1)[0]),
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        }
        return self.write

    def write(self, chunk: bytes) -> None:
        self.send_head()
        self.send({"type": "http.response.body", "body": chunk, "more_body": True})

    def send_head(self) -> None:
        if self.started:
            return
        if self.head is None:
            raise RuntimeError("the application sent content before start_response()")
        self.started = True
        self.send(self.head)

    def send(self, message: dict[str, Any]) -> None:
        async def sending() -> None:
            await self.asgi_send(message)

        asyncio.run_coroutine_threadsafe(sending(), self.loop).result()
