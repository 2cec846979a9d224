"""Adjoint estimators behind one call: where the regression is, and what it regresses on.

All of them answer the same question, by how much the reward changes with the state x_t, and feed
the same regression. They differ in cost, in bias and in what they ask of the reward; the table in
docs/adjoint.md puts them side by side.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from adjoint._lean import lean_adjoint
from adjoint._matching import matching_loss
from adjoint._terminal import terminal_gradient
from flowsde import (
    BridgeKernel,
    Interpolant,
    LinearInterpolant,
    Path,
    TransitionKernel,
    VelocityField,
    along_path,
    at_least_float32,
    bridge_path,
    from_velocity,
    ode_sample,
    sample_path,
    velocities_along,
)

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
        self, lam: float | Float[Tensor, "*broadcastable"] = 1.0
    ) -> Float[Tensor, "*batch"]:
        """`adjoint.matching_loss` of this estimate, (*batch,); `lam` as the estimator was given."""
        return matching_loss(self.kernel, self.fine, self.reference, self.adjoints, lam)


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


@dataclass(frozen=True, slots=True)
class _OnBridge:
    """What the estimators share that noise samples of the ODE instead of following the SDE.

    Attributes:
        steps: Noised states per sample, M.
        ode_steps: Euler steps from the start noise to the sample.
        interpolant: The schedule the velocity was trained with.
        event_ndim: Number of trailing axes that make up one sample.
        kernel: Weights and times of the noised states.
    """

    at: ClassVar[Literal["ends", "midpoints"]] = "midpoints"

    steps: int = 10
    ode_steps: int = 10
    interpolant: Interpolant = field(default_factory=LinearInterpolant)
    event_ndim: int = 1
    kernel: BridgeKernel = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Once, and not in every update: its numbers are computed on the host.
        kernel = BridgeKernel(
            self.steps, event_ndim=self.event_ndim, interpolant=self.interpolant, at=self.at
        )
        object.__setattr__(self, "kernel", kernel)

    def _path(
        self, fine: VelocityField, start_noise: Tensor, step_noise: Tensor
    ) -> tuple[Tensor, Path]:
        """Samples of the fine-tuned ODE, not clipped, and their noised states."""
        kernel = self.kernel
        with torch.no_grad():
            sample = ode_sample(fine, start_noise, self.ode_steps, event_ndim=kernel.event_ndim)
            return sample, bridge_path(kernel, sample, step_noise)


@dataclass(frozen=True, slots=True)
class ScalarAdjoint(_OnBridge):
    """`a(t) = alpha(t) a(1)` at noised states of the ODE's sample: SQAM (arXiv 2610.10437).

    Costs M evaluations and no vector-Jacobian product of the base. The factor is that of a base
    whose conditional mean `E[x_1 | x_t]` moves with x_t as alpha does. For a Gaussian base of
    standard deviation s the true one is `alpha s^2/V`, `V = alpha^2 s^2 + beta^2`: equal as t -> 1,
    and before that the regression asks for V/s^2 times the control that the tilted law has, so
    lambda is not the temperature of a known law. The direction is the reward's; how far the policy
    goes is left to the trust region.
    """

    at: ClassVar[Literal["ends", "midpoints"]] = "ends"

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
        sample, path = self._path(fine, start_noise, step_noise)
        with torch.no_grad():
            base_velocities = velocities_along(kernel, base, path)
        gradient = terminal_gradient(reward, sample, clip=clip)
        alpha = self.interpolant.alpha(_times((0.0, *kernel.times), path.states))
        velocities = velocities_along(kernel, fine, path)
        return AdjointEstimate(
            kernel, path, sample, velocities, base_velocities, base_velocities, -alpha * gradient
        )


@dataclass(frozen=True, slots=True)
class LinearDriftAdjoint(_OnBridge):
    """The exact adjoint of a Gaussian reference process: Efficient Adjoint Matching's idea.

    The control is measured from the memoryless process of N(0, scale^2), whose drift is linear,
    and the base enters through the terminal cost, `Q/lambda + log p_base - log p_reference`
    (arXiv 2605.11480). So the adjoint is `a(t) = (alpha scale^2 / V) a(1)` in closed form,
    `V = alpha^2 scale^2 + beta^2`. The score of p_base is read off the base velocity just before
    t=1. At the optimum the regression's mean is exact, as far as that score is; its noise does not
    vanish there, since the base's own structure is part of what is regressed on.

    Costs M evaluations of each field and one more of the base; no vector-Jacobian product of it.

    Attributes:
        scale: Standard deviation of the reference, near that of the data.
        score_time: Time at which the base's score is read; its relative error for data of standard
            deviation s is `(beta/alpha)^2/s^2` there.
    """

    scale: float = 1.0
    score_time: float = 0.98

    def __post_init__(self) -> None:
        _OnBridge.__post_init__(self)
        if not self.scale > 0.0:
            raise ValueError(f"scale must be positive, got {self.scale}")
        if not 0.0 < self.score_time < 1.0:
            raise ValueError(f"score_time must lie between 0 and 1, got {self.score_time}")

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
        sample, path = self._path(fine, start_noise, step_noise)
        with torch.no_grad():
            base_velocities = velocities_along(kernel, base, path)
            tilt = self._base_score(base, sample) + sample / self.scale**2
        if isinstance(lam, Tensor):
            lam = lam.detach().reshape(lam.shape + (1,) * self.event_ndim)
        terminal = -(terminal_gradient(reward, sample, clip=clip) + lam * tilt)
        t = _times((0.0, *kernel.times), path.states)
        factor = self.interpolant.alpha(t) * self.scale**2 / self._variance(t)
        inside = t[1:]
        alpha, beta = self.interpolant.alpha(inside), self.interpolant.beta(inside)
        slope = alpha * self.interpolant.d_alpha(inside) * self.scale**2
        slope = (slope + beta * self.interpolant.d_beta(inside)) / self._variance(inside)
        velocities = velocities_along(kernel, fine, path)
        return AdjointEstimate(
            kernel, path, sample, velocities, base_velocities, slope * path.inputs,
            factor * terminal,
        )  # fmt: skip

    def _variance(self, t: Tensor) -> Tensor:
        """`V(t)` of the reference."""
        return (self.interpolant.alpha(t) * self.scale).square() + self.interpolant.beta(t).square()

    def _base_score(self, base: VelocityField, sample: Tensor) -> Tensor:
        """Gradient of `log p_base` at the sample, from the velocity at `score_time`."""
        batch = sample.shape[: sample.ndim - self.event_ndim]
        t = sample.new_full(batch, self.score_time, dtype=at_least_float32(sample))
        alpha = self.interpolant.alpha(t.new_full((), self.score_time))
        x = (alpha * sample).to(sample.dtype)
        return alpha * from_velocity("score", base(x, t), x, t, self.interpolant)


@dataclass(frozen=True, slots=True)
class ReinforceAdjoint(_OnBridge):
    """The adjoint by the score-function identity: Reinforce Adjoint Matching's idea.

    `grad_x E[Q(x_1) | x_t = x] = E[(Q - b) grad_x log p(x_1 | x_t)]`, and for noised samples of the
    fine-tuned flow that gradient is `alpha (v_cond - v_fine) / (w beta)`, the residual of flow
    matching: the pretraining target corrected by the reward (arXiv 2605.10759). The reward is
    evaluated and never differentiated. It is the gradient of the expected reward under the current
    policy and leaves out that of its path cost, so it is exact at the optimum where that cost does
    not depend on the state (a linear reward on Gaussian data), and biased elsewhere. The paper's
    correction for it is not implemented.

    The baseline b is the mean reward of the other samples along the last batch axis; with one
    sample it is 0. Conditions that differ along that axis leave it unbiased and make it noisy.
    """

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
        sample, path = self._path(fine, start_noise, step_noise)
        with torch.no_grad():
            base_velocities = velocities_along(kernel, base, path)
            advantage = self._advantage(reward(sample if clip is None else sample.clamp(*clip)))
        velocities = velocities_along(kernel, fine, path)
        t = _times(kernel.times, step_noise)
        schedule = self.interpolant
        conditional = schedule.d_alpha(t) * sample + schedule.d_beta(t) * step_noise
        weight = schedule.alpha(t) / (schedule.wronskian(t) * schedule.beta(t))
        adjoints = -advantage * weight * (conditional - velocities.detach())
        start = torch.zeros_like(adjoints[:1])
        return AdjointEstimate(
            kernel, path, sample, velocities, base_velocities, base_velocities,
            torch.cat([start, adjoints]),
        )  # fmt: skip

    def _advantage(self, rewards: Tensor) -> Tensor:
        """Rewards less their leave-one-out mean, with axes for the event."""
        others = rewards.shape[-1] - 1 if rewards.ndim else 0
        if others > 0:
            rewards = rewards - (rewards.sum(-1, keepdim=True) - rewards) / others
        return rewards.reshape(rewards.shape + (1,) * self.event_ndim)


def _times(values: tuple[float, ...], like: Tensor) -> Tensor:
    """One time per point, (K, 1, ..., 1), float32 or wider: low precision rounds 1 - t away."""
    return along_path(values, like.to(at_least_float32(like)))
