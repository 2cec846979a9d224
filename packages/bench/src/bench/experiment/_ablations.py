"""The requests of comparisons: parts of a method with what they replace, and data with others."""

from dataclasses import dataclass
from pathlib import Path

from bench.experiment._offline import OfflineRequest

__all__ = [
    "DataRequest",
    "DualRequest",
    "InternalVsExternalRequest",
    "KernelsRequest",
    "SensitivityRequest",
    "SqamRequest",
]


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


@dataclass(frozen=True)
class SensitivityRequest(OfflineRequest):
    """One agent on a suite, one setting changed at a time (the study of arXiv 2601.14234).

    Attributes:
        unclipped: also without a gradient clip.
        num_critics: sizes of the critic ensemble.
        flow_steps: numbers of flow steps.
        factors: of the agent's strength: inverse_temperature, or kl_budget where it has one.
    """

    agent: tuple[str, ...] = ("qam",)
    unclipped: bool = True
    num_critics: tuple[int, ...] = (2, 10)
    flow_steps: tuple[int, ...] = (1, 3, 20, 30)
    factors: tuple[float, ...] = (0.1, 0.3, 3.0, 10.0)


@dataclass(frozen=True)
class DataRequest(OfflineRequest):
    """The tasks of a suite, learnt from data of several kinds.

    Attributes:
        kinds: of data, such as navigate, stitch and explore, or play and noisy; by default all that
            can be made here for each domain.
    """

    kinds: tuple[str, ...] = ()
