"""The lean adjoint of a sampled path, by one vector-Jacobian product per step."""

import torch
from jaxtyping import Float
from torch import Tensor

from adjoint._pull_back import pull_back
from flowsde import Path, TransitionKernel, VelocityField


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

    The generic drift is used on every step, also on a last one that was sampled without noise, as
    the published implementations of QAM and TRQAM do. Only one step's activations are alive at a
    time and nothing of the graph is kept; the field's parameters receive no gradient.

    Args:
        kernel: The kernel that made the path.
        velocity: The base field, called once per step with x (*batch, *event) and t (*batch).
        path: The path, states (K+1, *batch, *event).
        terminal: `a_K`, the gradient of the terminal cost: minus that of the reward.

    Returns:
        `a_0 .. a_K`, (K+1, *batch, *event), detached, in reward units per unit of state.

    Raises:
        ValueError: If `terminal` or the field's output is not shaped like the samples, the path
            has another step count than the kernel, or the field's output cannot be differentiated
            (evaluated under `torch.no_grad`, or detached).
    """
    states = path.states.detach()
    if len(states) != kernel.steps + 1:
        raise ValueError(
            f"the path has {len(states) - 1} steps, the kernel {kernel.steps}: use the kernel that "
            "sampled the path"
        )
    if terminal.shape != states.shape[1:]:
        raise ValueError(
            f"terminal has shape {tuple(terminal.shape)}; expected that of the samples, "
            f"{tuple(states.shape[1:])}"
        )
    # mean(z, v) = decay z + gain v with x = scale z: J^T a = decay a + scale (dv/dx)^T (gain a).
    coefficients = kernel.coefficients
    batch = states.shape[1 : states.ndim - kernel.event_ndim]

    a = terminal.detach()
    adjoints = [a]
    for k in reversed(range(kernel.steps)):
        t = states.new_full(batch, kernel.adjoint_times[k])
        decay, gain, scale = (
            _like(values[k], a)
            for values in (coefficients.decays, coefficients.gains, coefficients.input_scales)
        )
        a = decay * a + scale * _velocity_vjp(velocity, path.inputs[k], t, gain * a)
        adjoints.append(a)
    return torch.stack(adjoints[::-1])


def _like(coefficient: float | Tensor, x: Tensor) -> float | Tensor:
    """A kernel's coefficient in the dtype of `x`: per-dimension ones are float64."""
    return coefficient.to(x.dtype) if isinstance(coefficient, Tensor) else coefficient


def _velocity_vjp(velocity: VelocityField, x: Tensor, t: Tensor, cotangent: Tensor) -> Tensor:
    """`(dv/dx)^T cotangent` at (x, t)."""

    def at(x: Tensor) -> Tensor:
        v = velocity(x, t)
        if v.shape != x.shape:
            raise ValueError(
                f"the velocity field returned shape {tuple(v.shape)} for samples of shape "
                f"{tuple(x.shape)}; it must return the shape of its input"
            )
        return v

    return pull_back(at, x, cotangent, "the base velocity")
