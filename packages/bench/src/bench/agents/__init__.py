"""The agents, one file each, and the registry that names them.

Imports torch and the four libraries, nothing of the simulator, the tables or the disk, so that an
agent trains on a bare machine from a source checkout.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from bench.agents._registry import AgentEntry, Registry
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
    """An agent with metrics that are too dear for every update."""

    @property
    def measured_rows(self) -> int:
        """Rows that it wants for them; 0 for no measuring."""

    def measure(self, batch: ChunkBatch, streams: RandomStreams) -> dict[str, Tensor]:
        """Metrics ``(R,)`` on rows and random numbers that no update sees."""


AGENTS = Registry(
    {
        "bc": AgentEntry(
            "behaviour cloning of a flow policy by flow matching", "arXiv 2210.02747", BCConfig, BC
        ),
        "trqam": AgentEntry(
            "adjoint matching inside a path-space KL trust region",
            "arXiv 2605.27079",
            TRQAMConfig,
            TRQAM,
        ),
        "sqam": AgentEntry(
            "TRQAM with the scalar adjoint and a penalty on overrated actions",
            "arXiv 2610.10437",
            SQAMConfig,
            SQAM,
        ),
        "qam": AgentEntry(
            "adjoint matching at a fixed temperature", "arXiv 2601.14234", QAMConfig, QAM
        ),
        "qam-e": AgentEntry(
            "QAM, its actions edited by a small soft actor-critic",
            "arXiv 2601.14234",
            QAMEditConfig,
            QAMEdit,
        ),
        "qam-f": AgentEntry(
            "QAM, distilled into a one-step policy that climbs the critic",
            "arXiv 2601.14234",
            QAMFQLConfig,
            QAMFQL,
        ),
        "fql": AgentEntry(
            "one-step policy that climbs the critic, held at a cloned flow",
            "arXiv 2502.02538",
            FQLConfig,
            FQL,
        ),
        "ifql": AgentEntry(
            "implicit Q-learning, then the best of many samples of a cloned flow",
            "arXiv 2502.02538",
            IFQLConfig,
            IFQL,
        ),
        "dsrl": AgentEntry(
            "soft actor-critic on the noise that a cloned flow starts from",
            "arXiv 2506.15799",
            DSRLConfig,
            DSRL,
        ),
        "cgql-l": AgentEntry(
            "cloned flow guided by a critic on noisy actions (LINEX, MSE or none)",
            "arXiv 2601.14234",
            CGQLConfig,
            CGQL,
            exportable=False,
        ),
        "rebrac": AgentEntry(
            "TD3 with a squared distance to the data's actions",
            "arXiv 2305.09836",
            ReBRACConfig,
            ReBRAC,
            pretrained=False,
        ),
        "rlpd": AgentEntry(
            "soft actor-critic on half offline, half online batches",
            "arXiv 2302.02948",
            RLPDConfig,
            RLPD,
            pretrained=False,
            online_only=True,
        ),
    }
)
