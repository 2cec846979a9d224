"""A policy on 64 x 64 images is cloned from data that solve one episode in five, and fine-tuned.

The environment and the data are those of `pixel_reaching.py`: five pads, one of them green; the
recorded behaviour walks to any. The policy is a small convolutional network of this file, over an
image and a position, that plans two moves at a time; the critic is one of this file as well, or
with `--critic auto` the project's, which takes longer.

    uv run python examples/pixel_fine_tuning.py --out runs/pixels

prints success rates of the clone and of the fine-tuned policy and the path KL against its budget,
and writes `pixels.png`: what both do in the same eight episodes.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn

import bench

sys.path.append(str(Path(__file__).parent))

from pixel_reaching import MOST_STEPS, PixelReach, record

CHUNK = 2  # Episodes have five or six steps, and chunks lie inside of them.


def eye() -> nn.Sequential:
    """Four convolutions of stride two: images ``(B, 3, 64, 64)`` to 128 features."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise((3, 16, 32, 32, 32)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4 * 4, 128), nn.ReLU())


def head(inputs: int, outputs: int) -> nn.Sequential:
    """Two hidden layers of 256."""
    return nn.Sequential(
        nn.Linear(inputs, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, outputs)
    )


def features(network: nn.Module, observations: dict[str, Tensor]) -> Tensor:
    """What a network sees in images ``(B, 64, 64, 3)`` of bytes, and positions."""
    image = observations["image"].movedim(-1, 1).float() / 255.0
    return torch.cat([network(image), observations["position"]], dim=-1)


class PixelPolicy(nn.Module):
    """Velocity of two moves; the image is read once for all steps of the flow."""

    def __init__(self) -> None:
        super().__init__()
        self.eye, self.head = eye(), head(128 + 2 + 2 * CHUNK + 1, 2 * CHUNK)

    def encode(self, observations: dict[str, Tensor]) -> Tensor:
        """Features, once for a batch."""
        return features(self.eye, observations)

    def velocity(self, context: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Velocity of moves ``x (B, 2, 2)`` at ``t (B,)``."""
        out: Tensor = self.head(torch.cat([context, x.flatten(1), t[:, None]], dim=-1))
        return out.reshape(x.shape)


class PixelCritic(nn.Module):
    """Two critics on one pair of eyes."""

    def __init__(self) -> None:
        super().__init__()
        self.eye = eye()
        self.heads = nn.ModuleList([head(128 + 2 + 2 * CHUNK, 1) for _ in range(2)])

    def forward(self, observations: dict[str, Tensor], actions: Tensor) -> Tensor:
        """Values ``(2, B)`` of moves ``(B, 2, 2)``."""
        inputs = torch.cat([features(self.eye, observations), actions.flatten(1)], dim=-1)
        return torch.cat([one(inputs) for one in self.heads], dim=-1).T


def play(policy: Any, seeds: range) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Success of an episode for every seed, all played at once; ways and last images."""
    worlds = [PixelReach() for _ in seeds]
    seen = [world.reset(seed=seed)[0] for world, seed in zip(worlds, seeds, strict=True)]
    won, over = np.zeros(len(worlds), bool), np.zeros(len(worlds), bool)
    ways = [[world.position.copy()] for world in worlds]
    first = [one["image"] for one in seen]
    for _ in range(MOST_STEPS // CHUNK):
        rows = {name: np.stack([one[name] for one in seen]) for name in seen[0]}
        for moves in policy(rows).swapaxes(0, 1):
            for number in np.flatnonzero(~over):
                seen[number], reward, ended, _, _ = worlds[number].step(moves[number])
                ways[number].append(worlds[number].position.copy())
                won[number], over[number] = reward > 0, ended
    return won, [np.array(way) for way in ways], first


def draw(file: Path, policies: dict[str, Any]) -> None:
    """The ways of some policies through the same episodes."""
    figure, axes = plt.subplots(len(policies), 8, figsize=(12, 3.4), squeeze=False)
    for row, (name, policy) in zip(axes, policies.items(), strict=True):
        policy.reset(0)
        won, ways, images = play(policy, range(1000, 1008))
        row[0].set_ylabel(name)
        for axis, way, image, success in zip(row, ways, images, won, strict=True):
            axis.imshow(image, extent=(0, 1, 1, 0))
            axis.plot(*way.T, color="white", marker=".", linewidth=1)
            axis.set_title("reached" if success else "", fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main() -> None:
    """Record, clone, fine-tune, judge."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/pixels"))
    parser.add_argument("--episodes", type=int, default=2000, help="of the data")
    parser.add_argument("--clone-steps", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--critic", choices=("own", "auto"), default="own")
    parser.add_argument("--test-episodes", type=int, default=200)
    options = parser.parse_args()
    started = time.perf_counter()
    arrays = record(options.episodes)
    tuner = bench.FineTuner(
        PixelPolicy, arrays, chunk_length=CHUNK, kl_budget=0.4, batch_size=64,
        clone_steps=options.clone_steps,
        critic="auto" if options.critic == "auto" else PixelCritic,
        settings={"num_critics": 2, "critic_hidden": (128, 128), "discount": 0.95},
    )  # fmt: skip
    tests = range(10_000, 10_000 + options.test_episodes)
    result = tuner.fit(
        options.steps, out=options.out, evaluate=lambda policy: play(policy, tests)[0],
        evaluate_every=500, log_every=100,
    )  # fmt: skip
    rates = result.curves.select("agent", "step", "return_mean")
    print(rates)
    kl = result.metrics.filter(metric="path_kl", agent="trqam").tail(5)["value"].mean()
    print(f"path KL {kl:.3f} nats per move, budget 0.400")
    print(f"{time.perf_counter() - started:.0f} s")
    policies = {
        name: bench.load_policy(options.out, agent=agent, policy=PixelPolicy, critic=PixelCritic)
        for name, agent in (("clone", "bc"), ("fine-tuned", "trqam"))
    }
    draw(options.out / "pixels.png", policies)


if __name__ == "__main__":
    main()
