"""Velocity fields from networks that take exactly one batch axis."""

from collections.abc import Callable

from jaxtyping import Shaped
from torch import Tensor

from flowsde._field import VelocityField, batch_shape, broadcasts, checked_velocity


def module_field(
    module: Callable[..., Tensor], *conditions: Shaped[Tensor, "batch ..."], event_ndim: int = 1
) -> VelocityField:
    """Field of a network called as `module(x, t, *conditions)` with one batch axis.

    Convolutions, attention and most published models want x as (B, *event) and t as (B,), while a
    field may be asked along a whole path, (K, B, *event). Here the batch axes are folded into one
    and every condition (class labels, prompt embeddings) is repeated over the axes before B.

    Args:
        module: The network; it returns the shape of its x. A model whose output is an object is
            wrapped first, `lambda x, t: unet(x, t).sample` for those of `diffusers`; so is one
            with another order of arguments, `lambda x, t: unet(t, x)` for those of `torchcfm`.
        conditions: Tensors of any dtype whose first axis B is the last batch axis of the samples.
            What is the same for all samples, or no tensor, is closed over instead.
        event_ndim: Number of trailing axes that make up one sample: 3 for images (C, H, W).

    Returns:
        A velocity field for x (*lead, B, *event) and t (*lead, B).

    Raises:
        ValueError: If a condition is no tensor; when called, if one is not as long as the batch,
            the times do not fit it (another `event_ndim` elsewhere), or the network returns
            another shape.
    """
    for condition in conditions:
        if not isinstance(condition, Tensor):
            raise ValueError(
                f"a condition must be a tensor with one row per sample, got {condition!r}: close "
                "over anything else, `lambda x, t: net(x, t, value)`"
            )

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        batch = batch_shape(x, event_ndim)
        for condition in conditions:
            if condition.ndim == 0 or not batch or len(condition) != batch[-1]:
                raise ValueError(
                    f"a condition of shape {tuple(condition.shape)} does not fit samples of batch "
                    f"shape {tuple(batch)}: its first axis must be the last batch axis"
                )
        if not broadcasts(t.shape, batch):
            raise ValueError(
                f"times of shape {tuple(t.shape)} do not fit samples of shape {tuple(x.shape)} "
                f"with event_ndim={event_ndim}: give the kernel or sampler and module_field the "
                "same event_ndim"
            )
        flat = x.reshape(-1, *x.shape[len(batch) :])
        repeated = (c.expand(*batch[:-1], *c.shape).reshape(-1, *c.shape[1:]) for c in conditions)
        v = module(flat, t.expand(batch).reshape(-1), *repeated)
        return checked_velocity(v, flat).reshape(x.shape)

    return velocity
