"""The request of an estimate of a suite's cost."""

from dataclasses import dataclass
from pathlib import Path

from bench.experiment._execution import Mode, PrecisionChoice

__all__ = ["CostRequest"]


@dataclass(frozen=True)
class CostRequest:
    """Which suite on which device.

    Attributes:
        suite: quick, quick-manip, ogbench50, ogbench50-qam or ogbench50-fql.
        agent: by which method.
        seeds: per task.
        domains: only these domains.
        online: with the online phase.
        device: part of a device's name in the table, such as h200, or cpu (the fewest threads
            measured).
        devices: how many of them, besides one.
        cores: of the CPU for simulators.
        precision: of the matrix products; auto is tf32, on a cpu float32.
        mode: of execution that the rate was measured in; `bench offline` trains eagerly, with
            --compile compiled, with --capture captured, with both compiled+captured.
        rates: table that `bench speed --out FILE.csv` wrote; the kept one by default.
        utilisation: where nothing was measured, estimate by this part of the device's peak.
        measure: time the suite's simulators on this machine, which takes a minute or two; by
            default their rates are stored ones.
    """

    suite: str = "ogbench50"
    agent: str = "trqam"
    seeds: int = 8
    domains: tuple[str, ...] = ()
    online: bool = False
    device: str = "cpu"
    devices: int = 8
    cores: int = 16
    precision: PrecisionChoice = "auto"
    mode: Mode = "eager"
    rates: Path | None = None
    utilisation: float | None = None
    measure: bool = False
