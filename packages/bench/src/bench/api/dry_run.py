"""What a command would do and cost, without doing it."""

from typing import Any, Literal

from bench.api.state import process_state_kept
from bench.experiment import (
    DataRequest,
    InternalVsExternalRequest,
    KernelsRequest,
    OfflineRequest,
    OnlineRequest,
    SensitivityRequest,
    SqamRequest,
    SweepRequest,
    build_request,
)
from bench.training.dry_run import DryRun, estimate
from bench.training.online_options import plan_online
from bench.training.options import plan_offline
from bench.training.run_plan import Plan
from bench.training.sweep import plan_sweep

__all__ = ["DryRun", "dry_run"]

Command = Literal["offline", "online", "sweep"]

_REQUESTS: dict[Command, type[OfflineRequest]] = {
    "offline": OfflineRequest,
    "online": OnlineRequest,
    "sweep": SweepRequest,
}


def dry_run(
    what: OfflineRequest | Command = "offline", /, *, measure: bool = False, **options: Any
) -> DryRun:
    """The packs that a call would train, with their settings and expected cost; trains nothing.

    Args:
        what: a request, or the function that would be called with the options.
        measure: time matrix products and simulators of this machine, which takes a minute; by
            default the cost rests on stored rates.
        **options: fields of the function's request, such as ``suite="ogbench50"``.

    Raises:
        TypeError: an option that there is not.
        ValueError: whatever the function itself refuses.
    """
    if isinstance(what, str):
        if what not in _REQUESTS:
            raise ValueError(f"expected offline, online, sweep or a request, got {what!r}")
        request = build_request(_REQUESTS[what], None, options)
    else:
        request = build_request(OfflineRequest, what, options)
    with process_state_kept():
        return estimate(_planned(request), measure=measure)


def _planned(request: OfflineRequest) -> Plan:
    match request:
        case OnlineRequest():
            return plan_online(request)
        case SweepRequest():
            return plan_sweep(request)
        case (
            DataRequest()
            | InternalVsExternalRequest()
            | KernelsRequest()
            | SensitivityRequest()
            | SqamRequest()
        ):
            from bench.ablation.commands import plan_ablation  # draws, so it imports matplotlib

            return plan_ablation(request)
        case _:
            return plan_offline(request)
