"""Formatters, --log-config, uvicorn's names for our loggers."""

from __future__ import annotations

import io
import json
import logging
import logging.config
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from capicorn.config import LOGGING_CONFIG, Config
from capicorn.logging import ACCESS_LINE, TRACE_LOG_LEVEL, AccessFormatter, DefaultFormatter, own_names

Launch = Callable[..., Any]


def record(level: int, message: str, *args: Any, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("x", level, "p", 1, message, args, None)
    made.__dict__.update(extra)
    return made


def access(status: int, path: str = "/p?q") -> logging.LogRecord:
    return record(logging.INFO, '%s - "%s %s HTTP/%s" %d', "1.2.3.4:5", "GET", path, "1.1", status)


def test_default_lines() -> None:
    formatter = DefaultFormatter("%(levelprefix)s %(message)s", use_colors=False)
    assert formatter.format(record(logging.INFO, "hey %s", "you")) == "INFO:     hey you"
    assert formatter.format(record(logging.WARNING, "x")) == "WARNING:  x"
    assert formatter.format(record(logging.CRITICAL, "x")) == "CRITICAL: x"


def test_coloured_lines_show_the_coloured_message() -> None:
    formatter = DefaultFormatter("%(levelprefix)s %(message)s", use_colors=True)
    shown = formatter.format(record(logging.INFO, "pid %d", 7, color_message="pid \x1b[36m%d\x1b[0m"))
    assert shown == "\x1b[32mINFO\x1b[0m:     pid \x1b[36m7\x1b[0m"


@pytest.mark.parametrize(("status", "text"), [(200, "200 OK"), (404, "404 Not Found"), (299, "299 ")])
def test_access_lines(status: int, text: str) -> None:
    line = AccessFormatter(ACCESS_LINE, use_colors=False).format(access(status))
    assert line == f'INFO:     1.2.3.4:5 - "GET /p?q HTTP/1.1" {text}'


@pytest.mark.parametrize(("status", "color"), [(101, 97), (200, 32), (302, 33), (404, 31), (500, 91)])
def test_coloured_access_lines(status: int, color: int) -> None:
    line = AccessFormatter(ACCESS_LINE, use_colors=True).format(access(status))
    assert '"\x1b[1mGET /p?q HTTP/1.1\x1b[0m"' in line
    assert f"\x1b[{color}m{status} " in line


def test_a_record_of_somebody_else_on_the_access_logger_is_shown() -> None:
    assert AccessFormatter("%(request_line)s", use_colors=False).format(record(logging.INFO, "a %s", "b")) == "a b"


def test_a_line_of_ones_own_is_shown_alone_also_with_a_filter_on_uvicorns_logger(launch: Launch, folder: Path) -> None:
    (folder / "filtered.py").write_text(
        "import logging\nlogging.getLogger('uvicorn.access').addFilter(lambda r: r.args[2] != '/health')\n"
        "from apps import app\n"
    )
    process = launch("--access-log-format", "%(m)s %(U)s 100%% %(s)s", app="filtered:app")
    process.get("/health")
    process.get("/other")
    process.wait_for(r"^GET /other 100% 200$")
    assert "/health" not in process.text


def test_use_colors_does_not_change_the_default_for_others() -> None:
    before = json.dumps(LOGGING_CONFIG)
    Config("x:y", use_colors=True)
    formatter = logging.getLogger("capicorn.access").handlers[0].formatter
    assert isinstance(formatter, AccessFormatter) and formatter.use_colors
    assert json.dumps(LOGGING_CONFIG) == before


def test_levels_by_name_in_any_case_and_by_number() -> None:
    Config("x:y", log_level="WARNING")
    assert logging.getLogger("capicorn.error").level == logging.WARNING
    Config("x:y", log_level=logging.ERROR)
    assert logging.getLogger("capicorn.access").level == logging.ERROR
    Config("x:y", log_level="trace")
    assert logging.getLogger("capicorn.asgi").level == TRACE_LOG_LEVEL


THEIRS: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"default": {"()": "uvicorn.logging.DefaultFormatter", "fmt": "T %(levelprefix)s %(message)s"}},
    "handlers": {"default": {"formatter": "default", "class": "logging.StreamHandler", "stream": "ext://sys.stderr"}},
    "loggers": {
        "uvicorn": {"handlers": ["default"], "level": "INFO"},
        "uvicorn.error": {"level": "DEBUG"},
        "uvicorn.access": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "mine.uvicorn": {"level": "INFO"},
    },
}


def test_names_of_uvicorn_in_a_dict_are_ours() -> None:
    own, found = own_names(THEIRS)
    assert found
    assert own["formatters"]["default"]["()"] == "capicorn.logging.DefaultFormatter"
    assert sorted(own["loggers"]) == ["capicorn", "capicorn.access", "capicorn.error", "mine.uvicorn"]
    assert "uvicorn" in THEIRS["loggers"]
    assert own_names(LOGGING_CONFIG) == (LOGGING_CONFIG, False)


def test_our_own_name_counts_where_both_are_given() -> None:
    config = {"loggers": {"uvicorn": {"level": "INFO"}, "capicorn": {"level": "ERROR"}}}
    assert own_names(config)[0] == {"loggers": {"capicorn": {"level": "ERROR"}}}


@pytest.mark.parametrize("kind", ["json", "yaml", "ini"])
def test_a_log_config_for_uvicorn_works_as_it_is(launch: Launch, folder: Path, kind: str) -> None:
    path = folder / f"log.{kind}"
    if kind == "ini":
        path.write_text(
            "[loggers]\nkeys=root,a\n[handlers]\nkeys=h\n[formatters]\nkeys=f\n"
            "[logger_root]\nlevel=WARNING\nhandlers=h\n[logger_a]\nqualname=uvicorn\nlevel=INFO\nhandlers=h\npropagate=0\n"
            "[handler_h]\nclass=StreamHandler\nformatter=f\nargs=(sys.stderr,)\n"
            "[formatter_f]\nclass=uvicorn.logging.DefaultFormatter\nformat=T %(levelprefix)s %(message)s\n"
        )
    else:
        path.write_text(json.dumps(THEIRS))
    process = launch("--log-config", path.name, "--log-level", "debug")
    process.wait_for(r"^T INFO: +Started server process")
    process.wait_for(r"^T DEBUG: +The logging configuration names uvicorn's loggers or formatters")


def test_a_filter_on_uvicorns_access_logger_is_on_ours() -> None:
    Config("x:y")
    assert logging.getLogger("uvicorn.access") is logging.getLogger("capicorn.access")


def test_a_filter_from_before_is_taken_over() -> None:
    def health(one: logging.LogRecord) -> bool:
        return False

    logging.getLogger("uvicorn.access").addFilter(health)
    Config("x:y")
    assert logging.getLogger("capicorn.access").filters == [health]


def test_configuring_again_with_disable_existing_loggers_does_not_silence_ours() -> None:
    Config("x:y")
    Config("x:y", log_config={**LOGGING_CONFIG, "disable_existing_loggers": True})
    assert not logging.getLogger("capicorn.access").disabled
    assert not logging.getLogger("capicorn.error").disabled


def test_an_open_file_and_a_dict_with_objects_are_taken() -> None:
    text = "[loggers]\nkeys=root\n[handlers]\nkeys=\n[formatters]\nkeys=\n[logger_root]\nhandlers=\n"
    Config("x:y", log_config=io.StringIO(text))
    stream = io.StringIO()
    handlers = {"h": {"class": "logging.StreamHandler", "stream": stream}}
    loggers = {"capicorn": {"handlers": ["h"], "level": "INFO"}}
    Config("x:y", log_config={"version": 1, "handlers": handlers, "loggers": loggers})
    logging.getLogger("capicorn.error").info("hello")
    assert stream.getvalue() == "hello\n"
