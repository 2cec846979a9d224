"""One update: the random numbers that an agent asks for, and the batch."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from bench.agents.noise import Noise, draw
from qlearn import ChunkBatch, RandomStreams

__all__ = ["update_on"]


class _Learns(Protocol):
    def noise(self, batch: int) -> dict[str, Noise]: ...

    def update(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]: ...


def update_on(agent: _Learns, batch: ChunkBatch, streams: RandomStreams) -> dict[str, Tensor]:
    """Draw the noise of an update on ``batch`` and make it.

    Args:
        agent: what learns.
        batch: chunks ``(R, B, ...)``, sampled with the same streams before.
        streams: one random stream per replica.

    Returns:
        Metrics ``(R,)`` by name.
    """
    return agent.update(batch, draw(streams, agent.noise(batch.rewards.shape[1])))
