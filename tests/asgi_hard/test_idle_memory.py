"""What a connection costs while nothing is to be done on it."""

from __future__ import annotations

import contextlib
import time

from capicorn import _core

from tests.apps.basic import ok
from tests.conftest import Starter

MANY = 100
FEW = 8
"""Blocks for the work of connections that were busy at the same time, which the server keeps."""


def blocks() -> int:
    return _core._counts()["blocks"]


def test_an_idle_connection_has_nothing_but_its_object(start: Starter) -> None:
    server = start(ok, timeout_keep_alive=30)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(server.connect())
        first.get("/")
        assert first.response().status == 200
        before = blocks()
        for _ in range(MANY):
            c = stack.enter_context(server.connect())
            c.get("/")
            assert c.response().status == 200
        end = time.monotonic() + 5
        while blocks() - before > FEW:
            assert time.monotonic() < end, f"{blocks() - before} blocks for {MANY} idle connections"
            time.sleep(0.01)


def test_that_object_fits_the_smallest_class_of_the_allocator_that_libuvs_handle_lets_it() -> None:
    """416 octets on 64-bit machines, 248 of them libuv's (benchmarks: idle)."""
    assert _core.Connection.__basicsize__ <= 416
