"""TRQAM's budget over time, and lambda solved from reference samples instead of descended to."""

import math
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trustregion import (
    BudgetSchedule,
    ConstantBudget,
    CosineBudget,
    LinearBudget,
    solve_lambda,
    tilted_kl,
)

__all__ = ["BudgetShape", "SolvedLambda", "budget_of"]

BudgetShape: TypeAlias = Literal["constant", "linear", "cosine"]


def budget_of(shape: BudgetShape, start: float, end: float, updates: int) -> BudgetSchedule:
    """A KL budget as a function of the number of updates done.

    Args:
        shape: `constant` stays at ``start``; the others go to ``end`` and stay there.
        start: budget at the first update, nats.
        end: budget from ``updates`` on.
        updates: length of the way.

    Raises:
        ValueError: a budget that is not positive, or no updates.
    """
    match shape:
        case "constant":
            return ConstantBudget(start)
        case "linear":
            return LinearBudget(start, end, updates)
        case "cosine":
            return CosineBudget(start, end, updates)


class SolvedLambda(nn.Module):
    """Lambda at which the tilted reference has the budget's KL, solved anew at every update.

    With values ``Q(s, a_i)`` of samples ``a_i`` of the reference at S observations, it is the
    minimiser of the dual function, ``mean_s KL*(lambda; s) = H eps``; its logarithm is averaged
    over updates. The process being memoryless, ``KL*`` is the path KL of the policy that adjoint
    matching aims at. So lambda is where it belongs as soon as the critic changes, but nothing
    measures the policy: what the regression and the discretisation miss, the KL misses.

    Everything is in buffers and waits for nothing. Replicas never mix.

    Args:
        replicas: number ``R`` of independent lambdas.
        budget: eps, nats per action of a chunk, as a function of the updates done.
        most: the largest value of the budget, to check the number of samples against.
        horizon: actions ``H`` of a chunk.
        samples: reference samples per observation.
        ema: weight of the newest solution, in (0, 1].
        bounds: interval of lambda.
        initial: lambda before the first update.

    Attributes:
        log_lambda: ``(R,)``.
        step: updates done, ``()``.

    Raises:
        ValueError: a setting is out of range, or too few samples to tell the budget's KL.
    """

    log_lambda: Tensor
    step: Tensor

    def __init__(
        self,
        replicas: int,
        *,
        budget: BudgetSchedule,
        most: float,
        horizon: int,
        samples: int,
        ema: float,
        bounds: tuple[float, float],
        initial: float,
    ) -> None:
        super().__init__()
        if not 0.0 < ema <= 1.0:
            raise ValueError(f"dual_ema must be in (0, 1], got {ema}")
        # n weights cannot be further than log n from even, and read low within a nat of that.
        if samples < (enough := math.exp(most * horizon + 1.0)):
            raise ValueError(
                f"dual_samples={samples} samples tell at most log {samples} nats, too few for a "
                f"budget of {most:g} nats x {horizon} actions; give at least {math.ceil(enough)}, "
                "a smaller budget, or dual=descend"
            )
        self.budget, self.horizon, self.ema, self.bounds = budget, horizon, ema, bounds
        self.register_buffer("log_lambda", torch.full((replicas,), math.log(initial)))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @property
    def lambda_(self) -> Float[Tensor, "R"]:
        """Lambda of the control problem."""
        return self.log_lambda.exp()

    @torch.no_grad()
    def update(self, values: Float[Tensor, "R S n"]) -> dict[str, Float[Tensor, "R"]]:
        """Solve for lambda and move its average there; the first solution is taken as it is.

        Args:
            values: the critic's values of n reference samples at each of S observations.

        Returns:
            Metrics ``(R,)``: `lambda` of the average, `lambda_solved` of these values alone,
            `tilted_kl` that these values have at `lambda`, and `kl_budget`; nats per action.
        """
        values = values.to(self.log_lambda.dtype)
        budget = self.budget(self.step).to(values.dtype)
        solved = solve_lambda(values, self.horizon * budget, shared=1, bounds=self.bounds)
        weight = torch.where(self.step == 0, 1.0, self.ema).to(values.dtype)
        self.log_lambda.lerp_(solved.log(), weight)
        self.step.add_(1)
        # One lambda per replica: the axis of the observations is added for it.
        per_state = tilted_kl(values, self.lambda_.unsqueeze(-1).expand(values.shape[:-1]))
        return {
            "lambda": self.lambda_,
            "lambda_solved": solved,
            "tilted_kl": per_state.mean(-1) / self.horizon,
            "kl_budget": budget.expand(solved.shape).clone(),
        }
