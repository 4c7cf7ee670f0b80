"""Helpers by uvicorn's names."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import Any


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
