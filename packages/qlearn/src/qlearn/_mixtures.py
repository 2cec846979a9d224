"""Batches from two sources: offline data and online experience."""

from dataclasses import dataclass

import torch

from qlearn._chunks import ChunkBatch, concatenate_batches, select_rows
from qlearn._random import RandomStreams
from qlearn._ring import RingBuffer
from qlearn._sampler import ChunkSampler

__all__ = ["BalancedSampler", "UnionSampler"]


@dataclass(frozen=True, slots=True)
class UnionSampler:
    """Uniform over all chunks of the offline data and of the replica's ring together.

    This is a replay buffer that starts with the offline data, without a copy of it per replica
    and without ever dropping it. An empty ring is allowed.

    Attributes:
        offline: shared by all replicas.
        online: one ring per replica.
    """

    offline: ChunkSampler
    online: RingBuffer

    def __post_init__(self) -> None:
        check_same_chunks(self.offline, self.online)

    def sample(self, streams: RandomStreams, batch: int) -> ChunkBatch:
        """``batch`` chunks for each replica."""
        index = streams.integers(self.offline.count + self.online.count, batch)
        online = index - self.offline.count
        return select_rows(
            online >= 0,
            self.online.take(online.clamp(min=0)),
            self.offline.take(index.clamp(max=self.offline.count - 1)),
        )


@dataclass(frozen=True, slots=True)
class BalancedSampler:
    """A fixed share of every batch from each source, as in RLPD (arXiv 2302.02948).

    Attributes:
        offline: shared by all replicas.
        online: one ring per replica; it must hold a chunk before the first batch.
        share: part of a batch that comes from ``offline``, rounded to whole rows.
    """

    offline: ChunkSampler
    online: RingBuffer
    share: float = 0.5

    def __post_init__(self) -> None:
        check_same_chunks(self.offline, self.online)
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"share must lie in [0, 1], got {self.share}")

    def sample(self, streams: RandomStreams, batch: int) -> ChunkBatch:
        """``batch`` chunks for each replica, the offline ones first."""
        offline = round(self.share * batch)
        return concatenate_batches(
            self.offline.sample(streams, offline), self.online.sample(streams, batch - offline)
        )


def check_same_chunks(offline: ChunkSampler, online: RingBuffer) -> None:
    """Refuse sources whose chunks could not stand in one batch."""
    if offline.horizon != online.horizon or not torch.equal(
        offline.discounts.cpu(), online.discounts.cpu()
    ):
        raise ValueError(
            f"offline chunks of {offline.horizon} steps (discounts {offline.discounts.tolist()}) "
            f"cannot be mixed with online chunks of {online.horizon} steps "
            f"(discounts {online.discounts.tolist()})"
        )
    if len(offline.tasks) != online.replicas:
        raise ValueError(
            f"{len(offline.tasks)} replicas offline, {online.replicas} replicas online"
        )
