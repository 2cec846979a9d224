"""What a run is asked to do: plain data that needs neither torch nor tyro to import.

The command line adds flags to these requests; `import bench` takes them or their fields as keyword
arguments.
"""

from bench.experiment._ablations import (
    DualRequest,
    InternalVsExternalRequest,
    KernelsRequest,
    SqamRequest,
)
from bench.experiment._build import build_request, command_line
from bench.experiment._cost import CostRequest
from bench.experiment._dual import DualSettings
from bench.experiment._offline import (
    SCHEDULE,
    OfflineRequest,
    ScheduleOption,
    given_settings,
)
from bench.experiment._online import OnlineRequest
from bench.experiment._sweep import SweepRequest

__all__ = [
    "SCHEDULE",
    "CostRequest",
    "DualRequest",
    "DualSettings",
    "InternalVsExternalRequest",
    "KernelsRequest",
    "OfflineRequest",
    "OnlineRequest",
    "ScheduleOption",
    "SqamRequest",
    "SweepRequest",
    "build_request",
    "command_line",
    "given_settings",
]
