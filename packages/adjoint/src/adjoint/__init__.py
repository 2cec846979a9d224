"""Adjoint matching: fine-tune a flow model towards a reward by regression on a lean adjoint.

One update is `sample_path` (flowsde) -> `terminal_gradient` -> `lean_adjoint` -> `matching_loss`,
or an `AdjointEstimator` called as one, which also brings the estimators without an SDE path.
Samples have shape (*batch, *event); whatever belongs to a path has a leading time axis.
"""

from adjoint._accumulate import Accumulated, accumulate_gradients
from adjoint._bridge_estimators import LinearDriftAdjoint, ReinforceAdjoint, ScalarAdjoint
from adjoint._estimators import AdjointEstimate, AdjointEstimator, LeanAdjoint, Reward
from adjoint._lean import LinearizableField, lean_adjoint
from adjoint._matching import matching_loss
from adjoint._terminal import terminal_gradient

__all__ = [
    "Accumulated",
    "AdjointEstimate",
    "AdjointEstimator",
    "LeanAdjoint",
    "LinearDriftAdjoint",
    "LinearizableField",
    "ReinforceAdjoint",
    "Reward",
    "ScalarAdjoint",
    "accumulate_gradients",
    "lean_adjoint",
    "matching_loss",
    "terminal_gradient",
]
