"""Requests from keyword arguments, and the command lines that say the same."""

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from bench.experiment._fields import flag
from bench.recorded import current_name

__all__ = ["build_request", "command_line", "refuse_repeats"]

_Request = TypeVar("_Request")


def build_request(
    kind: type[_Request], request: _Request | None, options: Mapping[str, Any]
) -> _Request:
    """A request as it was given, or one of keyword arguments.

    A field that takes several values also takes one, or any sequence of them; a path may be a
    string.

    Raises:
        TypeError: both were given, or an option that the request does not have.
    """
    if request is not None:
        if options:
            raise TypeError(
                f"give a {kind.__name__} or keyword arguments, not both; "
                "dataclasses.replace(request, ...) changes fields of a request"
            )
        if not isinstance(request, kind):
            raise TypeError(f"expected a {kind.__name__}, got {type(request).__name__}")
        return request
    hints = typing.get_type_hints(kind)
    options = {current_name(name, [kind]): value for name, value in options.items()}
    for name in options:
        if name not in hints:
            near = get_close_matches(name, hints, n=3, cutoff=0.5)
            hint = f"; perhaps you meant {' or '.join(near)}" if near else ""
            raise TypeError(f"{kind.__name__} has no field {name!r}{hint}")
    return kind(**{name: _fitting(hints[name], value) for name, value in options.items()})


def refuse_repeats(request: Any, but: Sequence[str] = ()) -> None:
    """Refuse an option that lists the same value twice: one of them is likely a slip.

    Args:
        request: a dataclass of options.
        but: fields in which a value may stand more than once.

    Raises:
        ValueError: the text names option and value.
    """
    for entry in fields(request):
        values = getattr(request, entry.name)
        if entry.name in but or not isinstance(values, tuple):
            continue
        for place, value in enumerate(values):
            if value in values[:place]:
                option = f"--{entry.name.replace('_', '-')}"
                raise ValueError(f"{option} lists {value} twice; list each value once")


def _fitting(hint: Any, value: Any) -> Any:
    """A value in the type of its field, where people write another one."""
    kinds = (hint, *typing.get_args(hint)) if _is_union(hint) else (hint,)
    if value is None:
        return None
    if any(typing.get_origin(kind) is tuple for kind in kinds):
        many = isinstance(value, Sequence) and not isinstance(value, str)
        if isinstance(value, Mapping):
            raise TypeError(f"expected a sequence or one value, got {value!r}")
        values = tuple(value) if many or isinstance(value, range | set | frozenset) else (value,)
        return tuple(Path(v) if _of_paths(kinds) else v for v in values)
    return Path(value) if Path in kinds else value


def _of_paths(kinds: Sequence[Any]) -> bool:
    return any(Path in typing.get_args(kind) for kind in kinds)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def command_line(
    command: Sequence[str], request: Any, *, repeated: Sequence[str] = ()
) -> list[str]:
    """The words of a command line that asks for the same, its defaults left out.

    Args:
        command: its beginning, such as `bench offline`.
        request: a request.
        repeated: fields whose option is given once for every value.
    """
    words = list(command)
    for field in fields(request):
        value = getattr(request, field.name)
        option = flag(field.name)
        if value == field.default:
            continue
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option[2:]}")
        elif isinstance(value, tuple) and field.name in repeated:
            words += [word for part in value for word in (option, str(part))]
        elif isinstance(value, tuple):
            words += [option, *map(str, value)]
        else:
            words += [option, str(value)]
    return words
