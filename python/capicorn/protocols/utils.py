"""Helpers by uvicorn's names."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


class ClientDisconnected(OSError):
    """What send() raises on a WebSocket whose peer is gone."""


def get_client_addr(scope: Mapping[str, Any]) -> str:
    """`host:port` of the scope's client, "" when it has none."""
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else ""


def get_path_with_query_string(scope: Mapping[str, Any]) -> str:
    """The scope's path, percent-encoded, with its query."""
    path = urllib.parse.quote(scope["path"])
    query: bytes = scope["query_string"]
    return f"{path}?{query.decode('ascii')}" if query else path


def get_remote_addr(transport: asyncio.BaseTransport) -> tuple[str, int] | None:
    """Host and port of who is at the other end of a transport, None when it has none."""
    name = _name(transport, "getpeername", "peername")
    return name if name is not None and name[1] is not None else None  # type: ignore[return-value]


def get_local_addr(transport: asyncio.BaseTransport) -> tuple[str, int | None] | None:
    """Host and port of a transport's own end, or path and None; None when it has no name."""
    return _name(transport, "getsockname", "sockname")


def _name(transport: asyncio.BaseTransport, method: str, key: str) -> tuple[str, int | None] | None:
    sock = transport.get_extra_info("socket")
    try:
        name = transport.get_extra_info(key) if sock is None else getattr(sock, method)()
    except OSError:  # closed
        return None
    if isinstance(name, str):
        return name, None
    return (str(name[0]), int(name[1])) if isinstance(name, (tuple, list)) and len(name) >= 2 else None


def is_ssl(transport: asyncio.BaseTransport) -> bool:
    """Whether a transport speaks TLS."""
    return bool(transport.get_extra_info("sslcontext"))
