"""Simulators: seeded environments, batched evaluation, environments for the online phase.

Everything that a result depends on comes from seeds; worker processes only make it faster. Nothing
here imports torch, and importing this package imports no simulator.
"""

from __future__ import annotations

from bench.simulation._episodes import succeeded
from bench.simulation._pool import SimulatorPool
from bench.simulation._seeding import episode_seed
from bench.simulation.environments import SeededEnv, environment_id, make
from bench.simulation.evaluation import Evaluation, EvaluationError, Policy, Progress, evaluate
from bench.simulation.online import OnlineEnvironments, OnlineStep

__all__ = [
    "Evaluation",
    "EvaluationError",
    "OnlineEnvironments",
    "OnlineStep",
    "Policy",
    "Progress",
    "SeededEnv",
    "SimulatorPool",
    "environment_id",
    "episode_seed",
    "evaluate",
    "make",
    "succeeded",
]
