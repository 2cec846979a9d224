"""Trained policies as programs that need neither this package nor its data: `bench export`."""

from bench.export._write import Exported, export_policy
from bench.policies import NoiseInput, Policy, TrainedPolicy, find_policy

__all__ = [
    "Exported",
    "NoiseInput",
    "Policy",
    "TrainedPolicy",
    "export_policy",
    "find_policy",
]
