"""The flow model of captioned images and the rewards that are learned from comparisons."""

import copy
import math

import torch
from torch import Tensor, nn
from world import COLOURS, SHAPES, SIDE, images, taste

from flowsde import VelocityField, flow_matching_loss, guided_field, module_field

PATCH = 3
TOKENS = (SIDE // PATCH) ** 2
PIXELS = 3 * PATCH**2
NOTHING = len(COLOURS)  # the word of an empty caption


class Block(nn.Module):
    """Attention and MLP, each behind a norm that time and caption scale and shift."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 4 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width)
        )

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Tokens (B, N, width), condition (B, width)."""
        shift, scale, shift2, scale2 = self.modulation(condition).unsqueeze(1).chunk(4, dim=-1)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(_normed(tokens) * (1 + scale) + shift).chunk(3, dim=-1)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(mixed)
        hidden: Tensor = self.mlp(_normed(tokens) * (1 + scale2) + shift2)
        return tokens + hidden


def _normed(tokens: Tensor) -> Tensor:
    return nn.functional.layer_norm(tokens, tokens.shape[-1:])


class ImageFlow(nn.Module):
    """Velocity of an image given the two words of its caption: a transformer over patches."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(8) / 4.0)
        self.patches = nn.Linear(PIXELS, width)
        self.positions = nn.Parameter(0.5 * torch.randn(TOKENS, width))
        self.time = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.colour = nn.Embedding(len(COLOURS) + 1, width)
        self.shape = nn.Embedding(len(SHAPES) + 1, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.head = nn.Linear(width, PIXELS)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor, t: Tensor, words: Tensor) -> Tensor:
        """Velocity at images x (B, 3, 12, 12), times t (B,), words (B, 2)."""
        angles = t.unsqueeze(-1) * self.get_buffer("frequencies")
        waves = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        condition = nn.functional.silu(waves + self.colour(words[:, 0]) + self.shape(words[:, 1]))
        folded = nn.functional.unfold(x, PATCH, stride=PATCH).transpose(1, 2)
        tokens = self.patches(folded) + self.positions
        for block in self.blocks:
            tokens = block(tokens, condition)
        v = self.head(_normed(tokens)).transpose(1, 2)
        return nn.functional.fold(v, (SIDE, SIDE), PATCH, stride=PATCH)

    def field(self, words: Tensor, unconditional: "ImageFlow", scale: float) -> VelocityField:
        """The field under captions (B, 2), guided away from another model's empty caption."""
        free = module_field(unconditional, torch.full_like(words, NOTHING), event_ndim=3)
        return guided_field(module_field(self, words, event_ndim=3), free, scale)


def pretrain(width: int, layers: int, updates: int, generator: torch.Generator) -> ImageFlow:
    """Flow matching on fresh images, a tenth of the captions dropped; averaged weights."""
    model = ImageFlow(width, layers)
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 2e-3, total_steps=updates, pct_start=0.1
    )
    for update in range(updates):
        x1, words = images(64, generator)
        words = torch.where(torch.rand(64, 1, generator=generator) < 0.1, NOTHING, words)
        x0 = torch.randn(x1.shape, generator=generator)
        t = torch.rand(64, generator=generator)
        field = module_field(model, words, event_ndim=3)
        loss = flow_matching_loss(field, x1, x0, t, event_ndim=3).mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            for slow, fast in zip(averaged.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, max(0.01, 1.0 / (update + 1)))
    return averaged


def patch_network(outputs: int, width: int = 32) -> nn.Sequential:
    """A small network over patches of 3x3 pixels, (B, 3, 12, 12) -> (B, outputs)."""
    return nn.Sequential(
        nn.Conv2d(3, width, PATCH, stride=PATCH), nn.SiLU(), nn.Conv2d(width, width, 1), nn.SiLU(),
        nn.Flatten(), nn.Linear(width * TOKENS, 64), nn.SiLU(), nn.Linear(64, outputs),
    )  # fmt: skip


class Judge(nn.Module):
    """A reward learned from comparisons (Bradley-Terry), as image rewards are."""

    def __init__(self) -> None:
        super().__init__()
        self.body = patch_network(1)

    def forward(self, x: Tensor) -> Tensor:
        """Reward of images (B, 3, 12, 12), (B,)."""
        reward: Tensor = self.body(x)
        return reward.squeeze(-1)


def judge(seed: int, pairs: int, updates: int) -> Judge:
    """A judge that learned from its own raters' comparisons of its own pairs."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = Judge()
    first, _ = images(pairs, generator)
    second, _ = images(pairs, generator)
    odds = 8.0 * (taste(first) - taste(second))
    chosen = (torch.rand(pairs, generator=generator) < odds.sigmoid()).float()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    for _ in range(updates):
        rows = torch.randint(pairs, (64,), generator=generator)
        noise = 0.1 * torch.randn((2, 64, 3, SIDE, SIDE), generator=generator)
        gap = model(first[rows] + noise[0]) - model(second[rows] + noise[1])
        loss = nn.functional.binary_cross_entropy_with_logits(gap, chosen[rows])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return model.eval().requires_grad_(False)
