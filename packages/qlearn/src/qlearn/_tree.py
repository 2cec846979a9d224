"""Observations: one tensor, or a flat mapping of named tensors such as ``state`` and ``image``.

All leaves of a tree share their leading axes (time, replicas, rows) and keep a shape and a type of
their own behind them. Leaves are visited in the order of their names, whatever order the caller's
mapping has. A single tensor is the tree of one leaf: every function passes it on as it is.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor

__all__ = [
    "LeafSpec",
    "Observation",
    "ObservationSpec",
    "Tree",
    "check_spec",
    "leading_shape",
    "tree_concat",
    "tree_leaves",
    "tree_map",
    "tree_rows",
    "tree_spec",
]

Leaf = TypeVar("Leaf")
Result = TypeVar("Result")

Tree: TypeAlias = Leaf | Mapping[str, Leaf]
"""One leaf, or named leaves."""

Observation: TypeAlias = Tensor | Mapping[str, Tensor]
"""One tensor, or named tensors with equal leading axes."""


class LeafSpec(NamedTuple):
    """What one leaf of an observation is.

    Attributes:
        shape: behind the leading axes; ``(3, 64, 64)`` for an image, ``(O,)`` for a vector.
        dtype: element type; images stay ``torch.uint8`` until a network reads them.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}{list(self.shape)}"


if TYPE_CHECKING:
    # Whoever made the data knows which of the two it is; code for one tensor need not ask.
    Observed: TypeAlias = Tensor | Any
else:
    Observed = Shaped[Tensor, "R B *O"] | Mapping[str, Shaped[Tensor, "R B ..."]]

ObservationSpec: TypeAlias = LeafSpec | Mapping[str, LeafSpec]
"""Shape and type of every leaf, in the form of the observation that it describes."""


def tree_leaves(tree: Tree[Leaf]) -> list[tuple[str, Leaf]]:
    """Name and leaf, in the order of names; the name of a single leaf is empty.

    Raises:
        ValueError: a mapping without leaves, with a name that is no text, or with a mapping inside.
    """
    if not isinstance(tree, Mapping):
        return [("", tree)]
    if not tree:
        raise ValueError("observations are a mapping without leaves; expected at least one")
    for name, leaf in tree.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"observations have a leaf named {name!r}; expected a text")
        if isinstance(leaf, Mapping):
            raise ValueError(
                f"observation {name!r} is itself a mapping, with leaves {sorted(map(str, leaf))}; "
                f"expected flat names, such as '{name}/{next(iter(leaf), 'leaf')}'"
            )
    return sorted(tree.items())


def matching_leaves(
    tree: Tree[Any], other: Tree[Leaf], name: str = "observations"
) -> list[tuple[str, Leaf]]:
    """The leaves of ``other``, after a check that it has the names of ``tree``.

    Raises:
        ValueError: other names.
    """
    check_names(tree, other, name)
    return tree_leaves(other)


def tree_map(
    function: Callable[..., Result], tree: Tree[Any], *others: Tree[Any]
) -> Result | dict[str, Result]:
    """``function(leaf, *other leaves)`` for every leaf, in the form of ``tree``.

    Args:
        function: of one leaf of each tree.
        tree: gives names and order.
        *others: trees with the same names.

    Raises:
        ValueError: trees with different names.
    """
    if not isinstance(tree, Mapping):
        for other in others:
            check_names(tree, other)
        return function(tree, *others)
    for other in others:
        check_names(tree, other)
    return {
        name: function(leaf, *(other[name] for other in others)) for name, leaf in tree_leaves(tree)
    }


def tree_rows(tree: Tree[Any], index: object) -> Observation:
    """``leaf[index]`` of every leaf."""
    return tree_map(lambda leaf: leaf[index], tree)


def tree_concat(trees: Sequence[Observation], dim: int) -> Observation:
    """Every leaf of all trees, one after the other along a leading axis.

    Args:
        trees: with the same names; at least one.
        dim: a leading axis, counted from the front.

    Raises:
        ValueError: no trees, or trees with different names.
    """
    if not trees:
        raise ValueError("no observations to concatenate")
    return tree_map(lambda *leaves: torch.cat(leaves, dim), trees[0], *trees[1:])


def leading_shape(tree: Observation, dims: int, name: str = "observations") -> torch.Size:
    """The first ``dims`` axes, which all leaves share.

    Args:
        tree: whose leaves to compare.
        dims: number of leading axes.
        name: what messages call the tree.

    Raises:
        ValueError: a leaf with fewer axes, or leaves that differ in these axes.
    """
    leaves = tree_leaves(tree)
    for leaf_name, leaf in leaves:
        if len(leaf.shape) < dims:
            raise ValueError(
                f"{described(name, leaf_name)} has shape {tuple(leaf.shape)}; expected at least "
                f"{dims} leading axes"
            )
    first_name, first = leaves[0]
    for leaf_name, leaf in leaves[1:]:
        if leaf.shape[:dims] != first.shape[:dims]:
            raise ValueError(
                f"{described(name, leaf_name)} has leading axes {tuple(leaf.shape[:dims])}, "
                f"{described(name, first_name)} {tuple(first.shape[:dims])}; expected the same"
            )
    return torch.Size(first.shape[:dims])


def tree_spec(tree: Observation, dims: int) -> ObservationSpec:
    """Shape and type of every leaf behind ``dims`` leading axes."""
    leading_shape(tree, dims)
    return tree_map(lambda leaf: LeafSpec(tuple(leaf.shape[dims:]), leaf.dtype), tree)


def check_spec(
    tree: Observation, spec: ObservationSpec, dims: int, name: str = "observations"
) -> None:
    """Refuse observations whose leaves are not as announced.

    Args:
        tree: given observations.
        spec: expected leaves.
        dims: leading axes of ``tree`` that ``spec`` does not name.
        name: what messages call the tree.

    Raises:
        ValueError: another set of leaves, another shape, or another type.
    """
    check_names(spec, tree, name)
    leading_shape(tree, dims, name)
    for (leaf_name, leaf), (_, wanted) in zip(tree_leaves(tree), tree_leaves(spec), strict=True):
        found = LeafSpec(tuple(leaf.shape[dims:]), leaf.dtype)
        if found != wanted:
            images = (
                f": convert images to {str(wanted.dtype).removeprefix('torch.')} first"
                if found.shape == wanted.shape and wanted.dtype == torch.uint8
                else ""
            )
            raise ValueError(f"{described(name, leaf_name)} is {found}, expected {wanted}{images}")


def lone_dtype(tree: Tree[Any]) -> torch.dtype | None:
    """The type of an observation that is one tensor; None for named leaves, which may differ."""
    return None if isinstance(tree, Mapping) else tree.dtype


def described(name: str, leaf: str) -> str:
    """How messages name a leaf: ``observations['image']``, or ``observations`` alone."""
    return f"{name}[{leaf!r}]" if leaf else name


def check_names(expected: object, given: object, name: str = "observations") -> None:
    """Refuse a tree with other leaves than expected."""
    wanted, found = _names(expected), _names(given)
    if wanted != found:
        raise ValueError(f"{name} are {_told(found)}, expected {_told(wanted)}")


def _names(tree: object) -> list[str] | None:
    return sorted(map(str, tree)) if isinstance(tree, Mapping) else None


def _told(names: Iterable[str] | None) -> str:
    return "one tensor" if names is None else f"leaves {list(names)}"


def described_tree(tree: Observation) -> str:
    """Leaves with their types and whole shapes, for messages."""
    leaves = [(name, LeafSpec(tuple(leaf.shape), leaf.dtype)) for name, leaf in tree_leaves(tree)]
    return ", ".join(f"{name}: {spec}" if name else str(spec) for name, spec in leaves)
