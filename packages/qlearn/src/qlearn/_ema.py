"""Exponential moving averages of parameters, the target networks of off-policy learning."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["ema_update"]


@torch.no_grad()
def ema_update(
    targets: Sequence[Tensor], onlines: Sequence[Tensor], tau: float | Float[Tensor, ""]
) -> None:
    """``target <- tau * online + (1 - tau) * target``, in place, all tensors in one call.

    Args:
        targets: averaged parameters.
        onlines: parameters to average, in the same order and of the same shapes.
        tau: rate in ``[0, 1]``; one on the device is taken as it is.

    Raises:
        ValueError: different numbers or shapes of tensors, or a rate outside ``[0, 1]``.
    """
    if len(targets) != len(onlines):
        raise ValueError(f"{len(targets)} targets given for {len(onlines)} online parameters")
    for number, (target, online) in enumerate(zip(targets, onlines, strict=True)):
        if target.shape != online.shape:
            raise ValueError(
                f"target {number} has shape {tuple(target.shape)}, its online parameter "
                f"{tuple(online.shape)}: give both lists in the same order"
            )
    if isinstance(tau, Tensor):
        for target, online in zip(targets, onlines, strict=True):
            target.lerp_(online, tau)
        return
    if not 0.0 <= tau <= 1.0:
        raise ValueError(f"tau must lie in [0, 1], got {tau}")
    torch._foreach_lerp_(list(targets), list(onlines), tau)
