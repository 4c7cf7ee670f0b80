"""Signals as a queue: handlers do nothing but note the number and wake the poll."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import deque
from types import FrameType
from typing import Any

MANAGED = tuple(
    getattr(signal, name)
    for name in "SIGINT SIGTERM SIGQUIT SIGHUP SIGTTIN SIGTTOU SIGUSR1 SIGUSR2 SIGWINCH SIGCHLD".split()
)


class SignalQueue:
    """While it is open, the signals of MANAGED are kept in `pending`, and `fileno()` is readable when there are some.
    Only in the main thread; in another one nothing is ever pending, and it is the caller that has to look for ended
    children from time to time."""

    def __init__(self) -> None:
        self.pending: deque[int] = deque()
        self.installed = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._before: dict[int, Any] = {}
        self._before_fd = -1

    def open(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self.installed = True
        self._before_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for sig in MANAGED:
            self._before[sig] = signal.signal(sig, self._on_signal)

    def close(self) -> None:
        if self.installed:
            self.installed = False
            signal.set_wakeup_fd(self._before_fd)
            for sig, handler in self._before.items():
                signal.signal(sig, signal.SIG_DFL if handler is None else handler)
        self._reader.close()
        self._writer.close()

    def drop(self) -> None:
        """In a child: back to the defaults, and the descriptors closed."""
        if self.installed:
            signal.set_wakeup_fd(-1)
            for sig in MANAGED:
                signal.signal(sig, signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL)
        self._reader.close()
        self._writer.close()
        self.pending.clear()

    def fileno(self) -> int:
        return self._reader.fileno()

    def drain(self) -> None:
        """After a wake-up: forget the octets, `pending` has the numbers."""
        try:
            while len(self._reader.recv(256)) == 256:
                pass
        except (BlockingIOError, InterruptedError):
            pass

    def add(self, sig: int) -> None:
        """As if it had come. Any thread."""
        self.pending.append(sig)
        try:
            self._writer.send(b"\0")
        except (BlockingIOError, OSError):
            pass

    def _on_signal(self, sig: int, frame: FrameType | None) -> None:
        self.pending.append(sig)


class Blocked:
    """Within, MANAGED signals wait: around a fork, so that the child never runs the parent's handlers."""

    def __enter__(self) -> Blocked:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, MANAGED)
        return self

    def __exit__(self, *exc: object) -> None:
        self.restore()

    def restore(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


def reap_all() -> list[tuple[int, int]]:
    """(pid, status) of every child that has ended, whoever made it: an init process has to."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, status))
