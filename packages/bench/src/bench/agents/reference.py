"""The reference that a fine-tuned policy is held to, and whether cloning of it goes on."""

import copy
from typing import Literal, TypeAlias

from torch import nn

from bench.agents.module_policy import ModulePolicy
from bench.agents.networks import FlowPolicy
from flowsde import VelocityField, adapters_off, without_adapters
from qlearn import Observation

__all__ = ["AdaptersOff", "ReferenceKind", "averaged", "reference_policy"]

ReferenceKind: TypeAlias = Literal["ema", "frozen", "adapters_off"]


def reference_policy(
    policy: FlowPolicy, fine: FlowPolicy, kind: ReferenceKind
) -> "FlowPolicy | AdaptersOff":
    """What a fine-tuned policy is held to.

    Args:
        policy: where both begin.
        fine: the fine-tuned policy.
        kind: `ema`: the moving average of a clone that goes on being trained (published).
            `frozen`: the policy as it is. `adapters_off`: the fine-tuned policy itself without its
            adapters, so no second copy is held.

    Raises:
        ValueError: `adapters_off` for a policy that cannot switch them off.
    """
    if kind == "adapters_off":
        return AdaptersOff(fine)
    return copy.deepcopy(policy).requires_grad_(False)


def averaged(
    target: "FlowPolicy | AdaptersOff", online: FlowPolicy | None
) -> list[tuple[nn.Module, nn.Module]]:
    """The pair of a moving average and what it averages, if there is one."""
    return [(target, online)] if online is not None and isinstance(target, nn.Module) else []


class AdaptersOff:
    """A policy whose module is asked with its adapters (those of peft) switched off.

    Args:
        policy: a module of the user's.

    Raises:
        ValueError: it has no adapters.
    """

    def __init__(self, policy: FlowPolicy) -> None:
        if not isinstance(policy, ModulePolicy):
            raise ValueError(
                "reference=adapters_off is for a policy of your own with adapters; the agents' own "
                "networks have none: give reference=frozen"
            )
        with adapters_off(policy.module):
            self._policy = policy  # says at once if there are none

    def field(self, observations: Observation) -> VelocityField:
        """The velocity field without adapters; without them the observations are encoded, too."""
        module = self._policy.module
        with adapters_off(module):
            inner = self._policy.field(observations)
        return without_adapters(inner, module)
