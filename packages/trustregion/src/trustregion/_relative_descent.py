"""Dual descent on log lambda by the relative violation: one setting for budgets of any size."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trustregion._budget import BudgetSchedule
from trustregion._dual_descent import DualDescent

# Errors beyond are cut: averages above three budgets, or below a ninth of one.
_LIMIT = 2.0


class RelativeDualDescent(DualDescent):
    """Moves log lambda by the relative violation of the budget; scale-free.

    `DualDescent` moves lambda by `rate (KL - budget)`, so its speed is proportional to the budget,
    and what it holds at the budget is the mean of `min(KL, 2 budget)`. Here

        d = min(KL, clip eps),   ema <- (1 - w) ema + w d,   w = max(rho, 1/n),
        x = ema/eps - 1, or log(2 ema/eps) - 1/2 below one half; inside [-2, 2],
        log lam <- project(log lam + rate x + damping (x - x_before), log bounds)

    so neither the unit of the reward nor the size of the budget enters. The average of the first
    estimates is their mean, not one that rises from 0. The second term damps: a policy follows
    lambda with a lag, and without it lambda overshoots.

    The cap is there for outliers. At the default of ten budgets it lets the true mean of log-normal
    estimates of log-sd 0.5, 0.7 and 1.0 be 0.0, 0.03 and 1.1 per cent above the budget (two
    budgets: 3, 11 and 37). Nothing else biases it while the average stays within a half and three
    budgets, where the step is linear.

    What is not said here is as in `DualDescent`: replicas, NaN, metrics, schedules, float32 state.

    Args:
        replicas: Number R of independent dual variables.
        budget: eps in nats, a number or a schedule.
        rate: Step of log lambda per budget that the average is off; 0 leaves lambda where it is.
        damping: Step of log lambda per budget that the average has moved since the last update.
        ema: Weight rho of the newest estimate, in (0, 1].
        clip: Estimates are capped at this multiple of the budget, more than 1.
        bounds: Interval of the dual variable lam, before `scale`.
        scale: lambda per unit of lam.
        initial: lam at the start, inside `bounds`.

    Attributes:
        error: `x` after the last update, (R,).
        known: Number of estimates that entered each average, (R,).

    Raises:
        ValueError: If a setting is out of range.
    """

    error: Float[Tensor, "R"]
    known: Int[Tensor, "R"]

    def __init__(
        self,
        replicas: int = 1,
        *,
        budget: float | BudgetSchedule,
        rate: float = 0.02,
        damping: float = 0.2,
        ema: float = 0.1,
        clip: float = 10.0,
        bounds: tuple[float, float] = (1e-4, 1e4),
        scale: float = 1.0,
        initial: float = 1.0,
    ) -> None:
        super().__init__(
            replicas,
            budget=budget,
            rate=rate,
            ema=ema,
            clip=clip,
            bounds=bounds,
            scale=scale,
            initial=initial,
        )
        if not (math.isfinite(damping) and damping >= 0.0):
            raise ValueError(f"damping must be a number >= 0, got {damping}")
        self.damping = damping if rate > 0.0 else 0.0
        self.register_buffer("error", torch.zeros(replicas))
        self.register_buffer("known", torch.zeros(replicas, dtype=torch.int64))

    def _averaged(self, capped: Float[Tensor, "R"]) -> Float[Tensor, "R"]:
        self.known.add_(capped.isfinite())
        weight = (1.0 / self.known.to(capped.dtype)).clamp(self.ema, 1.0)
        return torch.lerp(self.kl_ema, capped, weight)

    def _moved(self, budget: Float[Tensor, "*R"], known: Bool[Tensor, "R"]) -> Float[Tensor, "R"]:
        relative = self.kl_ema / budget
        # A KL of 0, as that of a policy that has not moved yet, has the logarithm -inf.
        low = (2.0 * relative.clamp_min(0.0)).log() - 0.5
        error = torch.where(relative < 0.5, low, relative - 1.0).clamp(-_LIMIT, _LIMIT)
        # The first error has none before it to differ from.
        change = torch.where(self.known > 1, error - self.error, 0.0)
        moved = (self.lam.log() + self.rate * error + self.damping * change).exp()
        self.error.copy_(torch.where(known, error, self.error))
        return moved

    def extra_repr(self) -> str:
        """Settings, for `print`."""
        return f"{super().extra_repr()}, damping={self.damping}"
