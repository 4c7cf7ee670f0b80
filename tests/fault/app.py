"""An application that lets allocations of its own process fail.

/-/core?N      the N-th allocation of the extension from now on fails
/-/python?N    the N-th allocation of CPython fails (all of its domains), until /-/end
/-/end         no more
/-/ping        answers
anything else  the journal's paths, without notes
"""

from __future__ import annotations

import contextlib
import gc
from typing import Any

from tests.soak.app import Receive, Scope, Send
from tests.soak.app import app as plain

try:
    import _testcapi
except ImportError:
    _testcapi = None  # type: ignore[assignment]

HEAD: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY: dict[str, Any] = {"type": "http.response.body", "body": b"ok"}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    path = scope.get("path", "")
    if not path.startswith("/-/"):
        return await plain(scope, receive, send)
    if path == "/-/end":
        if _testcapi is not None:
            _testcapi.remove_mem_hooks()
        with contextlib.suppress(ImportError):
            from capicorn import _core

            _core._mem_fail(0)
        gc.collect()
    n = int(scope["query_string"] or b"0")
    if path == "/-/core":
        from capicorn import _core

        _core._mem_fail(n)
    elif path == "/-/python":
        _testcapi.set_nomemory(n, n + 1)
    await send(HEAD)
    await send(BODY)
