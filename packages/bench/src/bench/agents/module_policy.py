"""A velocity model of the user's own as the policy of one run.

The model is an ``nn.Module`` of any kind and size. It has ``velocity(context, x, t)``, asked many
times in one sample, and may have ``encode(observations) -> context``, asked once; without it the
context is the observations. Or it has only ``forward(observations, x, t)``.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flowsde import VelocityField, module_field, reversed_flow_field
from qlearn import FlowActor, Observation, RandomStreams, tree_map

__all__ = [
    "Convention",
    "ModuleField",
    "ModulePolicy",
    "OwnPolicy",
    "check_methods",
    "seeded",
    "without_replicas",
]

Convention: TypeAlias = Literal["data_at_one", "noise_at_one"]
"""Of times and velocities: data at t=1 and ``v = data - noise``, or noise at t=1 and
``v = noise - data``, as in openpi and LeRobot."""


class ModulePolicy(nn.Module):
    """A velocity model in the shapes of :class:`qlearn.FlowActor` with one replica.

    The model sees plain batches: every leaf of the observations ``(B, *leaf)``, actions
    ``(B, H, A)``, times ``(B,)`` in float32; along a path the batch is ``K * B``, and so is the
    context, which must be a tensor with ``B`` rows or a dict, list or tuple of such. It stays in
    evaluation mode: with dropout or the statistics of a batch, two equal policies would be many
    nats apart. Parameters that require no gradient stay as they are.

    Args:
        module: the model; taken as it is, not copied.
        horizon: chunk length ``H``.
        action_dim: size ``A`` of an action.
        convention: of the model's times and velocities.

    Raises:
        ValueError: the module has none of the methods.
    """

    def __init__(
        self,
        module: nn.Module,
        horizon: int,
        action_dim: int,
        convention: Convention = "data_at_one",
    ) -> None:
        super().__init__()
        check_methods(module)
        self.module = module
        self.event = (horizon, action_dim)
        self.convention = convention
        self.eval()

    def train(self, mode: bool = True) -> "ModulePolicy":
        """Stays in evaluation mode, whatever ``mode``; parameters train all the same."""
        super().train(mode=False)
        return self

    def forward(
        self, observations: Observation, x: Float[Tensor, "*shape"], t: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*shape"]:
        """Velocity at ``x (*lead, 1, B, D)``, ``t (*lead, 1, B)``; ``*lead`` may be path times."""
        return self.field(observations)(x, t)

    def field(self, observations: Observation) -> "ModuleField":
        """The velocity field ``(x, t) -> v``; the observations are encoded here, once.

        The encoding has a gradient where gradients are recorded.
        """
        seen, module = without_replicas(observations), self.module
        encode = getattr(module, "encode", None)
        return ModuleField(self, seen if encode is None else encode(seen))

    def velocity(self, context: Any, x: Tensor, t: Tensor) -> Tensor:
        """The model's velocity for ``x (N, H, A)``, ``t (N,)``, from noise at t=0 to data."""
        model: Callable[..., Tensor] = getattr(self.module, "velocity", self.module)
        if self.convention == "data_at_one":
            return model(context, x, t)
        return reversed_flow_field(lambda x, t: model(context, x, t), timesteps=1.0)(x, t)


@dataclass(frozen=True, slots=True)
class ModuleField:
    """The velocity field of a :class:`ModulePolicy` at given observations.

    Attributes:
        policy: whose field it is.
        context: what the model made of the observations.
    """

    policy: ModulePolicy
    context: Any

    def __call__(
        self, x: Float[Tensor, "*shape"], t: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*shape"]:
        """Velocity at ``x (*lead, 1, B, D)``, ``t (*lead, 1, B)``."""
        batch = (*x.shape[:-3], x.shape[-2])
        times = t.expand(x.shape[:-1]).reshape(batch)
        velocity = self._plain()(x.reshape(*batch, *self.policy.event), times)
        return velocity.to(x.dtype).reshape(x.shape)

    def _plain(self) -> VelocityField:
        """The field for ``x (*lead, B, H, A)``."""
        if self.context is None:
            return module_field(lambda x, t: self.policy.velocity(None, x, t), event_ndim=2)
        return module_field(
            lambda x, t, context: self.policy.velocity(context, x, t), self.context, event_ndim=2
        )


class _Factory(Protocol):
    def __call__(self) -> nn.Module: ...


@dataclass(frozen=True, slots=True)
class OwnPolicy:
    """Where agents take the user's policy from, instead of building a perceptron.

    Attributes:
        factory: makes the module; its random numbers follow from the run's seed.
        convention: of its times and velocities.
    """

    factory: _Factory
    convention: Convention = "data_at_one"

    @classmethod
    def copies_of(cls, module: nn.Module, convention: Convention = "data_at_one") -> "OwnPolicy":
        """Copies of a module that exists, which is left as it is."""
        return cls(lambda: copy.deepcopy(module), convention)

    def build(
        self,
        horizon: int,
        action_dim: int,
        streams: RandomStreams,
        replicated: Callable[[], FlowActor],
    ) -> FlowActor | ModulePolicy:
        """The policy of a run.

        Args:
            horizon: chunk length ``H``.
            action_dim: size ``A`` of an action.
            streams: of the run.
            replicated: makes the perceptron that an agent has without a policy of the user's; taken
                with the factory's parameters where that gives such a perceptron itself.

        Raises:
            ValueError: several replicas, or a module without the methods of a policy.
        """
        module = self.module(streams.seeds[0])
        if isinstance(module, FlowActor):
            actor = replicated()
            actor.load_state_dict(module.state_dict())
            return actor
        if streams.replicas != 1:
            raise ValueError(
                f"a policy of your own is trained one run at a time, not as {streams.replicas} "
                "replicas: its parameters have no replica axis"
            )
        return ModulePolicy(module, horizon, action_dim, self.convention).to(streams.device)

    def module(self, seed: int) -> nn.Module:
        """A fresh module."""
        return seeded(self.factory, seed)


def seeded(factory: Callable[[], nn.Module], seed: int) -> nn.Module:
    """What a factory makes from a seed; torch's global random numbers are left as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return factory()


def without_replicas(observations: Observation) -> Observation:
    """Observations ``(1, B, *leaf)`` of one replica as ``(B, *leaf)``."""
    return tree_map(_only_replica, observations)


def check_methods(module: object) -> None:
    """Refuse what is no velocity model.

    Raises:
        ValueError: says what was given and what a policy has.
    """
    wanted = (
        "a policy is an nn.Module with velocity(context, x, t) and, if it has a context of its "
        "own, encode(observations) -> context; or with forward(observations, x, t)"
    )
    if not isinstance(module, nn.Module):
        raise ValueError(f"got {type(module).__name__} as a policy; {wanted}")
    methods = {name: callable(getattr(module, name, None)) for name in ("velocity", "encode")}
    has_forward = type(module).forward is not nn.Module.forward
    if not methods["velocity"] and (methods["encode"] or not has_forward):
        found = "encode but no velocity" if methods["encode"] else "neither velocity nor forward"
        raise ValueError(f"{type(module).__name__} has {found}; {wanted}")


def _only_replica(leaf: Tensor) -> Tensor:
    if leaf.shape[0] != 1:
        raise ValueError(
            f"observations of shape {tuple(leaf.shape)} are of {leaf.shape[0]} replicas; your own "
            "policy takes (1, B, ...)"
        )
    return leaf[0]
