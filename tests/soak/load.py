"""A small pipelining load: many connections, many requests in flight on each, responses counted.

It sends prepared bytes and counts the marks of responses in what comes back, so that one core of Python is enough
for tens of thousands of requests a second. Also a client process: `python -m tests.soak.load PORT REQUESTS`.
"""

from __future__ import annotations

import random
import select
import socket
import sys
import time
from dataclasses import dataclass

START = b"HTTP/1.1 "
MARK = START + b"200 "
DEPTH = 32
"""Requests in flight on a connection."""

REQUESTS = (
    b"GET /empty HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /body/100 HTTP/1.1\r\nHost: a\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /early HTTP/1.1\r\nHost: a\r\nX-Made-Up-%06d: %06d\r\n\r\n",
)


@dataclass
class Peer:
    """One connection."""

    sock: socket.socket
    out: bytes = b""
    waiting: int = 0
    tail: bytes = b""


class Failed(AssertionError):
    """A response that was not 200, or a connection that ended."""


def block(rng: random.Random) -> tuple[bytes, int]:
    """Requests for one go, and how many."""
    pieces = []
    for _ in range(DEPTH):
        request = rng.choice(REQUESTS)
        if b"%06d" in request:
            n = rng.randrange(10**6)
            request = request % (n, n)
        pieces.append(request)
    return b"".join(pieces), DEPTH


def split(data: bytes) -> tuple[bytes, bytes]:
    """What can be counted now, and what may be the beginning of a status line."""
    at = data.rfind(START)
    if at >= 0 and at + len(MARK) > len(data):
        return data[:at], data[at:]
    keep = len(START) - 1
    return (data[:-keep], data[-keep:]) if START[0] in data[-keep:] else (data, b"")


def run(address: tuple[str, int], total: int, connections: int = 8, timeout: float = 600.0, seed: int = 1) -> float:
    """Send `total` requests and have a 200 for each; returns requests per second."""
    rng = random.Random(seed)
    peers: dict[int, Peer] = {}
    poller = select.poll()

    def connect() -> None:
        sock = socket.create_connection(address, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        peers[sock.fileno()] = Peer(sock)
        poller.register(sock, select.POLLIN | select.POLLOUT)

    for _ in range(connections):
        connect()
    sent = done = rounds = 0
    begin = time.monotonic()
    try:
        while done < total:
            if time.monotonic() - begin > timeout:
                raise Failed(f"{done} of {total} after {timeout} s")
            events = poller.poll(10_000)
            if not events:
                raise Failed(f"no response for 10 s; {done} of {total}")
            for fd, event in events:
                peer = peers[fd]
                if event & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    data = peer.sock.recv(1 << 18)
                    if not data:
                        raise Failed(f"the server closed a connection that waited for {peer.waiting} responses")
                    data, peer.tail = split(peer.tail + data)
                    found = data.count(MARK)
                    if data.count(START) != found:
                        raise Failed(f"not 200: {data[-300:]!r}")
                    peer.waiting -= found
                    done += found
                if event & select.POLLOUT and not peer.out:
                    if peer.waiting == 0 and sent < total:
                        peer.out, n = block(rng)
                        peer.waiting += n
                        sent += n
                        rounds += 1
                    else:
                        poller.modify(peer.sock, select.POLLIN)
                        continue
                if peer.out:
                    try:
                        n = peer.sock.send(peer.out)
                        peer.out = peer.out[n:]
                    except BlockingIOError:
                        pass
                    poller.modify(peer.sock, select.POLLIN | (select.POLLOUT if peer.out else 0))
                elif peer.waiting == 0 and sent < total:
                    if rounds % 50 == 0:  # a fresh connection now and then
                        poller.unregister(peer.sock)
                        peer.sock.close()
                        del peers[fd]
                        connect()
                    else:
                        poller.modify(peer.sock, select.POLLIN | select.POLLOUT)
    finally:
        for peer in peers.values():
            peer.sock.close()
    return done / (time.monotonic() - begin)


if __name__ == "__main__":
    print(f"{run(('127.0.0.1', int(sys.argv[1])), int(sys.argv[2])):.0f} requests/s")
