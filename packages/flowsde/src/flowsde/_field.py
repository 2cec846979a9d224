"""Velocity fields and the one convention for their times.

A velocity field is any callable `(x, t) -> v`: `x` has shape (*batch, *event), `t` the batch shape,
and `v` the shape of `x`. `t` is float32 or wider: the dtype of `x`, but float32 beside bfloat16 and
float16, in which 1 - t has two or three digits near the data. A network in low precision casts
what it makes of `t` itself. Observations, prompts and guidance are closed over.
Time runs from noise at t=0 to data at t=1.
"""

import math
import operator
from collections.abc import Callable, Sequence
from numbers import Real
from typing import SupportsIndex, TypeAlias

import torch
from jaxtyping import Float
from torch import _C, Tensor, nn

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


def at_least_float32(x: Tensor) -> torch.dtype:
    """The dtype of times, coefficients and sums beside samples `x`."""
    return torch.promote_types(x.dtype, torch.float32)


def is_transformed() -> bool:
    """Whether this runs inside `torch.compile` or a transform of `torch.func` (`vmap`, `grad`).

    Numbers cannot be looked at there, and gradients are taken by `torch.func` alone.
    """
    return torch.compiler.is_compiling() or _C._functorch.maybe_current_level() is not None


def is_observed() -> bool:
    """Whether a dispatch mode watches the operations, as one that records them for replay does.

    Numbers are not looked at there: a recording must not depend on them.
    """
    return _C._len_torch_dispatch_stack() > 0


def checked_positive(name: str, value: float | Tensor) -> float | Tensor:
    """A positive number or tensor given by the user; NaN in a tensor stands for "not known".

    The entries of a tensor are looked at where that costs nothing, on the CPU outside of
    `torch.compile`. Elsewhere those that are not positive become NaN, so that nothing is computed
    from them unnoticed.

    Args:
        name: What it is called in the error.
        value: The number, or a tensor of any shape.

    Returns:
        The value.

    Raises:
        ValueError: If a number, or an entry of a tensor on the CPU, is not positive.
    """
    if not isinstance(value, Tensor):
        if not (isinstance(value, Real) and value > 0.0):
            raise ValueError(f"{name} must be positive, got {value!r}")
        return value
    if (
        type(value) in (Tensor, nn.Parameter)
        and value.device.type == "cpu"
        and not is_transformed()
        and not is_observed()
    ):
        if bool((value <= 0.0).any()):
            raise ValueError(
                f"{name} must be positive, got a tensor of shape {tuple(value.shape)} whose least "
                f"entry is {float(value.nan_to_num(math.inf).min())}"
            )
        return value
    return torch.where(value > 0.0, value, math.nan)


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
    v = checked_velocity(velocity(x, full_times(x, t, event_ndim)), x)
    # A field that adds its float32 times to narrower samples must not widen the samples.
    return v if at_least_float32(x) == x.dtype else v.to(x.dtype)


def full_times(x: Tensor, t: float, event_ndim: int) -> Tensor:
    """The same time for every sample of `x`, (*batch), float32 or wider."""
    # new_full fills on the device: no copy from the host, so it can be captured in a CUDA graph.
    return x.new_full(batch_shape(x, event_ndim), t, dtype=at_least_float32(x))


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


def masked(values: Tensor, mask: Tensor | None, event_ndim: int) -> Tensor:
    """`values` with 0 where a mask of event entries is False.

    Args:
        values: (*lead, *batch, *event).
        mask: Boolean, broadcasts to the last axes of `values`; None keeps all.
        event_ndim: Number of trailing axes that make up one sample.

    Raises:
        ValueError: If the mask is not boolean or does not fit.
    """
    if mask is None:
        return values
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean, True where an entry counts, got {mask.dtype}")
    if mask.ndim < event_ndim or not broadcasts(mask.shape, values.shape):
        raise ValueError(
            f"mask of shape {tuple(mask.shape)} does not fit values of shape "
            f"{tuple(values.shape)}; expected (*batch, *event) with {event_ndim} event axes"
        )
    # where, not a product: what is padding may be NaN.
    return torch.where(mask, values, 0.0)


def check_same_shape(name: str, value: Tensor, of: str, x: Tensor) -> None:
    """Refuse two tensors of different shape, since a broadcast would pass unnoticed.

    Raises:
        ValueError: If the shapes differ.
    """
    if value.shape != x.shape:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)} and {of} {tuple(x.shape)}; expected the same"
        )


def expand_time(t: Tensor, x: Tensor) -> Tensor:
    """Append axes of size one to `t` until it has as many axes as `x`; float32 at least.

    Raises:
        ValueError: If `t` has more axes than `x`, or does not broadcast to its first ones.
    """
    if t.ndim > x.ndim or any(n not in (1, m) for n, m in zip(t.shape, x.shape, strict=False)):
        raise ValueError(
            f"times of shape {tuple(t.shape)} do not fit samples of shape {tuple(x.shape)}; "
            "expected one time per sample, (*batch) for (*batch, *event)"
        )
    t = t.to(torch.promote_types(t.dtype, torch.float32))
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
