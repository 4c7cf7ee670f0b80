"""Server: starts, runs and stops what a Config describes, in the running event loop.

Made to be derived from as uvicorn's is: every step is a method that is called on `self`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from capicorn import listeners, systemd
from capicorn.config import STARTUP_FAILURE, Config
from capicorn.listeners import Listener
from capicorn.logging import style
from capicorn.presence import Presence
from capicorn.settings import BY_NAME, SETTINGS
from capicorn.threads import ThreadPool

if TYPE_CHECKING:
    from capicorn._core import AccessLog, Connection, HTTPServer
    from capicorn.guard import Guard
    from capicorn.lifespan import LifespanOff, LifespanOn
    from capicorn.tls import TLSInfo

HANDLED_SIGNALS = (signal.SIGINT, signal.SIGTERM)

TICK = 0.1
"""Seconds between two calls of on_tick()."""

PATIENCE = 100
"""So many ticks in a row may fail for want of memory."""

SELDOM = 1.0
"""The same when nothing is looked at in it but should_exit, which wakes it: then the process may sleep."""

RELOAD_GRACE = 3.0
"""Seconds for requests that run when a file has changed: whoever has saved it waits for the new code."""

POLL = 0.015
"""Seconds between two looks at the connections that are left, at shutdown."""

LOOK = 0.1
"""Seconds between two rounds over all connections, at shutdown."""

NAMED = 20
"""How many of the requests that are cancelled are named in the log."""

logger = logging.getLogger("capicorn.error")


class ServerState:
    """What the server is doing now. `connections` and `tasks` are snapshots, new with each access."""

    def __init__(self) -> None:
        self.http: HTTPServer | None = None
        self.default_headers: list[tuple[bytes, bytes]] = []
        self._before = 0

    @property
    def total_requests(self) -> int:
        """Requests since the Server was made, over restarts."""
        return self._before + (self.http.total_requests if self.http is not None else 0)

    @property
    def connections(self) -> set[Connection]:
        return self.http.connections if self.http is not None else set()

    @property
    def tasks(self) -> set[asyncio.Task[Any]]:
        return self.http.tasks if self.http is not None else set()

    def replace(self, http: HTTPServer | None) -> None:
        self._before = self.total_requests
        self.http = http


class Server:
    """Serves `config`. `run()` makes an event loop, `await serve()` uses the running one.

    `started` is true while requests are served; set `should_exit` (from any thread) to end gracefully and
    `force_exit` to end without waiting. `servers` holds what is listened on.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.server_state = ServerState()
        self.servers: list[Listener] = []
        self.started = False
        self.last_notified = 0.0
        self._should_exit = False
        self._force_exit = False
        self._captured_signals: list[int] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sleepers: set[asyncio.Future[None]] = set()
        self._ending: asyncio.Future[None] | None = None
        self._access_log: AccessLog | None = None
        self._tls_info: TLSInfo | None = None
        self.threads: ThreadPool | None = None
        self.guard: Guard | None = None
        self.presence: Presence | None = None
        self.lifespan: LifespanOn | LifespanOff

    # ---- flags that wake the server

    @property
    def should_exit(self) -> bool:
        return self._should_exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._should_exit = value
        if value:
            self._wake()

    @property
    def force_exit(self) -> bool:
        return self._force_exit

    @force_exit.setter
    def force_exit(self, value: bool) -> None:
        self._force_exit = value
        if value:
            self._wake()

    def _wake(self) -> None:
        """Any thread, and signal handlers."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                loop.call_soon_threadsafe(self._wake_sleepers)

    def _wake_sleepers(self) -> None:
        for sleeper in self._sleepers:
            _set_done(sleeper)

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not on when should_exit or force_exit is set."""
        loop = asyncio.get_running_loop()
        sleeper = loop.create_future()
        timer = loop.call_later(seconds, _set_done, sleeper)
        self._sleepers.add(sleeper)
        try:
            await sleeper
        finally:
            timer.cancel()
            self._sleepers.discard(sleeper)

    # ---- the life of a server

    @functools.cached_property
    def limit_max_requests(self) -> int | None:
        limit = self.config.limit_max_requests
        jitter = self.config.limit_max_requests_jitter
        if limit is None or jitter == 0:
            return limit
        import random

        return limit + random.randint(0, jitter)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve in a loop of its own until the end. Raises SystemExit(3) when the start fails and, as
        `signal.raise_signal` does after a graceful stop, what the signal that ended it stands for."""
        with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(self.serve(sockets=sockets))

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve in the running loop until the end. Bound `sockets` take the place of the addresses in the config."""
        with self.capture_signals():
            await self._serve(sockets)

    async def _serve(self, sockets: list[socket.socket] | None = None) -> None:
        process_id = os.getpid()
        config = self.config
        if not config.loaded:
            config.load()
        self._loop = asyncio.get_running_loop()
        self.lifespan = config.lifespan_class(config)
        logger.info(
            "Started server process [%d]",
            process_id,
            extra={"color_message": "Started server process [" + style("%d", fg="cyan") + "]"},
        )
        try:
            await self.startup(sockets=sockets)
            if not self.should_exit:
                await self.main_loop()
            if self.started:
                await self.shutdown(sockets=sockets)
                logger.info(
                    "Finished server process [%d]",
                    process_id,
                    extra={"color_message": "Finished server process [" + style("%d", fg="cyan") + "]"},
                )
        finally:
            self._abandon()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen. Exits with code 3 when either fails."""
        self._loop = asyncio.get_running_loop()
        if self.presence is None:
            self.presence = Presence(self.config)
        self._start_guard()
        self.threads = ThreadPool(self.config.threads, self.config.native_threads)
        self.threads.install()
        await self._unless_forced(self.lifespan.startup())
        if self.lifespan.should_exit or self.force_exit:
            sys.exit(STARTUP_FAILURE)
        if self.config.gc_freeze and self.config.owns_process:
            gc.collect()
            gc.freeze()  # the application's modules and what it has set up are there to stay
        http = self._make_http()
        self.server_state.replace(http)
        self.server_state.default_headers = self.config.encoded_headers
        try:
            if self.guard is not None:
                self.guard.join(http)
            self.servers = await self._listen(http, sockets)
        except OSError as exc:
            logger.error(exc)
            http.close()
            await self._unless_forced(self.lifespan.shutdown())
            sys.exit(STARTUP_FAILURE)
        if self.presence is not None:
            self.presence.serving(self)
        if self.guard is not None:
            self.guard.serving()
        if sockets is None:
            self.config.log_running_all([sock for listener in self.servers for sock in listener.sockets])
        self.started = True
        if self.config.worker is not None:
            self.config.worker.started(self)
        if self.config.service is not None:
            self.config.service.ready()

    async def main_loop(self) -> None:
        """Call on_tick() every tenth of a second until it says that it is time to end."""
        counter = failures = 0
        config = self.config
        looks = config.callback_notify or config.service or config.limit_max_requests is not None
        own = getattr(self.on_tick, "__func__", None) is not Server.on_tick
        pause = TICK if looks or own else SELDOM
        should_exit = await self.on_tick(counter)
        while not should_exit:
            try:
                counter = (counter + 1) % 864000
                await self._pause(pause)
                should_exit = await self.on_tick(counter)
                failures = 0
            except MemoryError:  # no reason to end; but without any memory we could not even wait
                failures += 1
                if failures == PATIENCE:
                    raise

    async def on_tick(self, counter: int) -> bool:
        """Is it time to end? Calls callback_notify when that is due."""
        config = self.config
        if config.service is not None:
            config.service.watchdog.beat()
        if counter % 10 == 0 and config.callback_notify is not None:
            now = time.time()
            if now - self.last_notified > config.timeout_notify:
                self.last_notified = now
                await config.callback_notify()
        if self.should_exit:
            return True
        limit = self.limit_max_requests
        if limit is not None and self.server_state.total_requests >= limit:
            if config.worker is not None:
                config.worker.wants_end(limit)
                return False
            logger.info("Maximum request limit of %d exceeded. Terminating process.", limit)
            return True
        return False

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, let the requests that run end, then the application. A second call waits for the first.

        Idle connections have timeout_shutdown_idle for a request that is on its way. After timeout_shutdown_streams
        receive() gives http.disconnect, after timeout_graceful_shutdown what still runs is cancelled.
        """
        if self._ending is not None:
            await asyncio.wait([self._ending])  # whoever cancels serve() next would cut it short
            return
        ending = self._ending = asyncio.get_running_loop().create_future()
        try:
            await self._shutdown(sockets)
        finally:
            self._ending = None
            ending.cancel()

    async def _shutdown(self, sockets: list[socket.socket] | None) -> None:
        logger.info("Shutting down")
        if self.guard is not None:
            self.guard.stopping()
        if self.presence is not None:
            self.presence.stopping()
        if self.config.service is not None:
            self.config.service.stopping()
        http = self.server_state.http
        if http is not None and self.config.worker is None:
            http.take_waiting()  # of the sockets that workers share, their siblings take it
        for listener in self.servers:
            listener.close()
        for sock in sockets or []:
            sock.close()
        if http is not None:
            await self._drain(http)
            http.close()
            if self.server_state.http is http:
                self.server_state.replace(None)
        if self._access_log is not None:
            self._access_log.flush()
        if not self.force_exit:
            await self._unless_forced(self.lifespan.shutdown())

    # ---- starting

    def _start_guard(self) -> None:
        from capicorn.guard import make_guard

        if self.guard is not None:
            return
        try:
            self.guard = make_guard(self.config, self.presence)
            if self.presence is not None:
                self.presence.open_metrics()
        except OSError as exc:
            logger.error(exc)
            sys.exit(STARTUP_FAILURE)

    def _make_http(self) -> HTTPServer:
        from capicorn import _core
        from capicorn.access import access_log
        from capicorn.middleware.proxy_headers import ProxyHeaders

        config = self.config
        loop = asyncio.get_running_loop()
        settings: dict[str, Any] = {}
        for setting in SETTINGS:
            if setting.core:
                value = getattr(config, setting.name)
                settings[setting.core] = 0 if value is None else value
        if config.timeout_keep_alive == 0:
            settings["timeout_keep_alive"] = 0.001  # at once; to C 0 is "no limit"
        self._access_log = access_log(config, loop)
        if config.ssl is not None:
            from capicorn.tls import TLSInfo

            self._tls_info = TLSInfo(config)
            self._tls_info.add(config.ssl)
        headers = ProxyHeaders(config.forwarded_allow_ips, config.forwarded_header)
        return _core.HTTPServer(
            loop,
            config.loaded_app,
            logger=logger,
            state=self.lifespan.state,
            asgi_version=config.asgi_version,
            scheme="https" if config.is_ssl else "http",
            default_headers=config.encoded_headers,
            proxy_headers=headers.resolve if config.proxy_headers else None,
            access_log=self._access_log,
            # a worker goes on until there is another one
            limit_max_requests=self.limit_max_requests or 0 if config.worker is None else 0,
            ws=config.ws != "none",
            ssl_context=config.ssl,
            tls_info=self._tls_info,
            proxy_protocol=_is_proxy(config.proxy_allow_from) if config.proxy_protocol else None,
            **settings,
        )

    async def _listen(self, http: HTTPServer, given: list[socket.socket] | None) -> list[Listener]:
        config = self.config
        stop = http.stop_listening
        opened: list[socket.socket] = []
        try:
            if given is not None:
                found = [Listener([sock], stop) for sock in given]
            elif config.service is not None and config.inherited:
                found = [Listener([sock], stop) for sock in config.service.sockets]  # their files are not ours
                if config.socket_names and config.addresses:
                    opened = config.bind_sockets()
                    found += [Listener([sock], stop, unlink=listeners.file_of(sock)) for sock in opened]
            elif len(config.addresses) > 1:
                opened = config.bind_sockets()
                found = [Listener([sock], stop, unlink=listeners.file_of(sock)) for sock in opened]
            else:
                config.check_names()
                if config.fd is not None:
                    opened = [listeners.from_descriptor(config.fd)]
                elif config.uds is not None:
                    opened = [config.bind_unix(config.uds)]
                else:
                    opened = await listeners.bind_tcp(config.host, config.port)
                path = listeners.file_of(opened[0]) if config.fd is None else None
                found = [Listener(opened, stop, unlink=path)]
            for listener in found:
                for sock in listener.sockets:
                    listeners.listen(sock, config.backlog)
                    http.listen(sock.fileno())
        except BaseException:
            for sock in opened:
                sock.close()
            raise
        return found

    # ---- stopping

    async def _drain(self, http: HTTPServer) -> None:
        config = self.config
        begin = time.monotonic()
        graceful = config.timeout_graceful_shutdown
        if config.should_reload and graceful == BY_NAME["timeout_graceful_shutdown"].default:
            graceful = RELOAD_GRACE
        streams = config.timeout_shutdown_streams
        idle = config.timeout_shutdown_idle
        if graceful is not None:
            streams = min(streams, graceful / 2)
        if config.worker is not None:
            idle = config.worker.idle_grace(idle)
            streams = config.worker.stream_grace(streams)
        http.shutdown(idle)
        said = False
        look = begin + LOOK
        while not self.force_exit and (http.connection_count or http.request_count):
            now = time.monotonic()
            passed = now - begin
            if not said and (http.request_count or passed > idle + 0.2):
                said = True
                if http.connection_count:
                    logger.info("Waiting for connections to close. (CTRL+C to force quit)")
                else:
                    logger.info("Waiting for background tasks to complete. (CTRL+C to force quit)")
            if graceful is not None and passed >= graceful:
                await self._cancel_requests(http)
                return
            if now >= look:
                look = now + LOOK
                http.shutdown(idle)  # those that are idle since
                if passed >= streams:
                    self._tell_streams(http)
            await self._pause(POLL)
        if self.force_exit:
            http.cancel()

    def _tell_streams(self, http: HTTPServer) -> None:
        """Requests that run learn that the server ends; who has not sent the whole of one is not waited for."""
        for name in http.disconnect():
            logger.debug("Told that the server is shutting down: %s", name)
        for connection in http.connections:
            if connection.state in ("idle", "reading request fields"):
                connection.close()

    async def _cancel_requests(self, http: HTTPServer) -> None:
        names = http.cancel()
        if names:
            logger.error("Cancel %s running task(s), timeout graceful shutdown exceeded", len(names))
            for name in names[:NAMED]:
                logger.error("Cancelled: %s", name)
            if len(names) > NAMED:
                logger.error("Cancelled: %d more", len(names) - NAMED)
        end = time.monotonic() + 1.0  # for `finally` and `except CancelledError` in the application
        while http.request_count and not self.force_exit and time.monotonic() < end:
            await self._pause(POLL)

    async def _unless_forced(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Await the application's start or end, but no longer than until force_exit."""
        task = asyncio.get_running_loop().create_task(coroutine)
        said = self.should_exit
        try:
            while not task.done() and not self.force_exit:
                if self.should_exit and not said:
                    said = True
                    logger.info("Waiting for application startup to end. (CTRL+C to force quit)")
                pause = asyncio.get_running_loop().create_future()
                self._sleepers.add(pause)
                try:
                    await asyncio.wait([task, pause], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    self._sleepers.discard(pause)
                    pause.cancel()
            if task.done():
                task.result()
            else:
                self.lifespan.cancel()
        finally:
            if not task.done():
                task.cancel()

    def _abandon(self) -> None:
        """Whatever ended serve(), a cancelled task as well: leave no socket open and no line unwritten."""
        for listener in self.servers:
            listener.close()
        http = self.server_state.http
        if http is not None:
            http.close()
            self.server_state.replace(None)
        if self._access_log is not None:
            self._access_log.close()
            self._access_log = None
        if self.guard is not None:
            self.guard.close()
            self.guard = None
        if self.presence is not None:
            self.presence.close()
            self.presence = None
        if self.threads is not None:
            self.threads.close()

    # ---- signals

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Within, SIGINT and SIGTERM go to handle_exit(); afterwards the old handlers are back and get what was
        captured, the last first. Nothing happens in a thread that is not the main one."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in HANDLED_SIGNALS}
        if self.config.is_ssl and self.config.worker is None and not self.config.should_reload:
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._on_hangup)
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)
        captured, self._captured_signals = self._captured_signals, []
        for number in reversed(captured):
            signal.raise_signal(number)

    def _on_hangup(self, sig: int, frame: FrameType | None) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                loop.call_soon_threadsafe(self.reload_tls)

    def reload_tls(self) -> bool:
        """Read certificate and key again; connections that are accepted from now on get them, the others stay as they
        are. When that fails the old ones stay in use: False, and the log says why. Only in the server's loop."""
        http, config = self.server_state.http, self.config
        if http is None or http.ssl_context is None or self._tls_info is None:
            return False
        from capicorn.tls import make_context

        notify = config.service is not None
        if notify:
            systemd.notify_reloading()
        try:
            context = make_context(config)
            if context is None:
                raise ValueError("the settings have no certificate any more")
        except Exception as exc:
            logger.error("TLS: %s. What was read before stays in use.", exc or type(exc).__name__)
            context = None
        else:
            self._tls_info.add(context)
            config.ssl = http.ssl_context = context
            logger.info("The TLS certificate was read again; new connections get it.")
        if notify:
            systemd.notify("READY=1")
        return context is not None

    def install_signal_handlers(self) -> None:
        """Of old uvicorn; never called. Subclasses still override it."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends gracefully. SIGINT after that, or the same signal again, forces."""
        if self.config.worker is not None and not self.config.worker.heeds(sig):
            return
        again = sig in self._captured_signals
        self._captured_signals.append(sig)
        if self.should_exit and (sig == signal.SIGINT or again):
            self.force_exit = True
        else:
            self.should_exit = True


def _is_proxy(allowed: list[str] | str) -> Callable[[tuple[str, int] | None], bool]:
    """Does a connection from there begin with a PROXY header? None is a Unix socket's peer."""
    from capicorn.middleware.proxy_headers import UNIX, TrustedHosts

    trusted = TrustedHosts(allowed)
    return lambda client: (UNIX if client is None else client[0]) in trusted


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
