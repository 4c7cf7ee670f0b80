"""The listening sockets that a supervisor owns: bound by it, or handed to it by the process that was before it."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from capicorn import listeners, systemd

if TYPE_CHECKING:
    from capicorn.config import Config

FDS = "CAPICORN_FDS"
"""In the environment of a new supervisor that takes over: the numbers of the descriptors, divided by commas."""

FDS_INHERITED = "CAPICORN_FDS_INHERITED"
"""Set when they had been systemd's: the files of Unix sockets among them stay."""

UPGRADED_FROM = "CAPICORN_UPGRADED_FROM"
"""And the process it takes over from."""


def open_sockets(config: Config) -> list[socket.socket]:
    """Inherited ones (from the supervisor that was upgraded, or systemd's LISTEN_FDS), else new ones. Raises
    OSError."""
    text, were_inherited = os.environ.pop(FDS, ""), FDS_INHERITED in os.environ
    os.environ.pop(FDS_INHERITED, None)
    if not text:
        found = systemd.take_sockets(config.socket_names)
        config.inherited = bool(found)
        if not found or (config.socket_names and config.addresses):
            found += config.bind_sockets()
        return found
    config.inherited = were_inherited
    found = []
    for number in text.split(","):
        os.set_inheritable(int(number), False)
        found.append(socket.socket(fileno=int(number)))
    return found


def bind_again(before: Config, after: Config, sockets: list[socket.socket]) -> list[socket.socket]:
    """The sockets for a changed configuration. An address that was bound keeps its socket. Raises OSError."""
    after.inherited = before.inherited
    if before.inherited or _addresses(before) == _addresses(after):
        return sockets
    left = list(sockets)
    kept: list[socket.socket] = []
    for address in _addresses(after):
        for sock in left:
            if _is_at(sock, address):
                kept.append(sock)
                left.remove(sock)
                break
    missing = [address for address in _addresses(after) if not any(_is_at(sock, address) for sock in kept)]
    opened: list[socket.socket] = []
    try:
        for host, port, uds, fd in missing:
            if uds is not None:
                opened.append(after.bind_unix(uds))
            elif fd is not None:
                opened.append(listeners.from_descriptor(fd))
            else:
                opened.extend(listeners.bind_all(host, port))
    except OSError:
        for sock in opened:
            sock.close()
        raise
    for sock in left:
        close_socket(sock)
    for sock in opened:
        listeners.listen(sock, after.backlog)
    return kept + opened


def _addresses(config: Config) -> list[tuple[str | None, int, str | None, int | None]]:
    return config.addresses or [(config.host, config.port, config.uds, config.fd)]


def _is_at(sock: socket.socket, address: tuple[str | None, int, str | None, int | None]) -> bool:
    host, port, uds, fd = address
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return uds is not None and listeners.unix_name(name) == listeners.unix_name(uds)
    return fd is None and uds is None and isinstance(name, tuple) and name[:2] == (host or "0.0.0.0", port)


def close_socket(sock: socket.socket) -> None:
    """And remove the file of a Unix socket that leads to it."""
    path = sock.getsockname() if sock.family == socket.AF_UNIX else ""
    sock.close()
    if isinstance(path, str) and path and not path.startswith("\0"):
        try:
            os.unlink(path)
        except OSError:
            pass
