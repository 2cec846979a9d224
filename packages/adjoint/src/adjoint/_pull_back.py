"""The vector-Jacobian product that both the adjoint and its terminal condition are made of."""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor

from flowsde import is_transformed


def pull_back(
    function: Callable[[Tensor], Tensor], x: Tensor, cotangent: Tensor | None, name: str
) -> Tensor:
    """`(df/dx)^T cotangent` at x, or the gradient of `sum f` without a cotangent; detached.

    Parameters of `function` receive no gradient, and its graph is freed.

    Raises:
        ValueError: If the output of `function` was detached from its input.
    """
    if is_transformed():
        # Three times slower in eager mode, but the one form that compiles into a single graph and
        # that `vmap` takes.
        # The result has two or three parts, by an option that the signature cannot express.
        value, pull, *_ = torch.func.vjp(function, x.detach())
        pulled: tuple[Tensor] = pull(torch.ones_like(value) if cotangent is None else cotangent)
        return pulled[0].detach()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = function(x)
        # A silent zero would drop the whole Jacobian of a function someone wrapped in no_grad.
        if not value.requires_grad:
            raise ValueError(
                f"{name} cannot be differentiated in x: it was detached or evaluated under "
                "torch.no_grad or inference_mode. Pass a function that keeps its graph (it is "
                "freed here); one that does not depend on x at all can add 0 * x"
            )
        if cotangent is None:
            # With a cotangent torch imports a symbolic algebra at the first call, for a second.
            value = value.sum()
        with _without_autocast(x.device.type):
            (gradient,) = torch.autograd.grad(
                value, x, cotangent, allow_unused=True, materialize_grads=True
            )
    return gradient


def _without_autocast(device_type: str) -> contextlib.AbstractContextManager[object]:
    """Autocast chooses dtypes in the forward pass; torch advises against it in the backward one."""
    if not torch.amp.is_autocast_available(device_type):
        return contextlib.nullcontext()
    return torch.autocast(device_type, enabled=False)
