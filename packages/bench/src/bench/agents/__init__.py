"""The agents, one file each, and the registry that names them.

Imports torch and the four libraries, nothing of the simulator, the tables or the disk, so that an
agent trains on a bare machine from a source checkout.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from bench.agents.bc import BC, BCConfig
from bench.agents.noise import Noise, draw
from bench.agents.problem import Problem
from bench.agents.trqam import TRQAM, TRQAMConfig
from qlearn import ChunkBatch, FlowActor, Learner

__all__ = [
    "AGENTS",
    "BC",
    "TRQAM",
    "Agent",
    "AgentEntry",
    "BCConfig",
    "Noise",
    "Problem",
    "TRQAMConfig",
    "draw",
]


class Agent(Protocol):
    """What training and evaluation need of an agent; shapes as in :mod:`bench.agents.trqam`."""

    learner: Learner

    def start_from(self, flow: FlowActor) -> None:
        """Take a behaviour-cloned flow as the starting point."""

    def noise(self, batch: int) -> dict[str, Noise]:
        """The random numbers that one update consumes."""

    def update(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One update; metrics ``(R,)``."""

    def acting_noise(self, rows: int) -> dict[str, Noise]:
        """The random numbers that acting consumes."""

    def act(self, observations: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """Flat action chunks ``(R, n, D)`` for observations ``(R, n, O)``."""

    def state_dict(self) -> dict[str, Any]:
        """Every parameter and buffer by name."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Inverse of :meth:`state_dict`."""


@dataclass(frozen=True, slots=True)
class AgentEntry:
    """One line of the registry.

    Attributes:
        summary: what the method does, in one line.
        paper: where it is from.
        config: dataclass of its settings, with the published defaults.
        agent: class taking ``(config, problem, streams)``.
        pretrained: whether it starts from a behaviour-cloned flow.
    """

    summary: str
    paper: str
    config: type[Any]
    agent: type[Any]
    pretrained: bool = True


AGENTS: dict[str, AgentEntry] = {
    "bc": AgentEntry(
        "behaviour cloning of a flow policy by flow matching", "arXiv 2210.02747", BCConfig, BC
    ),
    "trqam": AgentEntry(
        "adjoint matching inside a path-space KL trust region",
        "arXiv 2605.27079",
        TRQAMConfig,
        TRQAM,
    ),
}
