"""Path-space KL between two velocity fields driving the same transition kernel."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsde import TransitionKernel, along_path, at_least_float32, masked


def path_kl_steps(
    kernel: TransitionKernel,
    fine: Float[Tensor, "steps *shape"],
    base: Float[Tensor, "steps *shape"],
    *,
    noisy_only: bool = False,
    mask: Bool[Tensor, "*masked"] | None = None,
) -> Float[Tensor, "used_steps *batch"]:
    """KL of each transition between two velocities, `gain_k^2/(2 std_k^2) ||fine_k - base_k||^2`.

    Both transitions of a one-step kernel are Gaussian with equal covariance, so this is exactly
    `KL( N(mean(fine), std^2) || N(mean(base), std^2) )` given the state. For the two-step
    `AdamsBashforthKernel` it is a term of a quadrature of the path KL of the SDE instead. For the
    published Euler kernel it is `(2h/g_k^2) ||dv||^2` (TRQAM, arXiv 2605.27079), the Girsanov
    integrand times h.

    Args:
        kernel: The kernel that made the path.
        fine: Velocities of the controlled field along *its own* paths, (K, *batch, *event).
        base: Velocities of the reference field at the same points.
        noisy_only: Leave out a last step that is sampled without noise. Published: False, so that
            the step counts with the noise it would have had. True gives the exact KL of the chain
            as it is sampled by a one-step kernel, provided that step is taken with the base
            velocity.
        mask: True where an event entry counts; False for padding, or for the steps of an action
            chunk that are never played. Broadcasts to (*batch, *event); None counts all. The KL is
            that of the entries that count if these do not depend on the others.

    Returns:
        (K, *batch) in nats, or (kernel.noisy_steps, *batch) with `noisy_only`.

    Raises:
        ValueError: If the two shapes differ or have not K steps.
    """
    each = _step_kl(kernel, fine, base, mask)
    return each[: kernel.noisy_steps] if noisy_only else each


def path_kl(
    kernel: TransitionKernel,
    fine: Float[Tensor, "steps *shape"],
    base: Float[Tensor, "steps *shape"],
    *,
    noisy_only: bool = False,
    steps: Sequence[int] | Int[Tensor, "chosen"] | None = None,
    mask: Bool[Tensor, "*masked"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Sum over the path of `path_kl_steps`; its mean over paths estimates KL(P_fine || P_base).

    The estimate is unbiased when the paths are sampled under `fine`, and for a one-step kernel it
    bounds the KL between the two chains' laws of the sample x_1 from above; for
    `AdamsBashforthKernel` it is that of the SDE to second order. It says nothing about samples of
    the flow *ODE* of `fine`, whose KL can be larger: ODE and SDE agree in law for the velocity of a
    flow from Gaussian noise, as the base and the optimum are, not for any velocity in between. It
    is differentiable in both velocities, so it can also serve as a penalty. Path KL does not
    depend on lambda.

    Args:
        kernel: The kernel that made the path.
        fine: Velocities of the controlled field along its own paths, (K, *batch, *event).
        base: Velocities of the reference field at the same points.
        noisy_only: Leave out a last step that is sampled without noise.
        steps: Indices of the time steps that `fine` and `base` hold, or None for all. The sum is
            multiplied by K/len(steps), as in `adjoint.matching_loss`: unbiased for steps drawn
            uniformly. Not together with `noisy_only`.
        mask: As in `path_kl_steps`.

    Returns:
        (*batch,) in nats.

    Raises:
        ValueError: If the two shapes differ or have not K steps (those in `steps`), or `steps` are
            no indices of time steps.
    """
    if steps is None:
        return path_kl_steps(kernel, fine, base, noisy_only=noisy_only, mask=mask).sum(0)
    if noisy_only:
        raise ValueError("give either steps or noisy_only: choose noisy steps instead")
    chosen = kernel.chosen_steps(steps)
    return _step_kl(kernel, fine, base, mask, chosen).sum(0) * (kernel.steps / len(chosen))


def _step_kl(
    kernel: TransitionKernel,
    fine: Tensor,
    base: Tensor,
    mask: Tensor | None,
    chosen: list[int] | Tensor | None = None,
) -> Tensor:
    """KL of the chosen steps, (m, *batch), summed in float32 at least."""
    count = kernel.steps if chosen is None else len(chosen)
    if fine.shape != base.shape or len(fine) != count:
        raise ValueError(
            f"fine has shape {tuple(fine.shape)} and base {tuple(base.shape)}; expected "
            f"({count}, *batch, *event) for both"
        )
    fine, base = fine.to(at_least_float32(fine)), base.to(at_least_float32(base))
    ratio = along_path(kernel.gains, fine) / along_path(kernel.stds, fine)
    if chosen is not None:
        ratio = ratio[torch.as_tensor(chosen, device=ratio.device)]
    squares = masked(ratio * (fine - base), mask, kernel.event_ndim).square()
    event_axes = tuple(range(-kernel.event_ndim, 0))
    return 0.5 * (squares.sum(event_axes) if event_axes else squares)
