"""What an agent must know of the task: sizes, and nothing of the simulator."""

from dataclasses import dataclass

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
    """

    observation_dim: int
    action_dim: int
    horizon: int = 1
    action_spread: tuple[float, ...] = ()

    @property
    def chunk_dim(self) -> int:
        """Size ``D = H * A`` of a flat action chunk, first step first."""
        return self.horizon * self.action_dim
