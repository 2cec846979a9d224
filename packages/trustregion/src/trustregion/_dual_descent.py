"""Projected dual descent on the trust-region parameter lambda."""

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from trustregion._budget import BudgetSchedule, ConstantBudget, check_budget

_LAMBDA_FLOOR = 1e-8


class DualDescent(nn.Module):
    """Moves lambda so that a measured path KL stays at a budget; one dual variable per replica.

    With the budget eps and a KL estimate per update,
    `d = min(KL, clip * eps)`, `ema <- (1 - rho) ema + rho d`,
    `lam <- project(lam + rate * (ema - eps), bounds)`, and `lambda = scale * lam` enters the
    control problem (TRQAM, arXiv 2605.27079). The direction is minus the derivative of the dual
    function, `D'(lambda) = eps - KL*(lambda)`: too much KL raises lambda, which tightens the
    policy to the reference. The average starts at 0, so lambda first falls until the average has
    caught up.

    State is kept in buffers, nothing waits for the device and nothing changes shape: `update` can
    be compiled and captured in a CUDA graph. Replicas never mix. An infinite KL counts as the cap;
    one that is NaN or -inf tells nothing, so average and lambda of its replica stay where they are.
    The buffers stay float32 when a module that holds this one is cast to less (`model.half()`):
    steps of `rate` would be lost in the rounding.

    Args:
        replicas: Number R of independent dual variables.
        budget: eps in nats: a number, or a schedule called with the number of updates done; one
            budget per replica is a schedule that returns (R,). In the units of the KL that you
            pass (TRQAM divides its KL by the chunk length).
        rate: Step size; 0 leaves lambda where it is, the fixed-temperature control.
        ema: Weight rho of the newest estimate, in (0, 1].
        clip: Estimates are capped at this multiple of the budget, more than 1.
        bounds: Interval of the dual variable lam, before `scale`.
        scale: lambda per unit of lam.
        initial: lam at the start, inside `bounds`.

    Attributes:
        lam: Dual variable, (R,).
        kl_ema: Average of the capped KL estimates in nats, (R,), starting at 0.
        step: Number of updates done, ().

    Raises:
        ValueError: If a setting is out of range.
    """

    lam: Tensor
    kl_ema: Tensor
    step: Tensor

    def __init__(
        self,
        replicas: int = 1,
        *,
        budget: float | BudgetSchedule,
        rate: float = 0.01,
        ema: float = 0.1,
        clip: float = 2.0,
        bounds: tuple[float, float] = (0.01, 100.0),
        scale: float = 3.0,
        initial: float = 1.0,
    ) -> None:
        super().__init__()
        if replicas < 1:
            raise ValueError(f"replicas must be at least 1, got {replicas}")
        if not (math.isfinite(rate) and rate >= 0.0):
            raise ValueError(f"rate must be a number >= 0, got {rate}")
        if not 0.0 < ema <= 1.0:
            raise ValueError(f"ema must be in (0, 1], got {ema}")
        if not clip > 1.0:
            # At clip <= 1 the capped KL never exceeds the budget and lambda could only fall.
            raise ValueError(f"clip must be more than 1 (times the budget), got {clip}")
        low, high = bounds
        if not (0.0 < low < high and math.isfinite(high)):
            raise ValueError(f"bounds must be finite with 0 < low < high, got {bounds}")
        if not low <= initial <= high:
            raise ValueError(f"initial must be inside the bounds {bounds}, got {initial}")
        if not (math.isfinite(scale) and scale > 0.0):
            raise ValueError(f"scale must be a positive number, got {scale}")
        if not callable(budget):
            check_budget("budget (or what a schedule returns, for one per replica)", budget)
        self.budget = budget if callable(budget) else ConstantBudget(float(budget))
        self.rate, self.ema, self.clip, self.scale = rate, ema, clip, scale
        self.bounds = (low, high)
        self.register_buffer("lam", torch.full((replicas,), float(initial)))
        self.register_buffer("kl_ema", torch.zeros(replicas))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        def kept(buffer: Tensor) -> Tensor:
            moved = fn(buffer)
            if not moved.is_floating_point():
                return moved
            narrower = torch.promote_types(moved.dtype, torch.float32) != moved.dtype
            return buffer.to(moved.device, torch.float32) if narrower else moved

        super()._apply(kept, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def lambda_(self) -> Float[Tensor, "R"]:
        """Lambda of the control problem, `scale * lam`, (R,); never below 1e-8."""
        return (self.scale * self.lam).clamp_min(_LAMBDA_FLOOR)

    @torch.no_grad()
    def update(self, kl: Float[Tensor, "R"]) -> Mapping[str, Float[Tensor, "R"]]:
        """One dual step in place, after the policy's own step.

        Args:
            kl: KL estimate of each replica in nats, (R,), averaged over its batch.

        Returns:
            Metrics of shape (R,): `lambda` and `lam` after the step, `kl_ema` after it,
            `kl_capped` (the estimate that entered the average; NaN or -inf where none did),
            `kl_cap_active` (1 where the cap bit), `kl_budget`.

        Raises:
            ValueError: If `kl` has not shape (R,).
        """
        if kl.shape != self.lam.shape:
            raise ValueError(
                f"kl has shape {tuple(kl.shape)}; expected one number per replica, "
                f"{tuple(self.lam.shape)}: average it over the batch first"
            )
        budget = self.budget(self.step).to(self.lam.dtype)
        capped = torch.minimum(kl.to(self.lam.dtype), self.clip * budget)
        known = capped.isfinite()
        self.kl_ema.copy_(torch.where(known, self._averaged(capped), self.kl_ema))
        moved = self._moved(budget, known).clamp(*self.bounds)
        self.lam.copy_(torch.where(known, moved, self.lam))
        self.step.add_(1)
        return {
            "lambda": self.lambda_,
            "lam": self.lam.clone(),
            "kl_ema": self.kl_ema.clone(),
            "kl_capped": capped,
            "kl_cap_active": (kl > self.clip * budget).to(self.lam.dtype),
            "kl_budget": budget.expand(self.lam.shape).clone(),
        }

    def _averaged(self, capped: Float[Tensor, "R"]) -> Float[Tensor, "R"]:
        """The average with these estimates in it."""
        return self.kl_ema.mul(1.0 - self.ema).add(capped, alpha=self.ema)

    def _moved(self, budget: Float[Tensor, "*R"], known: Bool[Tensor, "R"]) -> Float[Tensor, "R"]:
        """The dual variable after a step, before projection; read where the estimate is known."""
        return self.lam.add(self.rate * (self.kl_ema - budget))

    def extra_repr(self) -> str:
        """Settings, for `print`."""
        return (
            f"replicas={len(self.lam)}, budget={self.budget}, rate={self.rate}, ema={self.ema}, "
            f"clip={self.clip}, bounds={self.bounds}, scale={self.scale}"
        )
