"""Fixtures for types of the extension that are tested by themselves."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from capicorn import _core

from tests.asgi_unit.bench import Bench, Keep


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    gc.collect()
    blocks = _core._counts()["blocks"]
    made = Bench(tmp_path)
    yield made
    made.close()
    gc.collect()
    assert _core._counts()["blocks"] == blocks


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    keep, logger = Keep(), logging.getLogger("capicorn.error")
    monkeypatch.setattr(logger, "handlers", [keep])
    monkeypatch.setattr(logger, "propagate", False)
    messages: list[str] = []
    keep.emit = lambda record: messages.append(f"{record.levelname} {record.getMessage()}")  # type: ignore[method-assign]
    yield messages
