"""`bench ablate`: parts of TRQAM against what they replace."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from bench.cli._flags import AgentNames, DryRun
from bench.experiment import (
    DualRequest,
    InternalVsExternalRequest,
    KernelsRequest,
    SqamRequest,
)

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


def _train(
    name: Literal["internal-vs-external", "kernels", "sqam"],
    request: InternalVsExternalRequest | KernelsRequest | SqamRequest,
) -> int:
    from bench.api.ablations import ablate
    from bench.cli._results import show_ablation

    return show_ablation(ablate(name, request))


@dataclass(frozen=True)
class Ablate:
    """Compare parts of TRQAM with what they replace: table and figure from one command."""

    action: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Dual, tyro.conf.subcommand("dual")]
        | Annotated[InternalVsExternal, tyro.conf.subcommand("internal-vs-external")]
        | Annotated[Kernels, tyro.conf.subcommand("kernels")]
        | Annotated[Sqam, tyro.conf.subcommand("sqam")]
    ]

    def run(self) -> int:
        """Run the chosen comparison."""
        return self.action.run()
