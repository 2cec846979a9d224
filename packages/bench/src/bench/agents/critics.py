"""Critics for observations of every kind: over one vector, over encoded leaves, or the user's."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from bench.agents.module_policy import OwnPolicy, seeded, without_replicas
from qlearn import (
    CriticEnsemble,
    EncodedCritic,
    Observation,
    ObservationSpec,
    RandomStreams,
    tree_leaves,
    tree_map,
)

__all__ = [
    "ContextEncoder",
    "Critic",
    "ModuleCritic",
    "ObservationCritic",
    "OverContext",
    "OwnCritic",
]


class ObservationCritic(nn.Module):
    """An ensemble of critics that encodes the observations it is asked about.

    Args:
        encoder: from observations ``(R, B, ...)`` to one vector each, ``(R, B, C)``.
        heads: critics over that and an action chunk.
    """

    def __init__(self, encoder: nn.Module, heads: CriticEnsemble) -> None:
        super().__init__()
        self.inner = EncodedCritic(encoder, heads)

    def forward(self, observations: Observation, *inputs: Tensor) -> Float[Tensor, "R E B"]:
        """Values of every member, as :class:`qlearn.CriticEnsemble` gives them."""
        values: Tensor = self.inner(self.inner.encode(observations), *inputs)
        return values


class ContextEncoder(nn.Module):
    """The context that a policy makes of observations, as one vector, normalised to unit variance.

    The policy is frozen as it was given. Copies of this encoder (a target critic's) share it, and
    it is no part of a state dict: whoever builds it again has the policy.

    Args:
        module: with `encode`; taken as it is.
        spec: of the observations.

    Attributes:
        context_dim: size ``C`` of a context.

    Raises:
        ValueError: the policy has no `encode`, or its context holds no tensor with a row for each.
    """

    def __init__(self, module: nn.Module, spec: ObservationSpec) -> None:
        super().__init__()
        if not callable(getattr(module, "encode", None)):
            raise ValueError(
                f"critic='context' asks the policy for a context, but {type(module).__name__} has "
                "no encode(observations); give critic='auto', or a critic of your own"
            )
        self._shared = _Shared(module.requires_grad_(False).eval())
        rows: Any = tree_map(lambda leaf: torch.zeros(1, 2, *leaf.shape, dtype=leaf.dtype), spec)
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        self.context_dim = self(tree_map(lambda leaf: leaf.to(device), rows)).shape[-1]

    @torch.no_grad()
    def forward(self, observations: Observation) -> Float[Tensor, "1 B C"]:
        """Contexts of observations ``(1, B, *leaf)``, without gradient."""
        seen = without_replicas(observations)
        rows = len(tree_leaves(seen)[0][1])
        parts = [
            leaf.reshape(*leaf.shape[:1], -1).float()
            for leaf in _tensors(self._shared.module.encode(seen))
        ]
        if not parts or any(part.dim() != 2 or len(part) != rows for part in parts):
            shapes = [tuple(part.shape) for part in parts]
            raise ValueError(
                f"the policy's context has parts of shapes {shapes} for {rows} observations; "
                "critic='context' needs tensors with a row for each"
            )
        joined = torch.cat(parts, dim=-1)
        return functional.layer_norm(joined, joined.shape[-1:])[None]


class _Shared:
    """A module that copies of its owner hold as well."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Shared":
        return self


def _tensors(context: Any) -> list[Tensor]:
    """The tensors of a context, in order."""
    if isinstance(context, Tensor):
        return [context]
    parts = context.values() if isinstance(context, Mapping) else context
    if not isinstance(parts, Iterable):
        return []
    return [leaf for part in parts for leaf in _tensors(part)]


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
class OverContext:
    """Critics over what the policy, as it was given, makes of the observations.

    Attributes:
        policy: the user's.
    """

    policy: OwnPolicy

    def encoder(self, spec: ObservationSpec, streams: RandomStreams) -> ContextEncoder:
        """The encoder of a run."""
        module = copy.deepcopy(self.policy.module(streams.seeds[0]))
        return ContextEncoder(module.to(streams.device), spec)


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
