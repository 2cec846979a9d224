"""The base of a model with adapters: the same model with its adapters switched off."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from flowsde._field import VelocityField


def without_adapters(field: VelocityField, model: nn.Module) -> VelocityField:
    """The field of a model without the adapters that `peft` put into it: base and reference.

    `fine = flow.field(...)` and `base = without_adapters(fine, model)` are two fields of one set of
    weights, with the same conditions and guidance; no second copy of the model is needed. It works
    for `get_peft_model`, for `model.add_adapter` of `diffusers` and `transformers`, and for any
    other way in which layers of `peft` get into a module.

    Adapters are off during the field's own work alone, and afterwards everything is as before, the
    gradient flags of parameters included. The backward pass of a model with activation
    checkpointing (`gradient_checkpointing` of its modules) evaluates it anew, after the field has
    returned; there the field is evaluated as a whole in the backward pass, adapters off. The base's
    parameters receive no gradient in either case.

    Args:
        field: A field that evaluates `model`.
        model: The module that holds the adapters.

    Returns:
        The field of the base.

    Raises:
        ValueError: If the model has no layers with adapters.
    """
    with adapters_off(model):
        pass  # says at once if there are none

    def off(x: Tensor, t: Tensor) -> Tensor:
        with adapters_off(model):
            return field(x, t)

    def base(x: Tensor, t: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled() and _is_checkpointed(model):
            v: Tensor = _EvaluatedAnew.apply(x, t, field, model)
            return v
        return off(x, t)

    return base


@contextlib.contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Switch off all adapters of `peft` in a module, and restore what was on.

    Raises:
        ValueError: If there are none.
    """
    # Layers have a flag of this name, models that hold such layers a method.
    layers: list[Any] = [
        module
        for module in model.modules()
        if isinstance(getattr(module, "disable_adapters", None), bool)
    ]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no adapters: add them first, by peft.get_peft_model or "
            "model.add_adapter(LoraConfig(...)), or use a frozen copy of the model as the base"
        )
    active = [layer for layer in layers if not layer.disable_adapters]
    flags = [(p, p.requires_grad) for layer in active for p in layer.parameters()]
    try:
        for layer in active:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in active:
            layer.enable_adapters(True)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _is_checkpointed(model: nn.Module) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


class _EvaluatedAnew(torch.autograd.Function):
    """A field evaluated without a graph, and anew with one in the backward pass, adapters off."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: Tensor, field: VelocityField, model: nn.Module) -> Tensor:
        """The velocity, without a graph."""
        ctx.save_for_backward(x, t)
        ctx.field, ctx.model = field, model
        with adapters_off(model):
            return field(x, t)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        """The product with the Jacobian in x."""
        x, t = ctx.saved_tensors
        with torch.enable_grad(), adapters_off(ctx.model):
            x = x.detach().requires_grad_()
            (product,) = torch.autograd.grad(ctx.field(x, t), x, gradients)
        return product, None, None, None
