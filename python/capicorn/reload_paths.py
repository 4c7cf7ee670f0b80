"""Which folders and patterns --reload watches, from what the user said."""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger("capicorn.error")


def reload_paths(
    directories: list[str], includes: list[str], excludes: list[str]
) -> tuple[list[Path], list[str], list[str], list[Path]]:
    """(folders to watch, patterns to include, patterns to exclude, folders to leave out).

    A pattern that is a folder, or matches some below the current one, also names those folders.
    """
    patterns_in, watched = _resolve(includes, directories)
    patterns_out, left_out = _resolve(excludes, [])
    watched = [path for path in watched if not any(out == path or out in path.parents for out in left_out)]
    patterns_in = [pattern for pattern in patterns_in if pattern not in patterns_out]
    if not watched:
        if directories:
            logger.warning(
                "Provided reload directories %s did not contain valid directories, watching current working directory.",
                directories,
            )
        watched = [Path.cwd()]
    return watched, patterns_in, patterns_out, left_out


def _resolve(patterns: list[str], directories: list[str]) -> tuple[list[str], list[Path]]:
    found = [Path(directory) for directory in directories]
    for pattern in patterns:
        if pattern == ".*":  # hidden files are meant, not each hidden folder
            continue
        if _is_dir(Path(pattern)):
            found.append(Path(pattern))
        elif not Path(pattern).is_absolute():
            found += [match for match in Path.cwd().glob(pattern) if _is_dir(match)]
    resolved = {path.resolve() for path in found if _is_dir(path)}
    outermost = [path for path in resolved if not any(parent in resolved for parent in path.parents)]
    return sorted(set(patterns)), sorted(outermost)


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False
