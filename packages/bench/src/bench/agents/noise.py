"""The random numbers of one update, drawn in one go and handed to the agent as an argument.

Because an update consumes noise instead of drawing it, it can be compared number by number with
other implementations, captured in a CUDA graph, and repeated.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from qlearn import RandomStreams

__all__ = ["Noise", "draw", "normal", "uniform"]


@dataclass(frozen=True, slots=True)
class Noise:
    """One array of random numbers: its distribution and its shape behind the replica axis."""

    kind: Literal["normal", "uniform"]
    shape: tuple[int, ...]


def normal(*shape: int) -> Noise:
    """Standard normal numbers ``(R, *shape)``."""
    return Noise("normal", shape)


def uniform(*shape: int) -> Noise:
    """Numbers ``(R, *shape)`` uniform on [0, 1)."""
    return Noise("uniform", shape)


def draw(streams: RandomStreams, wanted: Mapping[str, Noise]) -> dict[str, Tensor]:
    """Draw every array of ``wanted``, one call per distribution and replica.

    Args:
        streams: one random stream per replica.
        wanted: name to :class:`Noise`.

    Returns:
        Name to tensor ``(R, *shape)``.
    """
    drawn: dict[str, Tensor] = {}
    for kind, source in (("normal", streams.normal), ("uniform", streams.uniform)):
        names = [name for name, noise in wanted.items() if noise.kind == kind]
        if not names:
            continue
        sizes = [math.prod(wanted[name].shape) for name in names]
        pieces = torch.split(source(sum(sizes)), sizes, dim=1)
        for name, piece in zip(names, pieces, strict=True):
            drawn[name] = piece.reshape(-1, *wanted[name].shape)
    return drawn
