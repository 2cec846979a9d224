"""The adjoint estimators that a policy can be fine-tuned with, by name."""

from typing import Literal, TypeAlias

from adjoint import (
    AdjointEstimator,
    LeanAdjoint,
    LinearDriftAdjoint,
    ReinforceAdjoint,
    ScalarAdjoint,
)
from flowsde import Interpolant, LinearInterpolant, TransitionKernel

__all__ = ["EstimatorName", "adjoint_estimator"]

EstimatorName: TypeAlias = Literal["lean", "scalar", "linear_drift", "reinforce"]

_ON_BRIDGES: dict[str, type[ScalarAdjoint | LinearDriftAdjoint | ReinforceAdjoint]] = {
    "scalar": ScalarAdjoint,
    "linear_drift": LinearDriftAdjoint,
    "reinforce": ReinforceAdjoint,
}


def adjoint_estimator(
    name: EstimatorName,
    kernel: TransitionKernel,
    *,
    bridge_steps: int,
    flow_steps: int,
    interpolant: Interpolant | None = None,
) -> AdjointEstimator:
    """The estimator of that name; see :mod:`adjoint` for what each costs and leaves out.

    Args:
        name: which.
        kernel: the memoryless SDE; `lean` follows it.
        bridge_steps: noised states per sample; all but `lean` are evaluated there.
        flow_steps: Euler steps to the sample of those.
        interpolant: between noise and data; linear if not given.
    """
    if name == "lean":
        return LeanAdjoint(kernel)
    return _ON_BRIDGES[name](
        bridge_steps, ode_steps=flow_steps, interpolant=interpolant or LinearInterpolant()
    )
