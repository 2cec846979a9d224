"""KL budgets that change during training."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

BudgetSchedule: TypeAlias = Callable[[Tensor], Tensor]
"""A KL budget in nats as a function of the number of dual updates done, (), on its device: a tensor
of shape () for all replicas, or (R,)."""


def check_budget(name: str, value: float) -> None:
    """Refuse what is no budget.

    Raises:
        ValueError: If it is no number, not positive, or not finite.
    """
    try:
        fine = math.isfinite(value) and value > 0.0
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise ValueError(f"{name} must be a positive number of nats, got {value!r}")


def _check_ramp(start: float, end: float, steps: int) -> None:
    check_budget("start", start)
    check_budget("end", end)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")


def _progress(step: Tensor, steps: int) -> Tensor:
    return (step.to(torch.float32) / steps).clamp(0.0, 1.0)


@dataclass(frozen=True, slots=True)
class ConstantBudget:
    """The same budget throughout.

    Attributes:
        value: Budget in nats, positive.

    Raises:
        ValueError: If the budget is not positive and finite.
    """

    value: float

    def __post_init__(self) -> None:
        check_budget("value", self.value)

    def __call__(self, step: Int[Tensor, ""]) -> Float[Tensor, ""]:
        """The budget, ()."""
        return torch.full_like(step, self.value, dtype=torch.float32)


@dataclass(frozen=True, slots=True)
class LinearBudget:
    """A straight line from `start` to `end` over `steps` updates, `end` afterwards.

    Attributes:
        start: Budget at step 0 in nats, positive.
        end: Budget from step `steps` on, positive.
        steps: Length of the ramp in dual updates.

    Raises:
        ValueError: If a budget is not positive and finite, or the ramp has no length.
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check_ramp(self.start, self.end, self.steps)

    def __call__(self, step: Int[Tensor, ""]) -> Float[Tensor, ""]:
        """Budget at `step`, ()."""
        return self.start + (self.end - self.start) * _progress(step, self.steps)


@dataclass(frozen=True, slots=True)
class CosineBudget:
    """Half a cosine from `start` to `end` over `steps` updates, `end` afterwards.

    Attributes:
        start: Budget at step 0 in nats, positive.
        end: Budget from step `steps` on, positive.
        steps: Length of the ramp in dual updates.

    Raises:
        ValueError: If a budget is not positive and finite, or the ramp has no length.
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check_ramp(self.start, self.end, self.steps)

    def __call__(self, step: Int[Tensor, ""]) -> Float[Tensor, ""]:
        """Budget at `step`, ()."""
        weight = 0.5 * (1.0 - torch.cos(math.pi * _progress(step, self.steps)))
        return self.start + (self.end - self.start) * weight
