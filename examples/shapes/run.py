"""The reward-diversity frontier of an image flow: a sweep of fixed weights beside KL budgets.

A small transformer learns images of coloured shapes with captions. A reward is learned from 400
comparisons of images, a held-out reward from 4,000 others, and the model is fine-tuned towards the
first: at eight fixed weights lambda, as one sweeps who does not know the scale of the reward, and
under two KL budgets and one budget that rises during the run.

    uv run python examples/shapes/run.py            # 20 minutes on two cores

writes the table into README.md beside this file, and pictures to docs/figures.
"""

import argparse
import copy
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from models import ImageFlow, Judge, judge, patch_network, pretrain
from report import write_report
from torch import Tensor, nn
from world import CAPTIONS, COLOURS, SHAPES, SIDE, images, taste

from adjoint import lean_adjoint, matching_loss, terminal_gradient
from flowsde import FollmerKernel, ode_sample, sample_path, velocities_along
from trustregion import KLBudget, LinearBudget, RewardMonitor, path_kl, sample_spread


@dataclass(frozen=True, slots=True)
class Study:
    """Sizes and settings; lengths in updates.

    Attributes:
        pretrain: Flow-matching updates.
        updates: Fine-tuning updates of each run.
        paths: Paths per update, the captions in turn.
        width: Width of the transformer.
        layers: Number of its blocks.
        steps: Transitions K of a path.
        guidance: Scale of classifier-free guidance, in base and fine-tuned model.
        copies: Samples of each caption, to evaluate.
        weights: Fixed lambdas of the sweep.
        budgets: KL budgets in nats.
        pairs: Comparisons that the reward and the held-out reward are learned from.
        judge_updates: Updates of each of the two; the classifier takes five times as many.
    """

    pretrain: int = 3000
    updates: int = 100
    paths: int = 32
    width: int = 64
    layers: int = 3
    steps: int = 8
    guidance: float = 1.5
    copies: int = 12
    weights: tuple[float, ...] = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
    budgets: tuple[float, ...] = (16.0, 128.0)
    pairs: tuple[int, int] = (400, 4000)
    judge_updates: int = 300


@dataclass(frozen=True, slots=True)
class Point:
    """A model as it is evaluated: means over the same noise and captions for all.

    Attributes:
        update: Update of the run after which it was drawn.
        kl: Path KL in nats, mean of the updates just before.
        lam: Lambda there.
        reward: Reward that was trained on.
        held_out: Held-out reward.
        taste: What the raters' comparisons came from.
        diversity: Root mean squared distance of two samples of a caption, relative to the base's.
        kept: Share of samples in which a classifier finds the caption's colour and shape.
    """

    update: int
    kl: float
    lam: float
    reward: float
    held_out: float
    taste: float
    diversity: float
    kept: float


@dataclass(frozen=True, slots=True)
class Result:
    """One run.

    Attributes:
        name: What it was run with.
        points: Evaluations along the run, the last one at its end.
        samples: Images at the end, a row per copy and a column per caption.
        monitor: State of its monitor.
    """

    name: str
    points: tuple[Point, ...]
    samples: np.ndarray
    monitor: dict[str, object]


class Bench:
    """The base model, rewards and kernel that all runs share; the same in every process.

    Args:
        study: Sizes and settings.
        folder: Where the weights of base, rewards and classifier are kept.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        self.study, generator = study, torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        self.base = _kept(
            folder / "base.pt",
            ImageFlow(study.width, study.layers),
            lambda: pretrain(study.width, study.layers, study.pretrain, generator),
        )
        few, many = study.pairs
        updates = study.judge_updates
        self.reward = _kept(folder / "reward.pt", Judge(), lambda: judge(1, few, updates))
        self.held_out = _kept(folder / "held_out.pt", Judge(), lambda: judge(2, many, updates))
        self.reader = _kept(
            folder / "reader.pt", patch_network(8), lambda: _read(5 * updates, generator)
        )
        scale = images(2000, torch.Generator().manual_seed(9))[0].std(0)
        self.kernel = FollmerKernel(study.steps, event_ndim=3, scale=scale)
        self.words = torch.cartesian_prod(torch.arange(len(COLOURS)), torch.arange(len(SHAPES)))
        drawn = self.sample(self.base)
        # In standard deviations of the base, each of its own mean.
        self.units = [
            (r.mean(), r.std()) for r in (self.reward(drawn), self.held_out(drawn), taste(drawn))
        ]
        self.spread = self._spread(drawn)

    @torch.no_grad()
    def sample(self, model: ImageFlow) -> Tensor:
        """`copies` images of each caption, with the same noise for every model."""
        words = self.words.repeat(self.study.copies, 1)
        generator = torch.Generator().manual_seed(7)
        noise = torch.randn((len(words), 3, SIDE, SIDE), generator=generator)
        field = model.field(words, self.base, self.study.guidance)
        return ode_sample(field, noise, 16, event_ndim=3)

    def rewards(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reward, held-out reward and taste in the base's standard deviations."""
        raw = (self.reward(x), self.held_out(x), taste(x))
        first, second, third = (
            (value - mean) / std for value, (mean, std) in zip(raw, self.units, strict=True)
        )
        return first, second, third

    def evaluate(self, model: ImageFlow, update: int, kl: float, lam: float) -> Point:
        """Draw and judge samples of a model."""
        x = self.sample(model)
        reward, held_out, liked = (float(value.mean()) for value in self.rewards(x))
        found = self.reader(x.clamp(-1.0, 1.0)).unflatten(1, (2, 4)).argmax(-1)
        kept = (found == self.words.repeat(self.study.copies, 1)).all(1).float().mean()
        diversity = self._spread(x) / self.spread
        return Point(update, kl, lam, reward, held_out, liked, diversity, float(kept))

    def _spread(self, x: Tensor) -> float:
        grid = x.clamp(-1.0, 1.0).unflatten(0, (self.study.copies, len(CAPTIONS))).transpose(0, 1)
        return float(sample_spread(grid, event_ndim=3))


def _kept(file: Path, empty: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
    """A module from a file, or made and written there."""
    if not file.exists():
        torch.save(make().state_dict(), file)
    empty.load_state_dict(torch.load(file, weights_only=True))
    return empty.eval().requires_grad_(False)


def _read(updates: int, generator: torch.Generator) -> nn.Module:
    """A classifier of colour and shape."""
    model = patch_network(8)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(updates):
        x, words = images(64, generator)
        logits = model(x + 0.2 * torch.randn(x.shape, generator=generator))
        loss = nn.functional.cross_entropy(logits.reshape(-1, 4), words.reshape(-1))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return model


def fine_tune(bench: Bench, name: str, weight: float | KLBudget, points: int = 1) -> Result:
    """One run, at a fixed lambda or under a budget."""
    study, kernel = bench.study, bench.kernel
    generator = torch.Generator().manual_seed(1)
    fine = copy.deepcopy(bench.base).requires_grad_(True)
    optimiser = torch.optim.Adam(fine.parameters(), lr=3e-4)
    # Adam's first steps have full length in every direction, whatever the gradient.
    warmup = torch.optim.lr_scheduler.LinearLR(optimiser, 0.05, total_iters=15)
    words = bench.words[torch.arange(study.paths) % len(bench.words)]
    new, old = (m.field(words, bench.base, study.guidance) for m in (fine, bench.base))
    monitor, evaluated, recent = RewardMonitor(), [], []
    for update in range(1, study.updates + 1):
        lam = weight.lam if isinstance(weight, KLBudget) else torch.tensor(weight)
        noise = torch.randn((study.paths, 3, SIDE, SIDE), generator=generator)
        with torch.no_grad():
            path = sample_path(kernel, new, noise, generator=generator)
            before = velocities_along(kernel, old, path)
            reward, held_out, _ = bench.rewards(path.sample)
        gradient = terminal_gradient(bench.reward, path.sample)
        adjoints = lean_adjoint(kernel, old, path, -gradient)
        after = velocities_along(kernel, new, path)
        loss = matching_loss(kernel, after, before, adjoints, lam).mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(fine.parameters(), 1.0)
        optimiser.step()
        warmup.step()
        kl = path_kl(kernel, after.detach(), before)
        if isinstance(weight, KLBudget):
            weight.step(kl)
        pairs = path.sample.clamp(-1.0, 1.0).unflatten(0, (-1, len(bench.words))).transpose(0, 1)
        monitor.update(reward, held_out, kl=kl.mean(), diversity=sample_spread(pairs, 3))
        recent = [*recent[-9:], float(kl.mean())]
        if update % (study.updates // points) == 0:
            mean = sum(recent) / len(recent)
            evaluated.append(bench.evaluate(fine, update, mean, float(lam)))
    grid = bench.sample(fine)[: 3 * len(CAPTIONS)].numpy()
    return Result(name, tuple(evaluated), grid, monitor.state_dict())


def jobs(study: Study) -> list[tuple[str, str, float]]:
    """Name, kind and number of every run, the longest first."""
    rising = 2.0 * max(study.budgets)
    return [
        (f"budget rising to {rising:g} nats", "rising", rising),
        *((f"budget {budget:g} nats", "budget", budget) for budget in study.budgets),
        *((f"fixed lambda {weight:g}", "fixed", weight) for weight in study.weights),
    ]


def run(study: Study, folder: Path, job: tuple[str, str, float]) -> Result:
    """One job in a process of its own."""
    torch.set_num_threads(1)
    name, kind, number = job
    bench = Bench(study, folder)
    if kind == "fixed":
        return fine_tune(bench, name, number)
    if kind == "budget":
        return fine_tune(bench, name, KLBudget(number, rate=0.06))
    # Every evaluation along the run is a point of the frontier.
    schedule = LinearBudget(0.05 * number, number, study.updates)
    return fine_tune(bench, name, KLBudget(schedule, rate=0.1), points=8)


def main(
    study: Study, folder: Path, readme: Path, figures: Path, processes: int = 2
) -> list[Result]:
    """Everything: pretraining, all runs, the report."""
    began = time.monotonic()
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(study, folder)
    print(f"base and rewards: {time.monotonic() - began:.0f} s", flush=True)
    results = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run, study, folder, job) for job in jobs(study)]
        for future in futures:
            results.append(future.result())
            last = results[-1].points[-1]
            print(
                f"{results[-1].name}: KL {last.kl:.2f}, held-out reward {last.held_out:+.2f}, "
                f"diversity {last.diversity:.0%} ({time.monotonic() - began:.0f} s)",
                flush=True,
            )
    base = bench.evaluate(bench.base, 0, 0.0, float("inf"))
    grid = bench.sample(bench.base)[: 3 * len(CAPTIONS)].numpy()
    seconds = time.monotonic() - began
    write_report(base, grid, results, study.updates, seconds, readme, figures)
    return results


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="The reward-diversity frontier")
    parser.add_argument("--cache", type=Path, default=here.parents[1] / "runs" / "shapes")
    parser.add_argument("--smoke", action="store_true", help="a minute: shows that it runs")
    arguments = parser.parse_args()
    sizes = Study()
    if arguments.smoke:
        sizes = Study(60, 8, 32, 32, 1, 4, 1.5, 3, (1.0, 0.1), (1.0,), (100, 200), 30)
        out = arguments.cache / "smoke"
        main(sizes, out, out / "README.md", out)
    else:
        main(sizes, arguments.cache, here / "README.md", here.parents[1] / "docs" / "figures")
