"""The lean adjoint of a sampled path, by one vector-Jacobian product per step."""

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from adjoint._pull_back import pull_back
from flowsde import (
    Path,
    TransitionKernel,
    VelocityField,
    checked_velocity,
    coefficient_like,
    full_times,
)


class LinearizableField(Protocol):
    """A velocity field that can be linearized at many points in one evaluation.

    Optional: `lean_adjoint` uses it where a field has it, and else evaluates the field once more
    at every step. It costs the memory of the whole path's activations, so it is for small networks.
    """

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocity at x (*batch, *event), t (*batch)."""

    def linearize(self, x: Tensor, t: Tensor) -> tuple[Tensor, Callable[[Tensor, int], Tensor]]:
        """Velocities at x (K, *batch, *event), t (K, *batch), and their pullback.

        `pullback(cotangent, k)` is `(dv_k/dx_k)^T cotangent`, (*batch, *event), detached.
        """


def lean_adjoint(
    kernel: TransitionKernel,
    velocity: VelocityField,
    path: Path,
    terminal: Float[Tensor, "*shape"],
) -> Float[Tensor, "points *shape"]:
    """Pull a terminal condition back along a path through the base drift.

    `a_K = terminal` and `a_k = (d mean_k(z, v(x(z), s_k)) / dz)^T a_{k+1}` at state `z = z_k`, with
    `s_k = kernel.adjoint_times[k]`. For the linear memoryless SDE this is the discrete form of
    `da/dt = -(d/dx [2 v - x/t])^T a`. The full adjoint of the control problem has further terms in
    the control; they vanish at the optimum, and leaving them out is what makes it lean
    (Domingo-Enrich et al., "Adjoint Matching", arXiv 2409.08861).

    For a two-step kernel, whose mean also reads the step before, `a_k` is likewise the derivative
    of the end in state k with all else of the history fixed; still one product per step.

    The generic drift is used on every step, also on a last one that was sampled without noise, as
    the published implementations of QAM and TRQAM do. Nothing of the graph is kept and the field's
    parameters receive no gradient. Only one step's activations are alive at a time, unless the
    field is a `LinearizableField`. Also runs under `torch.func.vmap` and inside
    `torch.compile`.

    Args:
        kernel: The kernel that made the path.
        velocity: The base field, called once per step with x (*batch, *event) and t (*batch), or
            linearized once for all steps if it can be.
        path: The path, states (K+1, *batch, *event).
        terminal: `a_K`, the gradient of the terminal cost: minus that of the reward.

    Returns:
        `a_0 .. a_K`, (K+1, *batch, *event), detached, in reward units per unit of state.

    Raises:
        ValueError: If `terminal` or the field's output is not shaped like the samples, another
            kernel made the path, or the field's output cannot be differentiated (evaluated under
            `torch.no_grad`, or detached).
    """
    with torch.enable_grad():  # as below
        path.check(kernel)
    if terminal.shape != path.sample.shape:
        raise ValueError(
            f"terminal has shape {tuple(terminal.shape)}; expected that of the samples, "
            f"{tuple(path.sample.shape)}"
        )
    # mean(z, v) = decay z + gain v with x = scale z: J^T a = decay a + scale (dv/dx)^T (gain a).
    coefficients = kernel.coefficients
    pull = _step_pullback(kernel, velocity, path.inputs.detach())

    a = terminal.detach()
    adjoints = [a]
    for k in reversed(range(kernel.steps)):
        decay, gain, scale = (
            coefficient_like(values[k], a)
            for values in (coefficients.decays, coefficients.gains, coefficients.input_scales)
        )
        carried, cotangent = decay * a, gain * a
        if coefficients.lag_gains and k + 1 < kernel.steps:
            # State k and its velocity enter the mean of step k+1 as well, which ends in a_{k+2}.
            later = adjoints[-2]
            carried = carried + coefficient_like(coefficients.lag_decays[k + 1], a) * later
            cotangent = cotangent + coefficient_like(coefficients.lag_gains[k + 1], a) * later
        a = carried + scale * pull(cotangent, k)
        adjoints.append(a)
    return torch.stack(adjoints[::-1])


def _step_pullback(
    kernel: TransitionKernel, velocity: VelocityField, inputs: Tensor
) -> Callable[[Tensor, int], Tensor]:
    """`(cotangent, k) -> (dv/dx)^T cotangent` at the network arguments of step k."""
    times = [full_times(inputs[0], time, kernel.event_ndim) for time in kernel.adjoint_times]
    linearize = getattr(velocity, "linearize", None)
    if linearize is not None:
        pullback: Callable[[Tensor, int], Tensor] = linearize(inputs, torch.stack(times))[1]
        return pullback
    return lambda cotangent, k: _velocity_vjp(velocity, inputs[k], times[k], cotangent)


def _velocity_vjp(velocity: VelocityField, x: Tensor, t: Tensor, cotangent: Tensor) -> Tensor:
    """`(dv/dx)^T cotangent` at (x, t)."""

    def at(x: Tensor) -> Tensor:
        return checked_velocity(velocity(x, t), x).to(x.dtype)

    return pull_back(at, x, cotangent, "the base velocity")
