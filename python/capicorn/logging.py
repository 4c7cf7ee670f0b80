"""Formatters in uvicorn's shape, the TRACE level, and uvicorn's logger names as names of ours.

Loggers: `capicorn` (handler on stderr), its children `capicorn.error` (the server's own lines) and `capicorn.asgi`
(messages, at level TRACE), and `capicorn.access` (handler on stdout).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TextIO

if TYPE_CHECKING:
    from configparser import RawConfigParser

TRACE_LOG_LEVEL = 5

LOGGERS = ("", ".error", ".access", ".asgi")
"""What follows `capicorn` or `uvicorn` in the names of loggers."""

_COLORS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "cyan": 36, "bright_red": 91, "bright_white": 97}


def style(text: str, fg: str = "", bold: bool = False) -> str:
    """`text` in a colour of a terminal (ECMA-48 SGR)."""
    start = (f"\x1b[{_COLORS[fg]}m" if fg else "") + ("\x1b[1m" if bold else "")
    return f"{start}{text}\x1b[0m" if start else text


def _colored(name: str) -> Callable[[object], str]:
    return lambda text: style(str(text), name)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


class ColourizedFormatter(logging.Formatter):
    """Adds `%(levelprefix)s`: the level with a colon, nine columns wide, coloured. With colours, a record's
    `extra={"color_message": ...}` is shown in place of its message.

    `use_colors=None` asks `should_use_colors()`.
    """

    level_name_colors: ClassVar[dict[int, Callable[[object], str]]] = {
        TRACE_LOG_LEVEL: _colored("blue"),
        logging.DEBUG: _colored("cyan"),
        logging.INFO: _colored("green"),
        logging.WARNING: _colored("yellow"),
        logging.ERROR: _colored("red"),
        logging.CRITICAL: _colored("bright_red"),
    }

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: Literal["%", "{", "$"] = "%",
        use_colors: bool | None = None,
    ) -> None:
        super().__init__(fmt=fmt, datefmt=datefmt, style=style)
        self.use_colors: bool = self.should_use_colors() if use_colors is None else bool(use_colors)

    def should_use_colors(self) -> bool:
        return _is_terminal(sys.stdout)

    def color_level_name(self, level_name: str, level_no: int) -> str:
        return self.level_name_colors.get(level_no, str)(level_name)

    def formatMessage(self, record: logging.LogRecord) -> str:
        shown = copy(record)
        name, pad = record.levelname, " " * (8 - len(record.levelname))
        if self.use_colors:
            name = self.color_level_name(name, record.levelno)
            if "color_message" in shown.__dict__:
                shown.msg = shown.__dict__["color_message"]
                shown.message = shown.getMessage()
        shown.__dict__["levelprefix"] = f"{name}:{pad}"
        return super().formatMessage(shown)


class DefaultFormatter(ColourizedFormatter):
    """For the server's lines, which go to stderr."""

    def should_use_colors(self) -> bool:
        return _is_terminal(sys.stderr)


ACCESS_LINE = '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s'
"""The default format of access records."""

_OWN_LINE = "%.0s" * 5
"""Ends the message of a record whose text --access-log-format or --access-log-json made: it uses up the args."""


class AccessFormatter(ColourizedFormatter):
    """For access records, whose args are (client address, method, path with query, HTTP version, status). Adds
    `%(client_addr)s`, `%(request_line)s` and `%(status_code)s`. In its default format, a line of one's own
    (--access-log-format) is shown as it is."""

    status_code_colours: ClassVar[dict[int, Callable[[object], str]]] = {
        1: _colored("bright_white"),
        2: _colored("green"),
        3: _colored("yellow"),
        4: _colored("red"),
        5: _colored("bright_red"),
    }

    def get_status_code(self, status_code: int) -> str:
        import http

        try:
            phrase = http.HTTPStatus(status_code).phrase
        except ValueError:
            phrase = ""
        text = f"{status_code} {phrase}"
        return self.status_code_colours.get(status_code // 100, str)(text) if self.use_colors else text

    def formatMessage(self, record: logging.LogRecord) -> str:
        if self._fmt == ACCESS_LINE and isinstance(record.msg, str) and record.msg.endswith(_OWN_LINE):
            return record.getMessage()
        shown = copy(record)
        if isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, path, version, status = record.args
            line = f"{method} {path} HTTP/{version}"
            shown.__dict__.update(
                client_addr=client,
                request_line=style(line, bold=True) if self.use_colors else line,
                status_code=self.get_status_code(int(str(status))),
            )
        else:  # somebody else's record on this logger
            shown.__dict__.update(client_addr="", request_line=record.getMessage(), status_code="")
        return super().formatMessage(shown)


# ---- uvicorn's names


def _own_name(name: str) -> str:
    """`name` with uvicorn's part of a logger's or class's name replaced by ours."""
    if name in {"uvicorn" + tail for tail in LOGGERS}:
        return "capicorn" + name[len("uvicorn") :]
    if name.startswith("uvicorn.logging."):
        return "capicorn.logging." + name[len("uvicorn.logging.") :]
    return name


def own_names(config: dict[str, Any], theirs_first: bool = False) -> tuple[dict[str, Any], bool]:
    """A copy of a dictConfig in which uvicorn's loggers and formatters are ours, and whether there were any. Where
    a logger is given by both names ours counts, with `theirs_first` uvicorn's."""
    config = _copied(config)
    found = False
    loggers = config.get("loggers")
    if isinstance(loggers, dict):
        for name in [name for name in loggers if isinstance(name, str)]:
            own = _own_name(name)
            if own != name:
                found = True
                value = loggers.pop(name)
                if theirs_first or own not in loggers:
                    loggers[own] = value
    for section in ("formatters", "filters", "handlers"):
        values = config.get(section)
        for value in values.values() if isinstance(values, dict) else ():
            for key in ("()", "class") if isinstance(value, dict) else ():
                if isinstance(value.get(key), str) and _own_name(value[key]) != value[key]:
                    found = True
                    value[key] = _own_name(value[key])
    return config, found


def _copied(value: Any) -> Any:
    """A copy of dicts and lists; streams, classes and other objects in them stay the same ones."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value


def own_names_ini(parser: RawConfigParser) -> bool:
    """The same for a fileConfig, in place."""
    found = False
    for section in parser.sections():
        for key in ("qualname", "class"):
            value = parser.get(section, key, raw=True, fallback="")
            if value and _own_name(value) != value:
                parser.set(section, key, _own_name(value))
                found = True
    return found


@contextmanager
def adopted_loggers(enabled: bool = True) -> Iterator[None]:
    """Within, logging is configured; afterwards `getLogger("uvicorn.access")` and its like give our loggers.

    So what applications do to uvicorn's loggers (filters against health checks, lines of their own) works. Not where
    uvicorn itself is in use. A logger of such a name that exists already hands its filters to ours.
    """
    known = logging.root.manager.loggerDict
    for tail in LOGGERS:  # dictConfig may disable loggers that it does not name: it must not meet ours under two names
        if known.get("uvicorn" + tail) is not None and known.get("uvicorn" + tail) is known.get("capicorn" + tail):
            del known["uvicorn" + tail]
    yield
    real = sys.modules.get("uvicorn")
    if not enabled or (real is not None and getattr(real, "__capicorn__", False) is not True):
        return
    for tail in LOGGERS:
        own = logging.getLogger("capicorn" + tail)
        theirs = known.get("uvicorn" + tail)
        if isinstance(theirs, logging.Logger):
            for each in theirs.filters:
                own.addFilter(each)
            if theirs is not own:
                theirs.parent = own  # for who holds the old object
        known["uvicorn" + tail] = own
