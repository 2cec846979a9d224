"""Flow models as stochastic processes: interpolants, memoryless SDEs, Gaussian transition kernels.

Samples have shape (*batch, *event), times the batch shape; t=0 is noise and t=1 data. A velocity
field is any callable `(x, t) -> v`.
"""

from flowsde._field import VelocityField, along_path
from flowsde._flow_matching import flow_matching_loss
from flowsde._interpolant import CosineInterpolant, Interpolant, LinearInterpolant
from flowsde._kernel import StepCoefficients, TransitionKernel
from flowsde._memoryless_euler import MemorylessEuler
from flowsde._ode import OdeMethod, ode_sample
from flowsde._path import Path, path_times, sample_path, step_log_prob, velocities_along

__all__ = [
    "CosineInterpolant",
    "Interpolant",
    "LinearInterpolant",
    "MemorylessEuler",
    "OdeMethod",
    "Path",
    "StepCoefficients",
    "TransitionKernel",
    "VelocityField",
    "along_path",
    "flow_matching_loss",
    "ode_sample",
    "path_times",
    "sample_path",
    "step_log_prob",
    "velocities_along",
]
