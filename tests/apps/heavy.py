"""An application for large bodies, in a process of its own so that its memory can be measured.

/ignore        sleeps until /wake, never reads, then answers
/read          reads all and answers with the number of octets
/slow          reads a message each 20 ms
/send/N        N octets in pieces of 64 KiB; /at shows how many send() has taken
/once/N        N octets in one message
/at            how far /send is
/wake          lets /ignore go on
"""

from __future__ import annotations

import asyncio

from tests.apps.basic import reply
from tests.harness.thread import Receive, Scope, Send

taken = [0]
woken: list[asyncio.Event] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        woken.append(asyncio.Event())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    parts = scope["path"].split("/")
    if parts[1] == "ignore":
        await woken[0].wait()
        await reply(send)
    elif parts[1] == "wake":
        woken[0].set()
        await reply(send)
    elif parts[1] in ("read", "slow"):
        n = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            n += len(message["body"])
            taken[0] = n
            if not message["more_body"]:
                break
            if parts[1] == "slow":
                await asyncio.sleep(0.02)
        await reply(send, str(n).encode())
    elif parts[1] == "send":
        left = int(parts[2])
        taken[0] = 0
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", parts[2].encode())]})
        piece = b"s" * 65536
        while left:
            n = min(left, len(piece))
            left -= n
            await send({"type": "http.response.body", "body": piece[:n], "more_body": left > 0})
            taken[0] += n
    elif parts[1] == "once":
        body = bytes(int(parts[2]))
        await reply(send, body)
    elif parts[1] == "at":
        await reply(send, str(taken[0]).encode())
    else:
        await reply(send)
