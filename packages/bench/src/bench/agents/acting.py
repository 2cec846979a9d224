"""From policies to actions: the end of a flow, and the best of several candidates."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flowsde import VelocityField, ode_sample
from qlearn import Observation, tree_map

__all__ = ["best_of", "flow_action", "sampled"]


@torch.no_grad()
def flow_action(
    field: VelocityField, noise: Float[Tensor, "R B D"], steps: int
) -> Float[Tensor, "R B D"]:
    """End of the flow ODE from ``noise`` by Euler steps, clipped to [-1, 1], without gradient."""
    return ode_sample(field, noise, steps).clamp(-1.0, 1.0)


def sampled(
    noise: Float[Tensor, "R n candidates D"],
    observations: Observation,
    policy: Callable[[Any, Tensor], Tensor],
    value: Callable[[Any, Tensor], Tensor],
) -> tuple[Float[Tensor, "R n candidates D"], Float[Tensor, "R n candidates"]]:
    """Several actions of a policy per observation, and their values.

    Args:
        noise: what the policy consumes, per candidate.
        observations: what to act on, leaves ``(R, n, ...)``.
        policy: ``(observations (R, m, O), noise (R, m, ...)) -> actions (R, m, D)``.
        value: ``(observations (R, m, O), actions (R, m, D)) -> values (R, m)``.
    """
    shape = noise.shape[:3]
    repeated = tree_map(lambda leaf: leaf.repeat_interleave(shape[2], dim=1), observations)
    actions = policy(repeated, noise.flatten(1, 2))
    return actions.view(*shape, -1), value(repeated, actions).view(shape)


def best_of(
    noise: Float[Tensor, "R n candidates D"],
    observations: Observation,
    policy: Callable[[Any, Tensor], Tensor],
    value: Callable[[Any, Tensor], Tensor],
) -> Float[Tensor, "R n D"]:
    """The most valuable of several actions per observation.

    Arguments as of :func:`sampled`; with one candidate the critic is unused.
    """
    if noise.shape[2] == 1:
        return policy(observations, noise.squeeze(2))
    actions, values = sampled(noise, observations, policy, value)
    best = values.argmax(-1)[..., None, None]
    # Not take_along_dim, which torch.export compiles for one number of rows only.
    return actions.gather(2, best.expand(-1, -1, -1, actions.shape[-1])).squeeze(2)
