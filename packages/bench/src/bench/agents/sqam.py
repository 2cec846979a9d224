"""Q-learning with Scalar Adjoint Matching (SQAM), arXiv 2610.10437.

TRQAM with two changes, each of which either method can have by setting: the adjoint is the critic's
gradient at the flow's own action, scaled by the time of the noised action that is regressed on
(`estimator=scalar`), and the critic is held back where it values the policy's actions above the
data's (`value_penalty`).
"""

from dataclasses import dataclass

from bench.agents.estimators import EstimatorName
from bench.agents.trqam import TRQAM, TRQAMConfig

__all__ = ["SQAM", "SQAMConfig"]


@dataclass(frozen=True, slots=True)
class SQAMConfig(TRQAMConfig):
    """Settings of SQAM; those of :class:`TRQAMConfig` with SQAM's published defaults.

    Attributes:
        kl_budget: KL on noised actions (nats, per action of a chunk) that the trust region allows.
        estimator: of the adjoint.
        value_penalty: weight of the policy's mean value less the data's in the critic's loss.
    """

    kl_budget: float = 0.5
    estimator: EstimatorName = "scalar"
    value_penalty: float = 0.3


class SQAM(TRQAM):
    """SQAM for a pack of independent runs; see :class:`TRQAM`."""
