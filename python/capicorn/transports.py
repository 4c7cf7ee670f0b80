"""The stream transport of `capicorn.Loop`: what of it is not in C (`capicorn._core.StreamTransport`)."""

from __future__ import annotations

import asyncio
import socket
import sys
import warnings
from asyncio import constants, trsock
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    from .loop import Loop

__all__ = ["StreamTransport"]

_SERVERS_KNOW_TRANSPORTS = sys.version_info >= (3, 13)


class StreamTransport(_core.StreamTransport):
    """A connection over a stream socket, as `asyncio.Transport` describes it.

    Owns the socket, which must be connected and non-blocking. A socket that its maker closes all the same stays open
    until the transport is closed.
    """

    max_size = 256 * 1024  # octets of one data_received()
    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE
    _sock: Any = None
    _sock_fd = -1
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
        sock._io_refs += 1  # type: ignore[attr-defined]  # as socket.makefile() does: close() is put off
        self._sock = sock
        if server is not None:
            self._server = server
            if _SERVERS_KNOW_TRANSPORTS:
                server._attach(self)
            else:
                server._attach()
        loop._transports[fd] = self  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        info = [self.__class__.__name__]
        if self._sock is None:
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
        if self._sock is not None:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self._detach()
            self._closed()

    def _closed(self) -> None:
        """The socket is not needed any more."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock._decref_socketios()
            sock.close()
        server, self._server = self._server, None
        if server is not None:
            if _SERVERS_KNOW_TRANSPORTS:
                server._detach(self)
            else:
                server._detach()

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
