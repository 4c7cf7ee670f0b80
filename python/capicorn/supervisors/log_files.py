"""Files that logging writes to, opened anew after somebody has moved them away (SIGUSR1)."""

from __future__ import annotations

import logging
import os
import sys
import time


def file_handlers() -> list[logging.FileHandler]:
    """Every handler of any logger that writes to a file."""
    loggers = [logging.root, *(each for each in logging.root.manager.loggerDict.values())]
    found: dict[int, logging.FileHandler] = {}
    for each in loggers:
        for handler in getattr(each, "handlers", ()):
            if isinstance(handler, logging.FileHandler):
                found[id(handler)] = handler
    return list(found.values())


def reopen_log_files(uid: int = -1, gid: int = -1) -> None:
    """Open them by their names again, under the descriptors they have (the access log knows only that). With a user
    or a group the files are theirs."""
    for handler in file_handlers():
        stream = handler.stream
        if stream is None:  # opened at the first record
            continue
        try:
            handler.flush()
            fd = os.open(handler.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                if uid != -1 or gid != -1:
                    os.fchown(fd, uid, gid)
                os.dup2(fd, stream.fileno(), inheritable=False)
            finally:
                os.close(fd)
        except OSError as exc:
            logging.getLogger("capicorn.error").error("Cannot reopen the log %s: %s", handler.baseFilename, exc)


def own_log_files(uid: int, gid: int) -> None:
    """Give the files to the user under which the workers run."""
    for handler in file_handlers():
        if handler.stream is not None:
            os.fchown(handler.stream.fileno(), uid, gid)


SAY_AGAIN = 60.0
"""Seconds after which it is told again that a log cannot be written."""


def tell_problems_once(handler: logging.FileHandler) -> None:
    """A full disk is one line on stderr now and then, not a traceback for each record."""
    said = float("-inf")

    def handle_error(record: logging.LogRecord) -> None:
        nonlocal said
        exc = sys.exc_info()[1]
        if not isinstance(exc, OSError):
            type(handler).handleError(handler, record)
        elif time.monotonic() - said >= SAY_AGAIN and sys.stderr is not None:
            said = time.monotonic()
            try:
                sys.stderr.write(f"capicorn: cannot write to the log {handler.baseFilename}: {exc.strerror}\n")
            except OSError:
                pass

    handler.handleError = handle_error  # type: ignore[method-assign]
