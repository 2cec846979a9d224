"""What an agent must know of the task: sizes, and nothing of the simulator."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.agents.module_policy import OwnPolicy

__all__ = ["Problem"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Sizes of a control problem.

    Attributes:
        observation_dim: size ``O`` of an observation.
        action_dim: size ``A`` of one action.
        horizon: chunk length ``H``; the agent acts on chunks of ``H`` actions, played open loop.
        action_spread: standard deviation of each component of the data's actions ``(A,)``; empty
            where it is not known. Only kernels that are built for a scale of the data read it.
        policy: the user's own policy; None for a perceptron of the sizes in an agent's settings.
        learning_rates: step sizes for parts of the networks, instead of an agent's own; see
            :class:`qlearn.Learner`.
    """

    observation_dim: int
    action_dim: int
    horizon: int = 1
    action_spread: tuple[float, ...] = ()
    policy: OwnPolicy | None = field(default=None, compare=False)
    learning_rates: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def chunk_dim(self) -> int:
        """Size ``D = H * A`` of a flat action chunk, first step first."""
        return self.horizon * self.action_dim
