"""Agents, data, training, evaluation and result tables for fine-tuning flow policies on OGBench.

Everything that the `bench` command does is a function here. A function takes a request or its
fields as keyword arguments, which have the names of the command's flags, raises exceptions, and
returns a result with polars tables:

    import bench

    result = bench.offline(suite="quick", agent=["trqam", "qam"], seeds=3)
    result.tasks
    result.show()
    policy = bench.load_policy(result.directory, task=1, agent="trqam", seed=0)

Importing `bench` imports neither torch nor the simulators; the functions do. `bench.data` and
`bench.agents` are packages of their own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api.ablations import AblationResult, ablate
    from bench.api.cost import CostResult, SpeedResult, measure_speed, plan
    from bench.api.dry_run import DryRun, dry_run
    from bench.api.finetuner import FineTuner
    from bench.api.policies import RecordedVideo, export_policy, load_policy, record_video
    from bench.api.reading import compare, report, status
    from bench.api.results import ComparisonResult, RunResult, StatusResult
    from bench.api.runs import offline, online, sweep
    from bench.data import load_data
    from bench.errors import BenchError
    from bench.experiment import (
        CostRequest,
        DataRequest,
        DualRequest,
        InternalVsExternalRequest,
        KernelsRequest,
        OfflineRequest,
        OnlineRequest,
        SensitivityRequest,
        SqamRequest,
        SweepRequest,
    )
    from bench.policies import LoadedPolicy
    from bench.speed import SpeedRequest

__all__ = [
    "AblationResult",
    "BenchError",
    "ComparisonResult",
    "CostRequest",
    "CostResult",
    "DataRequest",
    "DryRun",
    "DualRequest",
    "FineTuner",
    "InternalVsExternalRequest",
    "KernelsRequest",
    "LoadedPolicy",
    "OfflineRequest",
    "OnlineRequest",
    "RecordedVideo",
    "RunResult",
    "SensitivityRequest",
    "SpeedRequest",
    "SpeedResult",
    "SqamRequest",
    "StatusResult",
    "SweepRequest",
    "ablate",
    "compare",
    "dry_run",
    "export_policy",
    "load_data",
    "load_policy",
    "measure_speed",
    "offline",
    "online",
    "plan",
    "record_video",
    "report",
    "status",
    "sweep",
]

_HOMES = {
    "bench.api.ablations": ("AblationResult", "ablate"),
    "bench.api.finetuner": ("FineTuner",),
    "bench.api.cost": ("CostResult", "SpeedResult", "measure_speed", "plan"),
    "bench.api.dry_run": ("DryRun", "dry_run"),
    "bench.api.policies": ("RecordedVideo", "export_policy", "load_policy", "record_video"),
    "bench.api.reading": ("compare", "report", "status"),
    "bench.api.results": ("ComparisonResult", "RunResult", "StatusResult"),
    "bench.api.runs": ("offline", "online", "sweep"),
    "bench.data": ("load_data",),
    "bench.errors": ("BenchError",),
    "bench.experiment": (
        "CostRequest",
        "DataRequest",
        "DualRequest",
        "InternalVsExternalRequest",
        "KernelsRequest",
        "OfflineRequest",
        "OnlineRequest",
        "SensitivityRequest",
        "SqamRequest",
        "SweepRequest",
    ),
    "bench.policies": ("LoadedPolicy",),
    "bench.speed": ("SpeedRequest",),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}
_PACKAGES = ("agents", "data", "results")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    if name in _PACKAGES:
        return import_module(f"bench.{name}")
    raise AttributeError(f"module 'bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES])
