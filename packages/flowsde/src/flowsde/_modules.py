"""Velocity fields from networks that take exactly one batch axis."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from flowsde._field import VelocityField, batch_shape, broadcasts, checked_velocity

Condition: TypeAlias = Tensor | Mapping[str, Any] | Sequence[Any]
"""A tensor with one row per sample, or a tree of such: dicts, lists and tuples of conditions."""


def module_field(
    module: Callable[..., Tensor], *conditions: Condition, event_ndim: int = 1
) -> VelocityField:
    """Field of a network called as `module(x, t, *conditions)` with one batch axis.

    Convolutions, attention and most published models want x as (B, *event) and t as (B,), while a
    field may be asked along a whole path, (K, B, *event). Here the batch axes are folded into one
    and every condition (class labels, prompt embeddings, a dict of observations) is repeated over
    the axes before B.

    A module with dropout or batch norm in train mode is warned of when it is asked: it answers
    differently every time, and two equal networks then are many nats apart.

    Args:
        module: The network; it returns the shape of its x. A model whose output is an object is
            wrapped first, `lambda x, t: unet(x, t).sample` for those of `diffusers`; so is one
            with another order of arguments, `lambda x, t: unet(t, x)` for those of `torchcfm`.
        conditions: Tensors of any dtype whose first axis B is the last batch axis of the samples,
            or dicts, lists and tuples of such. What is the same for all samples, or no tensor, is
            closed over instead.
        event_ndim: Number of trailing axes that make up one sample: 3 for images (C, H, W).

    Returns:
        A velocity field for x (*lead, B, *event) and t (*lead, B).

    Raises:
        ValueError: If a condition is no tensor; when called, if one is not as long as the batch,
            the times do not fit it (another `event_ndim` elsewhere), or the network returns
            another shape.
    """
    for number, condition in enumerate(conditions):
        _mapped(lambda leaf: leaf, condition, f"condition {number}")

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        batch = batch_shape(x, event_ndim)
        if not broadcasts(t.shape, batch):
            raise ValueError(
                f"times of shape {tuple(t.shape)} do not fit samples of shape {tuple(x.shape)} "
                f"with event_ndim={event_ndim}: give the kernel or sampler and module_field the "
                "same event_ndim"
            )

        def repeated(leaf: Tensor) -> Tensor:
            if leaf.ndim == 0 or not batch or len(leaf) != batch[-1]:
                raise ValueError(
                    f"a condition of shape {tuple(leaf.shape)} does not fit samples of batch "
                    f"shape {tuple(batch)}: its first axis must be the last batch axis"
                )
            return leaf.expand(*batch[:-1], *leaf.shape).reshape(-1, *leaf.shape[1:])

        given = [_mapped(repeated, condition, "a condition") for condition in conditions]
        flat = x.reshape(-1, *x.shape[len(batch) :])
        warn_if_random(module)
        v = module(flat, t.expand(batch).reshape(-1), *given)
        return checked_velocity(v, flat).reshape(x.shape)

    return velocity


def warn_if_random(module: object) -> None:
    """Warn of a network whose layers answer at random or by the batch, in train mode."""
    if not isinstance(module, nn.Module) or not module.training or torch.compiler.is_compiling():
        return
    for name, part in module.named_modules():
        if part.training and isinstance(part, _RANDOM) and getattr(part, "p", 1.0) > 0.0:
            warnings.warn(
                f"{type(part).__name__} {name!r} is in train mode, so the field answers "
                "differently every time it is asked and two equal networks are nats apart: call "
                ".eval() on base and fine-tuned network (their parameters train all the same)",
                stacklevel=3,
            )
            return


_RANDOM = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


def _mapped(function: Callable[[Tensor], Tensor], tree: Condition, name: str) -> Any:
    """The tree with every tensor replaced.

    Raises:
        ValueError: If a leaf is no tensor.
    """
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {key: _mapped(function, part, f"{name}[{key!r}]") for key, part in tree.items()}
    if isinstance(tree, list | tuple):
        parts = [_mapped(function, part, f"{name}[{i}]") for i, part in enumerate(tree)]
        return parts if isinstance(tree, list) else tuple(parts)
    shape = getattr(tree, "shape", None)
    shown = f"{type(tree).__name__} of shape {tuple(shape)}" if shape is not None else repr(tree)
    raise ValueError(
        f"{name} must be a tensor with one row per sample, or a dict, list or tuple of such, got "
        f"{shown[:80]}: torch.as_tensor makes one of an array; close over anything else, `lambda "
        "x, t: net(x, t, value)`"
    )
