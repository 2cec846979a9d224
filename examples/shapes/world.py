"""Colour images of one shape each, and the captions that go with them."""

import math

import torch
from torch import Tensor

SIDE = 12
SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = ("red", "green", "blue", "yellow")
CAPTIONS = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
_HUES = torch.tensor([0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0 / 6.0])


def images(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images in [-1, 1] and the words of their captions.

    Size, place, hue, saturation and background vary from image to image.

    Returns:
        (count, 3, 12, 12), and the indices of colour and shape, (count, 2).
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    words = torch.stack([torch.randint(4, (count,), generator=generator) for _ in range(2)], 1)
    hue = (_HUES[words[:, 0]] + uniform(-0.05, 0.05)) % 1.0
    paint = _rgb(hue, uniform(0.35, 1.0), uniform(0.55, 1.0))
    ground = uniform(0.0, 0.6)
    inside = _coverage(words[:, 1], uniform(2.7, 4.5), uniform(-0.7, 0.7), uniform(-0.7, 0.7))
    mixed = inside * paint[:, :, None, None] + (1.0 - inside) * ground[:, None, None, None]
    return 2.0 * mixed - 1.0, words


def _coverage(shape: Tensor, radius: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """How much of each pixel the shape covers, (count, 1, 12, 12), with soft edges."""
    axis = torch.arange(SIDE) - (SIDE - 1) / 2
    x = axis[None, None, :] - right[:, None, None]
    y = axis[None, :, None] - down[:, None, None]
    radius = radius[:, None, None]
    x, y = x.expand(-1, SIDE, -1), y.expand(-1, -1, SIDE)
    distances = torch.stack(
        [
            (x**2 + y**2).sqrt() - radius,
            torch.maximum(x.abs(), y.abs()) - 0.85 * radius,
            torch.maximum(math.sqrt(0.75) * x.abs() - 0.5 * y, y) - 0.6 * radius,
            torch.maximum(
                torch.minimum(x.abs(), y.abs()) - 0.33 * radius,
                torch.maximum(x.abs(), y.abs()) - radius,
            ),
        ],
        1,
    )
    rows = torch.arange(len(shape))
    return (0.5 - distances[rows, shape]).clamp(0.0, 1.0).unsqueeze(1)


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Colours from hue, saturation and value in [0, 1], (count, 3)."""
    wheel = (6.0 * hue[:, None] + torch.tensor([5.0, 3.0, 1.0])) % 6.0
    shade = torch.minimum(wheel, 4.0 - wheel).clamp(0.0, 1.0)
    return value[:, None] * (1.0 - saturation[:, None] * shade)


def taste(x: Tensor) -> Tensor:
    """What the raters of this world like: a vivid picture with a dark edge, (B,).

    Nobody knows it outside of this file: rewards are learned from pairs of images that raters
    compared by it, and by nothing else.
    """
    x = x.clamp(-1.0, 1.0)
    vivid = (x.amax(1) - x.amin(1)).mean((1, 2))
    edge = torch.cat([x[..., 0, :], x[..., -1, :], x[..., :, 0], x[..., :, -1]], -1)
    return vivid - 0.5 * edge.mean((1, 2))
