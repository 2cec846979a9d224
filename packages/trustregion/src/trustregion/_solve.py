"""The lambda that meets a KL budget, solved for instead of descended to."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from flowsde import at_least_float32
from trustregion._budget import check_budget
from trustregion._tilted import checked_axis, tilted_moments


def solve_lambda(
    q_samples: Float[Tensor, "*shape"],
    budget: float | Float[Tensor, "*broadcastable"],
    *,
    dim: int = -1,
    shared: int | tuple[int, ...] = (),
    bounds: tuple[float, float] = (1e-3, 1e4),
    iterations: int = 20,
) -> Float[Tensor, "*batch"]:
    """Lambda with `KL*(lambda) = budget`, the minimiser of the dual function, per batch entry.

    Half of the iterations bisect the interval in log lambda; from there, Newton's method on
    `log KL*` as a function of `log lambda`, nearly a line of slope -2, doubles the digits with
    every iteration and is kept inside the bracket. The number of iterations is fixed and nothing
    is read back from the device.

    Where the whole interval of `bounds` gives less KL than the budget (a constant Q, or a budget
    near or above log n for n samples), the lower bound is returned: the constraint is not active.
    Where all of it gives more, the upper bound is. Values of -inf are samples that are never taken
    (weight 0). Where a value is NaN or +inf, all are -inf, or a budget in a tensor is not positive,
    nothing is known and the result is NaN.

    Args:
        q_samples: Values Q(x_i) of n samples x_i of the base law along axis `dim`.
        budget: eps in nats, a number or a tensor that broadcasts to the result.
        dim: The sample axis.
        shared: Axes over which one lambda is shared and the KL is *averaged*: with samples
            (R, S, n) of S states, `shared=1` gives one lambda per replica whose mean KL over states
            is the budget (TRQAM's constraint), `shared=()` one per replica and state.
        bounds: Interval of lambda, in units of reward.
        iterations: Number of evaluations of the KL. The default meets budgets to 1e-5 in float32
            for any interval of up to seven decades.

    Returns:
        The shape of `q_samples` without `dim` and `shared`, in units of reward; float32 at least.

    Raises:
        ValueError: If a setting is out of range or the axes do not exist or overlap.
    """
    if not isinstance(budget, Tensor):
        check_budget("budget", budget)
    low, high = bounds
    if not (0.0 < low < high and math.isfinite(high)):
        raise ValueError(f"bounds must be finite with 0 < low < high, got {bounds}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    dim, q_samples = checked_axis(q_samples, dim), q_samples.to(at_least_float32(q_samples))
    axes = (shared,) if isinstance(shared, int) else shared
    averaged = tuple(checked_axis(q_samples, axis) for axis in axes)
    removed = (dim, *averaged)
    if len(set(removed)) < len(removed):
        raise ValueError(f"dim={dim} and shared={shared} name the same axis twice")

    kept_shape = list(q_samples.shape)
    for axis in removed:
        kept_shape[axis] = 1
    result_shape = [n for i, n in enumerate(q_samples.shape) if i - q_samples.ndim not in removed]
    eps = torch.as_tensor(budget, dtype=q_samples.dtype, device=q_samples.device)
    eps = eps.expand(result_shape).reshape(kept_shape)

    with torch.no_grad():
        left = q_samples.new_full(kept_shape, math.log(low))
        right = q_samples.new_full(kept_shape, math.log(high))
        log_lam = 0.5 * (left + right)
        for i in range(iterations):
            lam = log_lam.exp()
            kl, variance = tilted_moments(q_samples, lam, dim)
            if averaged:
                kl = kl.mean(averaged, keepdim=True)
                variance = variance.mean(averaged, keepdim=True)
            above = kl > eps
            left = torch.where(above, log_lam, left)
            right = torch.where(above, right, log_lam)
            middle = 0.5 * (left + right)
            if i < iterations // 2:
                log_lam = middle
                continue
            # d log KL / d log lambda = -Var/(lambda^2 KL).
            newton = log_lam + (torch.log(kl) - torch.log(eps)) * kl * lam.square() / variance
            # Where the KL does not react to lambda at all there is no Newton step.
            log_lam = torch.where(newton.isnan(), middle, newton.clamp(left, right))
        unknown = kl.isnan() | ~(eps > 0.0)
        return log_lam.exp().masked_fill(unknown, math.nan).reshape(result_shape)
