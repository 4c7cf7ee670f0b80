"""The application without a server: called in a plain loop, with a scope, a receive and a send that do nothing else.

python -m benchmarks.floor MODULE:NAME METHOD PATH BODY_FILE HEADERS_JSON

Reads seconds, line by line, and writes a JSON object {"requests", "seconds", "cpu"} for each.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from .apps import Message


def main() -> None:
    app_name, method, path, body_file, headers_json = sys.argv[1:]
    module, _, attribute = app_name.partition(":")
    app = getattr(importlib.import_module(module), attribute)
    body = Path(body_file).read_bytes()
    headers = [(name.lower().encode(), value.encode()) for name, value in json.loads(headers_json)]
    first: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1:8000"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": {},
        "extensions": {},
    }
    message = {"type": "http.request", "body": body, "more_body": False}

    async def receive() -> Message:
        return message

    async def send(message: Message) -> None:
        pass

    async def turn(seconds: float) -> dict[str, float]:
        count = 0
        start, cpu = time.perf_counter(), time.process_time()
        end = start + seconds
        while time.perf_counter() < end:
            for _ in range(20):
                await app(dict(first), receive, send)
            count += 20
        return {"requests": count, "seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}

    try:
        import uvloop

        run = uvloop.new_event_loop().run_until_complete
    except ImportError:
        run = asyncio.new_event_loop().run_until_complete
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(run(turn(float(line)))), flush=True)


if __name__ == "__main__":
    main()
