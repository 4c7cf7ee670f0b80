"""Clients that keep their connections and count every request that is not answered."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import Counter


class Load:
    """`clients` connections in use all the time, from entering to leaving; then `failures` should be empty.

    A client whose connection the server closed while it waited between two requests, or after a response with
    `Connection: close`, connects again: that is no failure. A request without its response is one.
    """

    def __init__(self, port: int, clients: int = 16, path: str = "/pid", pause: float = 0.002) -> None:
        self.address = ("127.0.0.1", port)
        self.request = f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
        self.pause = pause
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads), "a client waits for ever"

    def wait(self, requests: int, timeout: float = 20.0) -> None:
        """Until so many more have been answered."""
        goal = self.answers.total() + requests
        end = time.monotonic() + timeout
        while self.answers.total() < goal:
            assert time.monotonic() < end, f"{self.answers.total()} of {goal} answers; {self.failures[:5]}"
            time.sleep(0.01)

    def _client(self) -> None:
        sock: socket.socket | None = None
        while not self._end.is_set():
            try:
                if sock is None:
                    sock = socket.create_connection(self.address, 20)
                elif _closed(sock):
                    sock.close()
                    sock = None
                    continue
                sock.sendall(self.request)
                body, closes = _response(sock)
            except (OSError, ValueError) as exc:
                self.failures.append(repr(exc))
                if sock is not None:
                    sock.close()
                    sock = None
                time.sleep(0.01)
                continue
            self.answers[body] += 1
            if closes:
                sock.close()
                sock = None
            time.sleep(self.pause)
        if sock is not None:
            sock.close()


def _closed(sock: socket.socket) -> bool:
    readable, _, _ = select.select([sock], [], [], 0)
    return bool(readable) and not sock.recv(1, socket.MSG_PEEK)


def _response(sock: socket.socket) -> tuple[str, bool]:
    data = b""
    while b"\r\n\r\n" not in data:
        got = sock.recv(65536)
        if not got:
            raise ValueError(f"closed after {data!r}")
        data += got
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    if not lines[0].startswith(b"http/1.1 200"):
        raise ValueError(repr(lines[0]))
    length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    while len(body) < length:
        got = sock.recv(65536)
        if not got:
            raise ValueError("closed within a body")
        body += got
    return body.decode(), b"connection: close" in lines
