"""What a run is asked to do: plain data that needs neither torch nor tyro to import.

The command line adds flags to these requests; `import bench` takes them or their fields as keyword
arguments.
"""

from bench.experiment._ablations import (
    DataRequest,
    DualRequest,
    InternalVsExternalRequest,
    KernelsRequest,
    SensitivityRequest,
    SqamRequest,
)
from bench.experiment._build import build_request, command_line, refuse_repeats
from bench.experiment._cost import CostRequest
from bench.experiment._dual import DualSettings
from bench.experiment._execution import (
    Mode,
    Precision,
    PrecisionChoice,
    execution_mode,
    is_captured,
    is_compiled,
    resolved_precision,
)
from bench.experiment._fields import (
    ProtocolOption,
    SettingOption,
    current_flags,
    flag,
    given_settings,
    given_values,
    protocol_options,
    recorded_options,
    setting_options,
)
from bench.experiment._offline import OfflineRequest
from bench.experiment._online import OnlineRequest
from bench.experiment._phase import CLONING, Phase, PhaseName, is_cloning
from bench.experiment._sweep import SweepRequest

__all__ = [
    "CLONING",
    "CostRequest",
    "DataRequest",
    "DualRequest",
    "DualSettings",
    "InternalVsExternalRequest",
    "KernelsRequest",
    "Mode",
    "OfflineRequest",
    "OnlineRequest",
    "Phase",
    "PhaseName",
    "Precision",
    "PrecisionChoice",
    "ProtocolOption",
    "SensitivityRequest",
    "SettingOption",
    "SqamRequest",
    "SweepRequest",
    "build_request",
    "command_line",
    "current_flags",
    "execution_mode",
    "flag",
    "given_settings",
    "given_values",
    "is_captured",
    "is_cloning",
    "is_compiled",
    "protocol_options",
    "recorded_options",
    "refuse_repeats",
    "resolved_precision",
    "setting_options",
]
