"""What comes from outside the repository: objects named `module:attribute`, and entry points."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["import_from_here", "installed", "is_reference", "load_installed", "load_reference"]


def is_reference(name: str) -> bool:
    """Whether a name has the form `module:attribute`."""
    module, separator, attribute = name.partition(":")
    return bool(
        separator
        and attribute.isidentifier()
        and all(part.isidentifier() for part in module.split("."))
    )


def load_reference(name: str) -> Any:
    """The object that `module:attribute` names.

    Raises:
        ValueError: there is no such module, not in the current folder either, or nothing of that
            name in it; an error while the module is imported is passed on.
    """
    module, _, attribute = name.partition(":")
    try:
        found = import_from_here(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{name!r}: the module {module!r} cannot be imported ({error}), not from {Path.cwd()} "
            "either"
        ) from error
    if not hasattr(found, attribute):
        raise ValueError(f"{name!r}: the module {module!r} has no {attribute!r}")
    return getattr(found, attribute)


@cache
def installed(group: str) -> dict[str, EntryPoint]:
    """Entry points of a group by name, of all installed distributions."""
    return {entry.name: entry for entry in entry_points(group=group)}


def load_installed(group: str, name: str) -> Any:
    """The object of an entry point.

    Raises:
        KeyError: there is none of that name.
        ValueError: it cannot be imported.
    """
    entry = installed(group)[name]
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        owner = "" if entry.dist is None else f" of the package {entry.dist.name}"
        raise ValueError(
            f"{name!r}{owner} is registered as {entry.value} under {group}, which cannot be "
            f"loaded: {error}"
        ) from error


def import_from_here(module: str) -> ModuleType:
    """Import a module, from the current folder where it is nowhere else.

    The folder then stays on the path, for what is imported later and for processes that are started
    here.

    Raises:
        ModuleNotFoundError: it is nowhere.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        # A script has its own folder on the path, not the one that it was called in.
        here = str(Path.cwd())
        if here in sys.path:
            raise
        sys.path.append(here)
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError:
            sys.path.remove(here)
            raise
