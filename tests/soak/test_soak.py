"""Many requests of all kinds, and memory that stays level.

CAPICORN_SOAK_REQUESTS says how many (200000 by default; 2000000 before a release).
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from tests.harness.client import Closed, ProtocolError, Silent
from tests.harness.journal import counts, notes
from tests.harness.process import ServerProcess
from tests.soak import load

TOTAL = int(os.environ.get("CAPICORN_SOAK_REQUESTS", "200000"))
ROUNDS = 5
LEVEL = 1 << 20
"""Octets by which the process may grow from the first round to the last; CPython's arenas come in steps of 1 MiB."""
APP = "tests.soak.app:app"


def settled(server: ServerProcess) -> dict[str, int]:
    """`_counts()` with no connection but the one that asks."""
    found: dict[str, int] = {}
    for _ in range(200):
        found = counts(server)
        if found.get("connections", 1) <= 1:
            break
    return found


@pytest.mark.timeout(60 + TOTAL // 1000)
def test_memory_stays_level(launch: Callable[..., ServerProcess]) -> None:
    server = launch(APP, "--no-access-log")
    address = ("127.0.0.1", server.port)
    load.run(address, max(20_000, TOTAL // 10))
    rss, levels, fds, rates = [], [], [], []
    for seed in range(ROUNDS):
        rates.append(load.run(address, TOTAL // ROUNDS, seed=seed, timeout=60 + TOTAL / 1000))
        levels.append(settled(server))
        rss.append(server.rss())
        fds.append(server.descriptors())
    shown = (
        f"rss {[r >> 10 for r in rss]} KiB, counts {levels}, descriptors {fds}, {[int(r) for r in rates]} requests/s"
    )
    print(shown)
    assert max(rss[1:]) - rss[0] < LEVEL, shown
    assert fds[-1] <= fds[0] + 2, shown  # a connection may be ending at that moment
    for kind in levels[0]:
        slack = 8 if kind in ("blocks", "handles") else 0
        assert levels[-1][kind] <= levels[0][kind] + slack, f"{kind}: {shown}"
    assert "Traceback" not in server.log.text()


RUDE = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf",
    b"GET /chunks/300000 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 80000,
    b"GET /%06d HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    b"GET /boom HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /halfway HTTP/1.1\r\nHost: a\r\n\r\n",
    b"",
]


def rudeness(server: ServerProcess, times: int, rng: random.Random) -> None:
    """Bad requests, clients that go at any moment."""
    for _ in range(times):
        c = server.connect(timeout=2)
        data = rng.choice(RUDE)
        c.send(data % rng.randrange(10**6) if b"%06d" in data else data)
        how = rng.randrange(4)
        if how == 0:
            c.reset()
            continue
        if how == 1 and data:
            try:
                c.half_close()
                c.response()
            except (Closed, Silent, ProtocolError, OSError):
                pass
        elif how == 2:
            c.wait_taken(0.02)
        c.close()


@pytest.mark.timeout(180)
def test_memory_stays_level_under_bad_clients(launch: Callable[..., ServerProcess]) -> None:
    server = launch("tests.apps.journal:app", "--no-access-log")
    rng = random.Random(5)
    rudeness(server, 250, rng)
    rss, levels = [], []
    for _ in range(4):
        rudeness(server, 250, rng)
        notes(server)
        levels.append(settled(server))
        rss.append(server.rss())
    shown = f"rss {[r >> 10 for r in rss]} KiB, counts {levels}"
    print(shown)
    assert rss[-1] - rss[0] < 2 * LEVEL, shown
    for kind in levels[0]:
        assert levels[-1][kind] <= levels[0][kind] + (8 if kind in ("blocks", "handles") else 0), f"{kind}: {shown}"
