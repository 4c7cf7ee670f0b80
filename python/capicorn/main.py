"""What uvicorn has under `uvicorn.main`."""

from __future__ import annotations

from capicorn.cli import main
from capicorn.config import Config
from capicorn.runner import run
from capicorn.server import Server, ServerState

__all__ = ["Config", "Server", "ServerState", "main", "run"]
