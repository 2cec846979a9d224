"""A forward pass that keeps what its backward pass needs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from qlearn._arithmetic import Batched, OneDNN, gelu_with_slope
from qlearn._weights import Weights

__all__ = ["Tape"]


class Tape:
    """One forward pass with what the backward pass needs of it.

    Attributes:
        net: the network, or a stack of them where the arithmetic is for stacks.
        arithmetic: operations of its layers.
        keep_inputs: whether gradients of parameters are wanted; needs a single network.
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
                x = x.to(net.kernels[i].dtype)
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

    def split(self, points: int) -> list["Tape"]:
        """One tape for each of ``points`` equal blocks of rows, without the layers' inputs."""
        # Contiguous, because LayerNorm's derivative takes the strides of its means for granted.
        kept = [
            [block.contiguous() for block in tensor.chunk(points, dim=-2)]
            for tensor in self.kept()[len(self.inputs) :]
        ]
        tapes = [Tape(self.net, self.arithmetic, keep_inputs=False) for _ in range(points)]
        for tape, *parts in zip(tapes, *kept, strict=True):
            tape.restore(parts)
        return tapes

    @staticmethod
    def join(tapes: Sequence["Tape"]) -> "Tape":
        """One tape for the rows of several of the same network, one after another."""
        whole = Tape(tapes[0].net, tapes[0].arithmetic, keep_inputs=tapes[0].keep_inputs)
        parts = zip(*(tape.kept() for tape in tapes), strict=True)
        whole.restore([torch.cat(part) for part in parts])
        return whole

    def backward(self, gradient: Tensor, wanted: bool = True) -> tuple[Tensor, list[Tensor]]:
        """Gradients of the input, if ``wanted``, and of the parameters, if inputs were kept.

        The latter in the order of :meth:`Weights.flat`.
        """
        net, pull = self.net, self.arithmetic.pull
        kernels, biases, scales, shifts = [], [], [], []
        for i in reversed(range(len(net.kernels))):
            if self.keep_inputs:
                kernels.append(OneDNN.kernel_gradient(self.inputs[i], gradient))
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
            gradient = gradient.mul_(self.slopes[i - 1])
        gradients = [*kernels[::-1], *biases[::-1], *scales[::-1], *shifts[::-1]]
        if not wanted:
            return gradient, gradients
        return pull(gradient, net.kernels[0], None), gradients
