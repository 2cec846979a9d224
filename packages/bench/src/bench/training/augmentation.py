"""Images of a batch moved at random before an update reads them."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from bench.agents import Agent
from bench.agents.noise import Noise, uniform
from bench.suites import TrainingProtocol
from qlearn import ChunkBatch, ObservationSpec, is_image, random_shift, tree_leaves

__all__ = ["check_shift", "shifted", "update_noise"]

_SHIFTS = ("shift", "next_shift")


def update_noise(agent: Agent, protocol: TrainingProtocol) -> dict[str, Noise]:
    """The random numbers that an update consumes, those of its augmentation included."""
    noise = agent.noise(protocol.batch_size)
    if protocol.random_shift:
        noise = noise | {name: uniform(protocol.batch_size, 2) for name in _SHIFTS}
    return noise


def shifted(
    batch: ChunkBatch, noise: Mapping[str, Tensor], protocol: TrainingProtocol
) -> ChunkBatch:
    """The batch with its images moved, those before and after a chunk each in their own way.

    Args:
        batch: as sampled.
        noise: of :func:`update_noise`.
        protocol: says by how many pixels at most.
    """
    if not protocol.random_shift:
        return batch
    before, after = (noise[name] for name in _SHIFTS)
    return replace(
        batch,
        observations=random_shift(batch.observations, before, pad=protocol.random_shift),
        next_observations=random_shift(batch.next_observations, after, pad=protocol.random_shift),
    )


def check_shift(protocol: TrainingProtocol, spec: ObservationSpec) -> None:
    """Refuse to move images where there are none.

    Raises:
        ValueError: a shift of observations without an image.
    """
    if protocol.random_shift and not any(is_image(leaf) for _, leaf in tree_leaves(spec)):
        told = ", ".join(f"{name} {leaf}".strip() for name, leaf in tree_leaves(spec))
        raise ValueError(
            f"random_shift={protocol.random_shift} moves images, and the observations have none: "
            f"{told}"
        )
