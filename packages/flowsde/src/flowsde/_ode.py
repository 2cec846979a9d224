"""The flow ODE `dx/dt = v(x, t)` by explicit one-step methods."""

from collections.abc import Callable
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor

from flowsde._field import VelocityField, batch_shape, evaluate, whole_number

OdeMethod: TypeAlias = Literal["euler", "midpoint", "heun"]
Slope: TypeAlias = Callable[[Tensor, float], Tensor]


def _euler(slope: Slope, x: Tensor, t: float, h: float) -> Tensor:
    return x + h * slope(x, t)


def _midpoint(slope: Slope, x: Tensor, t: float, h: float) -> Tensor:
    return x + h * slope(x + 0.5 * h * slope(x, t), t + 0.5 * h)


def _heun(slope: Slope, x: Tensor, t: float, h: float) -> Tensor:
    first = slope(x, t)
    return x + 0.5 * h * (first + slope(x + h * first, t + h))


_METHODS: dict[str, Callable[[Slope, Tensor, float, float], Tensor]] = {
    "euler": _euler,
    "midpoint": _midpoint,
    "heun": _heun,
}


def ode_sample(
    velocity: VelocityField,
    noise: Float[Tensor, "*shape"],
    steps: int,
    method: OdeMethod = "euler",
    event_ndim: int = 1,
    t0: float = 0.0,
    t1: float = 1.0,
) -> Float[Tensor, "*shape"]:
    """Integrate the flow ODE from `t0` to `t1` in equal steps.

    Euler is of order 1 with one evaluation per step; midpoint and Heun are of order 2 with two.
    With t0 > t1 the flow runs backwards (data to noise).

    Args:
        velocity: The field, finite at every time that is asked: "heun" asks at `t1` as well.
        noise: Starting points at `t0`, (*batch, *event).
        steps: Number of steps.
        method: "euler", "midpoint" or "heun".
        event_ndim: Number of trailing axes that make up one sample.
        t0: Time of the starting points.
        t1: Time of the result.

    Returns:
        (*batch, *event).

    Raises:
        ValueError: For an unknown method or fewer than one step.
    """
    step = ode_step(method)
    steps = whole_number("steps", steps, 1)
    batch_shape(noise, event_ndim)
    h = (t1 - t0) / steps

    def slope(x: Tensor, t: float) -> Tensor:
        return evaluate(velocity, x, t, event_ndim)

    x = noise
    for k in range(steps):
        x = step(slope, x, t0 + k * h, h)
    return x


def ode_step(method: str) -> Callable[[Slope, Tensor, float, float], Tensor]:
    """The step function of a method.

    Raises:
        ValueError: For an unknown method.
    """
    if method not in _METHODS:
        raise ValueError(f"unknown ODE method {method!r}; expected one of {sorted(_METHODS)}")
    return _METHODS[method]
