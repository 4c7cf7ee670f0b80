"""What uvicorn has under `uvicorn.main`."""

from __future__ import annotations

from capicorn.cli import main
from capicorn.config import INTERFACES as INTERFACES
from capicorn.config import LIFESPAN as LIFESPAN
from capicorn.config import LOG_LEVELS as LOG_LEVELS
from capicorn.config import LOGGING_CONFIG as LOGGING_CONFIG
from capicorn.config import SSL_PROTOCOL_VERSION as SSL_PROTOCOL_VERSION
from capicorn.config import STARTUP_FAILURE as STARTUP_FAILURE
from capicorn.config import Config
from capicorn.runner import run
from capicorn.server import Server, ServerState

__all__ = ["Config", "Server", "ServerState", "main", "run"]
