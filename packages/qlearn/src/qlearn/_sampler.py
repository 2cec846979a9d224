"""Uniform sampling of action chunks from recorded episodes."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from qlearn._chunks import ChunkBatch, at_least_float32, summarise
from qlearn._episodes import EpisodeData, check_tasks
from qlearn._random import RandomStreams
from qlearn._tree import Observation, lone_dtype, tree_rows

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
        history: observations ``n`` up to the present one that a policy is given, oldest first, as
            LeRobot's `n_obs_steps`; the axis ``n`` follows the batch's. Before its beginning an
            episode stood still: its first observation is repeated.
        offset: of the chunk's first action from the present, ``-H < offset <= 0``. A policy that
            also predicts past actions, as LeRobot's diffusion policy with ``offset = 1 - n``, plays
            those from the present on: rewards, masks, validity and next observations are of these
            ``H + offset`` steps. Before its beginning an episode repeats its first action.

    Attributes:
        played: steps that a chunk takes, ``H + offset``: the exponent of a target's discount.

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
        history: int = 1,
        offset: int = 0,
    ) -> None:
        check_horizon(horizon, discount, mode)
        check_past(horizon, history, offset)
        check_tasks(tasks, data.tasks)
        device = data.ends.device
        self.data, self.horizon, self.mode = data, horizon, mode
        self.history, self.offset, self.played = history, offset, horizon + offset
        self.tasks = torch.tensor(tasks, device=device).reshape(-1, 1, 1)
        self.steps = torch.arange(self.played, device=device)
        self.discounts = discount_powers(discount, self.steps, lone_dtype(data.observations))
        # Chunks within an episode are numbered through; adding `shifts` of its episode to such a
        # number gives the first transition.
        lengths = data.ends.diff(prepend=data.ends.new_zeros(1))
        counts = (lengths - self.played + 1).clamp(min=0)
        self.bounds = counts.cumsum(0)
        self.shifts = (data.ends - lengths) - (self.bounds - counts)
        self.count = data.transitions - self.played + 1 if mode == "any" else int(self.bounds[-1])
        if self.count < 1:
            raise ValueError(
                f"no chunk of {self.played} steps: {data.transitions} transitions, longest episode "
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
        """Chunks that start at the given transitions, each at most ``S - H - offset``.

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
        begin = self._begin(episodes[..., 0]) if self.history > 1 or self.offset else first
        if self.offset:
            past = torch.arange(self.offset, 0, device=rows.device)
            rows = torch.cat([self._back(first, begin, past), rows], dim=-1)
        return ChunkBatch(
            observations=self._seen(first, begin),
            actions=data.actions[rows].flatten(-2),
            rewards=rewards,
            masks=masks,
            valid=valid,
            next_observations=self._seen(first + inside.sum(-1), begin),
        )

    def _seen(self, rows: Int[Tensor, "R B"], begin: Int[Tensor, "R B"]) -> Observation:
        """Observations at these rows, with those before them where there is a history."""
        if self.history > 1:
            rows = self._back(rows, begin, torch.arange(1 - self.history, 1, device=rows.device))
        return tree_rows(self.data.observations, rows)

    def _begin(self, episodes: Int[Tensor, "R B"]) -> Int[Tensor, "R B"]:
        """First row of each of these episodes."""
        before = (episodes - 1).clamp(min=0)
        return torch.where(episodes > 0, self.data.ends[before] + episodes, 0)

    @staticmethod
    def _back(
        rows: Int[Tensor, "R B"], begin: Int[Tensor, "R B"], steps: Int[Tensor, "n"]
    ) -> Int[Tensor, "R B n"]:
        """Rows so many steps away, not beyond the beginning of the episode."""
        return torch.maximum(rows.unsqueeze(-1) + steps, begin.unsqueeze(-1))


def discount_powers(discount: float, steps: Tensor, observed: torch.dtype | None) -> Tensor:
    """``discount**j`` for each step ``j``, in float32 at least whatever is observed."""
    powers = torch.full_like(steps, discount, dtype=torch.float64).pow(steps)
    return powers.to(at_least_float32(observed))


def check_past(horizon: int, history: int, offset: int) -> None:
    """Refuse impossible settings of a history or an offset."""
    if history < 1:
        raise ValueError(f"history must be at least 1, the present observation; got {history}")
    if not -horizon < offset <= 0:
        raise ValueError(
            f"offset must lie in -{horizon - 1} .. 0 for chunks of {horizon} steps, got {offset}"
        )


def check_horizon(horizon: int, discount: float, mode: str) -> None:
    """Refuse impossible chunk settings."""
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1, got {horizon}")
    if not 0.0 <= discount <= 1.0:
        raise ValueError(f"discount must lie in [0, 1], got {discount}")
    if mode not in ("any", "within_episode"):
        raise ValueError(f"mode must be 'any' or 'within_episode', got {mode!r}")
