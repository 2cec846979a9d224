"""Q-learning with Scalar Adjoint Matching (SQAM), arXiv 2610.10437.

TRQAM with two changes, each of which either method can have by setting: the adjoint is the critic's
gradient at the flow's own action, scaled by the time of the noised action that is regressed on
(`estimator=scalar`), and the critic is held back where it values the policy's actions above the
data's (`value_penalty`).
"""

from dataclasses import dataclass

from bench.agents.estimators import EstimatorName
from bench.agents.settings import setting
from bench.agents.trqam import TRQAM, TRQAMConfig

__all__ = ["SQAM", "SQAMConfig"]


@dataclass(frozen=True, slots=True)
class SQAMConfig(TRQAMConfig):
    """Settings of SQAM: those of :class:`TRQAMConfig`, with SQAM's published defaults."""

    kl_budget: float = setting(
        0.5,
        "KL on noised actions (nats, per action of a chunk) that the trust region allows",
        above=0,
    )
    estimator: EstimatorName = "scalar"
    value_penalty: float = 0.3


class SQAM(TRQAM):
    """SQAM for a pack of independent runs; see :class:`TRQAM`."""

    config: SQAMConfig
