"""The reference that a fine-tuned policy is held to, and whether cloning of it goes on."""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from bench.agents.module_policy import ModulePolicy
from bench.agents.networks import FlowPolicy
from flowsde import VelocityField
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
    """A policy whose module is asked with its adapters switched off, as low-rank ones of peft are.

    Args:
        policy: its module has `disable_adapter()`, a context manager.

    Raises:
        ValueError: it has not.
    """

    def __init__(self, policy: FlowPolicy) -> None:
        if not isinstance(policy, ModulePolicy) or not callable(
            getattr(policy.module, "disable_adapter", None)
        ):
            name = type(getattr(policy, "module", policy)).__name__
            raise ValueError(
                f"reference=adapters_off needs a module with disable_adapter(), as peft's are; "
                f"{name} has none: give reference=frozen, or wrap it by peft.get_peft_model"
            )
        self._policy = policy

    def field(self, observations: Observation) -> "_FieldWithout":
        """The velocity field without adapters; without them the observations are encoded, too."""
        with _disabled(self._policy.module):
            return _FieldWithout(self._policy.module, self._policy.field(observations))


@dataclass(frozen=True, slots=True)
class _FieldWithout:
    """A field that is evaluated with the module's adapters off."""

    module: nn.Module
    inner: VelocityField

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        with _disabled(self.module):
            return self.inner(x, t)


@contextlib.contextmanager
def _disabled(module: Any) -> Iterator[None]:
    with module.disable_adapter():
        yield
