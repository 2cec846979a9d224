"""Path-space KL between two velocity fields driving the same transition kernel."""

from jaxtyping import Float
from torch import Tensor

from flowsde import TransitionKernel, along_path


def path_kl_steps(
    kernel: TransitionKernel,
    fine: Float[Tensor, "steps *shape"],
    base: Float[Tensor, "steps *shape"],
    *,
    noisy_only: bool = False,
) -> Float[Tensor, "used_steps *batch"]:
    """KL of each transition between two velocities, `gain_k^2/(2 std_k^2) ||fine_k - base_k||^2`.

    Both transitions are Gaussian with equal covariance, so this is exactly
    `KL( N(mean(fine), std^2) || N(mean(base), std^2) )` given the state. For the published Euler
    kernel it is `(2h/g_k^2) ||dv||^2` (TRQAM, arXiv 2605.27079), the Girsanov integrand times h.

    Args:
        kernel: The kernel that made the path.
        fine: Velocities of the controlled field along *its own* paths, (K, *batch, *event).
        base: Velocities of the reference field at the same points.
        noisy_only: Leave out a last step that is sampled without noise. Published: False, so that
            the step counts with the noise it would have had. True gives the exact KL of the chain
            as it is sampled, provided that step is taken with the base velocity.

    Returns:
        (K, *batch) in nats, or (kernel.noisy_steps, *batch) with `noisy_only`.

    Raises:
        ValueError: If the two shapes differ or have not K steps.
    """
    if fine.shape != base.shape or len(fine) != kernel.steps:
        raise ValueError(
            f"fine has shape {tuple(fine.shape)} and base {tuple(base.shape)}; expected "
            f"({kernel.steps}, *batch, *event) for both"
        )
    ratio = along_path(kernel.gains, fine) / along_path(kernel.stds, fine)
    change = ratio * (fine - base)
    if noisy_only:
        change = change[: kernel.noisy_steps]
    event_axes = tuple(range(-kernel.event_ndim, 0))
    squares = change.square()
    return 0.5 * (squares.sum(event_axes) if event_axes else squares)


def path_kl(
    kernel: TransitionKernel,
    fine: Float[Tensor, "steps *shape"],
    base: Float[Tensor, "steps *shape"],
    *,
    noisy_only: bool = False,
) -> Float[Tensor, "*batch"]:
    """Sum over the path of `path_kl_steps`; its mean over paths estimates KL(P_fine || P_base).

    The estimate is unbiased when the paths are sampled under `fine`, and it bounds the KL between
    the two laws of the sample x_1 from above. It is differentiable in both velocities, so it can
    also serve as a penalty. Path KL does not depend on lambda.

    Args:
        kernel: The kernel that made the path.
        fine: Velocities of the controlled field along its own paths, (K, *batch, *event).
        base: Velocities of the reference field at the same points.
        noisy_only: Leave out a last step that is sampled without noise.

    Returns:
        (*batch,) in nats.

    Raises:
        ValueError: If the two shapes differ or have not K steps.
    """
    return path_kl_steps(kernel, fine, base, noisy_only=noisy_only).sum(0)
