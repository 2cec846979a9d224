"""The flow-matching loss, which is behaviour cloning when the data are actions."""

from jaxtyping import Float
from torch import Tensor

from flowsde._field import VelocityField, batch_shape, checked_velocity
from flowsde._interpolant import LINEAR, Interpolant


def flow_matching_loss(
    velocity: VelocityField,
    x1: Float[Tensor, "*shape"],
    x0: Float[Tensor, "*shape"],
    t: Float[Tensor, "*batch"],
    interpolant: Interpolant = LINEAR,
    event_ndim: int = 1,
) -> Float[Tensor, "*batch"]:
    """Squared error of the velocity, `||v(x_t, t) - d x_t/dt||^2`, mean over the event axes.

    Minimised in expectation by the marginal velocity of the flow from noise to data
    (Lipman et al., arXiv 2210.02747). Average it over the batch yourself, with weights if needed.

    Args:
        velocity: The field, called with x_t (*batch, *event) and t (*batch).
        x1: Data, (*batch, *event).
        x0: Noise, (*batch, *event).
        t: Times in [0, 1], (*batch).
        interpolant: The path between noise and data.
        event_ndim: Number of trailing axes that make up one sample.

    Returns:
        (*batch,): the mean over the event axes (the published convention), not their sum.

    Raises:
        ValueError: If shapes do not fit.
    """
    if x0.shape != x1.shape:
        raise ValueError(f"noise has shape {tuple(x0.shape)}, data {tuple(x1.shape)}; make equal")
    batch = batch_shape(x1, event_ndim)
    if t.shape != batch:
        raise ValueError(f"t has shape {tuple(t.shape)}; expected the batch shape {tuple(batch)}")
    x_t = interpolant.interpolate(x0, x1, t)
    error = checked_velocity(velocity(x_t, t), x1) - interpolant.velocity(x0, x1, t)
    axes = tuple(range(-event_ndim, 0))
    return error.square().mean(axes) if axes else error.square()
