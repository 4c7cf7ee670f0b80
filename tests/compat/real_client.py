"""A pytest plugin: starlette.testclient.TestClient over a real server and real sockets.

Loaded with `-p real_client` by frameworks.py (this folder is in the path then; nothing of the `tests` package is
imported, as the suites have a package of that name, too). COMPAT_SERVER names a module with uvicorn's Config and
Server. COMPAT_RESULTS is a file for the outcome of each test.

The application is wrapped, for what the in-process client does by itself: to raise the application's error in the
test, to wait for background work, and to run a lifespan only under `with`. Each octet goes through the server.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import threading
import time
from collections import OrderedDict
from typing import Any

import pytest
import starlette.testclient as original
from starlette.websockets import WebSocketDisconnect

httpx: Any = original.httpx
SERVER = os.environ.get("COMPAT_SERVER", "capicorn")
KEPT = 6
"""Servers that go on running, for tests that use one client again and again."""
PATIENCE = 8.0
"""Seconds for one exchange."""

_running: OrderedDict[int, RunningServer] = OrderedDict()


class Wrapper:
    """The application as the server sees it."""

    def __init__(self, app: Any, client: Any) -> None:
        self.app = app
        self.client = client
        self.with_lifespan = False
        self.lifespan_error: BaseException | None = None
        self.errors: list[BaseException] = []
        self.closed: dict[str, Any] | None = None
        self.active = 0
        self.changed = threading.Condition()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await self.lifespan(scope, receive, send)
        if scope["type"] == "websocket":
            send = self.watching(send)
        with self.changed:
            self.active += 1
        try:
            await self.app(scope, receive, send)
        except Exception as e:
            self.errors.append(e)
            raise
        finally:
            with self.changed:
                self.active -= 1
                self.changed.notify_all()

    def watching(self, send: Any) -> Any:
        async def watched(message: dict[str, Any]) -> None:
            if message["type"] == "websocket.close":
                self.closed = message
            await send(message)

        return watched

    async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        if not self.with_lifespan:
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        try:
            await self.app(scope, receive, send)
        except BaseException as e:
            self.lifespan_error = e
            raise
        finally:
            self.client.app_state.update(scope.get("state") or {})

    def wait_idle(self, seconds: float = PATIENCE) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.active == 0, seconds)

    def raise_error(self, but: tuple[type[BaseException], ...] = ()) -> None:
        for error in self.errors:
            if not isinstance(error, but):
                raise error


class RunningServer:
    """The server for one client, in a thread."""

    def __init__(self, wrapper: Wrapper, root_path: str) -> None:
        module = importlib.import_module(SERVER)
        config = module.Config(
            wrapper, host="127.0.0.1", port=0, lifespan="on", log_config=None, log_level="critical", access_log=False,
            root_path=root_path, server_header=False, date_header=False, timeout_graceful_shutdown=2,
        )  # fmt: skip
        self.server = module.Server(config)
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self.run, daemon=True, name="server")
        self.thread.start()
        end = time.monotonic() + 10
        while not self.server.started:
            if not self.thread.is_alive() or time.monotonic() > end:
                raise wrapper.lifespan_error or RuntimeError(f"the server did not start: {self.failure!r}")
            time.sleep(0.001)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.transport = httpx.HTTPTransport()

    def run(self) -> None:
        try:
            self.server.run()
        except BaseException as e:  # SystemExit after a failed start
            self.failure = e

    def stop(self, wait: bool) -> None:
        with contextlib.suppress(Exception):
            self.transport.close()
        self.server.should_exit = True
        if wait:
            self.thread.join(PATIENCE)


def server_of(client: Any) -> RunningServer:
    """The client's server, started if need be; others are stopped when there are too many."""
    server = _running.pop(id(client), None)
    if server is None:
        server = RunningServer(client.wrapper, client.real_root_path)
        server.client = client  # type: ignore[attr-defined]
    _running[id(client)] = server
    for key, other in list(_running.items())[:-1]:
        if len(_running) > KEPT and not other.client.wrapper.with_lifespan:  # type: ignore[attr-defined]
            other.stop(wait=False)
            del _running[key]
    return server


def stop_server(client: Any, wait: bool = True) -> None:
    server = _running.pop(id(client), None)
    if server is not None:
        server.stop(wait)


class RealTransport(httpx.BaseTransport):
    """In place of the transport that calls the application."""

    def __init__(self, client: Any, raise_server_exceptions: bool) -> None:
        self.client = client
        self.raise_server_exceptions = raise_server_exceptions

    def handle_request(self, request: Any) -> Any:
        server = server_of(self.client)
        wrapper = self.client.wrapper
        wrapper.errors.clear()
        headers = [(n, v) for n, v in request.headers.raw if n.lower() != b"host"]
        headers.insert(0, (b"Host", request.headers.get("host", request.url.netloc.decode()).encode()))
        if request.url.scheme == "https":
            headers.append((b"X-Forwarded-Proto", b"https"))
        limits = dict.fromkeys(("connect", "read", "write", "pool"), PATIENCE)
        sent = httpx.Request(
            request.method,
            request.url.copy_with(scheme="http", host="127.0.0.1", port=server.port),
            headers=headers,
            stream=request.stream,
            extensions={"timeout": limits},
        )
        failed = None
        try:
            got = server.transport.handle_request(sent)
            try:
                body = b"".join(got.stream)
            finally:
                got.close()
        except httpx.TransportError as e:
            failed = e
        wrapper.wait_idle()
        if self.raise_server_exceptions:
            wrapper.raise_error()
        if failed is not None:
            raise failed
        return httpx.Response(
            got.status_code,
            headers=got.headers,
            stream=httpx.ByteStream(body),
            request=request,
            extensions=got.extensions,
        )


class RealSession(original.WebSocketTestSession):
    """A WebSocket to the server. Sending and receiving are ours, what is above them is Starlette's."""

    def __init__(self, client: Any, url: str, headers: Any, subprotocols: list[str] | None) -> None:
        self.client = client
        self.url = url
        self.request_headers = headers
        self.subprotocols = subprotocols
        self.accepted_subprotocol = None
        self.extra_headers = None

    def __enter__(self) -> Any:
        from websockets.exceptions import InvalidHandshake, InvalidStatus
        from websockets.sync.client import connect

        self.wrapper = self.client.wrapper
        self.wrapper.errors.clear()
        self.wrapper.closed = None
        server = server_of(self.client)
        own = ("host", "connection", "upgrade", "user-agent", "content-length", "accept-encoding")
        extra = [
            (n, v) for n, v in self.request_headers.multi_items()
            if n.lower() not in own and not n.lower().startswith("sec-websocket-")
        ]  # fmt: skip
        url = httpx.URL(self.url)
        if url.scheme == "wss":
            extra.append(("X-Forwarded-Proto", "wss"))
        import socket

        sock = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        try:
            self.ws = connect(
                str(url.copy_with(scheme="ws")), sock=sock, additional_headers=extra, subprotocols=self.subprotocols,
                compression=None, ping_interval=None, open_timeout=PATIENCE, close_timeout=2,
                user_agent_header=self.request_headers.get("user-agent"),
            )  # fmt: skip
        except InvalidStatus as e:
            self.wrapper.wait_idle()
            self.wrapper.raise_error(but=(WebSocketDisconnect,))
            self.refused(e.response)
        except (InvalidHandshake, OSError, EOFError):
            self.wrapper.wait_idle()
            self.wrapper.raise_error(but=(WebSocketDisconnect,))
            raise
        self.accepted_subprotocol = self.ws.subprotocol
        ours = ("upgrade", "connection", "date", "server")
        self.extra_headers = [
            (n.lower().encode(), v.encode()) for n, v in self.ws.response.headers.raw_items()
            if n.lower() not in ours and not n.lower().startswith("sec-websocket-")
        ]  # fmt: skip
        return self

    def refused(self, response: Any) -> None:
        closed = self.wrapper.closed
        if closed is not None and response.status_code == 403:
            raise WebSocketDisconnect(code=closed.get("code") or 1000, reason=closed.get("reason") or "")
        denial = original.WebSocketDenialResponse(
            status_code=response.status_code,
            headers=[(n, v) for n, v in response.headers.raw_items() if n.lower() != "transfer-encoding"],
            content=bytes(response.body or b""),
        )
        raise denial

    def __exit__(self, *args: Any) -> None:
        self.ws.close()
        self.wrapper.wait_idle()
        if args[0] is None or issubclass(args[0], WebSocketDisconnect):
            self.wrapper.raise_error(but=() if args[0] is None else (WebSocketDisconnect,))

    def send(self, message: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        if message["type"] == "websocket.disconnect":
            self.ws.close(message.get("code") or 1000, message.get("reason") or "")
            return
        with contextlib.suppress(ConnectionClosed):
            self.ws.send(message["text"] if message.get("text") is not None else message["bytes"])

    def receive(self) -> Any:
        from websockets.exceptions import ConnectionClosed

        try:
            data = self.ws.recv(timeout=PATIENCE)
        except ConnectionClosed as e:
            self.wrapper.wait_idle(2)
            self.wrapper.raise_error(but=(WebSocketDisconnect,))
            code, reason = (e.rcvd.code, e.rcvd.reason) if e.rcvd is not None else (1006, "")
            return {"type": "websocket.close", "code": code, "reason": reason}
        return {"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data}


class RealTestClient(original.TestClient):
    """TestClient whose requests go through a server."""

    __test__ = False

    def __init__(
        self, app: Any, base_url: str = "http://testserver", raise_server_exceptions: bool = True, root_path: str = "",
        *args: Any, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(app, base_url, raise_server_exceptions, root_path, *args, **kwargs)
        self.real_root_path = root_path
        self.wrapper = Wrapper(self.app, self)
        self._transport = RealTransport(self, raise_server_exceptions)

    def websocket_connect(self, url: str, subprotocols: Any = None, **kwargs: Any) -> Any:
        kwargs.pop("extensions", None)
        params = kwargs.pop("params", None)
        merged = self._merge_url(url)
        secure = merged.scheme in ("wss", "https")
        request = self.build_request("GET", merged.copy_with(scheme="http"), params=params, **kwargs)
        target = request.url.copy_with(scheme="wss" if secure else "ws")
        wanted = list(subprotocols) if subprotocols is not None else None
        if wanted is None and "sec-websocket-protocol" in request.headers:
            wanted = [p.strip() for p in request.headers["sec-websocket-protocol"].split(",")]
        return RealSession(self, str(target), request.headers, wanted)

    def __enter__(self) -> Any:
        stop_server(self)
        self.wrapper.with_lifespan, self.wrapper.lifespan_error = True, None
        try:
            server_of(self)
        except BaseException:
            self.wrapper.with_lifespan = False
            raise
        return self

    def __exit__(self, *args: Any) -> None:
        stop_server(self)
        self.wrapper.with_lifespan = False
        if self.wrapper.lifespan_error is not None:
            raise self.wrapper.lifespan_error


original.TestClient = RealTestClient  # type: ignore[misc]

# ---------------------------------------------------------------- results

_outcomes: dict[str, tuple[str, str]] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Trio's variants are about the client's own backend."""
    trio = [i for i in items if "trio" in getattr(getattr(i, "callspec", None), "id", "")]
    if trio:
        config.hook.pytest_deselected(items=trio)
        items[:] = [i for i in items if i not in trio]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    outcome = "skipped" if hasattr(report, "wasxfail") else report.outcome
    before = _outcomes.get(report.nodeid, ("passed", ""))
    if outcome == "failed" and before[0] != "failed":
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = " ".join(str(crash.message if crash is not None else report.longrepr).split())[:120]
        _outcomes[report.nodeid] = ("failed", reason)
    elif before[0] == "passed":
        _outcomes[report.nodeid] = (outcome, "")


def pytest_sessionfinish() -> None:
    for server in list(_running.values()):
        server.stop(wait=False)
    if path := os.environ.get("COMPAT_RESULTS"):
        with open(path, "w") as f:
            json.dump(_outcomes, f)
