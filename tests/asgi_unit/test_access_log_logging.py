"""AccessLog: lines that go through logging, as soon as somebody wants the records."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest
from capicorn import _core

from tests.asgi_unit.bench import CLIENT, Bench, Keep

# ---------------------------------------------------------------- which way lines go


def add_handler(bench: Bench) -> None:
    bench.logger.addHandler(Keep())


def add_filter(bench: Bench) -> None:
    bench.logger.addFilter(lambda record: True)


def add_handler_filter(bench: Bench) -> None:
    bench.handler.addFilter(lambda record: True)


def propagate(bench: Bench) -> None:
    bench.logger.propagate = True


def other_formatter(bench: Bench) -> None:
    bench.handler.setFormatter(logging.Formatter("%(message)s"))


def other_stream(bench: Bench) -> None:
    bench.handler.setStream(io.StringIO())


def no_handler(bench: Bench) -> None:
    bench.logger.handlers.clear()


def replaced_list(bench: Bench) -> None:
    bench.logger.handlers = [Keep()]


def handler_level(bench: Bench) -> None:
    bench.handler.setLevel(logging.WARNING)


def instance_method(bench: Bench) -> None:
    bench.logger.handle = lambda record: None  # type: ignore[method-assign]


def handler_method(bench: Bench) -> None:
    bench.handler.emit = lambda record: None  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "change",
    [add_handler, add_filter, add_handler_filter, propagate, other_formatter, other_stream, no_handler, replaced_list,
     handler_level, instance_method, handler_method],
)  # fmt: skip
def test_lines_go_through_logging_from_the_record_after_a_change(bench: Bench, change: Callable[[Bench], None]) -> None:
    log = bench.log()
    log._write(CLIENT, "GET", b"/direct")
    change(bench)
    log._write(CLIENT, "GET", b"/through")
    bench.logger.__dict__.pop("handle", None)
    log.flush()
    text = bench.read()
    assert "/direct" in text and "/through" not in text


def test_lines_go_directly_again_when_the_handler_is_gone(bench: Bench) -> None:
    log, keep = bench.log(), Keep()
    bench.logger.addHandler(keep)
    log._write(CLIENT, "GET", b"/1")
    bench.logger.removeHandler(keep)
    log._write(CLIENT, "GET", b"/2")
    log.flush()
    assert "/2" in bench.read() and len(keep.records) == 1


def test_buffered_lines_go_out_before_the_first_record(bench: Bench) -> None:
    seen: list[str] = []
    log = bench.log()
    log._write(CLIENT, "GET", b"/1")

    def look(record: logging.LogRecord) -> bool:
        seen.append(bench.path.read_text())
        return True

    bench.logger.addFilter(look)
    log._write(CLIENT, "GET", b"/2")
    assert len(seen) == 1 and "/1" in seen[0]


def test_patched_class_method_gets_every_record(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    log = bench.log()
    log._write(CLIENT, "GET", b"/1")
    seen: list[Any] = []
    original = logging.Logger.callHandlers

    def patched(self: logging.Logger, record: logging.LogRecord) -> None:
        seen.append(record.args)
        original(self, record)

    monkeypatch.setattr(logging.Logger, "callHandlers", patched)
    log._write(CLIENT, "GET", b"/2")
    monkeypatch.undo()
    log._write(CLIENT, "GET", b"/3")
    log.flush()
    assert [args[2] for args in seen] == ["/2"]
    text = bench.read()
    assert "/1" in text and "/2" not in text and "/3" in text


@pytest.mark.parametrize("how", ["level", "disabled", "disable"])
def test_nothing_is_done_when_the_level_is_off(bench: Bench, how: str) -> None:
    for options in ({}, {"handler": None}):
        log, keep = bench.log(**options), Keep()
        if options:
            bench.logger.addHandler(keep)
        log._write(CLIENT, "GET", b"/on")
        log.flush()
        bench.read()
        try:
            if how == "level":
                bench.logger.setLevel(logging.WARNING)
            elif how == "disabled":
                bench.logger.disabled = True
            else:
                logging.disable(logging.INFO)
            log._write(CLIENT, "GET", b"/off")
        finally:
            logging.disable(logging.NOTSET)
            bench.logger.disabled = False
            bench.logger.setLevel(logging.INFO)
        log._write(CLIENT, "GET", b"/on")
        log.flush()
        assert "/off" not in bench.read()
        assert all(record.args[2] == "/on" for record in keep.records)  # type: ignore[index]


@pytest.mark.parametrize("client", [CLIENT, None])
def test_a_record_is_uvicorns(bench: Bench, client: Any) -> None:
    keep = Keep()
    bench.logger.handlers[:] = [keep]
    log = bench.log(handler=None)
    log._write(client, "GET", b"/a%20b?c=d", root_path="/r", minor=0, status=404)
    (record,) = keep.records
    assert record.msg == '%s - "%s %s HTTP/%s" %d'
    assert record.args == ("127.0.0.1:40000" if client else "", "GET", "/r/a%20b?c=d", "1.0", 404)
    assert [type(arg) for arg in record.args] == [str, str, str, str, int]
    assert (record.levelno, record.name) == (logging.INFO, "capicorn.access")


@pytest.mark.parametrize("options", [{"format": "%(s)s 100%% %(U)s"}, {"json": True}])
def test_a_record_of_ones_own_line_has_it_as_message_and_uvicorns_args(bench: Bench, options: Any) -> None:
    keep = Keep()
    bench.logger.handlers[:] = [keep]
    log = bench.log(handler=None, **options)
    log._write(CLIENT, "GET", b"/%41?x=%s%(h)s")
    (record,) = keep.records
    message = record.getMessage()
    if "json" in options:
        assert json.loads(message)["query"] == "x=%s%(h)s"
    else:
        assert message == "200 100% /%41"
    assert record.args == ("127.0.0.1:40000", "GET", "/%41?x=%s%(h)s", "1.1", 200)


def test_logger_that_raises_is_an_unraisable_error_and_no_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda info: seen.append(info.exc_type))

    def fail(record: logging.LogRecord) -> bool:
        raise RuntimeError("filter")

    bench.logger.addFilter(fail)
    log = bench.log()
    log._write(CLIENT, "GET", b"/")
    assert seen == [RuntimeError]


def test_logger_of_another_kind_is_called(bench: Bench) -> None:
    calls: list[Any] = []

    class Other:
        def isEnabledFor(self, level: int) -> bool:
            return level == 20

        def info(self, *args: Any) -> None:
            calls.append(args)

    log = _core.AccessLog(bench.loop, Other(), handler=bench.handler, fd=bench.fd)  # type: ignore[arg-type]
    log._write(CLIENT, "GET", b"/")
    assert calls == [('%s - "%s %s HTTP/%s" %d', "127.0.0.1:40000", "GET", "/", "1.1", 200)]
