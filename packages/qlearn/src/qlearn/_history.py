"""The last observations of something that acts, as policies with a history are given them."""

import torch
from jaxtyping import Bool
from torch import Tensor

from qlearn._tree import Observation, tree_map

__all__ = ["ObservationHistory"]


class ObservationHistory:
    """Keeps the last ``n`` observations of each row, as ``ChunkSampler(history=n)`` gives them.

    Args:
        steps: ``n``, the present observation included.

    Raises:
        ValueError: ``n`` below 1.
    """

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, the present observation; got {steps}")
        self.steps = steps
        self.held: Observation | None = None

    def add(self, observations: Observation, begins: Bool[Tensor, "B"]) -> Observation:
        """Take in the present observations.

        Args:
            observations: ``(B, *leaf)`` each.
            begins: rows whose episode begins; their first observation is repeated. Those of the
                first call all begin.

        Returns:
            ``(B, n, *leaf)``, oldest first; without the axis ``n`` where it is 1.
        """
        if self.steps == 1:
            return observations
        filled = tree_map(lambda leaf: torch.stack([leaf] * self.steps, dim=1), observations)
        if self.held is None:
            self.held = filled
            return filled

        def push(old: Tensor, now: Tensor) -> Tensor:
            moved = torch.cat([old[:, 1:], now[:, -1:]], dim=1)
            return torch.where(begins.view(-1, *(1,) * (now.dim() - 1)), now, moved)

        self.held = tree_map(push, self.held, filled)
        return self.held
