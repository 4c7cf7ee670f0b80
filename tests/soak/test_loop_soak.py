"""A loop that connects, disconnects, cancels and times out without end, and memory and descriptors that stay level.

CAPICORN_SOAK_SECONDS says for how long (12 by default; 600 before a release).

Under AddressSanitizer (`make asan ARGS=tests/soak/test_loop_soak.py`) the size of the process says nothing of leaks: freed
memory rests in a quarantine, and each new path to an allocation is kept for good, so that 600 seconds took 10 MB more
in which 7 KB more were allocated. What is allocated is counted by AddressSanitizer itself, every octet with
PYTHONMALLOC=malloc, and judged in the place of the size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("CAPICORN_SOAK_SECONDS", "12"))
LEVEL = 3 << 20
"""Octets by which the process may grow after the first round; CPython's arenas come in steps of 1 MiB."""
ALLOCATED = 256 << 10
"""Octets that may be allocated at the end beyond those of the first round, where they are counted."""


@pytest.mark.timeout(60 + SECONDS * 2)
def test_a_loop_stays_level() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak.loop_child", str(SECONDS)],
        cwd=Path(__file__).resolve().parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=50 + SECONDS * 2,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    shown = (
        f"rss {[r['rss'] >> 10 for r in rounds]} KiB, descriptors {[r['descriptors'] for r in rounds]}, "
        f"allocated {[r['allocated'] for r in rounds]}, done {[r['done'] for r in rounds]}, "
        f"counts {rounds[0]['counts']} to {rounds[-1]['counts']}"
    )
    print(shown)
    assert rounds[-1]["errors"] == []
    assert rounds[-1]["done"] > rounds[0]["done"] > 0
    assert len({r["descriptors"] for r in rounds}) == 1, shown
    for kind, before in rounds[0]["counts"].items():
        assert rounds[-1]["counts"][kind] <= before + 8, f"{kind}: {shown}"
    if rounds[0]["allocated"] is not None:
        assert rounds[-1]["allocated"] - rounds[0]["allocated"] < ALLOCATED, shown
    else:
        assert max(r["rss"] for r in rounds[1:]) - rounds[0]["rss"] < LEVEL, shown
