"""What environments observe: one array, or named arrays of a `Dict` space.

The counterpart of qlearn's trees in NumPy: simulator processes do without torch, whose import takes
longer than most of their episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from bench.simulation._errors import EnvironmentFaultError

__all__ = [
    "ArraySpec",
    "ArrayTree",
    "ObservationSpace",
    "announced",
    "map_arrays",
    "put_rows",
    "stack_rows",
    "taken_apart",
    "zero_rows",
]

ArrayTree: TypeAlias = np.ndarray | Any
"""One array, or a dictionary of arrays by name. (Who made it knows which; see qlearn's trees.)"""


class ArraySpec(NamedTuple):
    """Shape and type of one array that an environment observes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


ObservationSpace: TypeAlias = ArraySpec | dict[str, ArraySpec]
"""What is observed, in the form of an observation; an entry of an entry is named ``a/b``."""


def announced(space: Any, *, inside: bool = False) -> ObservationSpace:
    """Read an observation space of Gymnasium.

    Args:
        space: A `Box`, `MultiBinary` or `MultiDiscrete`, or a `Dict` of such and of `Discrete`.

        inside: Whether the space is an entry of another.

    Returns:
        Shapes and types, floats as float32.

    Raises:
        ValueError: For a space of another kind.
    """
    import gymnasium

    spaces = gymnasium.spaces
    if isinstance(space, spaces.Dict):
        found: dict[str, ArraySpec] = {}
        for key, inner in space.spaces.items():
            leaf = announced(inner, inside=True)
            nested = leaf if isinstance(leaf, dict) else {"": leaf}
            found |= {f"{key}/{name}" if name else str(key): it for name, it in nested.items()}
        if not found:
            raise ValueError("a Dict without entries")
        return dict(sorted(found.items()))
    # A category alone is no vector: as a number it would have neighbours that mean nothing.
    known = (spaces.Box, spaces.MultiBinary, spaces.MultiDiscrete)
    if isinstance(space, known) or (inside and isinstance(space, spaces.Discrete)):
        floating = np.issubdtype(space.dtype, np.floating)
        dtype = np.dtype(np.float32) if floating else np.dtype(space.dtype)
        # A number gets an axis of its own: a table of numbers has rows and columns.
        return ArraySpec(tuple(space.shape or (1,)), dtype)
    raise ValueError(f"{type(space).__name__}, expected a Box or a Dict of Boxes")


def taken_apart(observation: Any, space: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a dictionary observation by the names of its space.

    Raises:
        EnvironmentFaultError: If it has other entries than its space.
    """
    found: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                visit(f"{prefix}/{key}" if prefix else str(key), inner)
        else:
            found[prefix] = value

    visit("", observation)
    if found.keys() != space.keys():
        given = sorted(found) if isinstance(observation, Mapping) else type(observation).__name__
        raise EnvironmentFaultError(
            f"the environment returned an observation of {given}, but its observation_space has "
            f"{sorted(space)}"
        )
    return found


def map_arrays(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """``function(array, *other arrays)`` of every leaf, in the form of ``tree``."""
    if not isinstance(tree, dict):
        return function(tree, *others)
    return {name: function(leaf, *(other[name] for other in others)) for name, leaf in tree.items()}


def zero_rows(space: ObservationSpace, rows: int) -> ArrayTree:
    """Zeros for so many observations."""
    return map_arrays(lambda leaf: np.zeros((rows, *leaf.shape), leaf.dtype), space)


def stack_rows(observations: Sequence[ArrayTree]) -> ArrayTree:
    """Observations one under the other, on a new first axis."""
    if not observations:
        return np.array([])
    return map_arrays(lambda *leaves: np.stack(leaves), observations[0], *observations[1:])


def put_rows(into: ArrayTree, rows: Any, values: ArrayTree) -> None:
    """``into[rows] = values``, leaf by leaf, in place."""
    map_arrays(lambda leaf, value: leaf.__setitem__(rows, value), into, values)
