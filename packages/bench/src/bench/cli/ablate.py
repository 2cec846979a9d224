"""`bench ablate`: parts of TRQAM against what they replace."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from bench.cli.offline import Offline

__all__ = ["Ablate"]


@dataclass(frozen=True)
class Dual:
    """Descending lambda against solving for it: how fast and how well the path KL is at its budget.

    A real TRQAM agent on a made-up bandit, with critic and reference held; half-way the critic's
    values are scaled. Needs no simulator and takes minutes on one core.

    Attributes:
        budget: path KL, nats per action.
        updates: before the critic's scale changes, and again after it.
        factor: of the critic's values from then on.
        seeds: runs of every rule, trained as one.
        warm_up: updates of cloning, and of the critic, before.
        out: folder of table and figure; runs/ablate-dual by default.
    """

    budget: float = 0.5
    updates: int = 600
    factor: float = 10.0
    seeds: int = 3
    warm_up: int = 600
    out: Path | None = None

    def run(self) -> int:
        """Follow every rule, print and write."""
        from bench.ablation.commands import ablate_dual

        return ablate_dual(self)


@dataclass(frozen=True)
class InternalVsExternal:
    """Trust region inside the control problem against a KL penalty outside, and fixed lambda.

    Success against the realised path KL, a line each. The same command continues.

    Attributes:
        budgets: KL budgets of the internal trust region, nats per action.
        coefficients: fixed weights of the external KL penalty.
        lambdas: fixed lambdas of the control problem, without budget or penalty.
        temperature: lambda of the control problem under the penalty.
        offline: the run at every point.
    """

    budgets: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    coefficients: tuple[float, ...] = (0.03, 0.3, 3.0, 30.0)
    lambdas: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    temperature: float = 0.1
    offline: Annotated[Offline, tyro.conf.arg(name="")] = field(default_factory=Offline)

    def run(self) -> int:
        """Run every point, print and write."""
        from bench.ablation.commands import ablate_trust_region

        return ablate_trust_region(self)


@dataclass(frozen=True)
class Kernels:
    """Discretisations of the memoryless SDE: success, path KL and measured endpoint KL.

    Attributes:
        kernels: which, by TRQAM's setting `kernel`; adams_bashforth takes 3 flow steps or more.
        flow_steps: numbers of flow steps, for each of them.
        endpoint_samples: actions by which the endpoint KL is measured at every log line.
        offline: the run at every point.
    """

    kernels: tuple[str, ...] = ("memoryless_euler", "follmer", "adams_bashforth")
    flow_steps: tuple[int, ...] = (5, 10, 20)
    endpoint_samples: int = 256
    offline: Annotated[Offline, tyro.conf.arg(name="")] = field(default_factory=Offline)

    def run(self) -> int:
        """Run every point, print and write."""
        from bench.ablation.commands import ablate_kernels

        return ablate_kernels(self)


@dataclass(frozen=True)
class Ablate:
    """Compare parts of TRQAM with what they replace: table and figure from one command."""

    action: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Dual, tyro.conf.subcommand("dual")]
        | Annotated[InternalVsExternal, tyro.conf.subcommand("internal-vs-external")]
        | Annotated[Kernels, tyro.conf.subcommand("kernels")]
    ]

    def run(self) -> int:
        """Run the chosen comparison."""
        return self.action.run()
