"""A trained policy as a function of observations and noise, in the environment's own units."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.agents.problem import Observed
from bench.agents.settings import Sampling
from bench.policies._trained import TrainedPolicy
from qlearn import tree_map

__all__ = ["NoiseInput", "Policy"]


@dataclass(frozen=True, slots=True)
class NoiseInput:
    """One input of random numbers.

    Attributes:
        name: of the input.
        kind: `normal` (standard) or `uniform` (on [0, 1)); every entry is independent.
        shape: behind the batch.
    """

    name: str
    kind: Literal["normal", "uniform"]
    shape: tuple[int, ...]


class Policy(nn.Module):
    """Observations as the environment gives them to action chunks as it takes them.

    Normalisation, flow and un-mapping of the actions are inside; the noise is an argument, so one
    call is a plain function.

    Args:
        trained: the agent.
    """

    shift: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, trained: TrainedPolicy) -> None:
        super().__init__()
        record, agent = trained.record, trained.agent
        # In a tuple it is no submodule: what acting does not use (targets, critics, multipliers)
        # stays out of the program.
        self._agent = (agent,)
        self.horizon, self.action_dim = record.horizon, record.action_dim
        self.observation_dim = record.observation_dim
        self.spec = record.problem.observation
        shapes = agent.acting_noise(1)
        # A row's noise has no batch axis of its own: see `Noise.shape`, which begins with rows.
        self.noise = tuple(
            NoiseInput(f"noise_{name}", noise.kind, noise.shape[1:])
            for name, noise in shapes.items()
        )
        self._names = tuple(shapes)
        normalizer, scale = record.normalizer, record.action_scale
        ones = np.ones(record.action_dim, np.float32)
        self.register_buffer("shift", torch.from_numpy(normalizer.shift))
        self.register_buffer("scale", torch.from_numpy(normalizer.scale))
        self.register_buffer("low", torch.from_numpy(-ones if scale.low is None else scale.low))
        self.register_buffer("high", torch.from_numpy(ones if scale.high is None else scale.high))
        self._scaled = scale.low is not None
        self.eval()

    @property
    def candidates(self) -> int:
        """Actions that are compared by the critic before one is played."""
        config: object = self._agent[0].config
        return config.num_action_samples if isinstance(config, Sampling) else 1

    def forward(
        self, observation: Observed, *noise: Float[Tensor, "batch ..."]
    ) -> Float[Tensor, "batch H A"]:
        """Chunks of actions for observations.

        Args:
            observation: ``(batch, O)``, or leaves ``(batch, *leaf)`` as the record says.
            *noise: one tensor for each of :attr:`noise`, in that order, ``(batch, *shape)``.
        """
        if self.spec is None:
            rows: Any = ((observation - self.shift) / self.scale).unsqueeze(0)
        else:
            rows = tree_map(lambda leaf: leaf.unsqueeze(0), observation)
        drawn = {name: n.unsqueeze(0) for name, n in zip(self._names, noise, strict=True)}
        flat: Tensor = self._agent[0].act(rows, drawn)
        actions = flat.reshape(-1, self.horizon, self.action_dim)
        if self._scaled:
            actions = self.low + (actions + 1.0) * (0.5 * (self.high - self.low))
        return torch.clamp(actions, self.low, self.high)

    def example(self, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Observations like those of the data, and noise, for a batch of that size."""
        source = torch.Generator().manual_seed(seed)
        draws = {"normal": torch.randn, "uniform": torch.rand}
        rows = torch.randn(batch, self.observation_dim, generator=source)
        return (
            rows * self.scale + self.shift,
            *(draws[n.kind](batch, *n.shape, generator=source) for n in self.noise),
        )
