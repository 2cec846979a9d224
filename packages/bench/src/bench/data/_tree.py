"""Arrays of a file before they are read: names, types and shapes in a tree, contents on demand."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from bench.data._errors import DataDamaged

_MOST_LEAVES = 1_000  # Of one observation; more is a damaged or a hostile file.


@dataclass(frozen=True, slots=True)
class Leaf:
    """One array of a file.

    Attributes:
        file: the file, for messages.
        key: its name in the file, with `/` between the levels.
        dtype: type as stored.
        shape: shape as stored, rows first.
        read: gives the contents.
    """

    file: Path
    key: str
    dtype: np.dtype
    shape: tuple[int, ...]
    read: Callable[[], Shaped[np.ndarray, "..."]]

    @property
    def nbytes(self) -> int:
        """Bytes of the contents, as an exact number however absurd the shape."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def rows(self) -> int:
        """Length of the first axis; 0 for a single number."""
        return self.shape[0] if self.shape else 0

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return prod(self.shape[1:])

    def __str__(self) -> str:
        return f"'{self.key}' {self.dtype} {self.shape}"


Tree = Mapping[str, "Leaf | Tree"]
"""Arrays and groups of them by name."""


def leaf_of(file: Path, key: str, array: Shaped[np.ndarray, "..."]) -> Leaf:
    """A leaf for an array that is in memory already."""
    return Leaf(file, key, array.dtype, array.shape, lambda: array)


def flattened(tree: "Leaf | Tree") -> list[Leaf]:
    """The leaves of a tree in the order of Gymnasium's `FlattenObservation`.

    Names of a dictionary in alphabetical order, as Gymnasium's `Dict` space sorts them; entries of
    a tuple, `_index_0`, `_index_1`, ... in Minari's files, by number.
    """
    leaves = []
    for leaf in _walk(tree):
        leaves.append(leaf)
        if len(leaves) > _MOST_LEAVES:
            raise DataDamaged(f"{leaf.file}: more than {_MOST_LEAVES:,} arrays in a group")
    return leaves


def _walk(tree: "Leaf | Tree") -> Iterator[Leaf]:
    if isinstance(tree, Leaf):
        yield tree
        return
    for key in sorted(tree, key=_order):
        yield from _walk(tree[key])


def _order(key: str) -> tuple[str, int]:
    number = key.removeprefix("_index_")
    return ("_index_", int(number)) if number.isdecimal() and number != key else (key, 0)


def find(tree: Tree, key: str) -> "Leaf | Tree | None":
    """What lies at a name, which may hold `/` for deeper levels; None if nothing does."""
    found: Leaf | Tree = tree
    if key in tree:
        return tree[key]
    for step in key.split("/"):
        if isinstance(found, Leaf) or step not in found:
            return None
        found = found[step]
    return found


def nested(tree: Tree) -> "dict[str, Leaf | Tree]":
    """Arrays named `a/b` in groups: archives have no folders, and names say what they would be."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        top, _, rest = key.partition("/")
        if not rest:
            found[key] = value
        else:
            found.setdefault(top, {})[rest] = value
    return {
        key: nested(value) if isinstance(value, dict) else value for key, value in found.items()
    }
