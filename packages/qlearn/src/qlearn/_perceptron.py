"""Evaluation, gradient and linearization of stacked perceptrons, the hot path of every update."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from qlearn._arithmetic import LAYER_NORM_EPSILON, Batched, OneDNN, gelu_with_slope, onednn_suits

__all__ = ["Pullback", "Weights", "evaluate", "linearize"]

Pullback = Callable[[Tensor, int], Tensor]
"""``(cotangent, k) -> (d output_k / d input_k)^T cotangent``."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Parameters of stacked networks, one tensor per layer; those of LayerNorm may be absent.

    Attributes:
        kernels: ``(G, in, out)``.
        biases: ``(G, out)``.
        scales: LayerNorm's factors after each hidden activation, ``(G, width)``.
        shifts: its offsets, ``(G, width)``.
    """

    kernels: Sequence[Tensor]
    biases: Sequence[Tensor]
    scales: Sequence[Tensor]
    shifts: Sequence[Tensor]

    @property
    def kinds(self) -> tuple[Sequence[Tensor], ...]:
        """The four lists."""
        return self.kernels, self.biases, self.scales, self.shifts

    def flat(self) -> list[Tensor]:
        """All tensors in one list."""
        return [*self.kernels, *self.biases, *self.scales, *self.shifts]

    def like(self, flat: Sequence[Tensor]) -> "Weights":
        """Inverse of :meth:`flat` for a list in its order."""
        ends = list(itertools.accumulate(map(len, self.kinds)))
        return Weights(*(flat[end - len(k) : end] for end, k in zip(ends, self.kinds, strict=True)))

    def rows(self) -> "Weights":
        """The same with vectors as ``(G, 1, width)``, for stacks of rows ``(G, B, width)``."""
        return self.like([t if t.dim() == 3 else t.unsqueeze(1) for t in self.flat()])

    def networks(self) -> list["Weights"]:
        """The networks one by one, with kernels ``(in, out)``."""
        each = zip(*(tensor.unbind() for tensor in self.flat()), strict=True)
        return [self.like(tensors) for tensors in each]


def evaluate(x: Float[Tensor, "G B i"], weights: Weights) -> Float[Tensor, "G B o"]:
    """Outputs of ``G`` stacked networks on ``B`` rows each."""
    if not onednn_suits(x):
        return _layers(x, weights.rows())
    if torch.is_grad_enabled() and (x.requires_grad or weights.kernels[0].requires_grad):
        outputs: Tensor = _Perceptron.apply(x, weights, *weights.flat())
        return outputs
    return _stack(
        [_onednn_layers(row, net) for row, net in zip(x, weights.networks(), strict=True)]
    )


@torch.no_grad()
def linearize(
    x: Float[Tensor, "G K B i"], weights: Weights
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
        whole = [_Tape(net, OneDNN(), keep_inputs=False) for net in weights.networks()]
        values = _stack([tape.forward(row) for tape, row in zip(whole, stacked, strict=True)])
        tapes = list(zip(*(tape.split(points) for tape in whole), strict=True))

        def pullback(cotangent: Tensor, k: int) -> Tensor:
            pairs = zip(tapes[k], cotangent.contiguous(), strict=True)
            return _stack([tape.backward(row)[0] for tape, row in pairs])
    else:
        together = _Tape(weights.rows(), Batched(), keep_inputs=False)
        values = together.forward(stacked)
        blocks = together.split(points)

        def pullback(cotangent: Tensor, k: int) -> Tensor:
            return blocks[k].backward(cotangent)[0]

    return values.reshape(len(x), points, *x.shape[2:-1], -1), pullback


def _layers(x: Tensor, weights: Weights) -> Tensor:
    """All layers by differentiable operations of torch."""
    last = len(weights.kernels) - 1
    for i, (kernel, bias) in enumerate(zip(weights.kernels, weights.biases, strict=True)):
        x = torch.baddbmm(bias, x, kernel)
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


class _Tape:
    """One forward pass with what the backward pass needs of it.

    Attributes:
        inputs: of every layer, if gradients of parameters are wanted.
        slopes: GELU's derivative in every hidden layer.
        hiddens: inputs of LayerNorm in every hidden layer.
        means: their means.
        scatters: their inverse standard deviations.
    """

    def __init__(self, net: Weights, arithmetic: Batched, *, keep_inputs: bool) -> None:
        self.net, self.arithmetic, self.keep_inputs = net, arithmetic, keep_inputs
        self.inputs: list[Tensor] = []
        self.slopes: list[Tensor] = []
        self.hiddens: list[Tensor] = []
        self.means: list[Tensor] = []
        self.scatters: list[Tensor] = []

    def kept(self) -> list[Tensor]:
        """Everything on the tape in one list."""
        return [*self.inputs, *self.slopes, *self.hiddens, *self.means, *self.scatters]

    def restore(self, kept: Sequence[Tensor]) -> None:
        """Inverse of :meth:`kept` for a tape of the same network."""
        layers, rest = len(self.net.kernels), list(kept)
        normed = len(self.net.scales)
        counts = (layers if self.keep_inputs else 0, layers - 1, normed, normed, normed)
        parts = []
        for count in counts:
            parts.append(rest[:count])
            rest = rest[count:]
        self.inputs, self.slopes, self.hiddens, self.means, self.scatters = parts

    def forward(self, x: Tensor) -> Tensor:
        """Outputs for ``x``, with the tape filled."""
        net, last = self.net, len(self.net.kernels) - 1
        for i in range(last + 1):
            if self.keep_inputs:
                self.inputs.append(x)
            x = self.arithmetic.affine(x, net.kernels[i], net.biases[i])
            if i < last:
                x, slope = gelu_with_slope(x)
                self.slopes.append(slope)
                if net.scales:
                    self.hiddens.append(x)
                    x, mean, scatter = self.arithmetic.norm(x, net.scales[i], net.shifts[i])
                    self.means.append(mean)
                    self.scatters.append(scatter)
        return x

    def split(self, points: int) -> list["_Tape"]:
        """One tape for each of ``points`` equal blocks of rows, without the layers' inputs."""
        # Contiguous, because LayerNorm's derivative takes the strides of its means for granted.
        kept = [
            [block.contiguous() for block in tensor.chunk(points, dim=-2)]
            for tensor in self.kept()[len(self.inputs) :]
        ]
        tapes = [_Tape(self.net, self.arithmetic, keep_inputs=False) for _ in range(points)]
        for tape, *parts in zip(tapes, *kept, strict=True):
            tape.restore(parts)
        return tapes

    def backward(self, gradient: Tensor, wanted: bool = True) -> tuple[Tensor, list[Tensor]]:
        """Gradients of the input, if ``wanted``, and of the parameters, if inputs were kept.

        The latter in the order of :meth:`Weights.flat`.
        """
        net, pull = self.net, self.arithmetic.pull
        kernels, biases, scales, shifts = [], [], [], []
        for i in reversed(range(len(net.kernels))):
            if self.keep_inputs:
                kernels.append(OneDNN.affine(self.inputs[i].t(), gradient, None))
                biases.append(gradient.sum(0))
            if i == 0:
                break
            if not net.scales:
                gradient = pull(gradient, net.kernels[i], self.slopes[i - 1])
                continue
            gradient = pull(gradient, net.kernels[i], None)
            kept = self.hiddens[i - 1], self.means[i - 1], self.scatters[i - 1]
            gradient, scale, shift = self.arithmetic.pull_norm(gradient, kept, net.scales[i - 1])
            scales.append(scale)
            shifts.append(shift)
            gradient = gradient * self.slopes[i - 1]
        gradients = [*kernels[::-1], *biases[::-1], *scales[::-1], *shifts[::-1]]
        if not wanted:
            return gradient, gradients
        return pull(gradient, net.kernels[0], None), gradients


def _stack(parts: list[Tensor]) -> Tensor:
    """``torch.stack`` without a copy for a single network."""
    return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)


class _Perceptron(torch.autograd.Function):
    """:func:`evaluate` with a gradient, network by network, on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Weights, *flat: Tensor) -> Tensor:
        ctx.layout = weights
        ctx.keep_inputs = ctx.needs_input_grad[2]
        tapes = [_Tape(net, OneDNN(), keep_inputs=ctx.keep_inputs) for net in weights.networks()]
        values = [tape.forward(row.contiguous()) for tape, row in zip(tapes, x, strict=True)]
        # Not as attributes: only so does torch notice a parameter that is changed before backward.
        ctx.save_for_backward(x, *flat, *(tensor for tape in tapes for tensor in tape.kept()))
        return _stack(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.layout.flat())
        x, *saved = ctx.saved_tensors
        flat, kept = saved[:count], saved[count:]
        if torch.is_grad_enabled():  # create_graph: second derivatives come from torch's layers
            wanted = [t for t in (x, *flat) if t.requires_grad]
            values = _layers(x, ctx.layout.like(flat).rows())
            found = iter(torch.autograd.grad(values, wanted, gradient, create_graph=True))
            first, *rest = [next(found) if t.requires_grad else None for t in (x, *flat)]
            return first, None, *rest
        each = len(kept) // len(gradient)
        inputs, parameters = [], []
        for g, (net, row) in enumerate(
            zip(ctx.layout.like(flat).networks(), gradient.contiguous(), strict=True)
        ):
            tape = _Tape(net, OneDNN(), keep_inputs=ctx.keep_inputs)
            tape.restore(kept[g * each : (g + 1) * each])
            pulled, gradients = tape.backward(row, ctx.needs_input_grad[0])
            inputs.append(pulled)
            parameters.append(gradients)
        first = _stack(inputs) if ctx.needs_input_grad[0] else None
        if not ctx.keep_inputs:
            return first, None, *[None] * count
        return first, None, *(_stack(list(of)) for of in zip(*parameters, strict=True))
