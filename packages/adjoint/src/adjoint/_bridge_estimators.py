"""Adjoint estimators on noised samples of the ODE, which follow no SDE path."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from adjoint._estimators import AdjointEstimate, Reward
from adjoint._terminal import terminal_gradient
from flowsde import (
    BridgeKernel,
    Interpolant,
    LinearInterpolant,
    Path,
    TimeGrid,
    VelocityField,
    along_path,
    at_least_float32,
    bridge_path,
    from_velocity,
    ode_sample,
    time_grid,
    velocities_along,
)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Samples of the fine-tuned ODE and what is known at their noised states.

    Attributes:
        sample: x_1, not clipped, (*batch, *event).
        path: Its noised states.
        noise: What they were noised with, (M, *batch, *event).
        fine: Velocities of the fine-tuned field, (M, *batch, *event), with gradient.
        base: Those of the base, without.
    """

    sample: Tensor
    path: Path
    noise: Tensor
    fine: Tensor
    base: Tensor


@dataclass(frozen=True, slots=True)
class _OnBridge(ABC):
    """What these estimators share; each says only what it regresses on.

    Attributes:
        steps: Noised states per sample, M.
        ode_steps: Euler steps from the start noise to the sample.
        interpolant: The schedule the velocity was trained with.
        event_ndim: Number of trailing axes that make up one sample.
        grid: Ends of the M intervals of the noised states instead of `steps` equal ones, or a
            scheduler's sigmas; see `flowsde.time_grid`.
        ode_times: Times of the Euler steps instead of `ode_steps` equal ones, likewise.
        kernel: Weights and times of the noised states.
    """

    at: ClassVar[Literal["ends", "midpoints"]] = "midpoints"

    steps: int = 10
    ode_steps: int = 10
    interpolant: Interpolant = field(default_factory=LinearInterpolant)
    event_ndim: int = 1
    grid: TimeGrid | None = field(default=None, kw_only=True)
    ode_times: TimeGrid | None = field(default=None, kw_only=True)
    kernel: BridgeKernel = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Once, and not in every update: its numbers are computed on the host.
        kernel = BridgeKernel(
            self.steps if self.grid is None else 0, event_ndim=self.event_ndim,
            interpolant=self.interpolant, at=self.at, grid=self.grid,
        )  # fmt: skip
        object.__setattr__(self, "kernel", kernel)
        object.__setattr__(self, "steps", kernel.steps)
        for name in ("grid", "ode_times"):
            points: TimeGrid | None = getattr(self, name)
            if points is not None:
                object.__setattr__(self, name, time_grid(points))

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
        with torch.no_grad():
            sample = ode_sample(
                fine, start_noise, self.ode_steps if self.ode_times is None else None,
                event_ndim=kernel.event_ndim, times=self.ode_times,
            )  # fmt: skip
            path = bridge_path(kernel, sample, step_noise)
            at_base = velocities_along(kernel, base, path)
        at_fine = velocities_along(kernel, fine, path)
        drawn = _Drawn(sample, path, step_noise, at_fine, at_base)
        reference, adjoints = self._regression(drawn, base, reward, lam, clip)
        return AdjointEstimate(kernel, path, sample, at_fine, at_base, reference, adjoints)

    @abstractmethod
    def _regression(
        self,
        drawn: _Drawn,
        base: VelocityField,
        reward: Reward,
        lam: float | Tensor,
        clip: tuple[float, float] | None,
    ) -> tuple[Tensor, Tensor]:
        """Reference velocities, (M, *batch, *event), and adjoints, (M+1, *batch, *event)."""


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

    def _regression(
        self,
        drawn: _Drawn,
        base: VelocityField,
        reward: Reward,
        lam: float | Tensor,
        clip: tuple[float, float] | None,
    ) -> tuple[Tensor, Tensor]:
        gradient = terminal_gradient(reward, drawn.sample, clip=clip)
        alpha = self.interpolant.alpha(_times((0.0, *self.kernel.times), drawn.path.states))
        return drawn.base, -alpha * gradient


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

    def _regression(
        self,
        drawn: _Drawn,
        base: VelocityField,
        reward: Reward,
        lam: float | Tensor,
        clip: tuple[float, float] | None,
    ) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            tilt = self._base_score(base, drawn.sample) + drawn.sample / self.scale**2
        if isinstance(lam, Tensor):
            lam = lam.detach().reshape(lam.shape + (1,) * self.event_ndim)
        terminal = -(terminal_gradient(reward, drawn.sample, clip=clip) + lam * tilt)
        t = _times((0.0, *self.kernel.times), drawn.path.states)
        factor = self.interpolant.alpha(t) * self.scale**2 / self._variance(t)
        inside = t[1:]
        alpha, beta = self.interpolant.alpha(inside), self.interpolant.beta(inside)
        slope = alpha * self.interpolant.d_alpha(inside) * self.scale**2
        slope = (slope + beta * self.interpolant.d_beta(inside)) / self._variance(inside)
        return slope * drawn.path.inputs, factor * terminal

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

    def _regression(
        self,
        drawn: _Drawn,
        base: VelocityField,
        reward: Reward,
        lam: float | Tensor,
        clip: tuple[float, float] | None,
    ) -> tuple[Tensor, Tensor]:
        sample, schedule = drawn.sample, self.interpolant
        with torch.no_grad():
            advantage = self._advantage(reward(sample if clip is None else sample.clamp(*clip)))
        t = _times(self.kernel.times, drawn.noise)
        conditional = schedule.d_alpha(t) * sample + schedule.d_beta(t) * drawn.noise
        weight = schedule.alpha(t) / (schedule.wronskian(t) * schedule.beta(t))
        adjoints = -advantage * weight * (conditional - drawn.fine.detach())
        return drawn.base, torch.cat([torch.zeros_like(adjoints[:1]), adjoints])

    def _advantage(self, rewards: Tensor) -> Tensor:
        """Rewards less their leave-one-out mean, with axes for the event."""
        others = rewards.shape[-1] - 1 if rewards.ndim else 0
        if others > 0:
            rewards = rewards - (rewards.sum(-1, keepdim=True) - rewards) / others
        return rewards.reshape(rewards.shape + (1,) * self.event_ndim)


def _times(values: tuple[float, ...], like: Tensor) -> Tensor:
    """One time per point, (K, 1, ..., 1), float32 or wider: low precision rounds 1 - t away."""
    return along_path(values, like.to(at_least_float32(like)))
