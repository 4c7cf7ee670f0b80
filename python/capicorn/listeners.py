"""Sockets to listen on: made, bound and closed here; accepting is C's part."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Callable, Sequence
from typing import Any

Address = tuple[socket.AddressFamily, Any]


def _nothing() -> None: ...


class Listener:
    """What `Server.servers` holds: sockets that were opened together. Shaped like asyncio.Server, as people look at
    `.sockets[0].getsockname()` to learn a port."""

    def __init__(self, sockets: Sequence[socket.socket], stop: Callable[[], None], unlink: str | None = None) -> None:
        self._sockets: tuple[socket.socket, ...] = tuple(sockets)
        self._stop = stop
        self._path = unlink
        self._inode = _inode(unlink) if unlink else None

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        return self._sockets

    def is_serving(self) -> bool:
        return bool(self._sockets)

    def close(self) -> None:
        """Accept no more, close the sockets and remove the file of a Unix socket, if it is still ours. Idempotent."""
        sockets, self._sockets = self._sockets, ()
        if not sockets:
            return
        stop, self._stop = self._stop, _nothing  # it holds the HTTP server, and that the loop's descriptors
        stop()
        for sock in sockets:
            sock.close()
        if self._path is not None and self._inode is not None and _inode(self._path) == self._inode:
            os.unlink(self._path)

    async def wait_closed(self) -> None:
        """For those who know asyncio.Server; close() has done it all."""


async def bind_tcp(host: str | None, port: int) -> list[socket.socket]:
    """A bound socket for each address of `host` (None or "": every interface). With port 0 all get the same free one.

    Raises OSError; its text names the address.
    """
    if _is_literal(host):
        found = _addresses(host, port)
    else:
        found = await asyncio.get_running_loop().run_in_executor(None, _addresses, host, port)
    return _bind_all(found, port)


def bind_all(host: str | None, port: int) -> list[socket.socket]:
    """The same in no loop: looking up a name waits."""
    return _bind_all(_addresses(host, port), port)


def socket_name(text: str) -> str | None:
    """NAME of systemd:NAME, a socket that systemd hands over under this name; None: it is an address."""
    name = text[len("systemd:") :] if text.startswith("systemd:") else ""
    return name if name and not name.isdigit() else None


def parse_address(text: str) -> tuple[str | None, int, str | None, int | None]:
    """(host, port, uds, fd) from gunicorn's spelling: HOST, HOST:PORT, [IPV6]:PORT, unix:PATH (unix:@NAME: an abstract
    one) or fd://NUMBER. Raises ValueError."""
    if text.startswith("unix:"):
        path = text[len("unix:") :]
        return None, 0, path[2:] if path.startswith("//") else path, None
    if socket_name(text) is not None:
        raise ValueError(f"{text!r} is a socket that systemd hands over, and can stand in bind only.")
    if text.startswith("fd://"):
        number = text[len("fd://") :]
        if not number.isdigit():
            raise ValueError(f"bind: {text!r} names no descriptor; it should be fd://NUMBER.")
        return None, 0, None, int(number)
    host, colon, port = text.rpartition(":")
    if text.endswith("]") or not colon:
        host, port = text, "8000"
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"bind: write {text!r} with brackets around the IPv6 address.")
    if not port.isdigit() or int(port) > 65535:
        raise ValueError(
            f"bind: {port!r} is not a port; the address should be HOST:PORT, unix:PATH, fd://N or systemd:NAME."
        )
    return host or "0.0.0.0", int(port), None, None


def bind_first(host: str | None, port: int) -> socket.socket:
    """The same for one socket, in no loop: of several addresses the first of IPv4, if there is one."""
    found = sorted(_addresses(host, port), key=lambda address: address[0] != socket.AF_INET)
    return _bind_all(found[:1], port)[0]


def unix_name(path: str | bytes) -> str:
    """The name of a Unix socket as it is written in settings and logs: @NAME for an abstract one (unix(7))."""
    text = path if isinstance(path, str) else os.fsdecode(path)
    return "@" + text[1:] if text.startswith("\0") else text


def bind_unix(path: str, mode: int | None = None, owner: tuple[int, int] = (-1, -1)) -> socket.socket:
    """A bound Unix socket with the permissions `mode`. None: those of the socket that was there, else everybody may
    connect. `owner`: numbers of user and group, -1 leaves them. A path that begins with @ or NUL is an abstract name,
    which has neither.

    A socket nobody listens on any more is replaced; raises OSError (EADDRINUSE) when somebody does.
    """
    abstract = path.startswith(("\0", "@"))
    shown = unix_name(path)
    if abstract:
        path = "\0" + path[1:]
    kept = 0o666
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not abstract:
            try:
                found = os.stat(path)
            except FileNotFoundError:
                pass
            else:
                if stat.S_ISSOCK(found.st_mode) and not _answers(path):
                    kept = stat.S_IMODE(found.st_mode)
                    os.unlink(path)
        try:
            sock.bind(path)
        except OSError as exc:
            reason = "Address already in use" if exc.errno == errno.EADDRINUSE else exc.strerror or str(exc)
            raise OSError(exc.errno or errno.EINVAL, f"cannot bind unix socket {shown!r}: {reason}") from None
        if not abstract:  # nobody can connect before listen()
            try:
                if owner != (-1, -1):
                    os.chown(path, *owner)
                os.chmod(path, kept if mode is None else mode)
            except OSError as exc:
                os.unlink(path)
                raise OSError(exc.errno, f"unix socket {path!r}: {exc.strerror}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def from_descriptor(fd: int) -> socket.socket:
    """A copy of an inherited socket. Raises OSError when there is none at that number."""
    try:
        copy = os.dup(fd)
    except OSError as exc:
        raise OSError(exc.errno, f"descriptor {fd}: {exc.strerror}") from None
    try:
        return socket.socket(fileno=copy)
    except OSError as exc:
        os.close(copy)
        raise OSError(exc.errno, f"descriptor {fd}: {exc.strerror}") from None


def listen(sock: socket.socket, backlog: int) -> None:
    """Make a bound socket listen, for a loop. Raises OSError."""
    sock.setblocking(False)
    sock.listen(backlog)


def file_of(sock: socket.socket) -> str | None:
    """The path of a Unix socket's file; None for other sockets and abstract names."""
    name = sock.getsockname() if sock.family == socket.AF_UNIX else None
    return name if isinstance(name, str) and name else None


def _is_literal(host: str | None) -> bool:
    if not host:
        return True
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return True
    return False


def _addresses(host: str | None, port: int) -> list[Address]:
    found: list[Address] = []
    # octets: a str goes through the IDNA codec and its tables, which take longer to load than all else here
    name = host.encode() if host and host.isascii() else host or None
    try:
        entries = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as exc:
        raise socket.gaierror(exc.errno, f"host {host!r}: {exc.strerror}") from None
    for family, _, _, _, address in entries:
        if (family, address) not in found:
            found.append((family, address))
    return found


def _bind_all(addresses: list[Address], port: int) -> list[socket.socket]:
    attempts = 10 if port == 0 and len(addresses) > 1 else 1
    while True:
        attempts -= 1
        sockets: list[socket.socket] = []
        problem: OSError | None = None
        shared = port
        try:
            for family, address in addresses:
                try:
                    sockets.append(_bind_one(family, (address[0], shared, *address[2:])))
                except OSError as exc:
                    # a family or an address that this machine does not have, among others that it has
                    if exc.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT):
                        problem = problem or exc
                        continue
                    raise
                shared = sockets[0].getsockname()[1]
        except BaseException as exc:
            for sock in sockets:
                sock.close()
            if isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE and attempts > 0:
                continue  # the free port of the first address is not free on the others
            raise
        if not sockets:
            raise problem or OSError(errno.EADDRNOTAVAIL, "there is no address to bind")
        return sockets


def _bind_one(family: socket.AddressFamily, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            sock.bind(address)
        except OSError as exc:
            reason = (exc.strerror or str(exc)).lower()
            raise OSError(exc.errno, f"error while attempting to bind on address {address!r}: {reason}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def _answers(path: str) -> bool:
    """Is there a server behind the Unix socket?"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:  # its backlog is full
            return True
        except OSError:
            return False
        return True


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
