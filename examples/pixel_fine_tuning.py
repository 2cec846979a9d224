"""A policy on 64 x 64 images is cloned from data that solve one episode in five, and fine-tuned.

The environment and the data are those of `pixel_reaching.py`: five pads, one of them green; the
recorded behaviour walks to any. The policy is a small convolutional network of this file, over an
image and a position, that plans two moves at a time; the critic is the project's own.

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


class PixelPolicy(nn.Module):
    """Velocity of two moves; the image is read once, by four convolutions of stride two."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (3, 16, 32, 32, 32)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        self.eye = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4 * 4, 128), nn.ReLU())
        self.head = nn.Sequential(
            nn.Linear(128 + 2 + 2 * CHUNK + 1, 256), nn.SiLU(),
            nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, 2 * CHUNK),
        )  # fmt: skip

    def encode(self, observations: dict[str, Tensor]) -> Tensor:
        """Features of images ``(B, 64, 64, 3)`` in bytes, and positions."""
        image = observations["image"].movedim(-1, 1).float() / 255.0
        return torch.cat([self.eye(image), observations["position"]], dim=-1)

    def velocity(self, context: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Velocity of moves ``x (B, 2, 2)`` at ``t (B,)``."""
        inputs = torch.cat([context, x.flatten(1), t[:, None]], dim=-1)
        out: Tensor = self.head(inputs).reshape(x.shape)
        return out


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
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--test-episodes", type=int, default=200)
    options = parser.parse_args()
    started = time.perf_counter()
    arrays = record(options.episodes)
    tuner = bench.FineTuner(
        PixelPolicy, arrays, chunk_length=CHUNK, kl_budget=0.4, batch_size=64,
        clone_steps=options.clone_steps,
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
        name: bench.load_policy(options.out, agent=agent, policy=PixelPolicy)
        for name, agent in (("clone", "bc"), ("fine-tuned", "trqam"))
    }
    draw(options.out / "pixels.png", policies)


if __name__ == "__main__":
    main()
