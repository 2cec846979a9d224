"""The agents, one file each; :mod:`bench.registry` names them.

Imports torch and the four libraries, nothing of the simulator, the tables or the disk, so that an
agent trains on a bare machine from a source checkout.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from bench.agents.bc import BC, BCConfig
from bench.agents.cgql import CGQL, CGQLConfig
from bench.agents.dsrl import DSRL, DSRLConfig
from bench.agents.fql import FQL, FQLConfig
from bench.agents.ifql import IFQL, IFQLConfig
from bench.agents.module_policy import ModulePolicy, OwnPolicy
from bench.agents.networks import FlowPolicy
from bench.agents.noise import Noise, draw
from bench.agents.problem import Problem
from bench.agents.qam import QAM, QAMConfig
from bench.agents.qam_edit import QAMEdit, QAMEditConfig
from bench.agents.qam_fql import QAMFQL, QAMFQLConfig
from bench.agents.rebrac import ReBRAC, ReBRACConfig
from bench.agents.rlpd import RLPD, RLPDConfig
from bench.agents.sqam import SQAM, SQAMConfig
from bench.agents.trqam import TRQAM, TRQAMConfig
from bench.registry import AGENTS, AgentEntry, Registry
from qlearn import ChunkBatch, Learner, RandomStreams

__all__ = [
    "AGENTS",
    "BC",
    "CGQL",
    "DSRL",
    "FQL",
    "IFQL",
    "QAM",
    "QAMFQL",
    "RLPD",
    "SQAM",
    "TRQAM",
    "Agent",
    "AgentEntry",
    "BCConfig",
    "CGQLConfig",
    "DSRLConfig",
    "FQLConfig",
    "FlowPolicy",
    "IFQLConfig",
    "Measuring",
    "ModulePolicy",
    "Noise",
    "OwnPolicy",
    "Problem",
    "QAMConfig",
    "QAMEdit",
    "QAMEditConfig",
    "QAMFQLConfig",
    "RLPDConfig",
    "ReBRAC",
    "ReBRACConfig",
    "Registry",
    "SQAMConfig",
    "TRQAMConfig",
    "draw",
]


class Agent(Protocol):
    """What training and evaluation need of an agent; shapes as in :mod:`bench.agents.trqam`."""

    learner: Learner

    def start_from(self, flow: FlowPolicy) -> None:
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


@runtime_checkable
class Measuring(Protocol):
    """An agent with metrics too expensive to compute at every update."""

    @property
    def measured_rows(self) -> int:
        """Rows that it wants for them; 0 for no measuring."""

    def measure(self, batch: ChunkBatch, streams: RandomStreams) -> dict[str, Tensor]:
        """Metrics ``(R,)`` on rows and random numbers that no update sees."""
