"""What an environment returned, checked: a number that is not finite is its fault, and says so."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.simulation._errors import EnvironmentFaultError
from bench.simulation._observations import ArrayTree, ObservationSpace, taken_apart

__all__ = ["LARGEST_NUMBER", "checked_observation", "checked_reward"]

LARGEST_NUMBER = 1e15
"""Largest magnitude of a number to train on: squared errors of sums of these stay below 3e38."""


def checked_observation(value: Any, space: ObservationSpace) -> ArrayTree:
    """Return an observation in the types that policies read.

    Args:
        value: What the environment returned: an array, a list of numbers, or a dictionary of such.
        space: What it announced.

    Raises:
        EnvironmentFaultError: If it has other entries or another shape, holds numbers that are not
            finite (in float32) or larger than `LARGEST_NUMBER`, or is not what an integer space
            promises.
    """
    if not isinstance(space, dict):
        return _checked(value, space.shape, space.dtype, "observation")
    found = taken_apart(value, space)
    return {
        name: _checked(found[name], leaf.shape, leaf.dtype, f"observation {name!r}")
        for name, leaf in space.items()
    }


def _checked(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> np.ndarray:
    try:
        given = np.asarray(value)
        with np.errstate(over="ignore", invalid="ignore"):
            converted = given.astype(dtype, copy=False)
    except (TypeError, ValueError) as error:
        raise EnvironmentFaultError(
            f"the environment's {name} is no array of numbers: {error}"
        ) from error
    if converted.shape == () and shape == (1,):
        given, converted = given.reshape(1), converted.reshape(1)
    if converted.shape != shape:
        raise EnvironmentFaultError(
            f"the environment returned an {name} of shape {converted.shape}, but its "
            f"observation_space has {shape}"
        )
    if dtype.kind == "f":
        sound = np.abs(converted) <= LARGEST_NUMBER  # NaN is not
        if not sound.all():
            place = np.unravel_index(int(np.argmin(sound)), shape)
            entry = ", ".join(map(str, place))
            raise EnvironmentFaultError(
                f"the environment returned an {name} that is {_wrong(converted[place], dtype)}: "
                f"entry [{entry}] is {given[place]}"
            )
    elif given.dtype != dtype and not np.array_equal(converted, given):
        raise EnvironmentFaultError(
            f"the environment returned an {name} of {given.dtype} that its observation_space, "
            f"of {dtype}, cannot hold"
        )
    return converted


def checked_reward(value: Any) -> float:
    """Return a reward as a number.

    Raises:
        EnvironmentFaultError: If it is no single number, not finite in float32, or larger than
            `LARGEST_NUMBER`.
    """
    try:
        reward = value if type(value) is float else float(np.asarray(value, np.float64).item())
    except (TypeError, ValueError) as error:
        raise EnvironmentFaultError(
            f"the environment returned the reward {value!r}, expected one number"
        ) from error
    if not abs(reward) <= LARGEST_NUMBER:
        wrong = _wrong(reward, np.dtype(np.float32))
        raise EnvironmentFaultError(f"the environment returned a reward that is {wrong}: {reward}")
    return reward


def _wrong(number: float, dtype: np.dtype[Any]) -> str:
    """Why no one may train on a number."""
    if abs(float(number)) <= float(np.finfo(dtype).max):
        return f"larger than {LARGEST_NUMBER:g}, whose squares float32 cannot sum (scale it)"
    return f"not finite in {dtype}"
