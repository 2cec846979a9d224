"""Adjoint estimators behind one call: where the regression is, and what it regresses on.

All of them answer the same question, by how much the reward changes with the state x_t, and feed
the same regression. They differ in cost, in bias and in what they ask of the reward; the table in
docs/adjoint.md puts them side by side.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from adjoint._lean import lean_adjoint
from adjoint._matching import matching_loss
from adjoint._terminal import terminal_gradient
from flowsde import Path, TransitionKernel, VelocityField, sample_path, velocities_along

Reward = Callable[[Tensor], Tensor]
"""Reward of samples (*batch, *event), one number each, (*batch)."""


@dataclass(frozen=True, slots=True)
class AdjointEstimate:
    """What an estimator leaves: the regression of one update.

    Attributes:
        kernel: Weights of the regression and of the path KL.
        path: Points of the regression, K of them.
        sample: x_1 that the reward was asked about, (*batch, *event), without gradient.
        fine: Velocities of the fine-tuned field at the points, (K, *batch, *event), with gradient.
        base: Velocities of the base field there, without; `path_kl(kernel, fine, base)` is the KL.
        reference: Velocities that the control is measured from: those of `base`, save for an
            estimator with a reference process of its own.
        adjoints: a_0 .. a_K, (K+1, *batch, *event), in reward units per unit of state.
    """

    kernel: TransitionKernel
    path: Path
    sample: Float[Tensor, "*shape"]
    fine: Float[Tensor, "steps *shape"]
    base: Float[Tensor, "steps *shape"]
    reference: Float[Tensor, "steps *shape"]
    adjoints: Float[Tensor, "points *shape"]

    def matching_loss(
        self,
        lam: float | Float[Tensor, "*broadcastable"] = 1.0,
        *,
        mask: Bool[Tensor, "*masked"] | None = None,
    ) -> Float[Tensor, "*batch"]:
        """`adjoint.matching_loss` of this estimate, (*batch,); `lam` as the estimator was given."""
        return matching_loss(self.kernel, self.fine, self.reference, self.adjoints, lam, mask=mask)


class AdjointEstimator(Protocol):
    """An adjoint estimator: `LeanAdjoint`, `ScalarAdjoint`, `LinearDriftAdjoint`, ...

    Source of the common form: Domingo-Enrich et al., "Adjoint Matching" (arXiv 2409.08861).
    """

    @property
    def steps(self) -> int:
        """Slices of `step_noise` and points of the regression, K."""

    def __call__(
        self,
        fine: VelocityField,
        base: VelocityField,
        reward: Reward,
        start_noise: Float[Tensor, "*shape"],
        step_noise: Float[Tensor, "steps *shape"],
        *,
        lam: float | Float[Tensor, "*broadcastable"] = 1.0,
        clip: tuple[float, float] | None = None,
    ) -> AdjointEstimate:
        """Estimate the adjoint for the fine-tuned field's samples.

        Args:
            fine: Fine-tuned field; the estimate's `fine` carries its gradient.
            base: Base field; receives no gradient.
            reward: Reward of a sample, (*batch, *event) -> (*batch), with no term that mixes
                samples. Differentiated in x by all but `ReinforceAdjoint`.
            start_noise: x_0 ~ N(0, I), (*batch, *event).
            step_noise: Standard normal numbers, (K, *batch, *event).
            lam: Trust-region parameter, as in `matching_loss`; only `LinearDriftAdjoint` reads it.
            clip: Box in which samples are used, as in `terminal_gradient`.
        """


@dataclass(frozen=True, slots=True)
class LeanAdjoint:
    """The lean adjoint along an SDE path of the fine-tuned field (arXiv 2409.08861); QAM, TRQAM.

    Costs an SDE rollout and one vector-Jacobian product of the base per step. At the optimum its
    mean is the gradient of the value function, for any reward.

    A field that has `record()` (`qlearn.FlowField`) is evaluated once at each point: recorded while
    sampling, differentiated along the path after.

    Attributes:
        kernel: The memoryless SDE.
    """

    kernel: TransitionKernel

    @property
    def steps(self) -> int:
        """Steps of the kernel."""
        return self.kernel.steps

    def __call__(
        self,
        fine: VelocityField,
        base: VelocityField,
        reward: Reward,
        start_noise: Float[Tensor, "*shape"],
        step_noise: Float[Tensor, "steps *shape"],
        *,
        lam: float | Float[Tensor, "*broadcastable"] = 1.0,
        clip: tuple[float, float] | None = None,
    ) -> AdjointEstimate:
        """Estimate the adjoint; see `AdjointEstimator`."""
        kernel = self.kernel
        recorded = fine.record() if hasattr(fine, "record") else None
        with torch.no_grad():
            path = sample_path(
                kernel, recorded or fine, start_noise, step_noise, final_velocity=base
            )
            base_velocities = velocities_along(kernel, base, path)
        terminal = -terminal_gradient(reward, path.sample, clip=clip)
        adjoints = lean_adjoint(kernel, base, path, terminal)
        along = fine if recorded is None else recorded.along
        velocities = velocities_along(kernel, along, path)
        return AdjointEstimate(
            kernel, path, path.sample, velocities, base_velocities, base_velocities, adjoints
        )
