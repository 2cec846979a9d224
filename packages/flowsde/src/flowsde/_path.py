"""Sampled paths of a transition kernel, and what is evaluated along them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flowsde._field import VelocityField, along_path, batch_shape, checked, evaluate
from flowsde._kernel import Previous, TransitionKernel, like


@dataclass(frozen=True, slots=True)
class Path:
    """One path per sample, time first.

    Attributes:
        states: States of the chain from the start noise to the sample, (K+1, *batch, *event).
        inputs: Network arguments x_0 .. x_{K-1}, (K, *batch, *event).
    """

    states: Float[Tensor, "points *shape"]
    inputs: Float[Tensor, "steps *shape"]

    @property
    def sample(self) -> Float[Tensor, "*shape"]:
        """The end of the path x_1, (*batch, *event)."""
        return self.states[-1]


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
    state = kernel.start(start_noise)
    states, inputs = [state], []
    previous: Previous | None = None
    for k in range(kernel.steps):
        x = kernel.inputs(state, k)
        noisy = k < kernel.noisy_steps
        field = velocity if noisy or final_velocity is None else final_velocity
        v = evaluate(field, x, kernel.times[k], kernel.event_ndim)
        state, previous = kernel.sampled_mean(state, v, k, previous), (state, v)
        if noisy:
            state = state + like(kernel.noise_stds[k], state) * step_noise[k]
        inputs.append(x)
        states.append(state)
    return Path(states=torch.stack(states), inputs=torch.stack(inputs))


def velocities_along(
    kernel: TransitionKernel, velocity: VelocityField, path: Path
) -> Float[Tensor, "steps *shape"]:
    """Velocities at all K network arguments of a path, in one batched call.

    Args:
        kernel: The kernel that made the path.
        velocity: Called once with x of shape (K, *batch, *event) and t of shape (K, *batch).
        path: The path.

    Returns:
        (K, *batch, *event).

    Raises:
        ValueError: If the path has another step count, or the field returns another shape.
    """
    return checked(velocity(path.inputs, path_times(kernel, path)), path.inputs)


def path_times(kernel: TransitionKernel, path: Path) -> Float[Tensor, "steps *batch"]:
    """Network times of a path's inputs, (K, *batch).

    Raises:
        ValueError: If the path has another step count than the kernel.
    """
    if len(path.inputs) != kernel.steps:
        raise ValueError(
            f"the path has {len(path.inputs)} steps, the kernel {kernel.steps}: evaluate a path "
            "with the kernel that sampled it"
        )
    shape = batch_shape(path.inputs, kernel.event_ndim)
    flat = along_path(kernel.times, path.inputs.new_empty(shape))
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
        ValueError: If `velocities` has not the shape of `path.inputs`.
    """
    checked(velocities, path.inputs)
    event_axes = tuple(range(-kernel.event_ndim, 0))
    steps = []
    for k in range(kernel.noisy_steps):
        std = like(kernel.noise_stds[k], path.states)
        previous = (path.states[k - 1], velocities[k - 1]) if k > 0 else None
        mean = kernel.mean(path.states[k], velocities[k], k, previous)
        residual = (path.states[k + 1] - mean) / std
        log_std = torch.log(std) if isinstance(std, Tensor) else math.log(std)
        density = -0.5 * residual.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        steps.append(density.sum(event_axes) if event_axes else density)
    if not steps:
        return path.states.new_zeros((0, *batch_shape(path.states[0], kernel.event_ndim)))
    return torch.stack(steps)
