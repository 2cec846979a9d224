"""Trained policies as programs that need neither this package nor its data: `bench export`."""

from bench.export._policy import NoiseInput, Policy
from bench.export._run import TrainedPolicy, find_policy
from bench.export._write import Exported, export_policy

__all__ = [
    "Exported",
    "NoiseInput",
    "Policy",
    "TrainedPolicy",
    "export_policy",
    "find_policy",
]
