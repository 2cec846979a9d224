"""The requests of comparisons of parts of TRQAM with what they replace."""

from dataclasses import dataclass
from pathlib import Path

from bench.experiment._offline import OfflineRequest

__all__ = ["DualRequest", "InternalVsExternalRequest", "KernelsRequest", "SqamRequest"]


@dataclass(frozen=True)
class DualRequest:
    """Rules for lambda, followed by a TRQAM agent on a made-up bandit.

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


@dataclass(frozen=True)
class InternalVsExternalRequest(OfflineRequest):
    """Kinds of trust region on a suite, each at several strengths.

    Attributes:
        budgets: KL budgets of the internal trust region, nats per action.
        coefficients: fixed weights of the external KL penalty.
        lambdas: fixed lambdas of the control problem, without budget or penalty.
        temperature: lambda of the control problem under the penalty.
    """

    budgets: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    coefficients: tuple[float, ...] = (0.03, 0.3, 3.0, 30.0)
    lambdas: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    temperature: float = 0.1


@dataclass(frozen=True)
class KernelsRequest(OfflineRequest):
    """Discretisations of the memoryless SDE on a suite, each at several numbers of steps.

    Attributes:
        kernels: which, by TRQAM's setting `kernel`; adams_bashforth takes 3 flow steps or more.
        flow_steps: numbers of flow steps, for each of them.
        endpoint_samples: actions by which the endpoint KL is measured at every log line.
    """

    kernels: tuple[str, ...] = ("memoryless_euler", "follmer", "adams_bashforth")
    flow_steps: tuple[int, ...] = (5, 10, 20)
    endpoint_samples: int = 256


@dataclass(frozen=True)
class SqamRequest(OfflineRequest):
    """The two parts of SQAM on a suite, each with and without the other.

    Attributes:
        estimators: of the adjoint, by TRQAM's setting `estimator`.
        penalties: weights of the value penalty, for each of them.
        path_samples: SDE paths by which the realised path KL is measured at every log line.
    """

    estimators: tuple[str, ...] = ("lean", "scalar")
    penalties: tuple[float, ...] = (0.0, 0.3)
    path_samples: int = 256
