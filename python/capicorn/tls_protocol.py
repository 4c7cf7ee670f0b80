"""TLS over the transports of `capicorn.Loop`: the standard library's protocol, and how a connection ends.

What is different from `asyncio.sslproto.SSLProtocol`:

- callbacks run in the context of the connection, whoever's call was the reason for them;
- after close() nothing is received any more, what comes is dropped until the peer's close_notify (bpo-39951), also
  when reading is paused;
- what was written goes out before the connection ends, also when the peer was the first to end it;
- start_tls() returns before the first data is received;
- a protocol need not derive from BufferedProtocol to give buffers.
"""

from __future__ import annotations

import asyncio
import contextvars
import ssl
from asyncio import sslproto
from typing import Any

# Much of it is not in typeshed.
_sslproto: Any = sslproto
_Protocol: Any = sslproto.SSLProtocol
_Transport: Any = _sslproto._SSLProtocolTransport

__all__ = ["TLSProtocol", "mend_transport"]

_FLUSHING = _sslproto.SSLProtocolState.FLUSHING
_SHUTDOWN = _sslproto.SSLProtocolState.SHUTDOWN
_MENDED = _Protocol._abort.__code__.co_argcount == 1  # before 3.11.8 and 3.12.2
_AGAIN = (ssl.SSLWantReadError, ssl.SSLSyscallError)


class TLSProtocol(_Protocol):  # type: ignore[misc]
    """Between a transport and the protocol of an application."""

    _read_later = False
    _app_protocol_is_buffer: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._context = contextvars.copy_context()
        self._dropping = False  # close() was called: nobody wants what comes
        super().__init__(*args, **kwargs)

    def connection_made(self, transport: Any) -> None:
        """The handshake begins."""
        below = getattr(transport, "_ssl_protocol", None)  # TLS inside of TLS
        context = getattr(below or transport, "_context", None)
        if isinstance(context, contextvars.Context):
            self._context = context.copy()
        super().connection_made(transport)

    def _set_app_protocol(self, app_protocol: Any) -> None:
        super()._set_app_protocol(app_protocol)
        kind = type(app_protocol)  # mocks have everything
        if (
            not self._app_protocol_is_buffer
            and not isinstance(app_protocol, asyncio.Protocol)
            and hasattr(kind, "get_buffer")
            and hasattr(kind, "buffer_updated")
        ):
            self._app_protocol_get_buffer = app_protocol.get_buffer
            self._app_protocol_buffer_updated = app_protocol.buffer_updated
            self._app_protocol_is_buffer = True

    def _wakeup_waiter(self, exc: BaseException | None = None) -> None:
        starting = self._waiter is not None and exc is None and self._state is _sslproto.SSLProtocolState.WRAPPED
        super()._wakeup_waiter(exc)
        if starting and self._app_reading_paused:
            self._process_outgoing()  # the end of the handshake, which goes out with reading otherwise
        elif starting and self._incoming.pending:
            # The handshake's end came with data. Who waits for start_tls() has to learn of the new transport first.
            self._read_later = True

    def _do_read(self) -> None:
        if self._read_later:
            self._read_later = False
            self._loop.call_soon(self._do_read)
        else:
            super()._do_read()

    # ---- contexts ----

    def _control_app_writing(self) -> None:
        size = self._get_write_buffer_size()
        if size <= self._outgoing_low_water if self._app_writing_paused else size >= self._outgoing_high_water:
            # a copy, as it may be in use
            self._context.copy().run(super()._control_app_writing)

    def _call_eof_received(self) -> None:
        self._context.copy().run(super()._call_eof_received)

    def _resume_reading(self) -> None:
        if self._app_reading_paused:
            self._context.copy().run(super()._resume_reading)

    # ---- the end ----

    def _start_shutdown(self) -> None:
        if self._state is _FLUSHING and not self._dropping:
            # The connection has ended while reading was paused, and what came before will never be asked for.
            self._dropping = True
            self._do_flush()
            return
        self._dropping = True
        super()._start_shutdown()

    def _drop_incoming(self) -> None:
        try:
            while self._sslobj.read(self.max_size):
                pass
        except _AGAIN:
            ended = False
        except ssl.SSLZeroReturnError:
            ended = True
        else:
            ended = True
        self._control_ssl_reading()
        if ended:
            self._call_eof_received()

    def _do_flush(self) -> None:
        """Send what is left, and then close_notify."""
        try:
            if self._dropping:
                self._drop_incoming()
            else:
                self._do_read()
            if self._state is not _FLUSHING:
                return
            if self._write_backlog:
                self._do_write()
            else:
                self._process_outgoing()
        except ssl.SSLError as exc:
            self._on_shutdown_complete(exc)
            return
        if self._state is _FLUSHING and (self._eof_received or not self._get_write_buffer_size()):
            self._set_state(_SHUTDOWN)
            self._do_shutdown()

    def _do_shutdown(self) -> None:
        """Send close_notify and wait for the peer's."""
        try:
            if not self._eof_received:
                if self._dropping:
                    self._drop_incoming()
                self._sslobj.unwrap()
        except _AGAIN:
            self._process_outgoing()
        except ssl.SSLError as exc:
            self._on_shutdown_complete(exc)
        else:
            self._process_outgoing()
            self._call_eof_received()
            if self._transport is not None and (self._eof_received or not self._get_write_buffer_size()):
                self._on_shutdown_complete(None)

    def resume_writing(self) -> None:
        """The connection takes more."""
        super().resume_writing()
        if self._state is _FLUSHING:
            self._do_flush()
        elif self._state is _SHUTDOWN:
            self._do_shutdown()


class _TLSInTLS(_Transport):  # type: ignore[misc]
    """Up to 3.11.7 and 3.12.1 the standard library's transport raises TypeError where it should end (gh-113214)."""

    def _force_close(self, exc: BaseException | None) -> None:
        self._closed = True
        tls = self._ssl_protocol
        if tls is not None:
            tls._set_state(_sslproto.SSLProtocolState.UNWRAPPED)
            if tls._transport is not None:
                tls._transport._force_close(exc)


def mend_transport(transport: Any) -> None:
    """Before TLS is spoken inside of TLS."""
    if _MENDED and type(transport) is _Transport:
        transport.__class__ = _TLSInTLS
