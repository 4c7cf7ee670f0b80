"""Makes the access log that a server's configuration asks for."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from capicorn.logging import ACCESS_LINE, AccessFormatter, style

if TYPE_CHECKING:
    from capicorn._core import AccessLog
    from capicorn.config import Config


def access_log(config: Config, loop: asyncio.AbstractEventLoop) -> AccessLog | None:
    """None when there is none to write. Lines go to the handler's descriptor directly when the logger has one plain
    handler with our formatter; else each goes through `logging`."""
    logger = logging.getLogger("capicorn.access")
    if not config.access_log:
        return None
    from capicorn import _core

    own_line = config.access_log_format is None and not config.access_log_json
    handler = _direct_handler(logger, own_line)
    prefix, colors, fd = "INFO:     ", False, -1
    if handler is not None:
        fd = handler.stream.fileno()
        handler.flush()
        formatter = handler.formatter
        if isinstance(formatter, AccessFormatter) and formatter.use_colors:
            colors = True
            prefix = style("INFO", "green") + ":     "
    return _core.AccessLog(
        loop,
        logger,
        handler=handler,
        fd=fd,
        format=config.access_log_format,
        json=config.access_log_json,
        prefix=prefix,
        colors=colors,
        exclude=config.access_log_exclude,
    )


def _direct_handler(logger: logging.Logger, own_line: bool) -> Any:
    """The handler whose output C may replace. With a format of our own its formatter does not matter."""
    if logger.filters or logger.propagate or len(logger.handlers) != 1:
        return None
    handler: Any = logger.handlers[0]
    if type(handler) not in (logging.StreamHandler, logging.FileHandler) or handler.filters:
        return None
    if handler.level > logging.INFO or getattr(handler, "terminator", "\n") != "\n":
        return None
    formatter = handler.formatter
    ours = type(formatter) is AccessFormatter and formatter._fmt == ACCESS_LINE and formatter.datefmt is None
    if own_line and not ours:
        return None
    try:
        handler.stream.fileno()
    except (AttributeError, OSError, ValueError):  # a StringIO, pytest's capture, no stream at all
        return None
    return handler
