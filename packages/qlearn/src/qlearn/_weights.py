"""Parameters of stacked networks: as one stack, or network by network with kept views."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["Layers", "NetworkViews", "Weights"]


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

    def bfloat16(self) -> "Weights":
        """The same with the kernels of the square layers rounded to bfloat16.

        Inputs (with the time of a flow) and outputs (values, velocities) stay in float32: their
        products are few.
        """
        last = len(self.kernels) - 1
        kernels = [k.bfloat16() if 0 < i < last else k for i, k in enumerate(self.kernels)]
        return Weights(kernels, self.biases, self.scales, self.shifts)


@runtime_checkable
class Layers(Protocol):
    """What evaluations need of a module."""

    def stack(self) -> Weights:
        """Differentiable views of the parameters, ``G`` networks."""

    def networks(self) -> list[Weights]:
        """Detached views, one network each."""


class NetworkViews:
    """Detached views of a module's networks, made anew only when its parameters are others.

    A rollout asks for them at every step. Kernels rounded to bfloat16 are copies and made at every
    call: nothing tells that a parameter was changed in place, a fused optimiser does not raise its
    version.
    """

    def __init__(self) -> None:
        self._made_of: list[int] = []
        self._views: list[Weights] = []

    def of(
        self, parameters: Sequence[Tensor], stack: Callable[[], Weights], *, rounded: bool
    ) -> list[Weights]:
        """The networks of ``stack()``, whose tensors are views of ``parameters``.

        Args:
            parameters: what the views are of.
            stack: makes the stack.
            rounded: whether to round kernels, see :meth:`Weights.bfloat16`.
        """
        made_of = [p.data_ptr() for p in parameters]
        if made_of != self._made_of:
            with torch.no_grad():
                weights = stack()
                self._views = weights.like([t.detach() for t in weights.flat()]).networks()
            self._made_of = made_of
        return [net.bfloat16() for net in self._views] if rounded else self._views

    def __deepcopy__(self, memo: object) -> "NetworkViews":
        return NetworkViews()  # a copied module has parameters of its own

    def __reduce__(self) -> tuple[type["NetworkViews"], tuple[()]]:
        return NetworkViews, ()
