"""What systemd hands to a service, and what a service tells it: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).
Nothing of it needs systemd to be there."""

from __future__ import annotations

import os
import socket
import time

FIRST = 3
"""The number of the first descriptor that is handed over (SD_LISTEN_FDS_START)."""


def take_descriptors() -> list[int]:
    """The listening sockets of socket activation, if they are for this process. The variables are gone afterwards, so
    that no child takes them for its own."""
    count, pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid == str(os.getpid()) and count.isdigit():
        return list(range(FIRST, FIRST + int(count)))
    return []


def take_sockets() -> list[socket.socket]:
    """The same as sockets, which no child inherits. Raises OSError for a descriptor that is no socket."""
    found: list[socket.socket] = []
    try:
        for number in take_descriptors():
            os.set_inheritable(number, False)
            found.append(socket.socket(fileno=number))
    except OSError as exc:
        for sock in found:
            sock.close()
        raise OSError(exc.errno, f"LISTEN_FDS: descriptor {FIRST + len(found)}: {exc.strerror}") from None
    return found


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

    def __init__(self) -> None:
        self.sockets = take_sockets()
        """Take the place of the addresses in the settings."""
        self.watchdog = Watchdog()

    def ready(self) -> None:
        notify(f"READY=1\nMAINPID={os.getpid()}")

    def stopping(self) -> None:
        notify("STOPPING=1")
