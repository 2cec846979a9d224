"""Simulators: seeded environments, batched evaluation, environments for the online phase.

Everything that a result depends on comes from seeds; worker processes only make it faster. Nothing
here imports torch, and importing this package imports no simulator.
"""

from __future__ import annotations

from bench.simulation._episodes import Spaces, succeeded, told_success
from bench.simulation._errors import EnvironmentFaultError
from bench.simulation._limits import EnvironmentLimits
from bench.simulation._observations import (
    ArraySpec,
    ArrayTree,
    ObservationSpace,
    map_arrays,
)
from bench.simulation._pool import SimulatorPool
from bench.simulation._rehearsal import Rehearsal, rehearse
from bench.simulation._returned import LARGEST_NUMBER
from bench.simulation._seeding import episode_seed
from bench.simulation.environments import SeededEnv, environment_id, make
from bench.simulation.evaluation import Evaluation, EvaluationError, Policy, Progress, evaluate
from bench.simulation.online import OnlineEnvironments, OnlineStep

__all__ = [
    "LARGEST_NUMBER",
    "ArraySpec",
    "ArrayTree",
    "EnvironmentFaultError",
    "EnvironmentLimits",
    "Evaluation",
    "EvaluationError",
    "ObservationSpace",
    "OnlineEnvironments",
    "OnlineStep",
    "Policy",
    "Progress",
    "Rehearsal",
    "SeededEnv",
    "SimulatorPool",
    "Spaces",
    "environment_id",
    "episode_seed",
    "evaluate",
    "make",
    "map_arrays",
    "rehearse",
    "succeeded",
    "told_success",
]
