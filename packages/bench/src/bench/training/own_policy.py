"""The user's own networks in a plan: where they come from, and what the records say of them."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from bench.agents.module_policy import Convention, OwnPolicy, check_methods
from bench.extensions import is_reference, load_reference
from bench.suites import OwnNetworks, Suite
from qlearn import FlowActor

__all__ = ["PlannedNetworks", "fingerprint_of", "networks_of", "with_networks"]


@dataclass(frozen=True, slots=True)
class PlannedNetworks:
    """The user's own networks.

    Attributes:
        record: what decides the numbers.
        policy: where agents take the policy from.
        learning_rates: of its parts.
        is_perceptron: whether the policy is a :class:`qlearn.FlowActor`, as this project clones
            them: on standardised observations.
    """

    record: OwnNetworks
    policy: OwnPolicy
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    is_perceptron: bool = False


def networks_of(
    policy: nn.Module | Callable[[], nn.Module] | str,
    *,
    convention: Convention = "data_at_one",
    learning_rates: Mapping[str, float] | None = None,
) -> PlannedNetworks:
    """The networks of a plan.

    Args:
        policy: a module, which is copied; a function that makes one; or `module:function`.
        convention: of its times and velocities.
        learning_rates: of its parts; see :class:`qlearn.Learner`.

    Raises:
        ValueError: it is no policy, or has nothing to train.
    """
    if isinstance(policy, str):
        if not is_reference(policy):
            raise ValueError(
                f"--policy {policy} must name a function that makes the policy, as module:function"
            )
        own = OwnPolicy(partial(_referenced, policy), convention)
    elif isinstance(policy, nn.Module):
        own = OwnPolicy.copies_of(policy, convention)
    elif callable(policy):
        own = OwnPolicy(policy, convention)
    else:
        check_methods(policy)
        raise AssertionError
    module = policy if isinstance(policy, nn.Module) else own.module(0)
    if not isinstance(module, FlowActor):
        check_methods(module)
    name = policy if isinstance(policy, str) else type(module).__qualname__
    check_trainable(name, module)
    rates = dict(learning_rates or {})
    record = OwnNetworks(name, fingerprint_of(module), convention, tuple(sorted(rates.items())))
    return PlannedNetworks(record, own, rates, isinstance(module, FlowActor))


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


def _referenced(name: str) -> nn.Module:
    """What `module:function` makes."""
    found = load_reference(name)
    if isinstance(found, nn.Module) or not callable(found):
        raise ValueError(
            f"--policy {name} is {type(found).__name__}; expected a function without arguments "
            "that makes the policy"
        )
    made: nn.Module = found()
    return made
