"""Settings as run directories hold them, so that later versions change nothing in old runs.

What a run is, its fingerprint and the key of its cloned policies are hashes and comparisons of its
settings. A field that a later version adds is left out of them while it has its default, under
which the numbers are those of before. A field that a later version calls by another name stands in
files under its former one, which users may go on giving for one version, with a warning.
"""

import warnings
from collections.abc import Iterable
from dataclasses import asdict, field, fields
from typing import Any, TypeVar

__all__ = [
    "FORMER",
    "added",
    "added_defaults",
    "current_name",
    "former_names",
    "recorded",
    "renamed",
    "stored_name",
    "warn_renamed",
]

_Value = TypeVar("_Value")

FORMER = {
    "chunk_length": "horizon",
    "num_action_samples": "best_of",
    "num_critics": "critics",
    "rho": "pessimism",
    "tau": "target_rate",
}
"""What version 0.1 called some fields; those that it concerns say so by ``formerly``."""


def added(version: str, default: _Value) -> _Value:
    """A dataclass field newer than the first version; its default changes no numbers.

    Args:
        version: of the packages in which the field appeared.
        default: under which the numbers are those of earlier versions.
    """
    result: _Value = field(default=default, metadata={"added": version})
    return result


def renamed(name: str, default: _Value) -> _Value:
    """A dataclass field that version 0.1 called by another name.

    Args:
        name: today's.
        default: of the field.
    """
    result: _Value = field(default=default, metadata={"formerly": FORMER[name]})
    return result


def added_defaults(kind: type[Any]) -> dict[str, Any]:
    """What the fields of a settings dataclass were that an older record lacks, by name."""
    return {entry.name: entry.default for entry in fields(kind) if "added" in entry.metadata}


def former_names(*kinds: type[Any]) -> dict[str, str]:
    """Today's name of every field of some dataclasses that had another one, by the former name."""
    found: dict[str, str] = {}
    for kind in kinds:
        for entry in fields(kind):
            if (former := _former(kind, entry.name)) is not None:
                found[former] = entry.name
    return {old: new for old, new in found.items() if not any(_has(k, old) for k in kinds)}


def stored_name(kind: type[Any], name: str) -> str:
    """The name of a field in files."""
    return _former(kind, name) or name


def current_name(
    name: str, kinds: Iterable[type[Any]], spelled: str = "{}", stacklevel: int = 3
) -> str:
    """Today's name of a field, with a warning where a former one was given.

    Args:
        name: as it was given.
        kinds: dataclasses that may have the field.
        spelled: how the user writes a name, such as ``--{}``.
        stacklevel: of the warning.
    """
    new = former_names(*kinds).get(name)
    if new is None:
        return name
    before, after = (spelled.format(_typed(n, spelled)) for n in (name, new))
    warn_renamed(before, after, stacklevel=stacklevel + 1)
    return new


def warn_renamed(former: str, today: str, *, stacklevel: int = 2) -> None:
    """Tell the user that a name will go."""
    warnings.warn(
        f"{former} is now {today}; version 0.3 will no longer accept the old name",
        FutureWarning,
        stacklevel=stacklevel,
    )


def recorded(settings: Any) -> dict[str, Any]:
    """A settings dataclass as plain data, as files hold it.

    Fields added later that are at their default are left out, and renamed ones have their former
    names.

    Args:
        settings: instance of a dataclass; dataclasses inside of it are treated likewise.
    """
    values = asdict(settings)
    found: dict[str, Any] = {}
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        if "added" in entry.metadata and value == entry.default:
            continue
        inner = hasattr(value, "__dataclass_fields__")
        name = stored_name(type(settings), entry.name)
        found[name] = recorded(value) if inner else values[entry.name]
    return found


def _former(kind: type[Any], name: str) -> str | None:
    """What a field, or one that it takes the place of, was called."""
    for base in kind.__mro__:
        entry = getattr(base, "__dataclass_fields__", {}).get(name)
        if entry is not None and "formerly" in entry.metadata:
            former: str = entry.metadata["formerly"]
            return former
    return None


def _has(kind: type[Any], name: str) -> bool:
    return any(entry.name == name for entry in fields(kind))


def _typed(name: str, spelled: str) -> str:
    return name.replace("_", "-") if spelled.startswith("--") else name
