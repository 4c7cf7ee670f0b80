"""A loop that ends before the server is closed: whatever is left, no crash. Each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

PROGRAM = """
import asyncio, gc, logging, socket, sys, warnings
import capicorn
from capicorn import _core

mode, kind = sys.argv[1:]
warnings.simplefilter("ignore")
logging.disable()
sys.unraisablehook = lambda args: None
loop = capicorn.Loop() if kind == "capicorn" else asyncio.new_event_loop()

async def app(scope, receive, send):
    try:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/wait":
            await receive()
            await receive()
        await asyncio.sleep(100)
    finally:
        send({"type": "http.response.body", "body": b"x"})

listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen()
listening.setblocking(False)
http = _core.HTTPServer(loop, app, logger=logging.getLogger("capicorn.error"), timeout_keep_alive=0.1)
http.listen(listening.fileno())
clients = [socket.create_connection(listening.getsockname()) for _ in range(4)]
clients[0].send(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
clients[1].send(b"GET /wait HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
loop.run_until_complete(asyncio.sleep(0.1))
assert (http.connection_count, http.request_count) == (4, 2)
clients[2].send(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
clients.append(socket.create_connection(listening.getsockname()))
if mode == "exit":
    sys.exit()
if mode == "close, exit":
    http.close()
    sys.exit()
if mode == "loop, close":
    loop.close()
    gc.collect()
    http.shutdown()
    http.close()
if mode == "close, loop":
    http.close()
    loop.close()
if mode == "drop, loop":
    del http
    gc.collect()
    loop.close()
if mode == "cancel, loop":
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.close()
if mode == "loop, coroutines":
    tasks = asyncio.all_tasks(loop)
    loop.close()
    for task in tasks:
        task.get_coro().close()
    del tasks, task
http = None
gc.collect()
print("done")
"""

MODES = ["exit", "close, exit", "loop, close", "close, loop", "drop, loop", "cancel, loop", "loop, coroutines"]


@pytest.mark.parametrize("kind", ["capicorn", "asyncio"])
@pytest.mark.parametrize("mode", MODES)
def test_loop_that_ends_first(mode: str, kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PROGRAM, mode, kind],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "exit" in mode or done.stdout == "done\n", done.stderr
