"""Evaluation, gradient and linearization of stacked perceptrons, the hot path of every update."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from qlearn._arithmetic import (
    LAYER_NORM_EPSILON,
    Batched,
    OneDNN,
    onednn_suits,
    rounds_products,
    without_autocast,
)
from qlearn._tape import Tape
from qlearn._weights import Layers, Weights

__all__ = ["Pullback", "Recorder", "evaluate", "linearize"]

Pullback = Callable[[Tensor, int], Tensor]
"""``(cotangent, k) -> (d output_k / d input_k)^T cotangent``."""


def evaluate(x: Float[Tensor, "G B i"], layers: Layers) -> Float[Tensor, "G B o"]:
    """Outputs of ``G`` stacked networks on ``B`` rows each."""
    if not onednn_suits(x):
        return _layers(x, layers.stack(), rounds_products(x.device.type))
    if torch.is_grad_enabled():
        weights = layers.stack()
        if x.requires_grad or weights.kernels[0].requires_grad:
            networks = layers.networks()
            outputs: Tensor = _Perceptron.apply(x, weights, networks, None, *weights.flat())
            return outputs
    return _stack([_onednn_layers(row, net) for row, net in zip(x, layers.networks(), strict=True)])


@torch.no_grad()
def linearize(
    x: Float[Tensor, "G K B i"], layers: Layers
) -> tuple[Float[Tensor, "G K B o"], Pullback]:
    """Outputs at ``K`` points and the vector-Jacobian product at each, from one evaluation.

    The adjoint of a path needs a chain of products, each at another point of the path. Evaluating
    all points together and keeping GELU's derivative saves evaluating them again one by one.

    Returns:
        The outputs, and ``pullback(cotangent (G, B, o), k) -> (G, B, i)``. Neither is
        differentiable.
    """
    stacked, points = x.flatten(1, 2), x.shape[1]
    if onednn_suits(x):
        whole = [Tape(net, OneDNN(), keep_inputs=False) for net in layers.networks()]
        values = _stack([tape.forward(row) for tape, row in zip(whole, stacked, strict=True)])
        tapes = list(zip(*(tape.split(points) for tape in whole), strict=True))

        def pullback(cotangent: Tensor, k: int) -> Tensor:
            pairs = zip(tapes[k], cotangent.contiguous(), strict=True)
            return _stack([tape.backward(row)[0] for tape, row in pairs])
    else:
        kind = x.device.type
        weights = layers.stack().rows()
        together = Tape(
            weights.bfloat16() if rounds_products(kind) else weights, Batched(), keep_inputs=False
        )
        with without_autocast(kind):
            values = together.forward(stacked)
        blocks = together.split(points)

        def pullback(cotangent: Tensor, k: int) -> Tensor:
            with without_autocast(kind):
                return blocks[k].backward(cotangent)[0]

    return values.reshape(len(x), points, *x.shape[2:-1], -1), pullback


class Recorder:
    """Evaluations one after another whose gradient is wanted later, all together.

    A rollout evaluates a network step by step without gradient, and a regression along it needs
    the same values with one. Keeping what the gradient needs saves the second evaluation. For
    inputs that :func:`onednn_suits` holds of; elsewhere evaluating again in one batch is as fast.
    """

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._networks = layers.networks()
        self._versions = self._current()
        self._tapes: list[list[Tape]] = []
        self._values: list[Tensor] = []

    def __len__(self) -> int:
        """Evaluations so far."""
        return len(self._tapes)

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "G B i"]) -> Float[Tensor, "G B o"]:
        """Outputs of the networks, without gradient."""
        tapes = [Tape(net, OneDNN(), keep_inputs=True) for net in self._networks]
        values = [tape.forward(row.contiguous()) for tape, row in zip(tapes, x, strict=True)]
        self._tapes.append(tapes)
        self._values.append(_stack(values))
        return self._values[-1]

    def values(self) -> Float[Tensor, "G rows o"]:
        """All outputs, one evaluation's rows after another's, with gradient to the parameters.

        Call it once.

        Raises:
            RuntimeError: the parameters are no longer those of the evaluations.
        """
        if self._current() != self._versions:
            raise RuntimeError("the parameters were changed since the recorded evaluations")
        weights = self._layers.stack()
        tapes = [Tape.join(tapes) for tapes in zip(*self._tapes, strict=True)]
        x = _stack([tape.inputs[0] for tape in tapes])
        recorded = tapes, torch.cat(self._values, dim=1)
        self._tapes, self._values = [], []
        values: Tensor = _Perceptron.apply(x, weights, self._networks, recorded, *weights.flat())
        return values

    def _current(self) -> list[int]:
        return [tensor._version for tensor in self._layers.stack().flat()]


def _layers(x: Tensor, stack: Weights, rounded: bool) -> Tensor:
    """All layers by differentiable operations of torch, products ``rounded`` to bfloat16 or not."""
    weights = stack.rows()
    last = len(weights.kernels) - 1
    kernels = weights.bfloat16().kernels if rounded else weights.kernels
    with without_autocast(x.device.type):
        for i, (kernel, bias) in enumerate(zip(kernels, weights.biases, strict=True)):
            x = Batched.affine(x, kernel, bias)
            if i < last:
                x = functional.gelu(x, approximate="tanh")
                if weights.scales:
                    x = functional.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPSILON)
                    x = torch.addcmul(weights.shifts[i], x, weights.scales[i])
    return x


def _onednn_layers(x: Tensor, net: Weights) -> Tensor:
    """All layers of one network, with nothing kept for a gradient."""
    last = len(net.kernels) - 1
    for i, (kernel, bias) in enumerate(zip(net.kernels, net.biases, strict=True)):
        if i == last:
            return OneDNN.affine(x, kernel, bias)
        x = OneDNN.affine_gelu(x, kernel, bias)
        if net.scales:
            scale, shift = net.scales[i], net.shifts[i]
            x = functional.layer_norm(x, x.shape[-1:], scale, shift, LAYER_NORM_EPSILON)
    raise AssertionError("a network has at least one layer")


def _stack(parts: list[Tensor]) -> Tensor:
    """``torch.stack`` without a copy for a single network."""
    return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)


class _Perceptron(torch.autograd.Function):
    """:func:`evaluate` with a gradient, network by network, on a CPU."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weights: Weights,
        networks: list[Weights],
        recorded: tuple[list[Tape], Tensor] | None,
        *flat: Tensor,
    ) -> Tensor:
        ctx.layout, ctx.networks, ctx.rounded = weights, networks, rounds_products("cpu")
        ctx.keep_inputs = ctx.needs_input_grad[4]
        if recorded is None:
            tapes = [Tape(net, OneDNN(), keep_inputs=ctx.keep_inputs) for net in networks]
            pairs = zip(tapes, x, strict=True)
            values = _stack([tape.forward(row.contiguous()) for tape, row in pairs])
        else:
            tapes, values = recorded
        # Not as attributes: only so does torch notice a parameter that is changed before backward.
        ctx.save_for_backward(x, *flat, *(tensor for tape in tapes for tensor in tape.kept()))
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.layout.flat())
        x, *saved = ctx.saved_tensors
        flat, kept = saved[:count], saved[count:]
        if torch.is_grad_enabled():  # create_graph: second derivatives come from torch's layers
            wanted = [t for t in (x, *flat) if t.requires_grad]
            values = _layers(x, ctx.layout.like(flat), ctx.rounded)
            found = iter(torch.autograd.grad(values, wanted, gradient, create_graph=True))
            first, *rest = [next(found) if t.requires_grad else None for t in (x, *flat)]
            return first, None, None, None, *rest
        each = len(kept) // len(gradient)
        inputs, parameters = [], []
        for g, (net, row) in enumerate(zip(ctx.networks, gradient.contiguous(), strict=True)):
            tape = Tape(net, OneDNN(), keep_inputs=ctx.keep_inputs)
            tape.restore(kept[g * each : (g + 1) * each])
            pulled, gradients = tape.backward(row, ctx.needs_input_grad[0])
            inputs.append(pulled)
            parameters.append(gradients)
        first = _stack(inputs) if ctx.needs_input_grad[0] else None
        if not ctx.keep_inputs:
            return first, None, None, None, *[None] * count
        of_each = zip(*parameters, strict=True)
        return first, None, None, None, *(_stack(list(of)) for of in of_each)
