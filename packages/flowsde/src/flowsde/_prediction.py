"""Conversions between what networks predict: velocity, data, noise or score."""

import warnings
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from flowsde._field import VelocityField, check_same_shape, checked_velocity, expand_time
from flowsde._interpolant import LINEAR, Interpolant, checked_interpolant

Prediction: TypeAlias = Literal["velocity", "data", "noise", "score"]
_PREDICTIONS = ("velocity", "data", "noise", "score")


def from_velocity(
    prediction: Prediction,
    velocity: Float[Tensor, "*shape"],
    x: Float[Tensor, "*shape"],
    t: Float[Tensor, "*batch"],
    interpolant: Interpolant = LINEAR,
    *,
    floor: float = 1e-4,
) -> Float[Tensor, "*shape"]:
    """Data, noise or score prediction that a velocity at (x, t) stands for.

    From `x = alpha x1 + beta x0` and `v = alpha' x1 + beta' x0`: `x1 = (beta v - beta' x)/w`,
    `x0 = (alpha' x - alpha v)/w` with the Wronskian w, and the score of the marginal at t is
    `-x0/beta`. Data and noise are regular on all of [0, 1] where `beta'` is finite; the score is
    not at t=1.

    Args:
        prediction: What to return: "velocity", "data", "noise" or "score".
        velocity: Velocity at x and t, (*batch, *event).
        x: Point on the path, (*batch, *event).
        t: Times, (*batch).
        interpolant: The schedule.
        floor: Smallest `beta` that is divided by, so that the score stays finite at t=1.

    Returns:
        (*batch, *event).

    Raises:
        ValueError: For an unknown kind of prediction, or a velocity of another shape than `x`.
    """
    _check(prediction)
    check_same_shape("velocity", velocity, "x", x)
    t = expand_time(t, x)
    if prediction == "velocity":
        return velocity
    if prediction == "data":
        beta, d_beta = interpolant.beta(t), interpolant.d_beta(t)
        return ((beta * velocity - d_beta * x) / interpolant.wronskian(t)).to(x.dtype)
    alpha, d_alpha = interpolant.alpha(t), interpolant.d_alpha(t)
    noise = (d_alpha * x - alpha * velocity) / interpolant.wronskian(t)
    if prediction == "score":
        noise = -noise / interpolant.beta(t).clamp(min=floor)
    return noise.to(x.dtype)


def to_velocity(
    prediction: Prediction,
    output: Float[Tensor, "*shape"],
    x: Float[Tensor, "*shape"],
    t: Float[Tensor, "*batch"],
    interpolant: Interpolant = LINEAR,
    *,
    floor: float = 1e-4,
) -> Float[Tensor, "*shape"]:
    """Velocity that a data, noise or score prediction at (x, t) stands for.

    The inverse of `from_velocity`. A noise or score prediction says nothing about the data at
    t=0, and a data prediction nothing about the noise at t=1: there the weight that is divided by
    is floored, which keeps the result finite but multiplies the prediction's error by 1/floor. A
    field that is asked there needs `velocity_field`, which moves the time instead. Infinite at
    t=1 if `beta'` is.

    Args:
        prediction: What `output` is: "velocity", "data", "noise" or "score".
        output: The network's output at x and t, (*batch, *event).
        x: Point on the path, (*batch, *event).
        t: Times, (*batch).
        interpolant: The schedule.
        floor: Smallest `alpha` or `beta` that is divided by.

    Returns:
        (*batch, *event).

    Raises:
        ValueError: For an unknown kind of prediction, or an output of another shape than `x`.
    """
    _check(prediction)
    output, t = checked_velocity(output, x), expand_time(t, x)
    if prediction == "velocity":
        return output
    alpha, beta = interpolant.alpha(t), interpolant.beta(t)
    if prediction == "data":
        data = output
        noise = (x - alpha * data) / beta.clamp(min=floor)
    else:
        noise = output if prediction == "noise" else -beta * output
        data = (x - beta * noise) / alpha.clamp(min=floor)
    return (interpolant.d_alpha(t) * data + interpolant.d_beta(t) * noise).to(x.dtype)


def velocity_field(
    model: Callable[[Tensor, Tensor], Tensor],
    prediction: Prediction,
    interpolant: Interpolant = LINEAR,
    *,
    first_time: float = 0.05,
    last_time: float = 0.99,
) -> VelocityField:
    """The velocity field of a model that predicts data, noise or score.

    Noise and score say nothing about the data at t=0, where every kernel and ODE starts, nor the
    data about the noise at t=1: converted there, the smallest error of the network becomes any
    velocity. So a time before `first_time` (noise, score) or after `last_time` (data, or an
    interpolant whose `beta'` is infinite at 1) is answered with the velocity at that time, at
    the same x. What this costs and saves is measured in docs/flowsde.md.

    Args:
        model: Callable `(x, t) -> prediction` in flow time (t=0 noise, t=1 data).
        prediction: What it predicts.
        interpolant: The schedule it was trained with.
        first_time: Earliest time at which a noise or score model is asked. One so early that it
            multiplies the model's error by more than 1,000 is warned of, and so is such a last one.
        last_time: Latest time at which a data model, or any of such an interpolant, is asked. That
            an interpolant is such is not noticed where `torch.compile` traces this very call:
            build the field before.

    Returns:
        A velocity field `(x, t) -> v`.

    Raises:
        ValueError: For an unknown kind of prediction, or times that are not
            `0 <= first_time < last_time <= 1`.
    """
    _check(prediction)
    check_limits(first_time, last_time)
    low = first_time if prediction in ("noise", "score") else 0.0
    high = last_time if prediction == "data" or not _ends_regularly(interpolant) else 1.0
    warn_if_steep(interpolant, prediction, low, high)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        t = t.to(torch.promote_types(t.dtype, torch.float32)).clamp(low, high)
        return to_velocity(prediction, model(x, t), x, t, interpolant)

    return velocity


def check_limits(first_time: float, last_time: float) -> None:
    """Refuse limits of time that are none.

    Raises:
        ValueError: If they are not `0 <= first_time < last_time <= 1`.
    """
    if not 0.0 <= first_time < last_time <= 1.0:
        raise ValueError(
            "expected 0 <= first_time < last_time <= 1, got "
            f"first_time={first_time} and last_time={last_time}"
        )


def warn_if_steep(
    interpolant: Interpolant, prediction: Prediction, first: float, last: float
) -> None:
    """Warn of a field whose earliest or latest time turns any error of its model into any velocity.

    A velocity is off by `w/alpha` times the error of a noise prediction and by `w/beta` times that
    of a data prediction, with the Wronskian w.
    """
    if prediction == "velocity" or torch.compiler.is_compiling():
        return
    name, time = ("last_time", last) if prediction == "data" else ("first_time", first)
    t = torch.tensor(time, dtype=torch.float64, device="cpu")
    weight = interpolant.beta(t) if prediction == "data" else interpolant.alpha(t)
    factor = float(interpolant.wronskian(t)) / max(float(weight), 1e-12)
    if factor > _STEEP:
        warnings.warn(
            f"a {prediction} model asked at t={time:g} gives a velocity that is off by "
            f"{factor:.1e} times the model's own error, and its path KL and samples with it: keep "
            f"{name} at its default, or at least this ratio below {_STEEP:g}",
            stacklevel=3,
        )


_STEEP = 1000.0


def _ends_regularly(interpolant: Interpolant) -> bool:
    """Whether `beta'` is finite at t=1; taken for granted while a field is built in a trace."""
    checked_interpolant(interpolant)
    if torch.compiler.is_compiling():
        return True  # a number cannot be looked at there
    end = torch.ones((), dtype=torch.float64, device="cpu")
    return bool(torch.isfinite(interpolant.d_beta(end)))


def _check(prediction: str) -> None:
    if prediction not in _PREDICTIONS:
        raise ValueError(f"unknown prediction {prediction!r}; expected one of {_PREDICTIONS}")
