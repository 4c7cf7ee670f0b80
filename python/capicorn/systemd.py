"""What systemd hands to a service, and what a service tells it: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).
Nothing of it needs systemd to be there."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Sequence

FIRST = 3
"""The number of the first descriptor that is handed over (SD_LISTEN_FDS_START)."""


def take_descriptors() -> list[tuple[int, str]]:
    """The listening sockets of socket activation, with their names (FileDescriptorName=), if they are for this process.
    The variables are gone afterwards, so that no child takes them for its own."""
    count, pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid == str(os.getpid()) and count.isdigit():
        numbers = range(FIRST, FIRST + int(count))
        return list(zip(numbers, names if len(names) == len(numbers) else ["unknown"] * len(numbers), strict=True))
    return []


def take_sockets(wanted: Sequence[str] = ()) -> list[socket.socket]:
    """The same as sockets, which no child inherits. `wanted`: only those of these names, in their order. Raises OSError
    for a descriptor that is no socket, and for a name that none has."""
    found: list[tuple[str, socket.socket]] = []
    try:
        for number, name in take_descriptors():
            os.set_inheritable(number, False)
            found.append((name, socket.socket(fileno=number)))
    except OSError as exc:
        for _, sock in found:
            sock.close()
        raise OSError(exc.errno, f"LISTEN_FDS: descriptor {FIRST + len(found)}: {exc.strerror}") from None
    if not wanted:
        return [sock for _, sock in found]
    chosen = [sock for want in wanted for name, sock in found if name == want]
    missing = [want for want in wanted if all(name != want for name, _ in found)]
    for _, sock in found:
        if missing or sock not in chosen:
            sock.close()
    if missing:
        there = ", ".join(name for name, _ in found) or "none"
        raise OSError(errno.ENOENT, f"bind: systemd has handed over no socket named {missing[0]!r} (there: {there})")
    return chosen


def notify(text: str) -> None:
    """Tell systemd, if it asked to be told."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(text.encode(), "\0" + path[1:] if path.startswith("@") else path)
    except OSError:
        pass


def notify_reloading() -> None:
    """Of Type=notify-reload; READY=1 has to follow."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


class Watchdog:
    """WATCHDOG=1 from time to time, when systemd asked for it."""

    def __init__(self) -> None:
        self.pause = 0.0
        """Seconds between two of them; 0: none are wanted."""
        self._next = 0.0
        span, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
        if span.isdigit() and (not pid or pid == str(os.getpid())):
            self.pause = int(span) / 2e6

    def beat(self) -> None:
        """Call it often; it tells when that is due."""
        if self.pause and (now := time.monotonic()) >= self._next:
            self._next = now + self.pause
            notify("WATCHDOG=1")


class Service:
    """A process that is one server, as systemd sees it. Inside other programs there is none: they tell systemd
    themselves when they are ready."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.sockets = take_sockets(names)
        """Take the place of the addresses in the settings, unless these ask for them by name."""
        self.watchdog = Watchdog()

    def ready(self) -> None:
        notify(f"READY=1\nMAINPID={os.getpid()}")

    def stopping(self) -> None:
        notify("STOPPING=1")
