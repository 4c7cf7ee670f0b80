"""Reading the notes of tests/apps/journal.py over a connection of its own."""

from __future__ import annotations

import json
from typing import Any

from .client import Client
from .process import ServerProcess

Entry = dict[str, Any]


def notes(server: ServerProcess) -> list[Entry]:
    """The requests that reached the application since the last call, once none of them runs any more."""
    with Client(server.address) as c:
        c.get("/-/journal", "Connection: close")
        r = c.response()
    assert r.status == 200, r
    found = json.loads(r.body)
    assert not found["running"], f"requests still run: {found['entries']}"
    entries: list[Entry] = found["entries"]
    return entries


def active(server: ServerProcess) -> dict[str, Any]:
    """How many run now, and all notes; nothing is forgotten."""
    with Client(server.address) as c:
        c.get("/-/active", "Connection: close")
        found: dict[str, Any] = json.loads(c.response().body)
        return found


def wake(server: ServerProcess) -> None:
    """Let requests for /sleep and /late go on."""
    with Client(server.address) as c:
        c.get("/-/wake", "Connection: close")
        c.response()


def counts(server: ServerProcess) -> dict[str, int]:
    """`_core._counts()` in the server; empty for another server."""
    with Client(server.address) as c:
        c.get("/-/counts", "Connection: close")
        found: dict[str, int] = json.loads(c.response().body)
        return found
