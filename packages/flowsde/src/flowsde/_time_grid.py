"""Grids of times that are not uniform, such as those of the schedulers of image models."""

import itertools
from collections.abc import Sequence
from typing import TypeAlias

from torch import Tensor

TimeGrid: TypeAlias = Sequence[float] | Tensor
"""Points from noise to data, increasing flow times or decreasing sigmas; see `time_grid`."""


def time_grid(values: TimeGrid) -> tuple[float, ...]:
    """Flow times of a grid, from noise to data.

    The direction is stated here once: a grid begins at the noise. Numbers that increase are flow
    times t. Numbers that decrease are noise levels sigma = 1 - t, as in `scheduler.sigmas` of
    `FlowMatchEulerDiscreteScheduler`, which is taken as it is, with its 0 at the end.

    Args:
        values: At least two numbers in [0, 1], all increasing or all decreasing. A tensor is read
            back from its device, so give numbers where `torch.compile` traces the call.

    Returns:
        Increasing flow times.

    Raises:
        ValueError: If they are no such grid.
    """
    given = values.detach().cpu().tolist() if isinstance(values, Tensor) else values
    try:
        points = [float(value) for value in given]
    except (TypeError, ValueError) as error:
        raise ValueError(f"a grid of times must be a vector of numbers, got {values!r}") from error
    steps = [later - now for now, later in itertools.pairwise(points)]
    rising, falling = all(h > 0.0 for h in steps), all(h < 0.0 for h in steps)
    inside = all(0.0 <= point <= 1.0 for point in points)
    if len(points) < 2 or not inside or not (rising or falling):
        shown = ", ".join(f"{point:g}" for point in points[:6]) + ", ..." * (len(points) > 6)
        hint = ""
        if points and max(points) > 1.0:
            hint = "; timesteps up to 1000 are sigmas times 1000, and noise levels of a diffusion "
            hint += "model (sigma/alpha) become times by Interpolant.time_of_ratio(1/level)"
        raise ValueError(
            "a grid of times needs at least two numbers in [0, 1] that all increase (flow times, "
            f"0 is noise) or all decrease (sigmas, 1 is noise), got [{shown}]{hint}"
        )
    return tuple(points) if rising else tuple(1.0 - point for point in points)


def whole_grid(grid: TimeGrid) -> tuple[float, ...]:
    """Flow times of a grid that a chain runs through from pure noise to the data.

    The last point may be left out.

    Raises:
        ValueError: If it is no grid, or does not begin at noise.
    """
    times = time_grid(grid)
    if times[0] != 0.0:
        raise ValueError(
            f"a chain starts from pure noise, so its grid begins at t=0 (sigma 1), got t={times[0]}"
        )
    return times if times[-1] == 1.0 else (*times, 1.0)


def check_steps(steps: int | None, times: Sequence[float]) -> None:
    """Refuse a number of steps beside a grid of another number.

    Raises:
        ValueError: If `steps` is given and is another number.
    """
    count = len(times) - 1
    if steps is not None and steps != count:
        raise ValueError(
            f"a grid from t={times[0]:g} to {times[-1]:g} of {count + 1} points has {count} steps, "
            f"but steps={steps}: leave steps out, or make them agree"
        )


def widths(times: Sequence[float]) -> list[float]:
    """Lengths of the steps between points."""
    return [later - now for now, later in itertools.pairwise(times)]
