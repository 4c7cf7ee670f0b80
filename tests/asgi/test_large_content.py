"""Content that is read from the socket into the objects which the application gets."""

from __future__ import annotations

import asyncio
import hashlib
import queue
import random
import sys
import threading
import time
from typing import Any

import pytest

from tests.apps.basic import read_all, reply
from tests.harness.thread import Message, Receive, Scope, Send, Served

KIB = 1 << 10
EMPTY = sys.getsizeof(b"")


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


async def digest(scope: Scope, receive: Receive, send: Send) -> None:
    body, messages = await read_all(receive)
    assert all(sys.getsizeof(m["body"]) == EMPTY + len(m["body"]) for m in messages)
    assert not any(m["body"] == b"" for m in messages[:-1])
    await reply(send, hashlib.sha256(body).hexdigest().encode())


def head(size: int, *fields: str) -> str:
    return "\r\n".join(["POST / HTTP/1.1", "Host: a", f"Content-Length: {size}", *fields, "", ""])


SIZES = [64 * KIB - 1, 64 * KIB, 128 * KIB - 60, 128 * KIB, 144 * KIB, 200 * KIB, 272 * KIB, 1 << 20, 3_000_001]


@pytest.mark.parametrize("size", SIZES)
def test_content_arrives_whole(serve: Served, size: int) -> None:
    """With the head, and behind it; and the next request behind the content is the next request."""
    body = content(size)
    want = hashlib.sha256(body).hexdigest()
    c = serve(digest)
    c.send(head(size), body)
    assert c.response().text == want
    c.send(head(size).encode() + body + head(5).encode() + b"hello")
    assert c.response().text == want
    assert c.response().text == hashlib.sha256(b"hello").hexdigest()
    c.send(head(size))
    c.wait_taken()
    c.send(body + head(size).encode() + body)
    assert c.response().text == want
    assert c.response().text == want


@pytest.mark.parametrize("piece", [1000, 40 * KIB, 64 * KIB, 65 * KIB, 100 * KIB])
def test_content_in_pieces(serve: Served, piece: int) -> None:
    """What is read at a time is little, or enough to be kept where it was read to."""
    size = 12 * piece + 200 * KIB
    body = content(size)
    c = serve(digest)
    c.send(head(size))
    at = 0
    while at < 12 * piece:
        c.send(body[at : at + piece])
        c.wait_taken()
        at += piece
    c.send(body[at:])
    assert c.response().text == hashlib.sha256(body).hexdigest()


def test_chunks(serve: Served) -> None:
    body = content(1_500_000)
    c = serve(digest)
    at, message = 0, [b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"]
    for size in (1, 300 * KIB, 65536, 65537, 500_000, 3, len(body)):
        piece = body[at : at + size]
        message.append(b"%x\r\n" % len(piece) + piece + b"\r\n")
        at += size
    message.append(b"0\r\n\r\n")
    c.send(b"".join(message), head(5), "hello")
    assert c.response().text == hashlib.sha256(body).hexdigest()
    assert c.response().text == hashlib.sha256(b"hello").hexdigest()


def test_client_waits_for_100_continue(serve: Served) -> None:
    body = content(1 << 20)
    c = serve(digest)
    c.send(head(len(body), "Expect: 100-continue"))
    assert c.head().status == 100
    c.send(body)
    assert c.response().text == hashlib.sha256(body).hexdigest()


def test_pieces_wait_for_the_application(serve: Served) -> None:
    """Nothing is lost or in another order when the application comes late, or breaks its waiting off."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        more = True
        while more:
            try:
                message = await asyncio.wait_for(receive(), 0.002)
            except TimeoutError:
                continue
            body += message["body"]
            more = message["more_body"]
            await asyncio.sleep(0.003)
        await reply(send, hashlib.sha256(body).hexdigest().encode())

    body = content(2_000_003)
    c = serve(app)
    c.send(head(len(body)))
    at = 0
    for size in (1, 100, 70_000, 200_000, 30_000, 30_000, 30_000, 500_000, len(body)):
        c.send(body[at : at + size])
        at += size
        time.sleep(0.005)
    assert c.response().text == hashlib.sha256(body).hexdigest()


def test_many_at_once_keep_their_own(serve: Served) -> None:
    """Reads of several connections go to the same memory until one of them keeps it."""
    first = serve(digest)
    bodies = [content(400_000 + 1000 * i) for i in range(8)]
    wrong: list[int] = []

    def upload(i: int) -> None:
        body = bodies[i]
        with serve.connect() as c:
            for round in range(3):
                c.send(head(len(body)))
                step = (9_000, 66_000, 150_000)[round]
                for at in range(0, len(body), step):
                    c.send(body[at : at + step])
                    time.sleep(0.001)
                if c.response().text != hashlib.sha256(body).hexdigest():
                    wrong.append(i)

    threads = [threading.Thread(target=upload, args=(i,)) for i in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert first.get("/").response().text == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize("sent", [0, 1000, 100_000, 300_000])
def test_client_goes_in_the_middle(serve: Served, sent: int) -> None:
    got: queue.Queue[Any] = queue.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.put(await read_all(receive))

    body = content(sent)
    c = serve(app)
    c.send(head(1 << 20), body)
    c.wait_taken()
    c.reset()
    messages: list[Message]
    whole, messages = got.get(timeout=5)
    assert body.startswith(whole)
    assert messages[-1] == {"type": "http.disconnect"}
    serve.wait_idle()


def test_content_that_nobody_wants_is_dropped(serve: Served) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await reply(send)

    body = content(900_000)
    c = serve(app)
    for _ in range(3):
        c.send(head(len(body)), body)
        assert c.response().text == "ok"
