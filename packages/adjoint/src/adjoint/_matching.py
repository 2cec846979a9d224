"""The adjoint-matching regression."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsde import (
    TransitionKernel,
    along_path,
    at_least_float32,
    broadcasts,
    checked_positive,
    masked,
)


def matching_loss(
    kernel: TransitionKernel,
    fine: Float[Tensor, "steps *shape"],
    base: Float[Tensor, "steps *shape"],
    adjoints: Float[Tensor, "points *shape"],
    lam: float | Float[Tensor, "*broadcastable"] = 1.0,
    *,
    steps: Sequence[int] | Int[Tensor, "steps"] | None = None,
    mask: Bool[Tensor, "*masked"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Squared distance of the control from minus the adjoint, summed over time and event axes.

    `loss_scale * sum_k || sqrt(lam) gain_k/std_k (fine_k - base_k) + std_k/sqrt(lam) a_k ||^2`. For
    `MemorylessEuler` that is the published `sum_k || 2/sigma_k dv_k + sigma_k a_k ||^2` with
    `sigma_k = g_k / sqrt(lam)` (TRQAM, arXiv 2605.27079). It is minimised by `dv = -(std^2/gain)
    a/lam`, whose fixed point is the policy tilted by exp(reward/lam). QAM (arXiv 2601.14234) is the
    same with lam = 1 and a(1) scaled by its inverse temperature tau; its loss is TRQAM's divided by
    lam at tau = 1/lam. Gradient flows into `fine` only.

    With `steps`, only these time steps enter and the sum is multiplied by K/len(steps): for steps
    drawn uniformly, with or without replacement, value and gradient are unbiased estimates of the
    full loss. Use it where evaluating the fine-tuned network at all K steps does not fit.

    Args:
        kernel: The kernel that made the path.
        fine: Velocities of the fine-tuned field along the path, (K, *batch, *event); with `steps`,
            only those of the chosen steps, in that order.
        base: Velocities of the base field at the same points.
        adjoints: `a_0 .. a_K` of `lean_adjoint`, (K+1, *batch, *event), also with `steps`.
        lam: Trust-region parameter, positive; a number or a tensor that broadcasts to *batch,
            for instance (R, 1) for one value per replica.
        steps: Indices of the chosen time steps, or None for all.
        mask: True where an event entry counts, False where it is padding; broadcasts to
            (*batch, *event). None counts all.

    Returns:
        (*batch,), in units of `lam`; the published convention, K times the integral over time.
        Computed and returned in float32 where velocities are narrower.

    Raises:
        ValueError: If shapes do not fit, `lam` is not positive or a tensor that does not broadcast
            to the batch, or `steps` is empty or out of range. The entries of a tensor are looked at
            on the CPU only; on another device, or in `torch.compile`, one that is not positive
            makes the loss of its samples NaN.
    """
    lam = checked_positive("lam", lam)
    chosen = None if steps is None else kernel.chosen_steps(steps)
    count = kernel.steps if chosen is None else len(chosen)
    expected = (count, *adjoints.shape[1:])
    if len(adjoints) != kernel.steps + 1 or fine.shape != expected or base.shape != expected:
        raise ValueError(
            f"fine {tuple(fine.shape)}, base {tuple(base.shape)} and adjoints "
            f"{tuple(adjoints.shape)} do not fit together: expected ({count}, *batch, *event) "
            f"twice and ({kernel.steps + 1}, *batch, *event)"
        )
    batch = adjoints.shape[1 : adjoints.ndim - kernel.event_ndim]
    if isinstance(lam, Tensor) and not broadcasts(lam.shape, batch):
        raise ValueError(
            f"lam has shape {tuple(lam.shape)}; expected one that broadcasts to the batch shape "
            f"{tuple(batch)}"
        )
    a = kernel.control_adjoints(adjoints.detach().to(at_least_float32(adjoints)))
    gains, stds = along_path(kernel.gains, a), along_path(kernel.stds, a)
    if chosen is not None:
        index = torch.as_tensor(chosen, device=a.device)
        a, gains, stds = a[index], gains[index], stds[index]
    root = lam**0.5 if not isinstance(lam, Tensor) else _over_event(lam.detach(), kernel).sqrt()
    change = fine.to(at_least_float32(fine)) - base.detach().to(at_least_float32(base))
    residual = root * (gains / stds) * change + (stds / root) * a
    residual = masked(residual, mask, kernel.event_ndim)
    event_axes = tuple(range(-kernel.event_ndim, 0))
    scale = kernel.loss_scale * kernel.steps / count
    return scale * residual.square().sum((0, *event_axes))


def _over_event(lam: Tensor, kernel: TransitionKernel) -> Tensor:
    """Append one axis of size one per event axis."""
    return lam.reshape(lam.shape + (1,) * kernel.event_ndim)
