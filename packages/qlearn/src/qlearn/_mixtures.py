"""Batches from two sources: offline data and online experience."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from qlearn._chunks import ChunkBatch, concatenate_batches, select_rows
from qlearn._random import RandomStreams
from qlearn._ring import RingBuffer
from qlearn._sampler import ChunkSampler

__all__ = ["BalancedSampler", "ShardRotation", "UnionSampler"]


@dataclass(frozen=True, slots=True)
class ShardRotation:
    """The data set in consecutive shards, one at a time, each for so many steps and then again.

    So the published code of QAM and TRQAM goes through data sets of several files, of which it
    holds one in memory. Nothing here waits for the device, and the step is all of its state.

    Attributes:
        first: number of each shard's first chunk ``(P,)``.
        counts: number of its chunks ``(P,)``; none of them reaches into the next shard.
        steps: that a shard is drawn from.
    """

    first: Int[Tensor, "P"]
    counts: Int[Tensor, "P"]
    steps: int

    @classmethod
    def of(
        cls, offline: ChunkSampler, size: int, steps: int, device: torch.device | str
    ) -> "ShardRotation":
        """Shards of ``size`` transitions, the last with what is left over.

        Args:
            offline: whose chunks are drawn.
            size: transitions of a shard; all of a smaller data set are one.
            steps: that a shard is drawn from.
            device: of the random streams.

        Raises:
            ValueError: a size or a number of steps below 1, or a shard without a chunk.
        """
        if size < 1 or steps < 1:
            raise ValueError(f"size and steps must be at least 1, got {size} and {steps}")
        total = offline.data.transitions
        begins = torch.arange(max(1, total // size), device=offline.steps.device) * size
        ends = torch.cat([begins[1:], begins.new_tensor([total])])
        first = offline.chunks_before(begins)
        # A shard may be shorter than a chunk; then it has none.
        past = offline.chunks_before((ends - offline.played + 1).clamp(min=0))
        counts = past - first
        if int(counts.min()) < 1:
            raise ValueError(
                f"shard {int(counts.argmin())} of {size:,} transitions has no chunk of "
                f"{offline.horizon} steps; make the shards larger"
            )
        return cls(first.to(device), counts.to(device), steps)

    def at(self, step: Int[Tensor, ""]) -> tuple[Int[Tensor, ""], Int[Tensor, ""]]:
        """First chunk and number of chunks of the shard that is drawn from at a step."""
        shard = step // self.steps % len(self.counts)
        # Not self.first[shard], which waits for the device.
        return self.first.take(shard), self.counts.take(shard)


@dataclass(frozen=True, slots=True)
class UnionSampler:
    """Uniform over all chunks of the offline data and of the replica's ring together.

    This is a replay buffer that starts with the offline data, without a copy of it per replica
    and without ever dropping it. An empty ring is allowed.

    Attributes:
        offline: shared by all replicas.
        online: one ring per replica; as many steps have been taken as were added to it.
        shards: the part of the offline data that is in the buffer at a step; None for all.
    """

    offline: ChunkSampler
    online: RingBuffer
    shards: ShardRotation | None = None

    def __post_init__(self) -> None:
        check_same_chunks(self.offline, self.online)

    def sample(self, streams: RandomStreams, batch: int) -> ChunkBatch:
        """``batch`` chunks for each replica."""
        first: int | Int[Tensor, ""] = 0
        count: int | Int[Tensor, ""] = self.offline.count
        if self.shards is not None:
            first, count = self.shards.at(self.online.added)
        index = streams.integers(count + self.online.count, batch)
        online = index - count
        return select_rows(
            online >= 0,
            self.online.take(online.clamp(min=0)),
            self.offline.take(first + index.clamp(max=count - 1)),
        )


@dataclass(frozen=True, slots=True)
class BalancedSampler:
    """A fixed share of every batch from each source, as in RLPD (arXiv 2302.02948).

    Attributes:
        offline: shared by all replicas.
        online: one ring per replica; it must hold a chunk before the first batch.
        share: part of a batch that comes from ``offline``, rounded to whole rows.
        shards: the part of the offline data that is drawn from at a step; None for all. Rows on
            the disk are then read when they are asked for, not ahead.
    """

    offline: ChunkSampler
    online: RingBuffer
    share: float = 0.5
    shards: ShardRotation | None = None

    def __post_init__(self) -> None:
        check_same_chunks(self.offline, self.online)
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"share must lie in [0, 1], got {self.share}")

    def sample(self, streams: RandomStreams, batch: int) -> ChunkBatch:
        """``batch`` chunks for each replica, the offline ones first."""
        rows = round(self.share * batch)
        if self.shards is None:
            offline = self.offline.sample(streams, rows)
        else:
            first, count = self.shards.at(self.online.added)
            every = count.expand(self.online.replicas)
            offline = self.offline.take(first + streams.integers(every, rows))
        return concatenate_batches(offline, self.online.sample(streams, batch - rows))


def check_same_chunks(offline: ChunkSampler, online: RingBuffer) -> None:
    """Refuse sources whose chunks could not stand in one batch."""
    pasts = [(source.history, source.offset) for source in (offline, online)]
    if pasts[0] != pasts[1]:
        raise ValueError(
            f"offline chunks have (history, offset) {pasts[0]}, online chunks {pasts[1]}; give "
            "both the same"
        )
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
