"""Flow models as stochastic processes: interpolants, memoryless SDEs, Gaussian transition kernels.

Samples have shape (*batch, *event), times the batch shape; t=0 is noise and t=1 data. A velocity
field is any callable `(x, t) -> v`.
"""

from flowsde._adams_bashforth import AdamsBashforthKernel
from flowsde._adapters import (
    DiffusionPrediction,
    guided_field,
    reversed_flow_field,
    variance_preserving_field,
)
from flowsde._bridge import BridgeKernel, bridge_path
from flowsde._diffusers import DiffusersFlow
from flowsde._field import (
    VelocityField,
    along_path,
    at_least_float32,
    broadcasts,
    checked_positive,
    checked_velocity,
    full_times,
    is_transformed,
    masked,
)
from flowsde._flow_matching import flow_matching_loss
from flowsde._follmer import FollmerKernel
from flowsde._interpolant import CosineInterpolant, Interpolant, LinearInterpolant
from flowsde._kernel import (
    Coefficients,
    StepCoefficients,
    TransitionKernel,
    coefficient_like,
)
from flowsde._likelihood import Divergence, OdeDensity, ode_log_prob, ode_sample_log_prob
from flowsde._lora import adapters_off, without_adapters
from flowsde._memoryless_euler import MemorylessEuler
from flowsde._modules import Condition, module_field
from flowsde._ode import OdeMethod, SampleMethod, ode_sample
from flowsde._path import Path, path_times, sample_path, step_log_prob, velocities_along
from flowsde._prediction import Prediction, from_velocity, to_velocity, velocity_field
from flowsde._schedule import ScheduleInterpolant, ScheduleValues
from flowsde._time_grid import TimeGrid, time_grid

__all__ = [
    "AdamsBashforthKernel",
    "BridgeKernel",
    "Coefficients",
    "Condition",
    "CosineInterpolant",
    "DiffusersFlow",
    "DiffusionPrediction",
    "Divergence",
    "FollmerKernel",
    "Interpolant",
    "LinearInterpolant",
    "MemorylessEuler",
    "OdeDensity",
    "OdeMethod",
    "Path",
    "Prediction",
    "SampleMethod",
    "ScheduleInterpolant",
    "ScheduleValues",
    "StepCoefficients",
    "TimeGrid",
    "TransitionKernel",
    "VelocityField",
    "adapters_off",
    "along_path",
    "at_least_float32",
    "bridge_path",
    "broadcasts",
    "checked_positive",
    "checked_velocity",
    "coefficient_like",
    "flow_matching_loss",
    "from_velocity",
    "full_times",
    "guided_field",
    "is_transformed",
    "masked",
    "module_field",
    "ode_log_prob",
    "ode_sample",
    "ode_sample_log_prob",
    "path_times",
    "reversed_flow_field",
    "sample_path",
    "step_log_prob",
    "time_grid",
    "to_velocity",
    "variance_preserving_field",
    "velocities_along",
    "velocity_field",
    "without_adapters",
]
