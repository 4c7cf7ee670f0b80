"""The asyncio event loop on libuv: `Loop`, `new_event_loop()`, `install()` and `EventLoopPolicy`.

Scheduling, timers, descriptors and sleeping are in C (`capicorn._core.Loop`); everything else an asyncio loop can do
comes from the standard library's selector loop, which is the other base.

    with asyncio.Runner(loop_factory=capicorn.new_event_loop) as runner:
        runner.run(main())
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import selectors
import signal
import socket
import ssl
import sys
import threading
from asyncio import base_events, events, format_helpers
from asyncio.log import logger
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from . import _core
from .tls_protocol import TLSProtocol, mend_transport
from .transports import AcceptedTransport, DatagramTransport, ReadPipeTransport, StreamTransport, WritePipeTransport

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

    from .thread_pool import AnyIOThreads

    class EventLoopPolicy(asyncio.DefaultEventLoopPolicy):
        """The policy whose loops are `Loop`s."""


__all__ = ["EventLoopPolicy", "Loop", "install", "new_event_loop"]

# Transports are in C. False: the standard library's, for comparison.
NATIVE_STREAMS = True


class _Map(Mapping["FileDescriptorLike", selectors.SelectorKey]):
    """What is watched, as `BaseSelector.get_map()` gives it."""

    def __init__(self, selector: _Selector) -> None:
        self._selector = selector

    def __getitem__(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._selector.get_key(fileobj)

    def __iter__(self) -> Iterator[FileDescriptorLike]:
        return iter(self._selector._loop._watched_fds())

    def __len__(self) -> int:
        return len(self._selector._loop._watched_fds())


class _Selector(selectors.BaseSelector):
    """Stands at `loop._selector`, where the standard library and debuggers look up what is watched. Read-only."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def get_key(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        found = self._loop._watch_of(fileobj)
        if found is None:
            raise KeyError(f"{fileobj!r} is not registered")
        key, fd, mask, reader, writer = found
        return selectors.SelectorKey(key, fd, mask, (reader, writer))

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return _Map(self)

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("capicorn.Loop polls in C: use add_reader() and add_writer()")

    register = unregister = modify = select = _refuse

    def close(self) -> None:
        pass


class _KeepOpen:
    """While a sock_* call waits, close() of its socket is put off: the descriptor would be gone from the poll without
    a word, and its number soon another socket's. Until the call ends, or the loop is closed."""

    __slots__ = ("_loop", "_sock")

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self._loop = loop
        # by type, not isinstance(): mocks of a socket count nothing
        self._sock: Any = sock if issubclass(type(sock), socket.socket) else None

    def __enter__(self) -> None:
        if self._sock is not None:
            self._sock._io_refs += 1  # as socket.makefile() does
            self._loop._kept_open.add(self)

    def __exit__(self, *exc: object) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop._kept_open.discard(self)
            sock._decref_socketios()


def _set_no_delay(sock: socket.socket) -> None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        return
    if sock.proto in (0, socket.IPPROTO_TCP):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            pass  # not TCP after all (SCTP, MPTCP), or gone already


_TRANSFERS = ("recv", "recv_into", "recvfrom", "send", "sendto")


def _is_ours(sock: socket.socket) -> bool:
    """Whether our transports take it: by type, as mocks of a socket have no descriptor. A type that reads or writes in
    its own way (through a tunnel, say) has to be called, which the standard library's transports do."""
    kind, plain = type(sock), socket.socket
    if kind is plain:
        return NATIVE_STREAMS
    return (
        NATIVE_STREAMS
        and issubclass(kind, plain)
        and all(getattr(kind, call) is getattr(plain, call) for call in _TRANSFERS)
    )


_NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


def _is_address(host: object) -> bool:
    """Whether getaddrinfo() has nothing to look up: no host, or an IP address."""
    if host is None:
        return True
    if isinstance(host, (bytes, bytearray)):
        try:
            host = host.decode("ascii")
        except UnicodeDecodeError:
            return False
    if not isinstance(host, str):
        return False
    try:
        if ":" not in host and not host[-1:].isdigit():
            return False  # what most names end with costs no exception
        if ":" in host:
            socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
        else:
            socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):
        return False
    return True


def _is_number(port: object) -> bool:
    """Whether a port is not a service's name."""
    if port is None or isinstance(port, int):
        return True
    return isinstance(port, (str, bytes)) and port.isdigit() and port.isascii()


def _in(context: contextvars.Context | None, kind: Callable[..., Any], *args: Any) -> Any:
    """A transport whose callbacks run in a copy of `context`; None: of the current one."""
    return kind(*args) if context is None else context.copy().run(kind, *args)


def _run_handle(handle: asyncio.Handle) -> None:
    """Runs an asyncio.Handle that somebody else made."""
    if not handle.cancelled():
        handle._run()


# The standard library's, if it still is.
_GETADDRINFO = socket.getaddrinfo if getattr(socket.getaddrinfo, "__globals__", None) is vars(socket) else None

_SelectorEventLoop = asyncio.SelectorEventLoop  # as it was: people put others into its place


class Loop(_core.Loop, _SelectorEventLoop):
    """An asyncio event loop on libuv.

    It has all that `asyncio.SelectorEventLoop` has, in any thread, several to a process. Not after a fork: make a new
    one in the child.

    On purpose other than there (tests/loop/side_by_side.py compares them): a timer's when() is a float, and NaN is
    refused; what a transport cannot write raises at once, and the connection goes on; what is written leaves at the
    turn's end, as with uvloop, and what waits to be written is a copy; an accepted connection for which no protocol
    could be made is closed; a datagram that has no address is an error_received().
    """

    _anyio_threads: AnyIOThreads | None = None
    _looks_up = True

    def __init__(self) -> None:
        self._saved_wakeup_fd: int | None = None
        self._kept_open: set[_KeepOpen] = set()
        self._children: dict[int, contextvars.Context] = {}  # processes that start, by their protocols' id()
        try:
            _SelectorEventLoop.__init__(self, _Selector(self))
        except BaseException:
            self._dispose()  # half made: __del__() has nothing to close
            raise

    def run_forever(self) -> None:
        """Run until stop() is called."""
        self._check_closed()
        self._check_running()
        self._set_coroutine_origin_tracking(self._debug)
        old_hooks = sys.get_asyncgen_hooks()
        try:
            self._thread_id = threading.get_ident()
            sys.set_asyncgen_hooks(firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook)
            events._set_running_loop(self)
            self._take_signals()
            self._run()
        finally:
            self._stopping = False
            self._thread_id = None  # type: ignore[assignment]
            events._set_running_loop(None)
            self._set_coroutine_origin_tracking(False)
            sys.set_asyncgen_hooks(*old_hooks)
            self._return_signals()

    def close(self) -> None:
        """Close the loop, which must not be running. Idempotent."""
        super().close()
        self._dispose()
        for kept in list(self._kept_open):
            kept.__exit__()

    # Signals. The poll in C ends when CPython's wake-up descriptor is written to; after that, handlers of
    # signal.signal() run and what they raise comes out of run_forever().

    def _take_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            try:
                self._saved_wakeup_fd = signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)
            except ValueError:  # a subinterpreter
                self._saved_wakeup_fd = None

    def _return_signals(self) -> None:
        saved = self._saved_wakeup_fd
        if saved is None:
            return
        self._saved_wakeup_fd = None
        if self._signal_handlers:
            return  # add_signal_handler() set it for good
        current = signal.set_wakeup_fd(-1)
        if current == self._csock.fileno():
            current = saved
        if current != -1:
            try:
                signal.set_wakeup_fd(current)
            except (ValueError, OSError):
                pass  # closed meanwhile

    def remove_signal_handler(self, sig: int) -> bool:
        """Remove the handler of a signal. True when there was one."""
        removed = super().remove_signal_handler(sig)
        if removed and not self._signal_handlers and self._saved_wakeup_fd is not None:
            # The standard library has cleared it with the last handler; the poll still needs it.
            signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)
        return removed

    def _add_callback(self, handle: asyncio.Handle) -> None:
        if not handle._cancelled:
            self.call_soon(_run_handle, handle)

    # TCP_NODELAY also for sockets whose `proto` is 0, which the standard library leaves out.

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        **context: Any,  # 3.15
    ) -> Any:
        _set_no_delay(sock)
        if _is_ours(sock):
            return _in(context.get("context"), StreamTransport, self, sock, protocol, waiter, extra, server)
        return super()._make_socket_transport(sock, protocol, waiter, extra=extra, server=server, **context)

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: Any,
        waiter: asyncio.Future[None] | None = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        **timeouts: Any,
    ) -> Any:
        _set_no_delay(rawsock)
        if not _is_ours(rawsock):
            return super()._make_ssl_transport(
                rawsock,
                protocol,
                sslcontext,
                waiter,
                server_side=server_side,
                server_hostname=server_hostname,
                extra=extra,
                server=server,
                **timeouts,
            )
        context = timeouts.pop("context", None)  # 3.15
        tls = TLSProtocol(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            **timeouts,
        )
        _in(context, StreamTransport, self, rawsock, tls, None, extra, server)
        return tls._app_transport

    async def start_tls(
        self,
        transport: Any,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Any:
        """Speak TLS from here on. Returns the transport that replaces `transport`."""
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}")
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        mend_transport(transport)
        waiter: asyncio.Future[None] | None = self.create_future()
        tls = TLSProtocol(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            call_connection_made=False,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        transport.pause_reading()  # until the handshake can begin
        if server_side and isinstance(protocol, asyncio.StreamReaderProtocol):
            # A client that has begun already (gh-142352).
            buffer = getattr(getattr(protocol, "_stream_reader", None), "_buffer", None)
            if buffer:
                tls._incoming.write(buffer)
                buffer.clear()
        transport.set_protocol(tls)
        handles = self.call_soon(tls.connection_made, transport), self.call_soon(transport.resume_reading)
        try:
            assert waiter is not None
            await waiter
        except BaseException:
            transport.close()
            for handle in handles:
                handle.cancel()
            waiter = None  # it holds the exception, which holds this frame
            raise
        return tls._app_transport

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        **context: Any,  # 3.15
    ) -> Any:
        if _is_ours(sock):
            return _in(context.get("context"), DatagramTransport, self, sock, protocol, address, waiter, extra)
        return super()._make_datagram_transport(sock, protocol, address, waiter, extra, **context)

    def _make_read_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        **context: Any,
    ) -> Any:
        if NATIVE_STREAMS:
            return _in(context.get("context"), ReadPipeTransport, self, pipe, protocol, waiter, extra)
        return super()._make_read_pipe_transport(pipe, protocol, waiter, extra, **context)

    def _make_write_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        **context: Any,
    ) -> Any:
        if NATIVE_STREAMS:
            return _in(context.get("context"), WritePipeTransport, self, pipe, protocol, waiter, extra)
        return super()._make_write_pipe_transport(pipe, protocol, waiter, extra, **context)

    # The standard library makes a task and a future for each connection it accepts; without TLS none is needed.

    def _accept_connection(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if sslcontext is None and _is_ours(sock):
            context = args[2] if len(args) > 2 else kwargs.get("context")  # 3.13
            try:
                accepted = self._accept(sock.fileno(), backlog)
            except OSError:
                pass  # it comes again, and is dealt with, below
            else:
                accepted.reverse()
                try:
                    while accepted:
                        fd, address = accepted.pop()
                        run = (contextvars.copy_context() if context is None else context.copy()).run
                        run(self._serve, protocol_factory, fd, address, sock, server)
                finally:
                    for fd, _ in accepted:  # KeyboardInterrupt
                        os.close(fd)
                return
        accept: Any = super()._accept_connection
        accept(protocol_factory, sock, sslcontext, server, backlog, *args, **kwargs)

    def _serve(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        fd: int,
        address: Any,
        listener: socket.socket,
        server: Any,
    ) -> None:
        if self._debug:
            logger.debug("%r got a new connection from %r: descriptor %d", server, address, fd)
        protocol = None
        try:
            try:
                protocol = protocol_factory()
            except BaseException:
                os.close(fd)
                raise
            AcceptedTransport(self, fd, address, listener, protocol, server)
        except BaseException as exc:
            if isinstance(exc, (SystemExit, KeyboardInterrupt)):
                raise
            if self._debug:
                context = {"message": "Error on transport creation for incoming connection", "exception": exc}
                if protocol is not None:
                    context["protocol"] = protocol
                self.call_exception_handler(context)

    # The end of a process may come from a thread (3.11); its protocol hears of it in its own context.

    async def _make_subprocess_transport(self, protocol: asyncio.BaseProtocol, *args: Any, **kwargs: Any) -> Any:
        self._children[id(protocol)] = context = contextvars.copy_context()
        try:
            transport: Any = await super()._make_subprocess_transport(protocol, *args, **kwargs)
            transport._context = context
            return transport
        finally:
            self._children.pop(id(protocol), None)

    def _child_watcher_callback(self, pid: int, returncode: int, transport: Any) -> None:
        context = getattr(transport, "_context", None) or self._children.get(id(transport._protocol))
        if self._thread_id == threading.get_ident():
            # Known at once: nobody sends a signal to a process that is gone, and whose number may be another's.
            if context is None:
                transport._process_exited(returncode)
            else:
                context.copy().run(transport._process_exited, returncode)
        else:
            self.call_soon_threadsafe(transport._process_exited, returncode, context=context)

    # Names that are addresses already: the system's answer comes at once, without a thread. Other names are looked up
    # in threads that need no GIL, unless an application has put something of its own into the way.

    def set_default_executor(self, executor: Any) -> None:
        """Set the executor of run_in_executor(None, ...)."""
        super().set_default_executor(executor)
        self._looks_up = getattr(executor, "_capicorn_call", None) is not None  # thread_pool.Executor

    def _may_look_up(self) -> bool:
        return (
            self._looks_up
            and not self._debug
            and not self._executor_shutdown_called
            and base_events.socket.getaddrinfo is _GETADDRINFO
            and getattr(self.run_in_executor, "__func__", None) is Loop.run_in_executor
        )

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """As `socket.getaddrinfo()`: in a thread, unless `host` is an address and `port` a number.

        One of the default executor's when an application has set that, or has replaced `socket.getaddrinfo`.
        """
        if _is_address(host) and _is_number(port):
            look_up = self._getaddrinfo_debug if self._debug else socket.getaddrinfo
            return look_up(host, port, family, type, proto, flags)
        if self._may_look_up():
            future = self._look_up(host, port, family, type, proto, flags)
            if future is not None:
                try:
                    found = await future
                except asyncio.CancelledError:
                    self._forget_lookup(future)
                    raise
                families, types = socket.AddressFamily._value2member_map_, socket.SocketKind._value2member_map_
                return [(families.get(a, a), types.get(b, b), c, d, e) for a, b, c, d, e in found]
        return await super().getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        """As `socket.getnameinfo()`, in the default executor unless numbers are asked for."""
        if flags & _NUMERIC == _NUMERIC and isinstance(sockaddr, tuple) and sockaddr and _is_address(sockaddr[0]):
            return socket.getnameinfo(sockaddr, flags)
        return await super().getnameinfo(sockaddr, flags)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Run func(*args) in a thread of the executor, None: of the default one. Returns a future."""
        if executor is None and not self._debug:
            call = getattr(self._default_executor, "_capicorn_call", None)  # thread_pool.Executor
            if call is not None and not self._executor_shutdown_called:
                self._check_closed()
                return call(func, args)
        return super().run_in_executor(executor, func, *args)

    # A socket that is closed under one of these calls stays open until it ends.

    def _check_sock(self, sock: socket.socket) -> None:
        if isinstance(sock, ssl.SSLSocket):
            raise TypeError("Socket cannot be of type SSLSocket")
        if self._debug and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")

    async def sock_recv(self, sock: socket.socket, n: int) -> bytes:
        """Receive up to `n` octets."""
        self._check_sock(sock)
        try:
            return sock.recv(n)
        except (BlockingIOError, InterruptedError):
            pass
        future: asyncio.Future[bytes] = self.create_future()
        fd = sock.fileno()
        self._ensure_fd_no_transport(fd)
        handle = self._add_reader(fd, self._sock_recv, future, sock, n)
        with _KeepOpen(self, sock):
            try:
                return await future
            finally:
                if not handle.cancelled():
                    self._remove_reader(fd)

    async def sock_recv_into(self, sock: socket.socket, buf: Any) -> int:
        """Receive into `buf`. Returns the number of octets."""
        with _KeepOpen(self, sock):
            return await super().sock_recv_into(sock, buf)

    async def sock_recvfrom(self, sock: socket.socket, bufsize: int) -> tuple[bytes, Any]:
        """Receive a datagram of up to `bufsize` octets. Returns it and the sender's address."""
        with _KeepOpen(self, sock):
            return await super().sock_recvfrom(sock, bufsize)

    async def sock_recvfrom_into(self, sock: socket.socket, buf: Any, nbytes: int = 0) -> tuple[int, Any]:
        """Receive a datagram into `buf`. Returns the number of octets and the sender's address."""
        with _KeepOpen(self, sock):
            return await super().sock_recvfrom_into(sock, buf, nbytes)

    async def sock_sendall(self, sock: socket.socket, data: Any) -> None:
        """Send all of `data`."""
        self._check_sock(sock)
        try:
            sent = sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        if sent == len(data):
            return
        future: asyncio.Future[None] = self.create_future()
        fd = sock.fileno()
        self._ensure_fd_no_transport(fd)
        handle = self._add_writer(fd, self._sock_sendall, future, sock, memoryview(data), [sent])
        with _KeepOpen(self, sock):
            try:
                await future
            finally:
                if not handle.cancelled():
                    self._remove_writer(fd)

    async def sock_sendto(self, sock: socket.socket, data: Any, address: Any) -> int:
        """Send a datagram. Returns the number of octets sent."""
        with _KeepOpen(self, sock):
            return await super().sock_sendto(sock, data, address)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect to a remote address."""
        with _KeepOpen(self, sock):
            await super().sock_connect(sock, address)

    async def sock_accept(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        """Accept a connection. Returns its socket and the address of the other side."""
        with _KeepOpen(self, sock):
            return await super().sock_accept(sock)

    # What C calls when something is out of the ordinary.

    def _callback_failed(self, handle: asyncio.Handle, exc: BaseException) -> None:
        callback, args = _as_asyncio_calls(handle._callback, handle._args)
        if _FORMAT_TAKES_DEBUG:
            source = format_helpers._format_callback_source(callback, args, debug=self._debug)
        else:
            source = format_helpers._format_callback_source(callback, args)
        context: dict[str, Any] = {"message": f"Exception in callback {source}", "exception": exc, "handle": handle}
        if handle._source_traceback:
            context["source_traceback"] = handle._source_traceback
        self.call_exception_handler(context)

    def _callback_took(self, handle: asyncio.Handle, seconds: float) -> None:
        if seconds >= self.slow_callback_duration:
            base_events.logger.warning("Executing %s took %.3f seconds", base_events._format_handle(handle), seconds)


def _as_asyncio_calls(callback: Any, args: Any) -> tuple[Any, Any]:
    """What a transport's handle calls, for people: the protocol's method where asyncio has a handle for that."""
    if not args or not isinstance(args[0], _TRANSPORTS):
        return callback, args
    name = getattr(callback, "__name__", "")
    if name == "_start":
        return args[1].connection_made, args[:1]
    if name == "_call_eof":
        return args[0].get_protocol().eof_received, ()
    return getattr(args[0], name, callback), args[1:]


_TRANSPORTS = (StreamTransport, ReadPipeTransport, WritePipeTransport, DatagramTransport)
_FORMAT_TAKES_DEBUG = "debug" in (format_helpers._format_callback_source.__kwdefaults__ or {})


def new_event_loop() -> Loop:
    """A new `Loop`, for `asyncio.Runner(loop_factory=...)` and `asyncio.run(..., loop_factory=...)` (3.12)."""
    return Loop()


def install() -> None:
    """Make asyncio's event loop policy one whose loops are `Loop`s.

    For code that cannot pass a loop factory; event loop policies are deprecated since CPython 3.14.
    """
    asyncio.set_event_loop_policy(__getattr__("EventLoopPolicy")())


def __getattr__(name: str) -> Any:
    # Made when it is asked for: naming asyncio's policy classes warns since CPython 3.14.
    if name != "EventLoopPolicy":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from asyncio import unix_events

    base: Any = getattr(unix_events, "_DefaultEventLoopPolicy", None) or getattr(
        unix_events, "_UnixDefaultEventLoopPolicy", None
    )
    if base is None:
        raise AttributeError("this version of asyncio has no event loop policies")
    policy = type(base)(
        "EventLoopPolicy",
        (base,),
        {"__module__": __name__, "__doc__": "The policy whose loops are `Loop`s.", "_loop_factory": Loop},
    )
    globals()["EventLoopPolicy"] = policy
    return policy
