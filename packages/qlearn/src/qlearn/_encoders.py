"""From observation trees to one context vector: convolutions for images, vectors as they are."""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from qlearn._images import channels_last, is_image
from qlearn._networks import MLP, CriticEnsemble, check_replicas
from qlearn._random import RandomStreams
from qlearn._tree import (
    LeafSpec,
    Observation,
    ObservationSpec,
    matching_leaves,
    tree_leaves,
)

__all__ = ["EncodedCritic", "ImageEncoder", "ObservationEncoder"]


class ImageEncoder(nn.Module):
    """The small residual network of IMPALA (arXiv 1802.01561), one per replica.

    Per stage: 3x3 convolution, 3x3 max-pooling with stride 2, and residual blocks of twice
    ReLU -> 3x3 convolution. Behind the last stage ReLU, one dense layer and GELU (tanh form). With
    one block a stage and 16, 32, 32 channels it is the encoder that FQL (arXiv 2502.02538) and
    OGBench's baselines (arXiv 2410.20092) use for pixels. Kernels start Glorot-uniform, biases at
    zero. A replica's numbers do not depend on the others.

    Args:
        replicas: number of independent encoders ``R``.
        shape: of one image, ``(H, W, C)`` or ``(C, H, W)``; the smaller of the two ends is taken
            for the channels.
        channels: output channels of each stage.
        blocks: residual blocks in each stage.
        features: size of the result.
        streams: draws the initial kernels; the parameters live on its device.

    Raises:
        ValueError: a shape that is none of an image, or a size below one.
    """

    def __init__(
        self,
        replicas: int,
        shape: Sequence[int],
        *,
        channels: Sequence[int] = (16, 32, 32),
        blocks: int = 1,
        features: int = 512,
        streams: RandomStreams,
    ) -> None:
        check_replicas(replicas, streams)
        super().__init__()
        if len(shape) != 3 or min(*shape, *channels, features) < 1 or blocks < 0 or not channels:
            raise ValueError(
                "an image encoder needs an image shape (H, W, C) or (C, H, W) and sizes of at "
                f"least 1, got {tuple(shape)}, channels {tuple(channels)}, {features} features"
            )
        self.shape, self.blocks, self.features = tuple(shape), blocks, features
        self._last = channels_last(self.shape)
        height, width, depth = shape if self._last else (*shape[1:], shape[0])
        kernels, biases = [], []
        for before, after in itertools.pairwise((depth, *channels)):
            for fan_in in (before, *(after,) * 2 * blocks):
                bound = math.sqrt(6.0 / (9 * (fan_in + after)))
                kernel = streams.uniform(after, fan_in, 3, 3).mul_(2.0 * bound).sub_(bound)
                kernels.append(nn.Parameter(kernel))
                biases.append(nn.Parameter(kernel.new_zeros(replicas, after)))
            height, width = math.ceil(height / 2), math.ceil(width / 2)
        self.kernels, self.biases = nn.ParameterList(kernels), nn.ParameterList(biases)
        self.head = MLP(
            replicas, height * width * channels[-1], (), features, layer_norm=False, streams=streams
        )

    def forward(self, images: Shaped[Tensor, "R *rows a b c"]) -> Float[Tensor, "R *rows features"]:
        """Features of images ``(R, ..., *shape)``: bytes, or floats in [0, 1].

        Raises:
            ValueError: images of another shape.
        """
        if images.shape[-3:] != self.shape or images.dim() < 5:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; expected (R, B, {self.shape})"
            )
        rows = images.shape[1:-3]
        # Replica by replica: a grouped convolution gives other numbers than the same one alone.
        each = [self._convolve(group, number) for number, group in enumerate(images.flatten(1, -4))]
        features: Tensor = functional.gelu(self.head(torch.stack(each)), approximate="tanh")
        return features.view(len(features), *rows, self.features)

    def _convolve(self, images: Shaped[Tensor, "B a b c"], replica: int) -> Float[Tensor, "B flat"]:
        kernels = self.kernels.parameters(recurse=False)
        layers = [(k[replica], b[replica]) for k, b in zip(kernels, self.biases, strict=True)]
        x = images.to(layers[0][0].dtype)
        if not images.is_floating_point():
            x = x / 255.0
        if self._last:
            x = x.movedim(-1, -3)
        for stage in range(0, len(layers), 1 + 2 * self.blocks):
            x = functional.conv2d(x, *layers[stage], padding=1)
            x = functional.max_pool2d(x, 3, stride=2, padding=1)
            for first in range(stage + 1, stage + 1 + 2 * self.blocks, 2):
                inner = functional.conv2d(x.relu(), *layers[first], padding=1)
                x = x + functional.conv2d(inner.relu(), *layers[first + 1], padding=1)
        return x.relu().flatten(1)


class ObservationEncoder(nn.Module):
    """One vector per observation: features of every image, then all other leaves, flat.

    Leaves follow in the order of their names, images first. Observations without images have no
    parameters here: a single vector is its own context, bit for bit. Past observations of a history
    (axes in front of an image, or of a vector) are laid side by side.

    Args:
        replicas: number of independent encoders ``R``.
        spec: of the observations, as :attr:`qlearn.EpisodeData.spec` gives it.
        channels: of each image encoder's stages.
        blocks: residual blocks in each stage.
        features: that each image gives.
        streams: draws the initial kernels.

    Attributes:
        context_dim: size ``C`` of a context.
    """

    def __init__(
        self,
        replicas: int,
        spec: ObservationSpec,
        *,
        channels: Sequence[int] = (16, 32, 32),
        blocks: int = 1,
        features: int = 512,
        streams: RandomStreams,
    ) -> None:
        super().__init__()
        self.spec = spec
        leaves: list[tuple[str, LeafSpec]] = tree_leaves(spec)
        self._images = [name for name, leaf in leaves if is_image(leaf)]
        self._axes = {name: len(leaf.shape) for name, leaf in leaves}
        self.encoders = nn.ModuleList()
        self.context_dim = 0
        for name, leaf in leaves:
            size = math.prod(leaf.shape)
            if name in self._images:
                self.encoders.append(
                    ImageEncoder(
                        replicas,
                        leaf.shape[-3:],
                        channels=channels,
                        blocks=blocks,
                        features=features,
                        streams=streams,
                    )
                )
                size = math.prod(leaf.shape[:-3]) * features
            self.context_dim += size

    def forward(self, observations: Observation) -> Float[Tensor, "R *rows C"]:
        """Contexts ``(R, *rows, C)`` of observations ``(R, *rows, *leaf)``.

        Raises:
            ValueError: other leaves than announced.
        """
        leaves = dict(matching_leaves(self.spec, observations))
        encoders = dict(zip(self._images, self.encoders, strict=True))
        parts = []
        for name in (*self._images, *(n for n in leaves if n not in encoders)):
            leaf, axes = leaves[name], self._axes[name]
            if name in encoders:
                leaf, axes = encoders[name](leaf), axes - 2
            if axes != 1:
                leaf = leaf.unsqueeze(-1) if axes == 0 else leaf.flatten(-axes)
            parts.append(leaf)
        if len(parts) == 1:
            return parts[0]
        floats = (part.dtype for part in parts if part.is_floating_point())
        dtype = next(floats, torch.get_default_dtype())  # of the images' features, if there are any
        return torch.cat([part.to(dtype) for part in parts], dim=-1)


class EncodedCritic(nn.Module):
    """An ensemble of critics over what an encoder makes of observations, encoded once per batch.

    ``context = critic.encode(observations)``, then ``critic(context, actions)`` as often as actions
    are to be judged. :class:`CriticEnsemble` is the case of one vector that needs no encoding.

    Args:
        encoder: ``(R, B, ...)`` observations to contexts ``(R, B, C)``.
        heads: critics over ``C`` numbers and the action chunk.
    """

    def __init__(self, encoder: nn.Module, heads: CriticEnsemble) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, heads

    @property
    def ensemble(self) -> int:
        """Number of critics ``E`` per replica."""
        return self.heads.ensemble

    def encode(self, observations: Observation) -> Float[Tensor, "R B C"]:
        """Contexts of observations; gradient flows into the encoder."""
        context: Tensor = self.encoder(observations)
        return context

    def forward(
        self, context: Float[Tensor, "R B C"], *inputs: Float[Tensor, "..."]
    ) -> Float[Tensor, "*lead R E B"]:
        """Values of every member, see :meth:`CriticEnsemble.forward`."""
        values: Tensor = self.heads(context, *inputs)
        return values
