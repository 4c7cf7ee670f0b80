"""With --log-level trace: each ASGI message as a line of the logger capicorn.asgi."""

from __future__ import annotations

import itertools
import logging
from collections.abc import MutableMapping
from typing import Any

from capicorn.logging import TRACE_LOG_LEVEL
from capicorn.middleware.asgi2 import Receive, Scope, Send

_SHORT = {"body": "<%d bytes>", "bytes": "<%d bytes>", "text": "<%d chars>"}


def message_with_placeholders(message: MutableMapping[str, Any]) -> dict[str, Any]:
    """A copy of a message or scope in which content is told by its length, and headers not at all."""
    shown = dict(message)
    for key, form in _SHORT.items():
        if shown.get(key) is not None:
            shown[key] = form % len(shown[key])
    if shown.get("headers") is not None:
        shown["headers"] = "<...>"
    return shown


class MessageLoggerMiddleware:
    def __init__(self, app: Any) -> None:
        self.app = app
        self.logger = logging.getLogger("capicorn.asgi")
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        number = next(self._numbers)
        client = scope.get("client")
        prefix = f"{client[0]}:{client[1]} - ASGI" if client else "ASGI"

        def trace(what: str) -> None:
            self.logger.log(TRACE_LOG_LEVEL, "%s [%d] %s", prefix, number, what)

        async def traced_receive() -> MutableMapping[str, Any]:
            message = await receive()
            trace(f"Receive {message_with_placeholders(message)}")
            return message

        async def traced_send(message: MutableMapping[str, Any]) -> None:
            trace(f"Send {message_with_placeholders(message)}")
            await send(message)

        trace(f"Started scope={message_with_placeholders(scope)}")
        try:
            await self.app(scope, traced_receive, traced_send)
        except BaseException:
            trace("Raised exception")
            raise
        trace("Completed")
