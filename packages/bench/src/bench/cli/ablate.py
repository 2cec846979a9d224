"""`bench ablate`: parts of TRQAM against what they replace, settings and data against others."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from bench.cli._flags import AgentNames, DryRun
from bench.experiment import (
    DataRequest,
    DualRequest,
    InternalVsExternalRequest,
    KernelsRequest,
    SensitivityRequest,
    SqamRequest,
)

if TYPE_CHECKING:
    from bench.ablation.commands import SuiteAblation
    from bench.api.ablations import AblationName

__all__ = ["Ablate"]


@dataclass(frozen=True)
class Dual(DualRequest):
    """Descending lambda against solving for it: how fast and how well the path KL is at its budget.

    A real TRQAM agent on a made-up bandit, with critic and reference held; half-way the critic's
    values are scaled. Needs no simulator and takes minutes on one core.
    """

    def run(self) -> int:
        """Follow every rule, print and write."""
        from bench.api.ablations import ablate
        from bench.cli._results import show_ablation

        return show_ablation(ablate("dual", self))


@dataclass(frozen=True)
class InternalVsExternal(DryRun, InternalVsExternalRequest):
    """Trust region inside the control problem against a KL penalty outside, and fixed lambda.

    Success against the realised path KL, one line each. Rerun the command to resume.
    """

    agent: AgentNames = ("trqam",)

    def run(self) -> int:
        """Run every point, print and write."""
        return self.carry_out(lambda request: _train("internal-vs-external", request))


@dataclass(frozen=True)
class Kernels(DryRun, KernelsRequest):
    """Discretisations of the memoryless SDE: success, path KL and measured endpoint KL."""

    agent: AgentNames = ("trqam",)

    def run(self) -> int:
        """Run every point, print and write."""
        return self.carry_out(lambda request: _train("kernels", request))


@dataclass(frozen=True)
class Sqam(DryRun, SqamRequest):
    """SQAM's scalar adjoint and value penalty, each with and without the other."""

    agent: AgentNames = ("trqam",)

    def run(self) -> int:
        """Run every point, print and write."""
        return self.carry_out(lambda request: _train("sqam", request))


@dataclass(frozen=True)
class Sensitivity(DryRun, SensitivityRequest):
    """One agent with one setting changed at a time: clip, critics, flow steps, strength."""

    agent: AgentNames = ("qam",)

    def run(self) -> int:
        """Run every change, print and write."""
        return self.carry_out(lambda request: _train("sensitivity", request))


@dataclass(frozen=True)
class Data(DryRun, DataRequest):
    """The same tasks from data of several kinds: navigate, stitch and explore; play and noisy."""

    agent: AgentNames = ("trqam",)

    def run(self) -> int:
        """Run every kind, print and write."""
        return self.carry_out(lambda request: _train("data", request))


def _train(name: "AblationName", request: "SuiteAblation") -> int:
    from bench.api.ablations import ablate
    from bench.cli._results import show_ablation

    return show_ablation(ablate(name, request))


@dataclass(frozen=True)
class Ablate:
    """Compare parts, settings or data with others: table and figure from one command."""

    action: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Dual, tyro.conf.subcommand("dual")]
        | Annotated[InternalVsExternal, tyro.conf.subcommand("internal-vs-external")]
        | Annotated[Kernels, tyro.conf.subcommand("kernels")]
        | Annotated[Sqam, tyro.conf.subcommand("sqam")]
        | Annotated[Sensitivity, tyro.conf.subcommand("sensitivity")]
        | Annotated[Data, tyro.conf.subcommand("data")]
    ]

    def run(self) -> int:
        """Run the chosen comparison."""
        return self.action.run()
