"""Velocity fields and the one convention for their times.

A velocity field is any callable `(x, t) -> v`: `x` has shape (*batch, *event), `t` the batch shape
and the dtype of `x`, and `v` the shape of `x`. Observations, prompts and guidance are closed over.
Time runs from noise at t=0 to data at t=1.
"""

import operator
from collections.abc import Callable, Sequence
from typing import SupportsIndex, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

VelocityField: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def whole_number(name: str, value: SupportsIndex, least: int) -> int:
    """A count given by the user, as an int.

    Raises:
        ValueError: If it is no integer, or below `least`.
    """
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return number


def broadcasts(shape: Sequence[int], to: Sequence[int]) -> bool:
    """Whether a tensor of `shape` expands to the shape `to`."""
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(n in (1, m) for n, m in pairs)


def batch_shape(x: Tensor, event_ndim: int) -> torch.Size:
    """Shape of the axes of `x` before its last `event_ndim` ones.

    Raises:
        ValueError: If `x` is no floating tensor, or has fewer than `event_ndim` axes.
    """
    whole_number("event_ndim", event_ndim, 0)
    if not isinstance(x, Tensor):
        raise ValueError(f"samples must be a tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise ValueError(f"samples must be floating point, got {x.dtype}: call .float() on them")
    if x.ndim < event_ndim:
        raise ValueError(
            f"samples of shape {tuple(x.shape)} have fewer axes than event_ndim={event_ndim}; "
            "expected (*batch, *event)"
        )
    return x.shape[: x.ndim - event_ndim]


def evaluate(velocity: VelocityField, x: Tensor, t: float, event_ndim: int) -> Tensor:
    """Velocity at `x` and the same time `t` for the whole batch.

    Raises:
        ValueError: If the field returns anything but a tensor of the shape of `x`.
    """
    # new_full fills on the device: no copy from the host, so it can be captured in a CUDA graph.
    return checked_velocity(velocity(x, x.new_full(batch_shape(x, event_ndim), t)), x)


def checked_velocity(v: Tensor, x: Tensor) -> Tensor:
    """Return `v` if it has the shape of `x`, since a broadcast here would pass unnoticed.

    Raises:
        ValueError: If it is no tensor, or the shapes differ.
    """
    if not isinstance(v, Tensor):
        raise ValueError(
            f"the velocity field returned {type(v).__name__}, not a tensor: wrap a model whose "
            "output is an object or a tuple, for instance `lambda x, t: model(x, t).sample`"
        )
    if v.shape != x.shape:
        raise ValueError(
            f"the velocity field returned shape {tuple(v.shape)} for samples of shape "
            f"{tuple(x.shape)}; it must return the shape of its input"
        )
    return v


def expand_time(t: Tensor, x: Tensor) -> Tensor:
    """Append axes of size one to `t` until it has as many axes as `x`.

    Raises:
        ValueError: If `t` has more axes than `x`.
    """
    if t.ndim > x.ndim:
        raise ValueError(
            f"times of shape {tuple(t.shape)} have more axes than samples of shape "
            f"{tuple(x.shape)}; expected one time per sample"
        )
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


def along_path(
    values: Sequence[float | Tensor], like: Float[Tensor, "steps *shape"]
) -> Float[Tensor, "steps *broadcastable"]:
    """Stack one coefficient per step so that it broadcasts against `like`.

    Kernels keep their coefficients as Python floats (or, with a scale per dimension, as tensors
    of the event shape). This turns them into one tensor on the device of `like` by fills, without
    a copy from the host.

    Args:
        values: K numbers, or K tensors that broadcast to the event shape.
        like: Anything along a path, (K, *batch, *event).

    Returns:
        (K, 1, ..., 1) or (K, 1, ..., *event), dtype and device of `like`.
    """
    axes = like.ndim - 1
    rows = [
        value.to(like.dtype).reshape((1,) * (axes - value.ndim) + value.shape)
        if isinstance(value, Tensor)
        else like.new_full((1,) * axes, value)
        for value in values
    ]
    return torch.stack(rows)
