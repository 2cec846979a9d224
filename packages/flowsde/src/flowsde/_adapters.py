"""Velocity fields from models trained under other conventions of time and prediction."""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from flowsde._field import VelocityField, broadcasts, expand_time
from flowsde._interpolant import CosineInterpolant
from flowsde._prediction import check_limits, to_velocity, warn_if_steep

DiffusionPrediction: TypeAlias = Literal["epsilon", "v_prediction", "sample"]
TimestepModel: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def reversed_flow_field(model: TimestepModel, timesteps: float = 1000.0) -> VelocityField:
    """Field of a flow-matching model whose time runs from data to noise, as in `diffusers`.

    There `x = (1 - sigma) data + sigma noise`, the model is called with `sigma * timesteps` and
    predicts `noise - data`. So `v(x, t) = -model(x, timesteps (1 - t))` for `LinearInterpolant`.
    A scheduler's `shift` is a matter of its grid alone: its times are `1 - scheduler.sigmas`.

    Args:
        model: Callable `(x, timestep) -> noise - data`.
        timesteps: Timestep that stands for pure noise; 1 if the model takes sigma itself.

    Returns:
        A velocity field in flow time.

    Raises:
        ValueError: If `timesteps` is not positive.
    """
    if not timesteps > 0.0:
        raise ValueError(f"timesteps must be positive, got {timesteps}")

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        t = t.to(torch.promote_types(t.dtype, torch.float32))
        return -model(x, timesteps * (1.0 - t))

    return velocity


def variance_preserving_field(
    model: TimestepModel,
    alphas_cumprod: Float[Tensor, "timesteps"],
    prediction: DiffusionPrediction = "epsilon",
    *,
    integer_timesteps: bool = False,
    first_time: float = 0.05,
    last_time: float = 0.99,
) -> VelocityField:
    """Field of a discrete-time diffusion model, for use with `CosineInterpolant` alone.

    Give it to every kernel, loss and conversion (`MemorylessEuler(K, interpolant=
    CosineInterpolant())`): theirs is the linear one by default, and a field does not say which it
    belongs to.

    A variance-preserving schedule is a clock on the same circle of (signal, noise) weights: the
    model's timestep n with `alphas_cumprod[n] = sin^2(pi t/2)` sees the very x_t of the cosine
    interpolant. Timesteps between two entries are interpolated, so the model is called with
    fractional ones. Times outside of the trained range (the schedule ends short of pure noise and
    of clean data) are answered with the velocity at its ends.

    So are times before `first_time` for "epsilon" and after `last_time` for "sample", as in
    `velocity_field`: schedules that end in almost pure noise (the cosine one of DDPM and LeRobot
    has `alphas_cumprod[-1] = 2e-9`) would divide the error of the predicted noise by the square
    root of that.

    Args:
        model: Callable `(x, timestep) -> prediction`; `timestep` has the batch shape and is at
            least float32, since lower precision cannot tell timesteps apart.
        alphas_cumprod: Squared signal weight of each timestep, decreasing
            (`scheduler.alphas_cumprod` in `diffusers`). The last one may be 0 (zero terminal
            SNR), except for "epsilon", which says nothing about the data there. It is moved to
            the device of the samples at the first call.
        prediction: "epsilon" (noise), "v_prediction" (`signal weight * noise - noise weight *
            data`, Salimans & Ho, arXiv 2202.00512) or "sample" (data).
        integer_timesteps: Call the model with the nearest integer timestep (int64), for networks
            that look timesteps up in a table.
        first_time: Earliest flow time at which a model that predicts "epsilon" is asked; 0 for the
            whole table, as samplers of such models take it. Warned of where the table ends in
            almost pure noise.
        last_time: Latest flow time at which a model that predicts "sample" is asked.

    Returns:
        A velocity field in flow time.

    Raises:
        ValueError: For an unknown prediction, a table that does not decrease inside (0, 1), or
            limits that leave no time between them.
    """
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise ValueError(
            f"unknown prediction {prediction!r}; expected 'epsilon', 'v_prediction' or 'sample'"
        )
    table = alphas_cumprod
    if table.ndim != 1 or len(table) < 2 or not bool(torch.all(table[1:] < table[:-1])):
        raise ValueError("alphas_cumprod must be a vector of at least two decreasing numbers")
    last, first = float(table[-1]), float(table[0])
    if not 0.0 <= last < first < 1.0 or (last == 0.0 and prediction == "epsilon"):
        raise ValueError(
            f"alphas_cumprod must lie inside (0, 1), got {last} to {first}; only a model that "
            "predicts 'v_prediction' or 'sample' may start from pure noise, 0"
        )
    interpolant = CosineInterpolant()
    # Flow time of each timestep, ascending: the noisiest timestep comes first.
    times = (2.0 / math.pi * torch.asin(torch.sqrt(table.double()))).flip(0)
    check_limits(first_time, last_time)
    low = first_time if prediction == "epsilon" else 0.0
    high = last_time if prediction == "sample" else 1.0
    start, end = max(float(times[0]), low), min(float(times[-1]), high)
    if not start < end:
        raise ValueError(
            f"the schedule covers the times {float(times[0]):g} to {float(times[-1]):g}: none is "
            f"between first_time={first_time} and last_time={last_time}"
        )
    if prediction != "v_prediction":
        warn_if_steep(interpolant, "noise" if prediction == "epsilon" else "data", start, end)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        nonlocal times
        times = times.to(t.device)
        t = t.to(torch.promote_types(t.dtype, torch.float32))
        knots = times.to(t.dtype)
        t = t.clamp(knots[0], knots[-1]).clamp(low, high)
        right = torch.searchsorted(knots, t.contiguous()).clamp(1, len(times) - 1)
        fraction = (t - knots[right - 1]) / (knots[right] - knots[right - 1])
        timestep = (len(times) - 1) - (right - 1 + fraction)
        output = model(x, timestep.round().long() if integer_timesteps else timestep)
        if prediction == "v_prediction":
            # d x_t/dt = pi/2 (noise weight * data - signal weight * noise)
            return -0.5 * math.pi * output
        kind: Literal["noise", "data"] = "noise" if prediction == "epsilon" else "data"
        return to_velocity(kind, output, x, t, interpolant).to(x.dtype)

    return velocity


def guided_field(
    conditional: VelocityField, unconditional: VelocityField, scale: float | Tensor
) -> VelocityField:
    """Classifier-free guidance, `v = v_uncond + scale (v_cond - v_uncond)`.

    Guidance of any prediction is guidance of the velocity, since conversions at a given (x, t)
    are affine. Source: Ho & Salimans (arXiv 2207.12598).

    Args:
        conditional: Field with the condition.
        unconditional: Field without it.
        scale: 0 unconditional, 1 conditional, above 1 extrapolates; a number, or a tensor that
            broadcasts to the batch shape for one per sample.

    Returns:
        The guided velocity field.

    Raises:
        ValueError: When called, if a tensor of scales does not fit the batch.
    """

    def per_sample(scale: Tensor, x: Tensor, t: Tensor) -> Tensor:
        if not broadcasts(scale.shape, t.shape):
            raise ValueError(
                f"a guidance scale of shape {tuple(scale.shape)} does not fit samples of batch "
                f"shape {tuple(t.shape)}; expected a number or one per sample"
            )
        # Along a path the batch axes come after that of time: align with them before the event's.
        return expand_time(scale.expand(t.shape), x)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        weight: float | Tensor = scale if not isinstance(scale, Tensor) else per_sample(scale, x, t)
        free = unconditional(x, t)
        return free + weight * (conditional(x, t) - free)

    return velocity
