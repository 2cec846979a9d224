"""The discretisations of the memoryless SDE that a policy can be fine-tuned in, by name."""

from typing import Literal, TypeAlias

import torch

from bench.agents.problem import Problem
from flowsde import (
    AdamsBashforthKernel,
    FollmerKernel,
    Interpolant,
    MemorylessEuler,
    TransitionKernel,
)

__all__ = ["KernelName", "memoryless_kernel"]

KernelName: TypeAlias = Literal["memoryless_euler", "follmer", "adams_bashforth"]

# A component that the data hardly move has no scale of its own.
_LEAST_SCALE = 0.01


def memoryless_kernel(
    name: KernelName,
    steps: int,
    problem: Problem,
    device: torch.device,
    *,
    scale: float,
    adjoint_time: Literal["shifted", "consistent"],
    interpolant: Interpolant,
) -> TransitionKernel:
    """The kernel of that name; path, adjoint, matching loss and path KL all follow from it.

    Args:
        name: which.
        steps: network evaluations ``K``.
        problem: sizes, and the spread of the data's actions.
        device: of the scale.
        scale: standard deviation of the data that the kernel is built for, where it is built for
            one; 0 for that of each component of the data's actions (1 where it is not known).
        adjoint_time: of `memoryless_euler`; the others are consistent.
        interpolant: between noise and data.

    Raises:
        ValueError: a scale below zero, or too few steps.
    """
    if scale < 0.0:
        raise ValueError(f"kernel_scale must be positive, or 0 for the data's own, got {scale}")
    if name == "memoryless_euler":
        return MemorylessEuler(steps, adjoint_time=adjoint_time, interpolant=interpolant)
    of_data: float | torch.Tensor = scale or 1.0
    if scale == 0.0 and problem.action_spread:
        spread = torch.tensor(problem.action_spread * problem.horizon, device=device)
        of_data = spread.clamp(min=_LEAST_SCALE)
    if name == "follmer":
        return FollmerKernel(steps, scale=of_data, interpolant=interpolant)
    if steps < 3:
        raise ValueError(f"kernel=adams_bashforth needs at least 3 flow_steps, got {steps}")
    return AdamsBashforthKernel(steps, scale=of_data, interpolant=interpolant)
