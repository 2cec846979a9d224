"""What QAM and TRQAM regress: a memoryless path of the fine-tuned flow and its lean adjoint.

Adjoint matching, arXiv 2409.08861.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adjoint import lean_adjoint, terminal_gradient
from bench.agents.diffusion import PolicyField
from flowsde import Path, TransitionKernel, VelocityField, sample_path, velocities_along

__all__ = ["AdjointPath", "adjoint_path"]


@dataclass(frozen=True, slots=True)
class AdjointPath:
    """A path with the velocities and adjoints along it.

    Attributes:
        path: of the fine-tuned flow, without gradient.
        fine: its velocities along the path, ``(K, R, B, D)``, with gradient.
        base: the reference's velocities there, ``(K, R, B, D)``.
        adjoints: ``a_0 .. a_K``, ``(K + 1, R, B, D)``.
    """

    path: Path
    fine: Float[Tensor, "K R B D"]
    base: Float[Tensor, "K R B D"]
    adjoints: Float[Tensor, "points R B D"]


def adjoint_path(
    kernel: TransitionKernel,
    fine: PolicyField,
    base: VelocityField,
    reward: Callable[[Tensor], Tensor],
    noise: Mapping[str, Tensor],
    *,
    clip: bool,
) -> AdjointPath:
    """Sample a path of ``fine`` and pull ``-grad reward`` back along it through ``base``.

    Args:
        kernel: the memoryless SDE.
        fine: fine-tuned field; the only one that receives gradient. It is evaluated once at each
            point of the path where that is enough.
        base: reference field.
        reward: of actions ``(R, B, D)``.
        noise: ``sde_x0 (R, B, D)`` and ``sde_steps (R, K, B, D)``, normal.
        clip: take the reward's gradient through ``clip(a, -1, 1)``.
    """
    steps = noise["sde_steps"].movedim(1, 0)
    recorded = fine.record()
    with torch.no_grad():
        path = sample_path(kernel, recorded, noise["sde_x0"], steps, final_velocity=base)
        base_velocities = velocities_along(kernel, base, path)
    terminal = -terminal_gradient(reward, path.sample, clip=(-1.0, 1.0) if clip else None)
    adjoints = lean_adjoint(kernel, base, path, terminal)
    fine_velocities = velocities_along(kernel, recorded.along, path)
    return AdjointPath(path, fine_velocities, base_velocities, adjoints)
