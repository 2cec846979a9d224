"""Batches of action chunks, and how a chunk's rows become one transition."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from qlearn._random import RandomStreams
from qlearn._tree import Observed, tree_map

__all__ = ["ChunkBatch", "ChunkSource"]


@dataclass(frozen=True, slots=True)
class ChunkBatch:
    """``B`` chunks of ``H`` steps for each of ``R`` replicas.

    A chunk is ``H`` consecutive rows of the data. It is one transition of an agent that plays ``H``
    actions open loop: discounted reward inside it, observation after it.

    Attributes:
        observations: ``(R, B, O)`` before the chunk, of any number type; images ``(R, B, *O)``;
            several as named leaves ``(R, B, *leaf)``, each of its own type.
        actions: ``(R, B, H * A)``, first step first; raw rows also behind an episode's end.
        rewards: ``(R, B)``, sum of ``discount**j * reward_j`` up to the episode's end. Rewards,
            masks and validity are float32, or float64 beside one observation of float64.
        masks: ``(R, B)``, 0 where the task ended inside the chunk (nothing to bootstrap), else 1.
        valid: ``(R, B)``, 0 where an episode ends before the last step of the chunk, else 1.
        next_observations: ``(R, B, O)`` after the last step that still belongs to the episode.
    """

    observations: Observed
    actions: Float[Tensor, "R B D"]
    rewards: Float[Tensor, "R B"]
    masks: Float[Tensor, "R B"]
    valid: Float[Tensor, "R B"]
    next_observations: Observed


class ChunkSource(Protocol):
    """Whatever an agent can be trained on: recorded episodes, a ring, a mixture of both."""

    def sample(self, streams: RandomStreams, batch: int) -> ChunkBatch:
        """``batch`` chunks for each replica, drawn from the replica's own stream."""


def at_least_float32(dtype: torch.dtype | None) -> torch.dtype:
    """The type of rewards, masks and discounts beside observations of ``dtype``, None for trees."""
    return torch.float32 if dtype is None else torch.promote_types(dtype, torch.float32)


def summarise(
    rewards: Shaped[Tensor, "R B H"],
    masks: Shaped[Tensor, "R B H"],
    inside: Bool[Tensor, "R B H"],
    discounts: Float[Tensor, "H"],
) -> tuple[Float[Tensor, "R B"], Float[Tensor, "R B"], Float[Tensor, "R B"]]:
    """Chunk reward, mask and validity from the steps of a chunk.

    Args:
        rewards: reward of every step, any number type.
        masks: 0 where the task ended at this step.
        inside: whether the step belongs to the episode of the first step.
        discounts: ``discount**j``; their type is the type of the results.

    Returns:
        Rewards, masks and validity of the chunks.
    """
    kept = inside.to(discounts.dtype)
    total = (rewards.to(discounts.dtype) * kept * discounts).sum(-1)
    mask = torch.where(inside, masks.to(discounts.dtype), 1.0).amin(-1)
    return total, mask, kept[..., -1]


def concatenate_batches(first: ChunkBatch, second: ChunkBatch) -> ChunkBatch:
    """The rows of ``first``, then those of ``second``."""
    return map_batches(lambda a, b: torch.cat([a, b], dim=1), first, second)


def select_rows(condition: Bool[Tensor, "R B"], yes: ChunkBatch, no: ChunkBatch) -> ChunkBatch:
    """Row by row, ``yes`` where ``condition`` holds, else ``no``."""

    def select(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(condition.view(*condition.shape, *(1,) * (a.dim() - 2)), a, b)

    return map_batches(select, yes, no)


def map_batches(function: Callable[..., Tensor], *batches: ChunkBatch) -> ChunkBatch:
    """The batch of ``function(tensor of each batch)`` for every tensor."""
    mapped: dict[str, Any] = {
        f.name: tree_map(function, *(getattr(b, f.name) for b in batches))
        for f in fields(ChunkBatch)
    }
    return ChunkBatch(**mapped)
