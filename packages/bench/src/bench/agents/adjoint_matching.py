"""What QAM and TRQAM minimise: adjoint matching along a memoryless path of the fine-tuned flow.

Adjoint matching, arXiv 2409.08861.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from adjoint import lean_adjoint, matching_loss, terminal_gradient
from bench.agents.diffusion import PolicyField
from bench.agents.noise import Noise, normal
from flowsde import TransitionKernel, VelocityField, sample_path, velocities_along
from trustregion import path_kl

__all__ = ["adjoint_losses", "adjoint_noise"]


def adjoint_noise(batch: int, size: int, steps: int) -> dict[str, Noise]:
    """The random numbers of :func:`adjoint_losses` on ``batch`` chunks of ``size`` numbers."""
    return {"sde_x0": normal(batch, size), "sde_steps": normal(steps, batch, size)}


def adjoint_losses(
    kernel: TransitionKernel,
    fine: PolicyField,
    base: VelocityField,
    reward: Callable[[Tensor], Tensor],
    noise: Mapping[str, Tensor],
    *,
    clip: bool,
    horizon: int,
    lam: float | Tensor = 1.0,
) -> dict[str, Float[Tensor, "R"]]:
    """Sample a path of ``fine``, pull ``-grad reward`` back along it, and regress ``fine`` on that.

    With the lean adjoint ``a_k`` of that path under ``base``, ``dv = v_fine - v_base`` and
    ``sigma_k = g_k/sqrt(lam)``, the published discretisation has the loss
    ``E sum_k ||(2/sigma_k) dv_k + sigma_k a_k||^2`` and the path KL
    ``E sum_k (2 h/g_k^2) ||dv_k||^2 / H``. Other kernels have sums of the same form.

    Args:
        kernel: the memoryless SDE.
        fine: fine-tuned field; the only one that receives gradient. It is evaluated once at each
            point of the path where that is enough.
        base: reference field.
        reward: of actions ``(R, B, D)``.
        noise: ``sde_x0 (R, B, D)`` and ``sde_steps (R, K, B, D)``, normal.
        clip: take the reward's gradient through ``clip(a, -1, 1)``.
        horizon: actions of a chunk.
        lam: of the control problem, a number or ``(R,)``.

    Returns:
        `adjoint_loss`, and `path_kl` in nats per action, ``(R,)`` each and both with gradient.
    """
    steps = noise["sde_steps"].movedim(1, 0)
    recorded = fine.record()
    with torch.no_grad():
        path = sample_path(kernel, recorded, noise["sde_x0"], steps, final_velocity=base)
        base_velocities = velocities_along(kernel, base, path)
    terminal = -terminal_gradient(reward, path.sample, clip=(-1.0, 1.0) if clip else None)
    adjoints = lean_adjoint(kernel, base, path, terminal)
    fine_velocities = velocities_along(kernel, recorded.along, path)
    lam = lam.unsqueeze(-1) if isinstance(lam, Tensor) else lam
    matching = matching_loss(kernel, fine_velocities, base_velocities, adjoints, lam)
    kl = path_kl(kernel, fine_velocities, base_velocities)
    return {"adjoint_loss": matching.mean(-1), "path_kl": kl.mean(-1) / horizon}
