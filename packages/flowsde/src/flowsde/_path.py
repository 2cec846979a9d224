"""Sampled paths of a transition kernel, and what is evaluated along them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flowsde._field import (
    VelocityField,
    along_path,
    at_least_float32,
    batch_shape,
    checked_velocity,
    evaluate,
    is_transformed,
    whole_number,
)
from flowsde._kernel import Coefficients, Previous, TransitionKernel, coefficient_like
from flowsde._modules import warn_if_random


@dataclass(frozen=True, slots=True)
class Path:
    """One path per sample, time first.

    Attributes:
        states: States of the chain from the start noise to the sample, (K+1, *batch, *event).
        inputs: Network arguments x_0 .. x_{K-1}, (K, *batch, *event).
        kernel: The kernel that made it.
    """

    states: Float[Tensor, "points *shape"]
    inputs: Float[Tensor, "steps *shape"]
    kernel: TransitionKernel

    @property
    def sample(self) -> Float[Tensor, "*shape"]:
        """The end of the path x_1, (*batch, *event)."""
        return self.states[-1]

    def check(self, kernel: TransitionKernel) -> None:
        """Refuse to be evaluated with a kernel that stands for another chain.

        Raises:
            ValueError: If `kernel` is not equivalent to the one that made the path, or the path
                was sampled in inference mode and is used where gradients are recorded.
        """
        if len(self.inputs) != kernel.steps or len(self.states) != kernel.steps + 1:
            raise ValueError(
                f"the path has {len(self.inputs)} steps, the kernel {kernel.steps}: evaluate a "
                "path with the kernel that sampled it"
            )
        if not _same_chain(self.kernel, kernel):
            raise ValueError(
                f"the path was sampled with {self.kernel}, not with {kernel}: evaluate a path with "
                "the kernel that sampled it"
            )
        if is_transformed():
            return  # what follows cannot be traced
        if self.states.is_inference() and torch.is_grad_enabled():
            raise ValueError(
                "the path was sampled in inference mode, which forbids any use with autograd: "
                "sample it under torch.no_grad() instead"
            )


def sample_path(
    kernel: TransitionKernel,
    velocity: VelocityField,
    start_noise: Float[Tensor, "*shape"],
    step_noise: Float[Tensor, "steps *shape"] | None = None,
    *,
    generator: torch.Generator | None = None,
    final_velocity: VelocityField | None = None,
) -> Path:
    """Sample the chain of `kernel` under `velocity`.

    Nothing is detached: call it under `torch.no_grad()` where no gradient through the path is
    wanted (adjoint matching wants none).

    Args:
        kernel: The discretised SDE.
        velocity: Field that drives it.
        start_noise: x_0 ~ N(0, I), (*batch, *event).
        step_noise: Standard normal noise of the steps, (K, *batch, *event); drawn if not given.
            The slice of a step without noise is not used.
        generator: Source of `step_noise` where that is not given.
        final_velocity: Field of a last step that is taken without noise (published: the base);
            `velocity` if not given. Kernels whose last step is noisy do not use it.

    Returns:
        The path, with K+1 states and K network arguments.

    Raises:
        ValueError: If shapes do not fit, or both noise and generator are given.
    """
    state = kernel.start(start_noise)
    warn_if_random(velocity)
    if step_noise is None:
        step_noise = torch.randn(
            (kernel.steps, *start_noise.shape),
            generator=generator,
            dtype=start_noise.dtype,
            device=start_noise.device,
        )
    elif generator is not None:
        raise ValueError("give either step_noise or a generator to draw it from, not both")
    elif step_noise.shape != (kernel.steps, *start_noise.shape):
        raise ValueError(
            f"step_noise has shape {tuple(step_noise.shape)}; expected (steps, *start_noise.shape)"
            f" = {(kernel.steps, *start_noise.shape)}"
        )
    states, inputs = [state], []
    previous: Previous | None = None
    for k in range(kernel.steps):
        x = kernel.inputs(state, k)
        noisy = k < kernel.noisy_steps
        field = velocity if noisy or final_velocity is None else final_velocity
        v = evaluate(field, x, kernel.times[k], kernel.event_ndim)
        state, previous = kernel.sampled_mean(state, v, k, previous), (state, v)
        if noisy:
            state = state + coefficient_like(kernel.noise_stds[k], state) * step_noise[k]
        inputs.append(x)
        states.append(state)
    return Path(states=torch.stack(states), inputs=torch.stack(inputs), kernel=kernel)


def velocities_along(
    kernel: TransitionKernel, velocity: VelocityField, path: Path, *, chunk: int | None = None
) -> Float[Tensor, "steps *shape"]:
    """Velocities at all K network arguments of a path, in one batched call or a few.

    Args:
        kernel: The kernel that made the path.
        velocity: Called once with x of shape (K, *batch, *event) and t of shape (K, *batch), or
            with the next `chunk` steps at a time.
        path: The path.
        chunk: Steps per call, for networks whose activations at all K do not fit; None for all.

    Returns:
        (K, *batch, *event).

    Raises:
        ValueError: If another kernel made the path, the field returns another shape, or `chunk` is
            no number of steps.
    """
    warn_if_random(velocity)
    times = path_times(kernel, path)
    if chunk is None:
        return checked_velocity(velocity(path.inputs, times), path.inputs)
    size = whole_number("chunk", chunk, 1)
    pairs = zip(torch.split(path.inputs, size), torch.split(times, size), strict=True)
    return torch.cat([checked_velocity(velocity(x, t), x) for x, t in pairs])


def path_times(kernel: TransitionKernel, path: Path) -> Float[Tensor, "steps *batch"]:
    """Network times of a path's inputs, (K, *batch), float32 or wider.

    Raises:
        ValueError: If another kernel made the path.
    """
    path.check(kernel)
    shape = batch_shape(path.inputs, kernel.event_ndim)
    wide = at_least_float32(path.inputs)
    flat = along_path(kernel.times, path.inputs.new_empty(shape, dtype=wide))
    return flat.expand(shape)


def step_log_prob(
    kernel: TransitionKernel, path: Path, velocities: Float[Tensor, "steps *shape"]
) -> Float[Tensor, "noisy_steps *batch"]:
    """Log-density of each noisy transition of a path, summed over event axes.

    Args:
        kernel: The kernel that made the path.
        path: The path.
        velocities: Velocities along it, (K, *batch, *event), as from `velocities_along`.

    Returns:
        (K', *batch) in nats, with K' = `kernel.noisy_steps`: a step without noise has no density.

    Raises:
        ValueError: If `velocities` has not the shape of `path.inputs`, or another kernel made the
            path.
    """
    path.check(kernel)
    checked_velocity(velocities, path.inputs)
    event_axes = tuple(range(-kernel.event_ndim, 0))
    steps = []
    for k in range(kernel.noisy_steps):
        std = coefficient_like(kernel.noise_stds[k], path.states)
        previous = (path.states[k - 1], velocities[k - 1]) if k > 0 else None
        mean = kernel.mean(path.states[k], velocities[k], k, previous)
        residual = (path.states[k + 1] - mean) / std
        log_std = torch.log(std) if isinstance(std, Tensor) else math.log(std)
        density = -0.5 * residual.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        steps.append(density.sum(event_axes) if event_axes else density)
    if not steps:
        return path.states.new_zeros((0, *batch_shape(path.states[0], kernel.event_ndim)))
    return torch.stack(steps)


def _same_chain(one: TransitionKernel, other: TransitionKernel) -> bool:
    """Whether two kernels sample the same chain, as far as can be told without the device."""
    if one is other:
        return True
    a, b = one.coefficients, other.coefficients
    return (
        one.event_ndim == other.event_ndim
        and a.times == b.times
        and _same(a.input_scales, b.input_scales)
        and _same(a.decays, b.decays)
        and _same(a.gains, b.gains)
        and _same(a.noise_stds, b.noise_stds)
    )


def _same(some: Coefficients, others: Coefficients) -> bool:
    return all(map(_equal, some, others))


def _equal(a: float | Tensor, b: float | Tensor) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape
    return a == b
