"""Several worker processes."""

from __future__ import annotations

from typing import Any

from capicorn.settings import BY_NAME, UnsupportedSettingError


class Multiprocess:
    """uvicorn's supervisor of workers. Not in this release."""

    def __init__(self, config: Any, sockets: list[Any]) -> None:
        raise UnsupportedSettingError(BY_NAME["workers"].refuse(config.workers) or BY_NAME["workers"].refuse(2))
