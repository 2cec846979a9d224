"""The flow ODE `dx/dt = v(x, t)` by explicit one-step methods."""

from collections.abc import Callable
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor

from flowsde._field import VelocityField, batch_shape, evaluate, full_times, whole_number
from flowsde._interpolant import LINEAR, Interpolant, checked_interpolant
from flowsde._prediction import from_velocity
from flowsde._time_grid import TimeGrid, check_steps, time_grid, widths

OdeMethod: TypeAlias = Literal["euler", "midpoint", "heun"]
SampleMethod: TypeAlias = OdeMethod | Literal["ddim"]
Slope: TypeAlias = Callable[[Tensor, float], Tensor]


def _euler(slope: Slope, x: Tensor, t: float, h: float) -> Tensor:
    return x + h * slope(x, t)


def _midpoint(slope: Slope, x: Tensor, t: float, h: float) -> Tensor:
    return x + h * slope(x + 0.5 * h * slope(x, t), t + 0.5 * h)


def _heun(slope: Slope, x: Tensor, t: float, h: float) -> Tensor:
    first = slope(x, t)
    return x + 0.5 * h * (first + slope(x + h * first, t + h))


def _ddim(interpolant: Interpolant, event_ndim: int) -> Callable[..., Tensor]:
    checked_interpolant(interpolant)

    def step(slope: Slope, x: Tensor, t: float, h: float) -> Tensor:
        now, later = (full_times(x, time, event_ndim) for time in (t, t + h))
        v = slope(x, t)
        noise = from_velocity("noise", v, x, now, interpolant)
        data = from_velocity("data", v, x, now, interpolant)
        return interpolant.interpolate(noise, data, later)

    return step


_METHODS: dict[str, Callable[[Slope, Tensor, float, float], Tensor]] = {
    "euler": _euler,
    "midpoint": _midpoint,
    "heun": _heun,
}


def ode_sample(
    velocity: VelocityField,
    noise: Float[Tensor, "*shape"],
    steps: int | None = None,
    method: SampleMethod = "euler",
    event_ndim: int = 1,
    t0: float = 0.0,
    t1: float = 1.0,
    *,
    times: TimeGrid | None = None,
    interpolant: Interpolant = LINEAR,
) -> Float[Tensor, "*shape"]:
    """Integrate the flow ODE from `t0` to `t1` in equal steps, or over a grid of times.

    Euler is of order 1 with one evaluation per step; midpoint and Heun are of order 2 with two.
    DDIM (Song et al., arXiv 2010.02502) goes on along the path between the data and the noise that
    the velocity predicts: of order 1 with one evaluation, exact where the data do not vary, and
    what the samplers of diffusion models do. For the linear interpolant it is Euler's method.
    With t0 > t1 the flow runs backwards (data to noise).

    Args:
        velocity: The field, finite at every time that is asked: "heun" asks at `t1` as well.
        noise: Starting points at `t0`, (*batch, *event).
        steps: Number of steps; may be left out beside `times`.
        method: "euler", "midpoint", "heun" or "ddim".
        event_ndim: Number of trailing axes that make up one sample.
        t0: Time of the starting points.
        t1: Time of the result.
        times: Points of the steps from noise to data instead of t0 and t1, or a scheduler's sigmas;
            see `time_grid`. `t0=1.0, t1=0.0` runs through them backwards.
        interpolant: The schedule of the field; only "ddim" needs it.

    Returns:
        (*batch, *event).

    Raises:
        ValueError: For an unknown method, fewer than one step, or a bad grid.
    """
    step = _ddim(interpolant, event_ndim) if method == "ddim" else ode_step(method)
    batch_shape(noise, event_ndim)
    intervals = ode_intervals(steps, t0, t1, times)

    def slope(x: Tensor, t: float) -> Tensor:
        return evaluate(velocity, x, t, event_ndim)

    x = noise
    for t, h in intervals:
        x = step(slope, x, t, h)
    return x


def ode_intervals(
    steps: int | None, t0: float, t1: float, times: TimeGrid | None
) -> list[tuple[float, float]]:
    """Start and signed length of each step: equal ones, or those of a grid.

    Raises:
        ValueError: For a bad number of steps or grid, or limits beside a grid.
    """
    if times is None:
        # `None` is no number of steps either.
        count = whole_number("steps", 0 if steps is None else steps, 1)
        h = (t1 - t0) / count
        return [(t0 + k * h, h) for k in range(count)]
    points = time_grid(times)
    check_steps(steps, points)
    if (t0, t1) not in ((0.0, 1.0), (1.0, 0.0)):
        raise ValueError(
            f"times begin at {points[0]:g} and end at {points[-1]:g}: leave out t0 and t1, or give "
            f"t0=1.0, t1=0.0 to run through them backwards; got t0={t0}, t1={t1}"
        )
    if t0 > t1:
        points = points[::-1]
    return list(zip(points[:-1], widths(points), strict=True))


def ode_step(method: str) -> Callable[[Slope, Tensor, float, float], Tensor]:
    """The step function of a method.

    Raises:
        ValueError: For an unknown method.
    """
    if method not in _METHODS:
        raise ValueError(
            f"unknown ODE method {method!r}; expected one of {sorted(_METHODS)}, or 'ddim' for "
            "samples without their density"
        )
    return _METHODS[method]
