"""The interface of Gaussian transition kernels: one discretised memoryless SDE each."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowsde._field import batch_shape, broadcasts, whole_number
from flowsde._interpolant import Interpolant, checked_interpolant
from flowsde._time_grid import TimeGrid, check_steps, whole_grid

Coefficients = tuple[float | Tensor, ...]
"""One number per step; tensors of the event shape where the scale differs per dimension."""

Previous = tuple[Tensor, Tensor]
"""State and velocity of the step before, for two-step kernels."""


@dataclass(frozen=True, eq=False, kw_only=True)
class StepCoefficients:
    """K numbers each, defining `z_{k+1} ~ N(decay_k z_k + gain_k v_k, noise_std_k^2 I)`.

    A two-step method adds `lag_decay_k z_{k-1} + lag_gain_k v_{k-1}` to the mean of step k.

    Attributes:
        times: Network time t_k of step k.
        adjoint_times: Time at which the adjoint of step k evaluates the base velocity.
        input_scales: `x_k = input_scale_k z_k` is what the network sees.
        decays: Derivative of the mean in the state at fixed velocity.
        gains: Derivative of the mean in the velocity.
        stds: Diffusion of the step as it enters the path KL and the matching loss.
        noise_stds: Standard deviation that is sampled; 0 where a step is taken without noise.
        lag_decays: Weight of the state before, 0 on the first step; empty for one-step methods.
        lag_gains: Weight of the velocity before, 0 on the first step; empty likewise.
    """

    times: tuple[float, ...]
    adjoint_times: tuple[float, ...]
    input_scales: Coefficients
    decays: Coefficients
    gains: Coefficients
    stds: Coefficients
    noise_stds: Coefficients
    lag_decays: Coefficients = ()
    lag_gains: Coefficients = ()


@dataclass(frozen=True, eq=False)
class TransitionKernel:
    """A discretised memoryless SDE as K Gaussian transitions, affine in states and velocities.

    Sampling, step log-probability, path KL, lean adjoint and matching loss all follow from the
    coefficients kept here, so a discretisation is defined by its constructor alone
    (`MemorylessEuler`, `FollmerKernel`, `AdamsBashforthKernel`). Coefficients are Python numbers:
    nothing synchronises with the host, and a compiled update sees constants.

    States may live in other coordinates than the samples: `inputs` maps a state to the argument
    of the network, the first state is the start noise itself and the last one is the sample.

    Attributes:
        steps: Number of transitions K; may be left out beside a grid of times.
        event_ndim: Number of trailing axes that make up one sample.
        control_offset: The regression of step k uses the adjoint `a_{k + control_offset}`.
    """

    steps: int = 0
    event_ndim: int = 1
    control_offset: int = 0
    coefficients: StepCoefficients = field(init=False, repr=False)

    def _check(self, interpolant: Interpolant, grid: TimeGrid | None = None) -> None:
        if grid is not None:
            times = whole_grid(grid)
            check_steps(self.steps or None, times)
            object.__setattr__(self, "steps", len(times) - 1)
        object.__setattr__(self, "steps", whole_number("steps", self.steps, 1))
        object.__setattr__(self, "event_ndim", whole_number("event_ndim", self.event_ndim, 0))
        checked_interpolant(interpolant)
        if self.control_offset not in (0, 1):
            raise ValueError(f"control_offset must be 0 or 1, got {self.control_offset!r}")

    @property
    def times(self) -> tuple[float, ...]:
        """Network times t_k, K of them."""
        return self.coefficients.times

    @property
    def adjoint_times(self) -> tuple[float, ...]:
        """Times at which the adjoint evaluates the base velocity, K of them."""
        return self.coefficients.adjoint_times

    @property
    def gains(self) -> Coefficients:
        """Effect of the velocity, in the units of `stds`, as used by path KL and matching loss.

        For one-step methods the derivative of `mean` in the velocity.
        """
        return self.coefficients.gains

    @property
    def stds(self) -> Coefficients:
        """Diffusion scale of each step as used by path KL and matching loss."""
        return self.coefficients.stds

    @property
    def noise_stds(self) -> Coefficients:
        """Standard deviation of the noise that is sampled, per step."""
        return self.coefficients.noise_stds

    @property
    def noisy_steps(self) -> int:
        """Number of steps that are sampled with noise: K, or K-1 with a noise-free last step."""
        last = self.noise_stds[-1]
        return self.steps - 1 if isinstance(last, float) and last == 0.0 else self.steps

    @property
    def loss_scale(self) -> float:
        """Factor of the matching loss: 1/h, so that it is a plain sum over steps as published."""
        return float(self.steps)

    def start(self, noise: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """First state of the chain from x_0 ~ N(0, I), (*batch, *event).

        Warns where a kernel of `event_ndim=1` gets samples of four axes or more, most often images
        whose KL and loss would be averaged over channels and rows as if those were samples.

        Raises:
            ValueError: If `noise` has fewer than `event_ndim` axes or an integer dtype.
        """
        batch = batch_shape(noise, self.event_ndim)
        if self.event_ndim == 1 and len(batch) > 2 and not torch.compiler.is_compiling():
            warnings.warn(
                f"a kernel of event_ndim=1 takes samples of shape {tuple(noise.shape)} for "
                f"{batch.numel()} vectors of {noise.shape[-1]} entries: give it event_ndim=3 for "
                "images (batch, channels, height, width); flatten the batch axes if they are such",
                stacklevel=3,
            )
        return noise

    def inputs(self, state: Float[Tensor, "*shape"], k: int) -> Float[Tensor, "*shape"]:
        """Network argument x_k of state k."""
        scale = self.coefficients.input_scales[k]
        if isinstance(scale, float) and scale == 1.0:
            return state
        return coefficient_like(scale, state) * state

    def mean(
        self,
        state: Float[Tensor, "*shape"],
        velocity: Float[Tensor, "*shape"],
        k: int,
        previous: Previous | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Mean of the transition k -> k+1, affine in the velocity at `inputs(state, k)`, t_k.

        Args:
            state: State k.
            velocity: Velocity there.
            k: Index of the step.
            previous: State and velocity of step k-1; only two-step kernels read it.

        Raises:
            ValueError: If a two-step kernel is asked for a later step without `previous`.
        """
        decay, gain = self.coefficients.decays[k], self.coefficients.gains[k]
        mean = coefficient_like(decay, state) * state + coefficient_like(gain, state) * velocity
        if not self.coefficients.lag_gains or k == 0:
            return mean
        if previous is None:
            raise ValueError(
                f"step {k} of a two-step kernel needs the state and velocity of step {k - 1}: "
                "pass previous=(state, velocity)"
            )
        lag_decay = coefficient_like(self.coefficients.lag_decays[k], state)
        lag_gain = coefficient_like(self.coefficients.lag_gains[k], state)
        return mean + lag_decay * previous[0] + lag_gain * previous[1]

    def sampled_mean(
        self,
        state: Float[Tensor, "*shape"],
        velocity: Float[Tensor, "*shape"],
        k: int,
        previous: Previous | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Mean of the transition as it is sampled: `mean`, save on a noise-free last step."""
        return self.mean(state, velocity, k, previous)

    def control_adjoints(self, adjoints: Float[Tensor, "points *shape"]) -> Tensor:
        """The adjoint that the control of each step is regressed on.

        Args:
            adjoints: `a_0 .. a_K` of the chain, (K+1, *batch, *event).

        Returns:
            (K, *batch, *event), in the coordinates of `stds`.
        """
        return adjoints[self.control_offset : self.control_offset + self.steps]

    def chosen_steps(self, steps: Sequence[int] | Int[Tensor, "chosen"]) -> list[int] | Tensor:
        """Indices of time steps given by the user, checked.

        Args:
            steps: Indices. The values of a tensor are not looked at, which would wait for the
                device: indexing refuses those that are too large, and counts negative ones from
                the end.

        Returns:
            A list, or the tensor.

        Raises:
            ValueError: If there are none, or they are not indices of steps.
        """
        if isinstance(steps, Tensor):
            if steps.ndim != 1 or steps.dtype not in (torch.int64, torch.int32):
                raise ValueError(
                    "steps must be a vector of integers, got a tensor of shape "
                    f"{tuple(steps.shape)} and dtype {steps.dtype}"
                )
            chosen: list[int] | Tensor = steps
        else:
            chosen = [whole_number("a time step", k, 0) for k in steps]
            if any(k >= self.steps for k in chosen):
                raise ValueError(f"steps must be indices in 0..{self.steps - 1}, got {chosen}")
        if len(chosen) == 0:
            raise ValueError("steps is empty; give at least one time step, or None for all")
        return chosen


def coefficient_like(coefficient: float | Tensor, x: Tensor) -> float | Tensor:
    """A kernel's coefficient in the dtype of `x`; per-dimension ones are float64 tensors.

    Raises:
        ValueError: If it is a tensor on another device than `x`, or broadcasts to another shape.
    """
    if not isinstance(coefficient, Tensor):
        return coefficient
    if coefficient.device != x.device:
        raise ValueError(
            f"the kernel's scale is on {coefficient.device}, the samples are on {x.device}: "
            "give the kernel its scale as a tensor on that device"
        )
    check_fit(coefficient, x)
    return coefficient.to(x.dtype)


def check_fit(scale: Tensor, x: Tensor) -> None:
    """Refuse a scale per dimension that belongs to other events than those of `x`.

    Raises:
        ValueError: If it does not broadcast to the shape of `x`.
    """
    if not broadcasts(scale.shape, x.shape):
        raise ValueError(
            f"the kernel's scale has shape {tuple(scale.shape)}, which does not fit samples "
            f"of shape {tuple(x.shape)}"
        )
