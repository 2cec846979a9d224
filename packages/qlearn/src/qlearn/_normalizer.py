"""Shift and scale of observations, leaf by leaf, measured on data."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from qlearn._images import is_image
from qlearn._tree import LeafSpec, Observation, Tree, check_names, tree_leaves, tree_map

__all__ = ["Normalization", "ObservationNormalizer"]

Normalization: TypeAlias = Literal["mean_std", "min_max", "identity"]
"""``mean_std``: mean 0 and standard deviation 1. ``min_max``: from -1 to 1. As LeRobot has them."""

_METHODS = ("mean_std", "min_max", "identity")
_BLOCK = 1 << 16  # Rows looked at together, which bounds the memory of a pass over a file.
_LEAST_SCALE = 1e-6  # Entries that vary less count as constant and keep their scale.


class ObservationNormalizer(nn.Module):
    """``(o - shift) / scale`` of every leaf that is no image.

    Images pass as they are: encoders scale their bytes to [0, 1]. Vectors come out in float32.
    Shift and scale are buffers, so a state dict keeps them beside the networks that rely on them.

    Args:
        shift: subtracted from each entry, in the form of an observation without leading axes;
            None for leaves that pass.
        scale: that the difference is divided by.
    """

    def __init__(self, shift: Tree[Tensor | None], scale: Tree[Tensor | None]) -> None:
        super().__init__()
        self._named = isinstance(shift, Mapping)
        self._buffers_of: dict[str, tuple[str, str] | None] = {}
        for number, ((name, low), (_, wide)) in enumerate(
            zip(tree_leaves(shift), tree_leaves(scale), strict=True)
        ):
            if low is None or wide is None:
                self._buffers_of[name] = None
                continue
            self._buffers_of[name] = (f"shift{number}", f"scale{number}")
            self.register_buffer(f"shift{number}", low.float())
            self.register_buffer(f"scale{number}", wide.float())

    @classmethod
    def fit(
        cls,
        observations: Tree[Any],
        method: Normalization | Mapping[str, Normalization] = "mean_std",
    ) -> "ObservationNormalizer":
        """Measure data of ``(N, *leaf)``, in memory or on the disk, in float64.

        Args:
            observations: rows of every leaf.
            method: for all leaves, or by name; leaves that a mapping does not name pass.

        Raises:
            ValueError: an unknown method, a name that the data lack, or an image that is to be
                normalised.
        """
        leaves = dict(tree_leaves(observations))
        if isinstance(method, Mapping):
            if unknown := sorted(set(method) - set(leaves)):
                raise ValueError(f"no leaves {unknown} to normalise; the data have {list(leaves)}")
            methods = {name: method.get(name, "identity") for name in leaves}
        else:
            methods = dict.fromkeys(leaves, method)
            for name, leaf in leaves.items():
                if is_image(LeafSpec(tuple(leaf.shape[1:]), leaf.dtype)):
                    methods[name] = "identity"
        measured = {name: _measured(name, leaves[name], methods[name]) for name in leaves}
        shift = {name: pair[0] for name, pair in measured.items()}
        scale = {name: pair[1] for name, pair in measured.items()}
        return cls(_like(observations, shift), _like(observations, scale))

    @classmethod
    def identity(cls, observations: Tree[Any]) -> "ObservationNormalizer":
        """Leaves observations of these leaves as they are."""
        nothing = tree_map(lambda _: None, observations)
        return cls(nothing, nothing)

    def forward(self, observations: Observation) -> Observation:
        """Normalised observations; leading axes are free.

        Raises:
            ValueError: other leaves than those that were measured.
        """
        if not self._named:
            check_names(None, observations)
            return self._leaf("", observations)  # type: ignore[arg-type]
        check_names(self._buffers_of, observations)
        return {name: self._leaf(name, leaf) for name, leaf in tree_leaves(observations)}

    def _leaf(self, name: str, leaf: Tensor) -> Tensor:
        buffers = self._buffers_of[name]
        if buffers is None:
            return leaf
        shift, scale = (getattr(self, buffer) for buffer in buffers)
        normalised: Tensor = (leaf.float() - shift) / scale
        return normalised


def _like(tree: Tree[Any], leaves: Mapping[str, Any]) -> Tree[Any]:
    return leaves if isinstance(tree, Mapping) else leaves[""]


def _measured(name: str, leaf: Any, method: str) -> tuple[Tensor | None, Tensor | None]:
    """Shift and scale of one leaf."""
    if method not in _METHODS:
        raise ValueError(f"normalisation must be one of {_METHODS}, got {method!r}")
    spec = LeafSpec(tuple(leaf.shape[1:]), leaf.dtype)
    if method == "identity":
        return None, None
    if is_image(spec):
        raise ValueError(
            f"{name or 'observations'} is an image of {spec}; image encoders scale its bytes "
            "to [0, 1], so leave it at 'identity'"
        )
    if method == "min_max":
        low = torch.stack([block.amin(0) for block in _blocks(leaf)]).amin(0)
        high = torch.stack([block.amax(0) for block in _blocks(leaf)]).amax(0)
        shift, scale = (high + low) / 2, (high - low) / 2
    else:
        shift = torch.stack([block.sum(0) for block in _blocks(leaf)]).sum(0) / len(leaf)
        squares = torch.stack([(block - shift).square().sum(0) for block in _blocks(leaf)])
        scale = (squares.sum(0) / len(leaf)).sqrt()
    return shift, torch.where(scale > _LEAST_SCALE, scale, 1.0)


def _blocks(leaf: Any) -> Iterator[Tensor]:
    for start in range(0, len(leaf), _BLOCK):
        rows = torch.arange(start, min(start + _BLOCK, len(leaf)), device=leaf.device)
        yield leaf[rows].double()
