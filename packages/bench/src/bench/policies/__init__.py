"""Which policy is in a run directory: the one place where a trained agent is found and rebuilt."""

from bench.policies._loaded import LoadedPolicy, observed_rows
from bench.policies._module import NoiseInput, Policy
from bench.policies._trained import TrainedPolicy, built_agent, find_policy, velocity_module

__all__ = [
    "LoadedPolicy",
    "NoiseInput",
    "Policy",
    "TrainedPolicy",
    "built_agent",
    "find_policy",
    "observed_rows",
    "velocity_module",
]
