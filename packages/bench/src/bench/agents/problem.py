"""What an agent must know of the task: sizes, and nothing of the simulator."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bench.agents.critics import OverContext, OwnCritic
from bench.agents.module_policy import OwnPolicy
from qlearn import LeafSpec, ObservationNormalizer, ObservationSpec

__all__ = ["Observed", "Problem"]

Observed: TypeAlias = Tensor | Any
"""Observations ``(R, B, O)``, or named leaves ``(R, B, *leaf)`` as :attr:`Problem.spec` says."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Sizes of a control problem.

    Attributes:
        observation_dim: size ``O`` of an observation.
        action_dim: size ``A`` of one action.
        horizon: chunk length ``H``; the agent acts on chunks of ``H`` actions, played open loop.
        action_spread: standard deviation of each component of the data's actions ``(A,)``; empty
            where it is not known. Only kernels that are built for a scale of the data read it.
        policy: the user's own policy; None for a perceptron of the sizes in an agent's settings.
        critic: the user's own critic, or critics over the policy's context; None for the project's
            over the observations.
        observation: leaves of an observation; None for one vector of ``O`` float32 numbers.
        normalizer: that critics see observations through; None where these come normalised.
        action_mask: for each of the ``D`` entries of a chunk, whether it counts; empty: all do.
            Others are padding, or steps that are never played: they are left out of the losses and
            of the KL, and are 0 for critics and in what is played.
        micro_batches: parts that a batch is evaluated and differentiated in, one after the other,
            for networks whose activations on a whole batch do not fit.
        learning_rates: step sizes for parts of the networks, instead of an agent's own; see
            :class:`qlearn.Learner`.
    """

    observation_dim: int
    action_dim: int
    horizon: int = 1
    action_spread: tuple[float, ...] = ()
    policy: OwnPolicy | None = field(default=None, compare=False)
    critic: OwnCritic | OverContext | None = field(default=None, compare=False)
    observation: ObservationSpec | None = field(default=None, compare=False)
    normalizer: ObservationNormalizer | None = field(default=None, compare=False)
    action_mask: tuple[bool, ...] = field(default=(), compare=False)
    micro_batches: int = field(default=1, compare=False)
    learning_rates: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def chunk_dim(self) -> int:
        """Size ``D = H * A`` of a flat action chunk, first step first."""
        return self.horizon * self.action_dim

    def mask(self, device: torch.device) -> Bool[Tensor, "D"] | None:
        """Which entries of a chunk count; None for all."""
        if not self.action_mask:
            return None
        return torch.tensor(self.action_mask, device=device)

    def counted(self, actions: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Chunks with 0 in the entries that do not count."""
        mask = self.mask(actions.device)
        return actions if mask is None else torch.where(mask, actions, 0.0)

    @property
    def spec(self) -> ObservationSpec:
        """Shape and type of every leaf of an observation."""
        if self.observation is None:
            return LeafSpec((self.observation_dim,), torch.float32)
        return self.observation
