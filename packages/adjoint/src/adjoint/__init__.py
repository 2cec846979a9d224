"""Adjoint matching: fine-tune a flow model towards a reward by regression on a lean adjoint.

One update is `sample_path` (flowsde) -> `terminal_gradient` -> `lean_adjoint` -> `matching_loss`.
Samples have shape (*batch, *event); whatever belongs to a path has a leading time axis.
"""

from adjoint._accumulate import Accumulated, accumulate_gradients
from adjoint._lean import LinearizableField, lean_adjoint
from adjoint._matching import matching_loss
from adjoint._terminal import terminal_gradient

__all__ = [
    "Accumulated",
    "LinearizableField",
    "accumulate_gradients",
    "lean_adjoint",
    "matching_loss",
    "terminal_gradient",
]
