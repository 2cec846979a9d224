"""The exponentially tilted law `p*(x) ~ p(x) exp(Q(x)/lambda)` from samples of Q under p.

All functions take samples `Q(x_i)`, `x_i ~ p`, along one axis and work in log space, in float32 at
least. A value of -inf stands for a sample that p* never takes and has weight 0 (a huge negative
number instead would cost the others their digits); where one is NaN or +inf, or all are -inf, the
result is NaN.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flowsde import at_least_float32, broadcasts, checked_positive
from trustregion._budget import check_budget


class TiltedMoments(NamedTuple):
    """KL and variance of a tilted law; the sample axis is kept with size one.

    Attributes:
        kl: `KL(p* || p)` in nats.
        variance: Variance of Q under p*.
    """

    kl: Tensor
    variance: Tensor


def tilted_moments(q: Tensor, lam: Tensor, dim: int) -> TiltedMoments:
    """KL and Var(Q) of the tilted law, with `lam` broadcastable to `q` and `dim` kept."""
    # The softmax does not see a shift of Q. Centring keeps the digits where lambda is large.
    never = q == -math.inf
    finite = torch.where(never, q.detach().amax(dim, keepdim=True), q)
    centred = finite - finite.mean(dim, keepdim=True)
    log_weights = torch.log_softmax((centred / lam).masked_fill(never, -math.inf), dim)
    weights = log_weights.exp()
    log_count = math.log(q.shape[dim])
    # KL of weights w_i against 1/n. Written as a sum of terms >= 0, w log(w n) - w + 1/n, so that
    # rounding cannot make a small KL negative.
    ratio_log = log_weights + log_count
    used_log = ratio_log.masked_fill(weights == 0.0, 0.0)
    kl = (weights * used_log - torch.expm1(ratio_log) / q.shape[dim]).sum(dim, keepdim=True)
    mean = (weights * centred).sum(dim, keepdim=True)
    variance = (weights * (centred - mean).square()).sum(dim, keepdim=True)
    return TiltedMoments(kl.clamp_min(0.0), variance)


def tilted_kl(
    q_samples: Float[Tensor, "*shape"], lam: float | Float[Tensor, "*broadcastable"], dim: int = -1
) -> Float[Tensor, "*batch"]:
    """`KL*(lambda) = E_{p*}[Q]/lambda - log E_p[exp(Q/lambda)]`, the KL of the tilted law.

    It falls in lambda, from -log(share of the samples at the maximum) at 0 towards 0. With n
    samples it cannot exceed log n, and estimates within about one nat of log n are biased low.
    The process of the flow being memoryless, this is also the path KL at the optimum.

    Args:
        q_samples: Values Q(x_i) of n samples x_i ~ p along axis `dim`.
        lam: lambda > 0, a number or a tensor that broadcasts to the shape without `dim`.
        dim: The sample axis.

    Returns:
        (*batch,): the shape of `q_samples` without `dim`; nats.

    Raises:
        ValueError: If `lam` is not positive or does not fit, or there are no samples. An entry that
            is not positive in a tensor on another device makes its result NaN instead.
    """
    return tilted_moments(*_prepared(q_samples, lam, dim)).kl.squeeze(dim)


def tilted_kl_derivative(
    q_samples: Float[Tensor, "*shape"], lam: float | Float[Tensor, "*broadcastable"], dim: int = -1
) -> Float[Tensor, "*batch"]:
    """`dKL*/dlambda = -Var_{p*}(Q)/lambda^3`, never positive.

    Args:
        q_samples: Values Q(x_i) of n samples x_i ~ p along axis `dim`.
        lam: lambda > 0, a number or a tensor that broadcasts to the shape without `dim`.
        dim: The sample axis.

    Returns:
        (*batch,) in nats per unit of reward.

    Raises:
        ValueError: If `lam` is not positive or does not fit, or there are no samples. An entry that
            is not positive in a tensor on another device makes its result NaN instead.
    """
    q, lam_kept, dim = _prepared(q_samples, lam, dim)
    return (-tilted_moments(q, lam_kept, dim).variance / lam_kept**3).squeeze(dim)


def dual_function(
    q_samples: Float[Tensor, "*shape"],
    lam: float | Float[Tensor, "*broadcastable"],
    budget: float | Float[Tensor, "*broadcastable2"],
    dim: int = -1,
) -> Float[Tensor, "*batch"]:
    """`D(lambda) = lambda eps + lambda log E_p[exp(Q/lambda)]`, dual of max E[Q] s.t. KL <= eps.

    Convex in lambda with `D'(lambda) = eps - KL*(lambda)`; its minimum is the best reward that the
    budget can buy, its minimiser the lambda that `solve_lambda` returns.

    Args:
        q_samples: Values Q(x_i) of n samples x_i ~ p along axis `dim`.
        lam: lambda > 0, a number or a tensor that broadcasts to the shape without `dim`.
        budget: eps in nats.
        dim: The sample axis.

    Returns:
        (*batch,) in units of reward.

    Raises:
        ValueError: If `lam` or `budget` is not positive, `lam` does not fit, or there are no
            samples. An entry that is not positive in a tensor on another device gives NaN.
    """
    if isinstance(budget, Tensor):
        budget = checked_positive("budget", budget)
    else:
        check_budget("budget", budget)
    q, lam_kept, dim = _prepared(q_samples, lam, dim)
    log_mean = torch.logsumexp(q / lam_kept, dim, keepdim=True) - math.log(q.shape[dim])
    return (lam_kept * log_mean).squeeze(dim) + lam_kept.squeeze(dim) * budget


def _prepared(q: Tensor, lam: float | Tensor, dim: int) -> tuple[Tensor, Tensor, int]:
    """Checked samples, lambda with the sample axis inserted, and the axis counted from the end."""
    dim, q, lam = checked_axis(q, dim), q.to(at_least_float32(q)), checked_positive("lam", lam)
    if not isinstance(lam, Tensor):
        return q, q.new_full((1,) * q.ndim, lam), dim
    shape = q.shape[: q.ndim + dim] + q.shape[q.ndim + dim + 1 :]
    if not broadcasts(lam.shape, shape):
        raise ValueError(
            f"lam has shape {tuple(lam.shape)}; expected one that broadcasts to {tuple(shape)}, "
            f"the shape of the samples without axis {dim}"
        )
    return q, lam.to(at_least_float32(lam)).expand(shape).unsqueeze(dim), dim


def checked_axis(q: Tensor, dim: int) -> int:
    """The axis counted from the end.

    Raises:
        ValueError: If it does not exist or holds no samples.
    """
    if not -q.ndim <= dim < q.ndim:
        raise ValueError(f"dim={dim} is no axis of samples of shape {tuple(q.shape)}")
    if q.shape[dim] == 0:
        raise ValueError(f"axis {dim} of shape {tuple(q.shape)} holds no samples")
    return dim - q.ndim if dim >= 0 else dim
