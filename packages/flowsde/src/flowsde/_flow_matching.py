"""The flow-matching loss, which is behaviour cloning when the data are actions."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flowsde._field import (
    VelocityField,
    at_least_float32,
    batch_shape,
    check_same_shape,
    checked_velocity,
    masked,
)
from flowsde._interpolant import LINEAR, Interpolant


def flow_matching_loss(
    velocity: VelocityField,
    x1: Float[Tensor, "*shape"],
    x0: Float[Tensor, "*shape"],
    t: Float[Tensor, "*batch"],
    interpolant: Interpolant = LINEAR,
    event_ndim: int = 1,
    *,
    mask: Bool[Tensor, "*masked"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Squared error of the velocity, `||v(x_t, t) - d x_t/dt||^2`, mean over the event axes.

    Minimised in expectation by the marginal velocity of the flow from noise to data
    (Lipman et al., arXiv 2210.02747). Average it over the batch yourself, with weights if needed.

    Args:
        velocity: The field, called with x_t (*batch, *event) and t (*batch).
        x1: Data, (*batch, *event).
        x0: Noise, (*batch, *event).
        t: Times in [0, 1], (*batch), best float32 or wider whatever the samples.
        interpolant: The path between noise and data.
        event_ndim: Number of trailing axes that make up one sample.
        mask: True where an event entry counts, False where it is padding; broadcasts to
            (*batch, *event). The mean is over the entries that count, and 0 where none does.

    Returns:
        (*batch,): the mean over the event axes (the published convention), not their sum; float32
        where samples are narrower.

    Raises:
        ValueError: If shapes do not fit.
    """
    check_same_shape("noise x0", x0, "data x1", x1)
    batch = batch_shape(x1, event_ndim)
    if t.shape != batch:
        raise ValueError(f"t has shape {tuple(t.shape)}; expected the batch shape {tuple(batch)}")
    t, wide = t.to(torch.promote_types(t.dtype, torch.float32)), at_least_float32(x1)
    x_t = interpolant.interpolate(x0, x1, t)
    target = interpolant.velocity(x0.to(wide), x1.to(wide), t)
    error = checked_velocity(velocity(x_t, t), x1) - target
    axes = tuple(range(-event_ndim, 0))
    if mask is not None:
        squares = masked(error, mask, event_ndim).square()
        count = mask.expand(squares.shape)
        if not axes:
            return squares
        return squares.sum(axes) / count.sum(axes).clamp(min=1)
    return error.square().mean(axes) if axes else error.square()
