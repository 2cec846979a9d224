"""Uniform sampling of action chunks from recorded episodes."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from qlearn._chunks import ChunkBatch, at_least_float32, summarise
from qlearn._episodes import EpisodeData, check_tasks
from qlearn._random import RandomStreams
from qlearn._tree import lone_dtype, tree_rows

__all__ = ["ChunkMode", "ChunkSampler"]

ChunkMode = Literal["any", "within_episode"]


class ChunkSampler:
    """Draws chunks of ``H`` steps uniformly from :class:`EpisodeData`, on the data's device.

    Two sets of chunks to draw from:

    - ``"any"``, as published (QAM, TRQAM): every ``H`` consecutive transitions, ``S - H + 1`` of
      them. A chunk may cross the end of an episode and then has ``valid = 0``.
    - ``"within_episode"``: only chunks whose ``H`` transitions lie in one episode; always valid.

    Args:
        data: episodes; shared by all replicas, never copied.
        horizon: chunk length ``H``.
        discount: per step, for the reward sum inside a chunk.
        mode: see above.
        tasks: task of each replica, ``R`` numbers.

    Raises:
        ValueError: no chunk of this length exists, or an unknown mode or task.
    """

    def __init__(
        self,
        data: EpisodeData,
        horizon: int,
        discount: float,
        *,
        mode: ChunkMode = "any",
        tasks: Sequence[int],
    ) -> None:
        check_horizon(horizon, discount, mode)
        check_tasks(tasks, data.tasks)
        device = data.ends.device
        self.data, self.horizon, self.mode = data, horizon, mode
        self.tasks = torch.tensor(tasks, device=device).reshape(-1, 1, 1)
        self.steps = torch.arange(horizon, device=device)
        self.discounts = discount_powers(discount, self.steps, lone_dtype(data.observations))
        # Chunks within an episode are numbered through; adding `shifts` of its episode to such a
        # number gives the first transition.
        lengths = data.ends.diff(prepend=data.ends.new_zeros(1))
        counts = (lengths - horizon + 1).clamp(min=0)
        self.bounds = counts.cumsum(0)
        self.shifts = (data.ends - lengths) - (self.bounds - counts)
        self.count = data.transitions - horizon + 1 if mode == "any" else int(self.bounds[-1])
        if self.count < 1:
            raise ValueError(
                f"no chunk of {horizon} steps: {data.transitions} transitions, longest episode "
                f"{int(lengths.max())}"
            )

    def sample(self, streams: RandomStreams, batch: int) -> ChunkBatch:
        """``batch`` chunks for each replica, with replacement, from the replica's own stream."""
        return self.take(streams.integers(self.count, batch))

    def take(self, index: Int[Tensor, "R B"]) -> ChunkBatch:
        """Chunks by number; in mode ``"any"`` the number is the first transition."""
        if self.mode == "within_episode":
            index = index + self.shifts[torch.searchsorted(self.bounds, index, right=True)]
        return self.starting_at(index)

    def chunks_before(self, transitions: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """How many chunks start before each of these transitions, at most ``S``."""
        if self.mode == "any":
            return transitions.clamp(max=self.count)
        episode = torch.searchsorted(self.data.ends, transitions, right=True)
        episode = episode.clamp(max=len(self.data.ends) - 1)
        # Behind the last chunk of its episode a transition has all of the episode's before it.
        return torch.minimum(transitions - self.shifts[episode], self.bounds[episode])

    def starting_at(self, starts: Int[Tensor, "R B"]) -> ChunkBatch:
        """Chunks that start at the given transitions, each at most ``S - H``.

        Args:
            starts: first transition of every chunk.

        Returns:
            The batch. Chunks that cross an episode's end have ``valid = 0``, in both modes.
        """
        data = self.data
        rows, episodes = data.rows(starts.unsqueeze(-1) + self.steps)
        inside = episodes == episodes[..., :1]
        rewards, masks, valid = summarise(
            data.rewards[self.tasks, rows], data.masks[self.tasks, rows], inside, self.discounts
        )
        first = rows[..., 0]
        return ChunkBatch(
            observations=tree_rows(data.observations, first),
            actions=data.actions[rows].flatten(-2),
            rewards=rewards,
            masks=masks,
            valid=valid,
            next_observations=tree_rows(data.observations, first + inside.sum(-1)),
        )


def discount_powers(discount: float, steps: Tensor, observed: torch.dtype | None) -> Tensor:
    """``discount**j`` for each step ``j``, in float32 at least whatever is observed."""
    powers = torch.full_like(steps, discount, dtype=torch.float64).pow(steps)
    return powers.to(at_least_float32(observed))


def check_horizon(horizon: int, discount: float, mode: str) -> None:
    """Refuse impossible chunk settings."""
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1, got {horizon}")
    if not 0.0 <= discount <= 1.0:
        raise ValueError(f"discount must lie in [0, 1], got {discount}")
    if mode not in ("any", "within_episode"):
        raise ValueError(f"mode must be 'any' or 'within_episode', got {mode!r}")
