"""The values of options: what a text may be for a field of some type, or one clear error."""

import math
import re
import types
import typing
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

from bench.suites import nearest

__all__ = ["Kind", "kind_of", "values_of"]

_ENDLESS = 1 << 30
_DIGITS = 18
_SYNONYMS = {"bf16": "bfloat16", "fp32": "float32", "f32": "float32", "tb": "tensorboard"}


@dataclass(frozen=True, slots=True)
class Kind:
    """What the values of an option are.

    Attributes:
        types: `int`, `float`, `str`, `Path` or `bool`, each of which a value may be.
        choices: words that a value may be besides.
        many: whether there may be any number of values.
        count: how many there are, where that is fixed.
    """

    types: tuple[type[Any], ...]
    choices: tuple[str, ...] = ()
    many: bool = False
    count: int | None = None

    @property
    def flag(self) -> bool:
        """Whether it is given without a value."""
        return self.types == (bool,)

    @property
    def most(self) -> int:
        """The most values that follow the option once."""
        return _ENDLESS if self.many else self.count or 1


def kind_of(hint: Any) -> Kind:
    """What values a field of a type has."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return kind_of(arguments[0])
    if origin is tuple:
        inner = kind_of(arguments[0])
        if arguments[-1] is Ellipsis:
            return Kind(inner.types, inner.choices, many=True)
        return Kind(inner.types, inner.choices, count=len(arguments))
    if origin is Literal:
        return Kind((), arguments)
    if origin in (typing.Union, types.UnionType):
        parts = [kind_of(part) for part in arguments if part is not types.NoneType]
        return Kind(
            tuple(kind for part in parts for kind in part.types),
            tuple(choice for part in parts for choice in part.choices),
            parts[0].many,
            parts[0].count,
        )
    assert hint in (int, float, str, Path, bool), f"options of type {hint} are not known here"
    return Kind((hint,))


def values_of(option: str, kind: Kind, texts: list[str]) -> Any:
    """The value of a field, or the tuple of its values.

    Args:
        option: for errors.
        kind: of the field.
        texts: as they were typed, one or more.

    Raises:
        ValueError: a text that is no such value, or too few of them.
    """
    if kind.flag:
        return texts[-1] == "yes"
    if kind.many and option.startswith("--"):
        texts = [part for text in texts for part in _parts(text)]
    values = tuple(_value(option, kind, text) for text in texts)
    if kind.count is not None and len(values) != kind.count:
        raise ValueError(f"{option} takes {kind.count} values, got {len(values)}")
    return values if kind.many or kind.count is not None else values[0]


def _parts(text: str) -> list[str]:
    """Words and numbers joined by commas, apart; whatever else holds a comma stays as it is."""
    return text.split(",") if re.fullmatch(r"[\w.+,-]*", text) else [text]


def _value(option: str, kind: Kind, text: str) -> Any:
    if text in kind.choices:
        return text
    if not text.strip():
        raise ValueError(f"{option} was given an empty value")
    if "\0" in text:
        raise ValueError(f"{option} holds a NUL character: {text!r}")
    for of in kind.types:
        if of is int:
            return _whole(option, text, kind.choices)
        if of is float:
            return _number(option, text)
        return of(text)
    near = [_SYNONYMS[text.lower()]] if text.lower() in _SYNONYMS else nearest(text, kind.choices)
    near = [name for name in near if name in kind.choices]
    hint = f"; perhaps you meant {near[0]}" if near else ""
    raise ValueError(f"{option} must be {_either(kind.choices)}, got {text!r}{hint}")


def _whole(option: str, text: str, choices: tuple[str, ...]) -> int:
    """A whole number, also as 1e6 or 1_000_000."""
    wanted = " or ".join(["a whole number", *choices])
    try:
        number = Decimal(text) if text.isascii() else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite():
        bare = text.replace(",", "")
        hint = f"; write {bare}" if re.fullmatch(r"[0-9]+", bare) else ""
        raise ValueError(f"{option} must be {wanted}, got {text!r}{hint}")
    if number and number.adjusted() >= _DIGITS:
        raise ValueError(f"{option} must be a whole number of at most {_DIGITS} digits, got {text}")
    if number != number.to_integral_value():
        raise ValueError(f"{option} must be {wanted}, got {text!r}")
    return int(number)


def _number(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{option} must be a finite number, got {text!r}")
    if abs(value) >= 10.0**_DIGITS:
        raise ValueError(f"{option} must be a number of at most {_DIGITS} digits, got {text}")
    return value


def _either(words: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
