"""Processes that start others: reload, and later workers.

`ChangeReload` is WatchFilesReload when watchfiles is installed, else StatReload.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capicorn.supervisors.basereload import BaseReload
    from capicorn.supervisors.multiprocess import Multiprocess

    ChangeReload: type[BaseReload]

__all__ = ["ChangeReload", "Multiprocess"]


def __getattr__(name: str) -> Any:
    if name in ("ChangeReload", "WatchFilesReload"):
        try:
            from capicorn.supervisors.watchfilesreload import WatchFilesReload
        except ImportError:
            if name == "WatchFilesReload":
                raise
        else:
            return WatchFilesReload
    if name in ("ChangeReload", "StatReload"):
        from capicorn.supervisors.statreload import StatReload

        return StatReload
    if name == "Multiprocess":
        from capicorn.supervisors.multiprocess import Multiprocess

        return Multiprocess
    if name == "BaseReload":
        from capicorn.supervisors.basereload import BaseReload

        return BaseReload
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
