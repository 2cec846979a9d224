"""Settings as run directories hold them, so that a field added later does not change old runs.

What a run is, its fingerprint and the key of its cloned policies are hashes and comparisons of its
settings. A field that a later version adds is left out of them while it has its default, under
which the numbers are those of before.
"""

from dataclasses import asdict, field, fields
from typing import Any, TypeVar

__all__ = ["added", "added_defaults", "recorded"]

_Value = TypeVar("_Value")


def added(version: str, default: _Value) -> _Value:
    """A dataclass field newer than the first version; its default changes no numbers.

    Args:
        version: of the packages in which the field appeared.
        default: under which the numbers are those of earlier versions.
    """
    result: _Value = field(default=default, metadata={"added": version})
    return result


def added_defaults(kind: type[Any]) -> dict[str, Any]:
    """What the fields of a settings dataclass were that an older record lacks, by name."""
    return {entry.name: entry.default for entry in fields(kind) if "added" in entry.metadata}


def recorded(settings: Any) -> dict[str, Any]:
    """A settings dataclass as plain data, without fields added later that are at their default.

    Args:
        settings: instance of a dataclass; dataclasses inside of it are treated likewise.
    """
    values = asdict(settings)
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        if "added" in entry.metadata and value == entry.default:
            del values[entry.name]
        elif hasattr(value, "__dataclass_fields__"):
            values[entry.name] = recorded(value)
    return values
