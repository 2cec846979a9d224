"""Choosing among several sampled actions."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["best_of"]


def best_of(
    noise: Float[Tensor, "R n candidates D"],
    observations: Float[Tensor, "R n O"],
    policy: Callable[[Tensor, Tensor], Tensor],
    value: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, "R n D"]:
    """The most valuable of several actions per observation.

    Args:
        noise: one start of the policy per candidate. With a single candidate the critic is unused.
        observations: what to act on.
        policy: ``(observations (R, m, O), noise (R, m, D)) -> actions (R, m, D)``.
        value: ``(observations (R, m, O), actions (R, m, D)) -> values (R, m)``.
    """
    candidates = noise.shape[2]
    if candidates == 1:
        return policy(observations, noise.squeeze(2))
    repeated = observations.repeat_interleave(candidates, dim=1)
    actions = policy(repeated, noise.flatten(1, 2))
    values = value(repeated, actions).unflatten(1, (-1, candidates))
    best = values.argmax(-1)[..., None, None]
    return torch.take_along_dim(actions.unflatten(1, (-1, candidates)), best, dim=2).squeeze(2)
