"""TRQAM's budget over time, and lambda solved from reference samples instead of descended to."""

import math
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from trustregion import (
    BudgetSchedule,
    ConstantBudget,
    CosineBudget,
    DualDescent,
    LinearBudget,
    solve_lambda,
    tilted_kl,
)

__all__ = ["BudgetShape", "budget_of", "check_samples", "correct_dual", "solve_dual"]

# KL* goes with lambda^-2, so this is a KL that is off by four.
_LARGEST_CORRECTION = math.log(2.0)

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
            f"{budget:g} nats x {horizon} actions, got {samples}, which tell at most log "
            f"{samples} nats; give {'' if many else 'more, '}a smaller budget, or dual=descend"
        )


@torch.no_grad()
def solve_dual(
    dual: DualDescent, correction: Float[Tensor, "R"], values: Float[Tensor, "R S n"], horizon: int
) -> dict[str, Float[Tensor, "R"]]:
    """Move lambda to where the tilted reference has the budget's KL, instead of descending.

    With values ``Q(s, a_i)`` of samples ``a_i`` of the reference at S observations, that is the
    minimiser of the dual function, ``mean_s KL*(lambda; s) = H eps``; its logarithm is averaged
    over updates with the dual's rate, the first one taken as it is. The process being memoryless,
    ``KL*`` is the path KL of the policy that adjoint matching aims at. So lambda follows a critic
    that changes; what the policy misses of that aim is made up for by :func:`correct_dual`.
    Nothing waits for the device, and replicas never mix. A value that is not finite leaves its
    replica's lambda.

    Args:
        dual: keeps lambda, its bounds and the budget.
        correction: what is added to the logarithm of the solved lambda.
        values: the critic's, of n reference samples at each of S observations.
        horizon: actions ``H`` of a chunk; the budget is per action.

    Returns:
        Metrics ``(R,)``: `lambda` and `lam` of the average, `lambda_solved` of these values alone,
        `tilted_kl` that these values have at `lambda`, and `kl_budget`; nats per action.
    """
    values = values.to(dual.lam.dtype)
    budget = dual.budget(dual.step).to(values.dtype)
    low, high = (dual.scale * bound for bound in dual.bounds)
    solved = solve_lambda(values, horizon * budget, shared=1, bounds=(low, high))
    known = values.isfinite().flatten(1).all(-1)
    solved = torch.where(known, solved, math.nan)
    weight = torch.where(dual.step == 0, 1.0, dual.ema).to(values.dtype)
    aim = (solved / dual.scale).log() + correction
    moved = torch.lerp(dual.lam.log(), aim, weight).exp().clamp(*dual.bounds)
    dual.lam.copy_(torch.where(known, moved, dual.lam))
    dual.step.add_(1)
    # One lambda per replica, the same at all of its observations.
    per_state = tilted_kl(values, dual.lambda_.unsqueeze(-1).expand(values.shape[:-1]))
    return {
        "lambda": dual.lambda_,
        "lam": dual.lam.clone(),
        "lambda_solved": solved,
        "tilted_kl": per_state.mean(-1) / horizon,
        "kl_budget": budget.expand(solved.shape).clone(),
    }


@torch.no_grad()
def correct_dual(
    dual: DualDescent, correction: Float[Tensor, "R"], kl: Float[Tensor, "R"]
) -> dict[str, Float[Tensor, "R"]]:
    """Move the correction of a solved lambda, in place, by how far the measured KL is off.

    ``c <- clip(c + eta log(KL/eps), -log 2, log 2)`` with the dual's rate ``eta``, and with
    ``KL/eps`` inside ``[1/clip, clip]``, so that the KL of a policy that has hardly moved yet does
    not count for more than any other that is too small. A KL that is NaN leaves it.

    Args:
        dual: that :func:`solve_dual` has just moved.
        correction: of its replicas.
        kl: measured path KL, nats per action.

    Returns:
        The metric `lambda_correction` ``(R,)``, the factor ``exp(c)`` from the next update on.
    """
    budget = dual.budget(dual.step - 1).to(correction.dtype)
    gap = (kl.to(correction.dtype) / budget).clamp(1.0 / dual.clip, dual.clip).log().nan_to_num(0.0)
    correction.add_(dual.rate * gap).clamp_(-_LARGEST_CORRECTION, _LARGEST_CORRECTION)
    return {"lambda_correction": correction.exp()}
