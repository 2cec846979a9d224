"""The matching loss and its gradient a few time steps at a time, for networks that fill memory."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adjoint._matching import matching_loss
from flowsde import Path, TransitionKernel, VelocityField, checked_velocity, path_times


@dataclass(frozen=True, slots=True)
class Accumulated:
    """What one pass over the time steps leaves, detached.

    Attributes:
        loss: Matching loss of each sample, (*batch,).
        fine: Velocities of the fine-tuned field at the chosen steps, (steps, *batch, *event).
        base: Velocities of the base field there, (steps, *batch, *event).
    """

    loss: Float[Tensor, "*batch"]
    fine: Float[Tensor, "steps *shape"]
    base: Float[Tensor, "steps *shape"]


def accumulate_gradients(
    kernel: TransitionKernel,
    fine: VelocityField,
    base: VelocityField,
    path: Path,
    adjoints: Float[Tensor, "points *shape"],
    lam: float | Float[Tensor, "*broadcastable"] = 1.0,
    *,
    steps: Sequence[int] | Int[Tensor, "chosen"] | None = None,
    chunk: int = 1,
    scale: float = 1.0,
    mask: Bool[Tensor, "*masked"] | None = None,
    no_sync: Callable[[], contextlib.AbstractContextManager[object]] | None = None,
) -> Accumulated:
    """Add the gradient of the mean matching loss to the parameters of `fine`, in small graphs.

    The loss is a sum over time steps, so its gradient is the sum of the gradients of a few steps at
    a time: each chunk is evaluated, differentiated and freed before the next. The result is that of
    `(scale * matching_loss(...).mean()).backward()` with the activations of `chunk` steps in
    memory instead of all. Call the optimiser afterwards. For micro-batches call this once per
    micro-batch with `scale = 1/count`.

    Args:
        kernel: The kernel that made the path.
        fine: The field to fine-tune, called with x (chunk, *batch, *event) and t (chunk, *batch).
        base: The base field, called likewise without a graph.
        path: The path, sampled without a graph.
        adjoints: `a_0 .. a_K` of `lean_adjoint`, (K+1, *batch, *event).
        lam: Trust-region parameter, as in `matching_loss`.
        steps: Indices of the time steps to use, or None for all; the loss stays unbiased for steps
            drawn uniformly.
        chunk: Number of time steps per graph.
        scale: Factor of the loss whose gradient is accumulated; the returned loss is without it.
        mask: As in `matching_loss`.
        no_sync: Context for all graphs but the last, `model.no_sync` of DistributedDataParallel, so
            that gradients are averaged over processes once, not once per chunk. For micro-batches
            enter it yourself around all calls but the last.

    Returns:
        The loss, and the velocities from which `trustregion.path_kl` follows if all steps are used.

    Raises:
        ValueError: If `chunk` is no integer of at least 1, `steps` is empty or out of range (an
            IndexError for a tensor), nothing in `fine` requires a gradient, another kernel made
            the path, and as `matching_loss` does. No gradient has been added then.
    """
    if not isinstance(chunk, SupportsIndex) or chunk < 1:
        raise ValueError(f"chunk must be an integer of at least 1, got {chunk!r}")
    chosen = kernel.chosen_steps(range(kernel.steps) if steps is None else steps)
    # Indexed before the first gradient, which also checks the values of a tensor.
    inputs, times = path.inputs.detach(), path_times(kernel, path)[chosen]
    losses, fines, bases = [], [], []
    for first in range(0, len(chosen), chunk):
        part = chosen[first : first + chunk]
        x, t = inputs[part], times[first : first + chunk]
        with torch.no_grad():
            base_velocities = checked_velocity(base(x, t), x)
        last = first + chunk >= len(chosen)
        quiet = contextlib.nullcontext() if last or no_sync is None else no_sync()
        with torch.enable_grad(), quiet:
            velocities = checked_velocity(fine(x, t), x)
            if not velocities.requires_grad:
                raise ValueError(
                    "nothing in fine requires a gradient: are its parameters frozen, or is it "
                    "evaluated under torch.no_grad?"
                )
            # matching_loss scales a subset up to K steps; the share undoes it for the sum of parts.
            loss = matching_loss(
                kernel, velocities, base_velocities, adjoints, lam, steps=part, mask=mask
            )
            loss = loss * (len(part) / len(chosen))
            torch.autograd.backward(scale * loss.mean())
        losses.append(loss.detach())
        fines.append(velocities.detach())
        bases.append(base_velocities)
    return Accumulated(torch.stack(losses).sum(0), torch.cat(fines), torch.cat(bases))
