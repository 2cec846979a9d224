"""KL between the actions that two flow policies take by their ODEs.

The path KL bounds that of actions sampled by the memoryless SDE. The two laws agree at the optimum
of adjoint matching; before it the KL of the ODEs can be the larger.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from flowsde import VelocityField, ode_log_prob, ode_sample_log_prob

__all__ = ["endpoint_kl"]


def endpoint_kl(
    fine: VelocityField,
    base: VelocityField,
    noise: Float[Tensor, "R n D"],
    steps: int,
    probes: Float[Tensor, "P R n D"] | None = None,
) -> Float[Tensor, "R"]:
    """``E[log p_fine(a) - log p_base(a)]`` over actions of the flow ODE of ``fine``, unclipped.

    Densities are those of the two ODEs by the change of variables (midpoint steps, forward for
    ``fine`` and backward for ``base``). Single samples may be negative; so may the mean of few.

    Args:
        fine: field whose actions are taken.
        base: field that they are compared with.
        noise: where the actions start.
        steps: of the ODE.
        probes: random vectors of unit covariance that estimate the divergence; None computes it.
    """
    kind: Literal["exact", "hutchinson"] = "exact" if probes is None else "hutchinson"
    ours = ode_sample_log_prob(fine, noise, steps, divergence=kind, probes=probes)
    theirs = ode_log_prob(base, ours.sample, steps, divergence=kind, probes=probes)
    return (ours.log_prob - theirs.log_prob).mean(-1)
