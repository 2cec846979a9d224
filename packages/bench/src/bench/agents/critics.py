"""Critics for observations of every kind: over one vector, over encoded leaves, or the user's."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from bench.agents.module_policy import seeded, without_replicas
from qlearn import (
    CriticEnsemble,
    EncodedCritic,
    Observation,
    ObservationEncoder,
    ObservationNormalizer,
    RandomStreams,
)

__all__ = ["Critic", "ModuleCritic", "ObservationCritic", "OwnCritic"]


class ObservationCritic(nn.Module):
    """An ensemble of critics that normalises and encodes the observations it is asked about.

    Images go through a small residual network (IMPALA's), all other leaves are laid side by side.

    Args:
        normalizer: of the leaves that are no images.
        encoder: from leaves to one vector.
        heads: critics over that and an action chunk.
    """

    def __init__(
        self,
        normalizer: ObservationNormalizer,
        encoder: ObservationEncoder,
        heads: CriticEnsemble,
    ) -> None:
        super().__init__()
        self.inner = EncodedCritic(nn.Sequential(normalizer, encoder), heads)

    def forward(self, observations: Observation, *inputs: Tensor) -> Float[Tensor, "R E B"]:
        """Values of every member, as :class:`qlearn.CriticEnsemble` gives them."""
        values: Tensor = self.inner(self.inner.encode(observations), *inputs)
        return values


class ModuleCritic(nn.Module):
    """A critic of the user's own as an ensemble for one replica.

    Args:
        module: ``forward(observations, actions (B, H, A))`` to values ``(B,)``, or ``(E, B)`` of
            ``E`` critics.
        event: shape ``(H, A)`` of a chunk.
    """

    def __init__(self, module: nn.Module, event: tuple[int, int]) -> None:
        super().__init__()
        self.module, self.event = module, event
        self.eval()

    def train(self, mode: bool = True) -> "ModuleCritic":
        """Stays in evaluation mode, whatever ``mode``, as :class:`ModulePolicy` does."""
        super().train(mode=False)
        return self

    def forward(
        self, observations: Observation, actions: Float[Tensor, "1 B D"]
    ) -> Float[Tensor, "1 E B"]:
        """Values of every member.

        Raises:
            ValueError: the module returns another shape.
        """
        rows = actions.shape[1]
        values = self.module(without_replicas(observations), actions[0].reshape(rows, *self.event))
        name = type(self.module).__name__
        if not isinstance(values, Tensor):
            raise ValueError(
                f"critic {name} returned {type(values).__name__}, expected values ({rows},)"
            )
        if values.dim() not in (1, 2) or values.shape[-1] != rows:
            raise ValueError(
                f"critic {name} returned shape {tuple(values.shape)} for {rows} observations and "
                f"actions; expected one value each, ({rows},), or (critics, {rows})"
            )
        return values.reshape(1, -1, rows)


Critic = CriticEnsemble | ObservationCritic | ModuleCritic


@dataclass(frozen=True, slots=True)
class OwnCritic:
    """Where agents take the user's critic from.

    Attributes:
        factory: makes the module; its random numbers follow from the run's seed.
    """

    factory: Callable[[], nn.Module]

    def build(self, event: tuple[int, int], streams: RandomStreams) -> ModuleCritic:
        """The critic of a run.

        Raises:
            ValueError: several replicas.
        """
        if streams.replicas != 1:
            raise ValueError(
                f"a critic of your own is trained one run at a time, not as {streams.replicas} "
                "replicas: its parameters have no replica axis"
            )
        return ModuleCritic(seeded(self.factory, streams.seeds[0]), event).to(streams.device)
