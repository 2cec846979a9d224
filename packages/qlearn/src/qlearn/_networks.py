"""Multi-layer perceptrons for many replicas, and ensembles of critics, as stacked parameters.

A hidden layer is Dense -> GELU (tanh form) -> LayerNorm if wanted (epsilon 1e-6); the last layer is
Dense. Kernels start Glorot-uniform, biases at zero, as in the published code of QAM
(arXiv 2601.14234) and TRQAM (arXiv 2605.27079).
"""

import itertools
import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from qlearn._arithmetic import onednn_suits, rounds_products
from qlearn._perceptron import Pullback, Recorder, evaluate, linearize
from qlearn._random import RandomStreams
from qlearn._tree import Observation, described_tree
from qlearn._weights import NetworkViews, Weights

__all__ = ["MLP", "CriticEnsemble"]


class _Layers(nn.Module):
    """Parameters of a stack of layers, each with the leading axes ``(R, *members)``."""

    def __init__(
        self,
        widths: Sequence[int],
        members: tuple[int, ...],
        layer_norm: bool,
        streams: RandomStreams,
    ) -> None:
        super().__init__()
        if any(width < 1 for width in (*widths, *members)):
            raise ValueError(f"sizes must be at least 1, got widths {widths}, members {members}")
        self.widths = tuple(widths)
        stack = (streams.replicas, *members)
        kernels, biases, norms = [], [], []
        for fan_in, fan_out in itertools.pairwise(widths):
            bound = math.sqrt(6.0 / (fan_in + fan_out))
            kernel = streams.uniform(*members, fan_in, fan_out).mul_(2.0 * bound).sub_(bound)
            kernels.append(nn.Parameter(kernel))
            biases.append(nn.Parameter(kernel.new_zeros(*stack, fan_out)))
            norms.append(kernel.new_ones(*stack, fan_out))
        self.kernels, self.biases = nn.ParameterList(kernels), nn.ParameterList(biases)
        hidden = norms[:-1] if layer_norm else []
        self.scales = nn.ParameterList([nn.Parameter(ones) for ones in hidden])
        self.shifts = nn.ParameterList([nn.Parameter(torch.zeros_like(ones)) for ones in hidden])
        self._views = NetworkViews()

    def stack(self) -> Weights:
        """The parameters with their leading axes merged into ``G = R * members``."""
        members = self.kernels[0].dim() - 3
        return Weights(*([stacked(p, members) for p in kind] for kind in self._lists()))

    def networks(self) -> list[Weights]:
        """The same network by network, without gradient, in the precision of the products."""
        parameters = [p for kind in self._lists() for p in kind]
        return self._views.of(parameters, self.stack, rounded=rounds_products("cpu"))

    def run(self, x: Float[Tensor, "G B i"]) -> Float[Tensor, "G B o"]:
        """All layers for ``G`` stacked networks on ``B`` rows each."""
        return evaluate(x, self)

    def _lists(self) -> list[list[Tensor]]:
        kinds = (self.kernels, self.biases, self.scales, self.shifts)
        # Indexing or iterating a ParameterList takes 5 us an entry.
        return [list(kind.parameters(recurse=False)) for kind in kinds]


class MLP(_Layers):
    """One perceptron per replica.

    Parameters: ``kernels.{i} (R, in, out)``, ``biases.{i} (R, out)`` and, with ``layer_norm``,
    ``scales.{i}``, ``shifts.{i} (R, width)``.

    Args:
        replicas: number of independent networks ``R``.
        in_dim: input size.
        hidden: widths of the hidden layers; empty for a linear map.
        out_dim: output size.
        layer_norm: normalise after each hidden activation.
        streams: draws the initial kernels; the parameters live on its device.

    Raises:
        ValueError: a size below one, or ``replicas`` differs from ``streams.replicas``.
    """

    def __init__(
        self,
        replicas: int,
        in_dim: int,
        hidden: Sequence[int],
        out_dim: int,
        *,
        layer_norm: bool,
        streams: RandomStreams,
    ) -> None:
        check_replicas(replicas, streams)
        super().__init__((in_dim, *hidden, out_dim), (), layer_norm, streams)
        self.replicas = replicas

    def forward(self, x: Float[Tensor, "*lead R B i"]) -> Float[Tensor, "*lead R B o"]:
        """Outputs for ``x (*lead, R, B, in)``; ``*lead`` (path times, samples) joins the batch."""
        folded, lead = fold_leading(x, self.replicas)
        return unfold_leading(self.run(folded), lead)

    def linearize(self, x: Float[Tensor, "K R B i"]) -> tuple[Float[Tensor, "K R B o"], Pullback]:
        """Outputs at ``K`` points each and the vector-Jacobian products there, without gradient.

        Returns:
            The outputs, and ``pullback(cotangent (R, B, o), k) -> (R, B, i)`` at ``x[k]``.
        """
        values, pullback = linearize(x.movedim(1, 0), self)
        return values.movedim(1, 0), pullback

    def recorder(self, like: Tensor) -> Recorder | None:
        """What keeps evaluations for a gradient later, where that is faster than evaluating again.

        Args:
            like: has the dtype and device of the inputs to come.

        Returns:
            A function of ``x (R, B, in)``, or None where a batch of all inputs is as fast.
        """
        return Recorder(self) if onednn_suits(like) else None


class CriticEnsemble(_Layers):
    """``E`` independent critics per replica on one shared input.

    Parameters as in :class:`MLP` with a member axis: ``kernels.{i} (R, E, in, out)`` and so on.

    Args:
        replicas: number of replicas ``R``.
        ensemble: number of critics ``E`` in each.
        in_dim: size of all inputs together, observation plus action chunk (plus time).
        hidden: widths of the hidden layers.
        layer_norm: normalise after each hidden activation.
        streams: draws the initial kernels; the parameters live on its device.

    Raises:
        ValueError: a size below one, or ``replicas`` differs from ``streams.replicas``.
    """

    def __init__(
        self,
        replicas: int,
        ensemble: int,
        in_dim: int,
        hidden: Sequence[int],
        *,
        layer_norm: bool,
        streams: RandomStreams,
    ) -> None:
        check_replicas(replicas, streams)
        super().__init__((in_dim, *hidden, 1), (ensemble,), layer_norm, streams)
        self.replicas, self.ensemble = replicas, ensemble

    def encode(self, observations: Observation) -> Shaped[Tensor, "R B O"]:
        """The observations themselves; :class:`~qlearn.EncodedCritic` takes several leaves.

        Raises:
            ValueError: observations of several leaves, or images.
        """
        if not isinstance(observations, Tensor) or observations.dim() > 3:
            raise ValueError(
                "a CriticEnsemble takes one vector per observation, got "
                f"{described_tree(observations)}; use EncodedCritic with an ObservationEncoder"
            )
        return observations

    def forward(self, *inputs: Float[Tensor, "..."]) -> Float[Tensor, "*lead R E B"]:
        """Values of every member.

        Args:
            *inputs: ``(*lead, R, B, n_i)`` each, concatenated on the last axis. Leading axes
                broadcast, so ``critic(observations, actions)`` takes actions
                ``(n, R, B, D)`` for observations ``(R, B, O)``.

        Returns:
            ``(*lead, R, E, B)``.
        """
        x, lead = fold_leading(concatenate(inputs), self.replicas)
        rows = x.shape[1]
        # The members share their input: for R = 1 the copies of it are a view with stride 0.
        shared = x.unsqueeze(1).expand(-1, self.ensemble, -1, -1).flatten(0, 1)
        values = self.run(shared).view(self.replicas, self.ensemble, rows)
        if not lead:
            return values
        values = values.reshape(self.replicas, self.ensemble, *lead, rows // math.prod(lead))
        return values.movedim((0, 1), (-3, -2))


def concatenate(inputs: Iterable[Tensor]) -> Tensor:
    """Join tensors on the last axis after broadcasting all others."""
    parts = list(inputs)
    if len(parts) == 1:
        return parts[0]
    # torch.broadcast_shapes imports a symbolic algebra at its first call, which takes a second.
    rows = [1] * (max(part.dim() for part in parts) - 1)
    for part in parts:
        for axis, size in enumerate(part.shape[:-1], len(rows) + 1 - part.dim()):
            rows[axis] = rows[axis] if size == 1 else size
    return torch.cat([part.expand(*rows, -1) for part in parts], dim=-1)


def stacked(parameter: Tensor, members: int) -> Tensor:
    """View ``(R, *members, ...)`` as ``(G, ...)``."""
    return parameter.flatten(0, members) if members else parameter


def fold_leading(x: Tensor, replicas: int) -> tuple[Tensor, tuple[int, ...]]:
    """``(*lead, R, B, d)`` to ``(R, prod(lead) * B, d)`` and ``lead``; a view where possible."""
    if x.dim() < 3 or x.shape[-3] != replicas:
        raise ValueError(
            f"expected an input (..., R, B, d) with R = {replicas} replicas, got {tuple(x.shape)}"
        )
    lead = tuple(x.shape[:-3])
    if not lead:
        return x, lead
    return x.movedim(-3, 0).flatten(1, -2), lead


def unfold_leading(x: Tensor, lead: tuple[int, ...]) -> Tensor:
    """Inverse of :func:`fold_leading`."""
    if not lead:
        return x
    replicas, rows, size = x.shape
    return x.reshape(replicas, *lead, rows // math.prod(lead), size).movedim(0, -3)


def check_replicas(replicas: int, streams: RandomStreams) -> None:
    """Refuse streams of another number of replicas."""
    if replicas != streams.replicas:
        raise ValueError(f"{replicas} replicas need as many streams, got {streams.replicas}")
