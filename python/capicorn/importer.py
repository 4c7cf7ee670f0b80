"""Finds an object by its import string, `package.module:attribute.attribute`."""

from __future__ import annotations

import importlib
from typing import Any


class ImportFromStringError(Exception):
    """The import string is malformed, or names what does not exist."""


def import_from_string(import_str: Any) -> Any:
    """The object that `import_str` names; what is not a string comes back as it is.

    Raises ImportFromStringError when the module or the attribute is missing. An error inside the module (also an
    import of another module that is missing) comes through as it is.
    """
    if not isinstance(import_str, str):
        return import_str
    module_name, _, path = import_str.partition(":")
    if not module_name or not path:
        raise ImportFromStringError(f'Import string "{import_str}" must be in format "<module>:<attribute>".')
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if not _is_about(exc.name, module_name):
            raise
        missing = True
    else:
        missing = False
    if missing:
        raise ImportFromStringError(f'Could not import module "{module_name}".')
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            missing = True
            break
    if missing:
        raise ImportFromStringError(f'Attribute "{path}" not found in module "{module_name}".')
    return found


def _is_about(missing: str | None, wanted: str) -> bool:
    """Is the missing module the wanted one, or a package that should hold it?"""
    return missing is not None and (wanted == missing or wanted.startswith(missing + "."))
