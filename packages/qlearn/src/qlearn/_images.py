"""Images among observations: told from vectors, checked, and shifted at random."""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from qlearn._tree import LeafSpec, Observation, Tree, described, tree_leaves, tree_map

__all__ = ["channels_last", "check_images", "is_image", "random_shift"]

_LEAST_SIDE = 8  # A table with fewer rows or columns of numbers is more likely a set of vectors.
_CHANNELS = (1, 3, 4)


def is_image(spec: LeafSpec) -> bool:
    """Whether a leaf's last three axes are an image, ``(H, W, C)`` or ``(C, H, W)``.

    Any leaf of bytes with three axes or more is. A leaf of floats is where the image has 1, 3 or 4
    channels and 8 rows and columns or more. Axes in front are those of a history.
    """
    if len(spec.shape) < 3:
        return False
    if spec.dtype == torch.uint8:
        return True
    first, *_, last = spec.shape[-3:]
    sides = spec.shape[-3:-1] if channels_last(spec.shape) else spec.shape[-2:]
    return (
        spec.dtype.is_floating_point and min(first, last) in _CHANNELS and min(sides) >= _LEAST_SIDE
    )


def channels_last(shape: tuple[int, ...]) -> bool:
    """Whether an image is ``(H, W, C)``, as environments draw them, and not ``(C, H, W)``."""
    return shape[-1] <= shape[-3]


def check_images(observations: Tree[Any]) -> None:
    """Refuse images of 0 .. 255 that were converted to floats; a few rows of each are looked at.

    Raises:
        ValueError: an image of whole floats that reach beyond 1.
    """
    for name, leaf in tree_leaves(observations):
        spec = LeafSpec(tuple(leaf.shape[1:]), leaf.dtype)
        if spec.dtype == torch.uint8 or not is_image(spec) or len(leaf) == 0:
            continue
        rows = leaf[torch.linspace(0, len(leaf) - 1, 8).long().to(leaf.device)]
        if float(rows.max()) > 1.0 and float(rows.min()) >= 0.0 and bool((rows % 1 == 0).all()):
            raise ValueError(
                f"{described('observations', name)} holds images of {spec} with values up to "
                f"{float(rows.max()):g}; convert them to torch.uint8, which takes a quarter of the "
                "memory and is scaled to [0, 1] by image encoders, or divide them by 255"
            )


def random_shift(
    observations: Observation, noise: Float[Tensor, "*rows 2"], *, pad: int = 4
) -> Observation:
    """Every image moved by up to ``pad`` pixels in both directions, its border repeated.

    The augmentation of DrQ (arXiv 2004.13649, section 3.1): pad by replication, then crop back to
    the original size at a place of its own for each sample. All images of one sample (cameras, past
    frames) are moved alike; leaves that are no images stay as they are, and so do types.

    Args:
        observations: ``(*rows, *leaf)`` each, such as ``(R, B, H, W, C)``.
        noise: uniform on ``[0, 1)``, a number for each direction.
        pad: largest shift in pixels.

    Raises:
        ValueError: a negative ``pad``.
    """
    if pad < 0:
        raise ValueError(f"pad must be 0 or more, got {pad}")
    rows = noise.shape[:-1]
    # Every whole number of -pad .. pad is as likely as any other.
    offsets = (noise.reshape(-1, 2) * (2 * pad + 1)).floor().clamp(max=2 * pad).long() - pad

    def shifted(leaf: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        spec = LeafSpec(tuple(leaf.shape[len(rows) :]), leaf.dtype)
        return _shift(leaf, offsets, len(rows)) if is_image(spec) else leaf

    return tree_map(shifted, observations)


def _shift(images: Tensor, offsets: Tensor, rows: int) -> Tensor:
    flat = images.flatten(0, rows - 1)
    height, width = (-3, -2) if channels_last(images.shape) else (-2, -1)
    for axis, offset in ((height, offsets[:, 0]), (width, offsets[:, 1])):
        size = flat.shape[axis]
        place = torch.arange(size, device=images.device) + offset.unsqueeze(-1)
        # Clamped indices read what a border that repeats itself would hold.
        place = place.clamp(0, size - 1)
        view = [len(flat), *(1,) * (flat.dim() - 1)]
        view[axis] = size
        flat = flat.gather(axis, place.view(view).expand_as(flat))
    return flat.view(images.shape)
