"""TRQAM's budget over time, and how many samples a solved lambda needs."""

import math
from typing import Literal, TypeAlias

from trustregion import BudgetSchedule, ConstantBudget, CosineBudget, LinearBudget

__all__ = ["BudgetShape", "budget_of", "check_samples"]

BudgetShape: TypeAlias = Literal["constant", "linear", "cosine"]


def budget_of(
    shape: BudgetShape, start: float, end: float | None, updates: int | None
) -> BudgetSchedule:
    """A KL budget as a function of the number of updates done.

    Args:
        shape: `constant` stays at ``start``; the others go to ``end`` and stay there.
        start: budget at the first update, nats.
        end: budget from ``updates`` on; not read where it is constant.
        updates: length of the way; not read where it is constant.

    Raises:
        ValueError: a budget that is not positive, no updates, or a way without end or length.
    """
    if shape == "constant":
        return ConstantBudget(start)
    if end is None or updates is None:
        missing = "budget_end" if end is None else "budget_steps"
        raise ValueError(
            f"budget_schedule={shape} goes from kl_budget to budget_end in budget_steps updates; "
            f"give {missing}"
        )
    return (LinearBudget if shape == "linear" else CosineBudget)(start, end, updates)


def check_samples(samples: int, budget: float, horizon: int) -> None:
    """Refuse to solve for lambda from too few samples.

    Args:
        samples: per observation.
        budget: the largest that is asked for, nats per action.
        horizon: actions of a chunk.

    Raises:
        ValueError: they cannot tell the budget's KL.
    """
    # n weights cannot be further than log n from even, and read low within a nat of that.
    wanted = budget * horizon + 1.0
    if samples < 1 or math.log(samples) < wanted:
        many = wanted > math.log(1e5)
        enough = f"e^{wanted:g}" if many else f"{math.ceil(math.exp(wanted)):,}"
        raise ValueError(
            f"dual=solve needs at least {enough} samples (dual_samples) for a budget of "
            f"{budget:g} nats x {horizon} actions, got {samples}, which can resolve at most log "
            f"{samples} nats; give {'' if many else 'more, '}a smaller budget, or dual=descend"
        )
