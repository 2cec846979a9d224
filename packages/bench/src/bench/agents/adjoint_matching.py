"""What QAM, TRQAM and SQAM minimise: adjoint matching, with any estimator of the adjoint.

Adjoint matching, arXiv 2409.08861.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from jaxtyping import Bool, Float
from torch import Tensor

from adjoint import AdjointEstimator, matching_loss
from bench.agents.diffusion import PolicyField
from bench.agents.estimators import EstimatorName
from bench.agents.noise import Noise, normal
from bench.agents.reference import ReferenceKind
from bench.agents.settings import FlowAgentSettings, setting
from flowsde import VelocityField
from trustregion import path_kl

__all__ = ["AdjointMatchingSettings", "adjoint_losses", "adjoint_noise", "on_a_perceptron"]


@dataclass(frozen=True, slots=True)
class AdjointMatchingSettings(FlowAgentSettings):
    """Settings of a flow policy that is fine-tuned by adjoint matching."""

    max_gradient_norm: float | None = 1.0
    clip_terminal: bool = setting(True, "take the critic's gradient through `clip(a, -1, 1)`")
    adjoint_time: Literal["shifted", "consistent"] = setting(
        "shifted", "time of the base velocity in the adjoint, `t + h` as published or `t`"
    )
    estimator: EstimatorName = setting(
        "lean",
        "of the adjoint: `lean` as published, `scalar` as in SQAM, `linear_drift`, or "
        "`reinforce`, which never differentiates the critic",
        added="0.2",
    )
    bridge_steps: int = setting(
        10,
        "noised states per sample, for estimators other than `lean`",
        least=1,
        most=1_000,
        added="0.2",
    )
    value_penalty: float = setting(
        0.0,
        "weight of the policy's mean value less the data's in the critic's loss",
        least=0,
        added="0.2",
    )
    reference: ReferenceKind = setting(
        "ema",
        "that the policy is held to: `ema`, the moving average of a clone that goes on being "
        "trained, as published; `frozen`, the policy as it was; `adapters_off`, the policy itself "
        "with its adapters switched off",
        added="0.2",
    )


def on_a_perceptron(config: Any) -> Any:
    """Settings as they can be tried without a policy of the user's, which may have adapters."""
    if isinstance(config, AdjointMatchingSettings) and config.reference == "adapters_off":
        return replace(config, reference="frozen")
    return config


def adjoint_noise(batch: int, size: int, steps: int) -> dict[str, Noise]:
    """The random numbers of :func:`adjoint_losses` on ``batch`` chunks of ``size`` numbers."""
    return {"path_x0": normal(batch, size), "path_noise": normal(steps, batch, size)}


def adjoint_losses(
    estimator: AdjointEstimator,
    fine: PolicyField,
    base: VelocityField,
    reward: Callable[[Tensor], Tensor],
    noise: Mapping[str, Tensor],
    *,
    clip: bool,
    horizon: int,
    lam: float | Tensor = 1.0,
    mask: Bool[Tensor, "D"] | None = None,
) -> tuple[dict[str, Float[Tensor, "R"]], Float[Tensor, "R B D"]]:
    """Estimate the adjoint of ``-reward`` for samples of ``fine``, and regress ``fine`` on it.

    With the adjoint ``a_k`` at the points of the estimator's path, ``dv = v_fine - v_base`` and
    ``sigma_k = g_k/sqrt(lam)``, the published discretisation has the loss
    ``E sum_k ||(2/sigma_k) dv_k + sigma_k a_k||^2`` and the path KL
    ``E sum_k (2 h/g_k^2) ||dv_k||^2 / H``. Other kernels have sums of the same form.

    Args:
        estimator: where the adjoint comes from; `adjoint.LeanAdjoint` as published for QAM and
            TRQAM, which evaluates ``fine`` once at each point of the path where that is enough.
        fine: fine-tuned field; the only one that receives gradient.
        base: reference field.
        reward: of actions ``(R, B, D)``.
        noise: ``path_x0 (R, B, D)`` and ``path_noise (R, K, B, D)``, normal.
        clip: take the reward's gradient through ``clip(a, -1, 1)``.
        horizon: actions of a chunk.
        lam: of the control problem, a number or ``(R,)``.
        mask: entries that count; None for all.

    Returns:
        `adjoint_loss`, and `path_kl` in nats per action, ``(R,)`` each and both with gradient; and
        the samples that the reward was asked about, ``(R, B, D)``, not clipped.
    """
    lam = lam.unsqueeze(-1) if isinstance(lam, Tensor) else lam
    estimate = estimator(
        fine,
        base,
        reward,
        noise["path_x0"],
        noise["path_noise"].movedim(1, 0),
        lam=lam,
        clip=(-1.0, 1.0) if clip else None,
    )
    matching = (
        estimate.matching_loss(lam)
        if mask is None
        else matching_loss(
            estimate.kernel, estimate.fine, estimate.reference, estimate.adjoints, lam, mask=mask
        )
    )
    kl = path_kl(estimate.kernel, estimate.fine, estimate.base, mask=mask)
    losses = {"adjoint_loss": matching.mean(-1), "path_kl": kl.mean(-1) / horizon}
    return losses, estimate.sample
