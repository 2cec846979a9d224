"""The user's own networks in a plan: where they come from, and what the records say of them."""

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from bench.agents.critics import OverContext, OwnCritic
from bench.agents.module_policy import Convention, OwnPolicy, check_methods, seeded
from bench.extensions import is_reference, load_reference
from bench.suites import OwnNetworks, Suite
from qlearn import FlowActor

__all__ = [
    "CONTEXT",
    "OwnModule",
    "PlannedNetworks",
    "fingerprint_of",
    "networks_of",
    "with_networks",
]


CONTEXT = "context"
"""Instead of a critic: the project's, over the policy's context."""

OwnModule: TypeAlias = nn.Module | Callable[[], nn.Module] | str
"""A policy of the user's: a module, a function that makes one, or `module:function`."""


@dataclass(frozen=True, slots=True)
class PlannedNetworks:
    """The user's own networks.

    Attributes:
        record: what decides the numbers.
        policy: where agents take the policy from.
        learning_rates: of its parts.
        critic: where they take the critic from; None for one of the project's.
        action_mask: entries ``(H, A)`` of a chunk that count, or ``(A,)`` of every action.
        is_perceptron: whether the policy is a :class:`qlearn.FlowActor`, as this project clones
            them: on standardised observations.
    """

    record: OwnNetworks
    policy: OwnPolicy
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    critic: OwnCritic | OverContext | None = None
    action_mask: NDArray[np.bool_] | None = None
    is_perceptron: bool = False

    def counting(self, horizon: int, action_dim: int) -> tuple[bool, ...]:
        """For each entry of a chunk whether it counts; empty where all do.

        Raises:
            ValueError: the mask is of other chunks, or leaves nothing.
        """
        mask, chunk = self.action_mask, (horizon, action_dim)
        if mask is None:
            return ()
        if mask.shape not in (chunk, chunk[1:]) or not mask.any():
            raise ValueError(
                f"action_mask has shape {mask.shape} with {mask.sum()} entries that count; "
                f"expected (action,) = {chunk[1:]} or (chunk length, action) = {chunk}, and one "
                "that counts"
            )
        return tuple(map(bool, np.broadcast_to(mask, chunk).ravel()))


def networks_of(
    policy: OwnModule,
    *,
    convention: Convention = "data_at_one",
    learning_rates: Mapping[str, float] | None = None,
    critic: OwnModule | Literal["context"] | None = None,
    action_mask: ArrayLike | None = None,
    micro_batches: int = 1,
) -> PlannedNetworks:
    """The networks of a plan.

    Args:
        policy: a module, which is copied; a function that makes one; or `module:function`.
        convention: of its times and velocities.
        learning_rates: of its parts; see :class:`qlearn.Learner`.
        critic: the user's own, likewise; `context` for the project's over the policy's context;
            None for one over the observations.
        action_mask: entries that count, ``(A,)`` or ``(H, A)``; None for all.
        micro_batches: parts that a batch is evaluated in.

    Raises:
        ValueError: it is no policy, or has nothing to train.
    """
    own = OwnPolicy(_factory("policy", policy), convention)
    module = policy if isinstance(policy, nn.Module) else own.module(0)
    if not isinstance(module, FlowActor):
        check_methods(module)
    name = policy if isinstance(policy, str) else type(module).__qualname__
    check_trainable(name, module)
    _copied("policy", module)
    rates = dict(learning_rates or {})
    own_critic: OwnCritic | OverContext | None = None
    critic_record = ""
    if isinstance(critic, str) and critic == CONTEXT:
        own_critic, critic_record = OverContext(own), CONTEXT
    elif critic is not None:
        own_critic = OwnCritic(_factory("critic", critic))
        judge = critic if isinstance(critic, nn.Module) else seeded(own_critic.factory, 0)
        if not isinstance(judge, nn.Module):
            raise ValueError(f"critic is {type(judge).__name__}, expected an nn.Module")
        check_trainable(f"critic {type(judge).__qualname__}", judge)
        _copied("critic", judge)
        critic_record = f"{type(judge).__qualname__}@{fingerprint_of(judge)}"
    record = OwnNetworks(
        name,
        fingerprint_of(module),
        convention,
        tuple(sorted(rates.items())),
        critic_record,
        "" if action_mask is None else repr(np.asarray(action_mask, bool).astype(int).tolist()),
        micro_batches,
    )
    mask = None if action_mask is None else np.asarray(action_mask, bool)
    perceptron = isinstance(module, FlowActor)
    return PlannedNetworks(record, own, rates, own_critic, mask, perceptron)


def with_networks(chosen: Suite, networks: PlannedNetworks) -> Suite:
    """A suite whose policies are the user's.

    Their module is given observations as the environment gives them, not standardised.
    """
    domains = tuple(replace(domain, networks=networks.record) for domain in chosen.domains)
    protocol = chosen.protocol
    if not networks.is_perceptron:
        protocol = replace(protocol, standardise=False)
    return replace(chosen, domains=domains, protocol=protocol)


def check_trainable(name: str, module: nn.Module) -> None:
    """Refuse a module that nothing could be learnt by.

    Raises:
        ValueError: nothing requires a gradient, or what does is narrower than float32.
    """
    trained = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
    if not trained:
        total = sum(p.numel() for p in module.parameters())
        raise ValueError(
            f"{name} has nothing to train: none of its {total:,} parameters requires a gradient; "
            "call requires_grad_() on the parts that are to be fine-tuned"
        )
    for where, parameter in trained:
        if torch.promote_types(parameter.dtype, torch.float32) != parameter.dtype:
            raise ValueError(
                f"{name}: {where} is trained in {parameter.dtype}, in which a step of 3e-4 of its "
                "value is lost to rounding; call .float() on what is trained (frozen parts may be "
                "narrower) and give precision='bfloat16' for fast products"
            )


def fingerprint_of(module: nn.Module) -> str:
    """SHA-256 of names, shapes, types and values of a module's parameters and buffers."""
    digest = hashlib.sha256(type(module).__qualname__.encode())
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    for name, value in module.state_dict().items():
        facts: list[Any] = [name, str(value.dtype), list(value.shape), name in trained]
        digest.update(repr(facts).encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _factory(what: str, given: OwnModule) -> Callable[[], nn.Module]:
    """A function that makes the module."""
    if isinstance(given, str):
        if not is_reference(given):
            raise ValueError(
                f"--{what} {given} must name a function that makes the {what}, as module:function"
            )
        return partial(_referenced, what, given)
    if isinstance(given, nn.Module):
        return partial(_copied, what, given)
    if callable(given):
        return given
    check_methods(given)
    raise AssertionError


def _copied(what: str, module: nn.Module) -> nn.Module:
    """A copy of a module.

    Raises:
        ValueError: it holds what cannot be copied.
    """
    try:
        return copy.deepcopy(module)
    # Locks, open files, loggers: TypeError; tensors that are no leaves of a graph: RuntimeError.
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"{what} {type(module).__qualname__} cannot be copied, as references and targets are: "
            f"{error}; keep locks, files and tensors of a graph outside of it, or give it a "
            "__deepcopy__"
        ) from error


def _referenced(what: str, name: str) -> nn.Module:
    """What `module:function` makes."""
    found = load_reference(name)
    if isinstance(found, nn.Module) or not callable(found):
        raise ValueError(
            f"--{what} {name} is {type(found).__name__}; expected a function without arguments "
            f"that makes the {what}"
        )
    made: nn.Module = found()
    return made
