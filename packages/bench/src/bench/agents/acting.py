"""From policies to actions: the end of a flow, and the best of several candidates."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from flowsde import VelocityField, ode_sample

__all__ = ["best_of", "flow_action"]


@torch.no_grad()
def flow_action(
    field: VelocityField, noise: Float[Tensor, "R B D"], steps: int
) -> Float[Tensor, "R B D"]:
    """End of the flow ODE from ``noise`` by Euler steps, clipped to [-1, 1], without gradient."""
    return ode_sample(field, noise, steps).clamp(-1.0, 1.0)


def best_of(
    noise: Float[Tensor, "R n candidates D"],
    observations: Float[Tensor, "R n O"],
    policy: Callable[[Tensor, Tensor], Tensor],
    value: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, "R n D"]:
    """The most valuable of several actions per observation.

    Args:
        noise: what the policy consumes, per candidate. With one candidate the critic is unused.
        observations: what to act on.
        policy: ``(observations (R, m, O), noise (R, m, ...)) -> actions (R, m, D)``.
        value: ``(observations (R, m, O), actions (R, m, D)) -> values (R, m)``.
    """
    replicas, rows, candidates = noise.shape[:3]
    if candidates == 1:
        return policy(observations, noise.squeeze(2))
    repeated = observations.repeat_interleave(candidates, dim=1)
    actions = policy(repeated, noise.flatten(1, 2))
    values = value(repeated, actions).view(replicas, rows, candidates)
    best = values.argmax(-1)[..., None, None]
    choices = actions.view(replicas, rows, candidates, -1)
    return torch.take_along_dim(choices, best, dim=2).squeeze(2)
