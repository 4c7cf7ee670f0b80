"""The transports of `capicorn.Loop`: what of them is not in C (`capicorn._core.StreamTransport` and its like)."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import warnings
from asyncio import constants, trsock
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    from .loop import Loop

    Native = _core.StreamTransport  # what the mixins are mixed into
else:
    Native = object

__all__ = ["DatagramTransport", "ReadPipeTransport", "StreamTransport", "WritePipeTransport"]

_SERVERS_KNOW_TRANSPORTS = sys.version_info >= (3, 13)


class _OverSocket(Native):
    """What transports over sockets share.

    Owns the socket, which must be non-blocking. A socket that its maker closes all the same stays open until the
    transport is closed.
    """

    max_size = 256 * 1024  # octets of one data_received()
    _sock: Any = None
    _sock_fd = -1

    def _take_socket(
        self,
        loop: Loop,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None,
        extra: dict[str, Any] | None,
    ) -> None:
        if extra is None:
            extra = {}
        self._extra = extra
        extra["socket"] = trsock.TransportSocket(sock)
        try:
            extra["sockname"] = sock.getsockname()
        except OSError:
            extra["sockname"] = None
        if "peername" not in extra:
            try:
                extra["peername"] = sock.getpeername()
            except OSError:
                extra["peername"] = None
        self._sock_fd = fd = sock.fileno()
        self._open(loop, fd, protocol, waiter)
        self._keep(sock)
        loop._transports[fd] = self  # type: ignore[attr-defined]

    def _keep(self, sock: socket.socket) -> None:
        sock._io_refs += 1  # type: ignore[attr-defined]  # as socket.makefile() does: close() is put off
        self._sock = sock

    def __repr__(self) -> str:
        info = [self.__class__.__name__]
        if self._is_closed():
            info.append("closed")
        elif self._closing:
            info.append("closing")
        info.append(f"fd={self._sock_fd}")
        if self._loop is not None and not self._loop.is_closed():
            reading, writing = self._polled & 1 and not self._paused and not self._closing, self._polled & 2
            info.append(f"read={'polling' if reading else 'idle'}")
            state = "polling" if writing else "idle"
            info.append(f"write=<{state}, bufsize={self.get_write_buffer_size()}>")
        return f"<{' '.join(info)}>"

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if not self._is_closed():
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self._detach()
            self._closed()

    def _is_closed(self) -> bool:
        return self._sock is None

    def _closed(self) -> None:
        """The socket is not needed any more."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock._decref_socketios()
            sock.close()

    def _fatal_error(self, exc: BaseException, message: str = "Fatal error on transport") -> None:
        loop = self._loop
        if loop is None:
            return
        if isinstance(exc, OSError):
            if loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=exc)
        else:
            loop.call_exception_handler(
                {"message": message, "exception": exc, "transport": self, "protocol": self._protocol}
            )
        self._force_close(exc)

    def _warn_lost(self) -> None:
        logger.warning("socket.send() raised exception.")


class StreamTransport(_OverSocket, _core.StreamTransport):
    """A connection over a connected stream socket, as `asyncio.Transport` describes it."""

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE
    _server: Any = None

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
    ) -> None:
        self._take_socket(loop, sock, protocol, waiter, extra)
        if server is not None:
            self._attach_to(server)

    def _attach_to(self, server: Any) -> None:
        self._server = server
        if _SERVERS_KNOW_TRANSPORTS:
            server._attach(self)
        else:
            server._attach()

    def _closed(self) -> None:
        super()._closed()
        self._detach_from_server()

    def _detach_from_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            if _SERVERS_KNOW_TRANSPORTS:
                server._detach(self)
            else:
                server._detach()

    # For loop.sendfile().

    def _make_empty_waiter(self) -> asyncio.Future[None]:
        if self._empty_waiter is not None:
            raise RuntimeError("Empty waiter is already set")
        self._send_gathered()
        assert self._loop is not None
        self._empty_waiter = waiter = self._loop.create_future()
        if not self.get_write_buffer_size():
            waiter.set_result(None)
        return waiter

    def _reset_empty_waiter(self) -> None:
        self._empty_waiter = None


class AcceptedTransport(StreamTransport):
    """A stream that create_server() has accepted: a descriptor, with a Python socket only when somebody asks for it.

    connection_made() is called here already. Owns `fd`, which is closed when this fails.
    """

    _fd = -1  # ours to close, until there is a socket
    _like: Any = None

    def __init__(
        self,
        loop: Loop,
        fd: int,
        peername: Any,
        listener: socket.socket,
        protocol: asyncio.BaseProtocol,
        server: Any,
    ) -> None:
        self._fd = self._sock_fd = fd
        try:
            self._like = listener
            self._extra = {"peername": peername}
            self._open(loop, fd, protocol, ...)
            if server is not None:
                self._attach_to(server)
            loop._transports[fd] = self  # type: ignore[attr-defined]
        except BaseException:
            self._detach()
            self._closed()
            raise
        self._start_now(protocol)

    def _make_socket(self) -> Any:
        """Everything as if there had been a socket from the beginning."""
        if self._sock is None and self._fd >= 0:
            fd, self._fd = self._fd, -1
            sock = socket.socket(self._like.family, self._like.type, self._like.proto, fd)
            sock.settimeout(0)
            self._keep(sock)
            self._extra["socket"] = trsock.TransportSocket(sock)
        return self._sock

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known of the connection: "peername", "sockname", "socket"."""
        if name in ("socket", "sockname") and name not in self._extra and not self._is_closed():
            sock = self._make_socket()
            if name == "sockname":
                try:
                    self._extra[name] = sock.getsockname()
                except OSError:
                    self._extra[name] = None
        return self._extra.get(name, default)

    def _make_empty_waiter(self) -> asyncio.Future[None]:
        self._make_socket()
        return super()._make_empty_waiter()

    def _is_closed(self) -> bool:
        return self._fd < 0 and self._sock is None

    def _closed(self) -> None:
        fd, self._fd = self._fd, -1
        if fd < 0:
            super()._closed()
            return
        os.close(fd)
        self._detach_from_server()


class DatagramTransport(_OverSocket, _core.DatagramTransport, asyncio.DatagramTransport):
    """Datagrams over a socket, as `asyncio.DatagramTransport` describes it. `address`: whom all are for, or None."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self._take_socket(loop, sock, protocol, waiter, extra)
        self._open_datagrams(sock, address or None, bool(self._extra["peername"]))


class _OverPipe(Native):
    """What both ends of pipes share. Owns the file, which is made non-blocking."""

    _pipe: Any = None
    _fileno: int | None = None
    _kind = ""

    def __init__(
        self,
        loop: Loop,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self._extra = {} if extra is None else extra
        self._extra["pipe"] = pipe
        fd = pipe.fileno()
        self._open(loop, fd, protocol, waiter)
        self._fileno = fd
        self._pipe = pipe

    def __repr__(self) -> str:
        info = [self.__class__.__name__]
        if self._pipe is None:
            info.append("closed")
        elif self._closing:
            info.append("closing")
        info.append(f"fd={self._fileno}")
        if self._pipe is not None:
            running = self._loop is not None and not self._loop.is_closed()
            info.extend(self._state() if running else ["open"])
        return f"<{' '.join(info)}>"

    def _state(self) -> list[str]:
        return ["polling" if self._polled & 1 and not self._paused else "idle"]

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if self._pipe is not None:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self._detach()
            self._closed()

    def _closed(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()

    def _closed_by_peer(self) -> None:
        logger.info("%r was closed by peer", self)

    def _is_usual(self, exc: BaseException) -> bool:
        raise NotImplementedError

    def _fatal_error(self, exc: BaseException, message: str = "Fatal error on pipe transport") -> None:
        loop = self._loop
        if loop is None:
            return
        if self._is_usual(exc):
            if loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=exc)
        else:
            loop.call_exception_handler(
                {"message": message, "exception": exc, "transport": self, "protocol": self._protocol}
            )
        self._force_close(exc)


class ReadPipeTransport(_OverPipe, _core.ReadPipeTransport):
    """The reading end of a pipe, a terminal or a socket, as `asyncio.ReadTransport` describes it."""

    max_size = 256 * 1024  # octets of one data_received()

    def _is_usual(self, exc: BaseException) -> bool:
        return isinstance(exc, OSError) and exc.errno == errno.EIO  # a pty whose other side is closed


class WritePipeTransport(_OverPipe, _core.WritePipeTransport):
    """The writing end of a pipe, a terminal or a socket, as `asyncio.WriteTransport` describes it.

    Ends when nobody reads any more, except that of a terminal.
    """

    def _state(self) -> list[str]:
        return ["polling" if self._polled & 2 else "idle", f"bufsize={self.get_write_buffer_size()}"]

    def _is_usual(self, exc: BaseException) -> bool:
        return isinstance(exc, OSError)

    def _warn_lost(self) -> None:
        logger.warning("pipe closed by peer or os.write(pipe, data) raised exception.")
