"""Images under a trust region: a class-conditional flow model of handwritten digits, fine-tuned.

A small transformer learns scikit-learn's 8x8 digits by flow matching, with the class dropped now
and then so that classifier-free guidance works. Adjoint matching then fine-tunes it towards a
differentiable reward: with the path KL held at a budget by dual descent on lambda, and at a fixed
temperature chosen without knowing the reward's scale, which drifts far from the digits.

    uv run python examples/digits.py                    # ink: draw bolder
    uv run python examples/digits.py --reward symmetry  # draw left-right symmetric digits

It takes about five minutes on one core and writes to docs/figures: sample grids before and after,
reward against KL, and a table. With --base FILE the pretrained model is kept in a file, and taken
from it when the next reward is tried.
"""

import argparse
import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from adjoint import lean_adjoint, matching_loss, terminal_gradient
from flowsde import (
    FollmerKernel,
    VelocityField,
    flow_matching_loss,
    guided_field,
    module_field,
    sample_path,
    velocities_along,
)
from trustregion import DualDescent, path_kl

CLASSES = 10
IMAGE = (1, 8, 8)
SAMPLES = 20  # of each class, to evaluate
RewardName = Literal["ink", "symmetry", "classifier"]


@dataclass(frozen=True, slots=True)
class Study:
    """Sizes and settings; lengths in updates.

    Attributes:
        reward: What to fine-tune towards.
        pretrain: Flow-matching updates.
        updates: Fine-tuning updates.
        batch: Images per flow-matching update.
        paths: Paths per fine-tuning update, the classes in turn.
        width: Width of the transformer.
        layers: Number of its blocks.
        steps: Transitions K of a path, one network evaluation each.
        guidance: Scale of classifier-free guidance, in the base and in the fine-tuned model.
        budget: Path KL per image in nats.
        fixed: Lambda of the run at a fixed temperature, in standard deviations of the reward.
        dual_rate: Step size of dual descent.
        pretrain_rate: Adam's step size in flow matching.
        rate: Adam's step size in fine-tuning.
    """

    reward: RewardName = "ink"
    pretrain: int = 2500
    updates: int = 150
    batch: int = 128
    paths: int = 40
    width: int = 64
    layers: int = 3
    steps: int = 12
    guidance: float = 1.5
    budget: float = 4.0
    fixed: float = 0.1
    dual_rate: float = 0.005
    pretrain_rate: float = 2e-3
    rate: float = 5e-4


def digits() -> tuple[Tensor, Tensor]:
    """All images (N, 1, 8, 8) in [-1, 1] and their classes (N,)."""
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, *IMAGE) / 8.0 - 1.0
    return images, torch.tensor(classes, dtype=torch.int64)


class Block(nn.Module):
    """Attention and MLP, each behind a norm that the condition scales and shifts."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 3 * width), nn.GELU(approximate="tanh"), nn.Linear(3 * width, width)
        )
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Tokens (B, N, width), condition (B, width)."""
        shift, scale, gate, shift2, scale2, gate2 = (
            self.modulation(condition).unsqueeze(1).chunk(6, dim=-1)
        )
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm(tokens) * (1 + scale) + shift).chunk(3, dim=-1)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + (1 + gate) * self.out(mixed)
        hidden: Tensor = self.mlp(self.norm(tokens) * (1 + scale2) + shift2)
        moved: Tensor = tokens + (1 + gate2) * hidden
        return moved


class DigitFlow(nn.Module):
    """Velocity of an image given its class: a transformer over the 16 patches of 2x2 pixels."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(8) / 4.0)
        self.patches = nn.Linear(4, width)
        self.positions = nn.Parameter(0.5 * torch.randn(16, width))
        self.time = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = nn.Embedding(CLASSES + 1, width)  # the last row is "no class"
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.head = nn.Linear(width, 4)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """Velocity at images x (B, 1, 8, 8), times t (B,), classes label (B,)."""
        angles = t.unsqueeze(-1) * self.get_buffer("frequencies")
        waves = torch.cat([angles.sin(), angles.cos()], -1)
        condition = nn.functional.silu(self.time(waves) + self.classes(label))
        folded = x.reshape(-1, 4, 2, 4, 2).transpose(2, 3)  # (B, row, column, 2, 2)
        tokens = self.patches(folded.reshape(-1, 16, 4)) + self.positions
        for block in self.blocks:
            tokens = block(tokens, condition)
        v: Tensor = self.head(nn.functional.layer_norm(tokens, tokens.shape[-1:]))
        return v.reshape(-1, 4, 4, 2, 2).transpose(2, 3).reshape(x.shape)

    def field(self, label: Tensor) -> VelocityField:
        """The velocity field with the classes (B,) closed over."""
        return module_field(self, label, event_ndim=3)


def guided(conditional: DigitFlow, base: DigitFlow, label: Tensor, scale: float) -> VelocityField:
    """Guidance away from the base's unconditional field; fine-tuning leaves that one alone."""
    nothing = torch.full_like(label, CLASSES)
    return guided_field(conditional.field(label), base.field(nothing), scale)


def pretrain(
    study: Study, images: Tensor, classes: Tensor, generator: torch.Generator
) -> DigitFlow:
    """Flow matching with a tenth of the classes dropped; returns averaged weights."""
    model = DigitFlow(study.width, study.layers)
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=study.pretrain_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, study.pretrain_rate, total_steps=study.pretrain, pct_start=0.1
    )
    for update in range(study.pretrain):
        rows = torch.randint(len(images), (study.batch,), generator=generator)
        dropped = torch.rand(study.batch, generator=generator) < 0.1
        label = torch.where(dropped, CLASSES, classes[rows])
        x1, t = images[rows], torch.rand(study.batch, generator=generator)
        x0 = torch.randn(x1.shape, generator=generator)
        loss = flow_matching_loss(model.field(label), x1, x0, t, event_ndim=3).mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        weight = max(0.005, 1.0 / (update + 1))
        with torch.no_grad():
            for slow, fast in zip(averaged.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, weight)
    return averaged


def classifier(images: Tensor, classes: Tensor, seed: int, updates: int = 400) -> nn.Module:
    """A small convolutional classifier, logits (B, 10), trained on noisy images."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.GELU(), nn.Flatten(), nn.Linear(512, 64), nn.GELU(), nn.Linear(64, CLASSES),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(updates):
        rows = torch.randint(len(images), (128,), generator=generator)
        noise = 0.3 * torch.randn((128, *IMAGE), generator=generator)
        loss = nn.functional.cross_entropy(model(images[rows] + noise), classes[rows])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return model.eval().requires_grad_(False)


Reward = Callable[[Tensor, Tensor], Tensor]


def raw_reward(name: RewardName, judge: nn.Module) -> Reward:
    """Reward of images (B, 1, 8, 8) of the asked classes (B,), in units of its own."""
    if name == "ink":
        return lambda x, label: x.clamp(-1.0, 1.0).mean((1, 2, 3))
    if name == "symmetry":
        return lambda x, label: -(x - x.flip(-1)).square().mean((1, 2, 3))
    return lambda x, label: judge(x).log_softmax(-1).gather(1, label[:, None])[:, 0]


@dataclass(frozen=True, slots=True)
class Run:
    """One fine-tuning run.

    Attributes:
        name: Name of the method.
        samples: Images of the evaluation, (B, 1, 8, 8), same noise for every run.
        kl: Path KL per update in nats, (updates,).
        lam: Lambda per update, (updates,).
        reward: Mean reward per update in standard deviations from the base's mean, (updates,).
    """

    name: str
    samples: Tensor
    kl: Tensor
    lam: Tensor
    reward: Tensor


class FineTuning:
    """The base model, its kernel and the standardised reward, shared by all runs.

    Args:
        study: Sizes and settings.
        seed: Of the pretraining and the classifiers.
        base: File of the pretrained weights: read if it exists, else written.
    """

    def __init__(self, study: Study, seed: int = 0, base: Path | None = None) -> None:
        torch.manual_seed(seed)
        self.study = study
        generator = torch.Generator().manual_seed(seed)
        images, classes = digits()
        self.images, self.classes = images, classes
        self.referee = classifier(images, classes, seed=seed + 1)
        if base is not None and base.exists():
            self.base = DigitFlow(study.width, study.layers).requires_grad_(False)
            self.base.load_state_dict(torch.load(base, weights_only=True))
        else:
            self.base = pretrain(study, images, classes, generator)
            if base is not None:
                torch.save(self.base.state_dict(), base)
        # The Brownian form of the SDE with the spread of each pixel; a floor where it is constant.
        scale = images.std(0).clamp_min(0.1)
        self.kernel = FollmerKernel(study.steps, event_ndim=3, scale=scale)
        raw = raw_reward(study.reward, classifier(images, classes, seed=seed + 2))
        self.labels = torch.arange(CLASSES).repeat(SAMPLES)
        self.samples = self.sample(self.base)
        rewards = raw(self.samples, self.labels)
        mean, std = rewards.mean(), rewards.std()
        self.reward: Reward = lambda x, label: (raw(x, label) - mean) / std

    @torch.no_grad()
    def sample(self, model: DigitFlow, seed: int = 7) -> Tensor:
        """Some images of each class, with the same noise for every model."""
        field = guided(model, self.base, self.labels, self.study.guidance)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn((len(self.labels), *IMAGE), generator=generator)
        return sample_path(self.kernel, field, noise, generator=generator).sample

    def run(self, name: str, dual: DualDescent, seed: int = 1) -> Run:
        """Fine-tune a copy of the base; `dual` with rate 0 keeps lambda where it is."""
        study, kernel = self.study, self.kernel
        generator = torch.Generator().manual_seed(seed)
        fine = copy.deepcopy(self.base).requires_grad_(True)
        optimiser = torch.optim.Adam(fine.parameters(), lr=study.rate)
        label = torch.arange(study.paths) % CLASSES
        fine_field = guided(fine, self.base, label, study.guidance)
        base_field = guided(self.base, self.base, label, study.guidance)
        history = []
        for _ in range(study.updates):
            lam = dual.lambda_
            noise = torch.randn((study.paths, *IMAGE), generator=generator)
            with torch.no_grad():
                path = sample_path(kernel, fine_field, noise, generator=generator)
                base_velocities = velocities_along(kernel, base_field, path)
                reward = self.reward(path.sample, label).mean()
            gradient = terminal_gradient(lambda x: self.reward(x, label), path.sample)
            adjoints = lean_adjoint(kernel, base_field, path, -gradient)
            velocities = velocities_along(kernel, fine_field, path)
            loss = matching_loss(kernel, velocities, base_velocities, adjoints, lam).mean()
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(fine.parameters(), 1.0)
            optimiser.step()
            kl = path_kl(kernel, velocities.detach(), base_velocities).mean()
            dual.update(kl[None])
            history.append(torch.stack([kl, lam[0], reward]))
        kl, lam, reward = torch.stack(history).unbind(-1)
        return Run(name, self.sample(fine), kl, lam, reward)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        name: Name of the method.
        reward: Mean reward of the samples in standard deviations from the base's mean.
        kl: Path KL in nats, mean over the last fifth of the updates; None for the base.
        lam: Lambda at the end; None for the base.
        recognised: Share of the samples that a classifier takes for the digit asked for.
        spread: Root mean squared distance between two samples of a class, relative to the base's.
    """

    name: str
    reward: float
    kl: float | None
    lam: float | None
    recognised: float
    spread: float


def spread(samples: Tensor, label: Tensor) -> float:
    """Root mean squared distance per pixel between two samples of the same class."""
    images = samples.clamp(-1.0, 1.0).flatten(1)
    variances = [images[label == c].var(0).mean() for c in range(CLASSES)]
    return float((2.0 * torch.stack(variances).mean()).sqrt())


def table(tuning: FineTuning, runs: list[Run]) -> list[Row]:
    """One row for the base and one per run."""
    label, base_spread = tuning.labels, spread(tuning.samples, tuning.labels)

    def row(name: str, samples: Tensor, run: Run | None) -> Row:
        last = max(1, tuning.study.updates // 5)
        return Row(
            name,
            reward=float(tuning.reward(samples, label).mean()),
            kl=None if run is None else float(run.kl[-last:].mean()),
            lam=None if run is None else float(run.lam[-1]),
            recognised=float((tuning.referee(samples).argmax(-1) == label).float().mean()),
            spread=spread(samples, label) / base_spread,
        )

    return [row("base", tuning.samples, None), *(row(r.name, r.samples, r) for r in runs)]


def format_table(study: Study, rows: list[Row]) -> str:
    """The table as Markdown."""
    lines = [
        f"Reward: {study.reward}, in standard deviations of the base's samples. {study.updates} "
        f"updates of {study.paths} paths, {study.steps} steps, guidance {study.guidance}; "
        f"{SAMPLES * CLASSES} samples per row, the same noise for all.",
        "",
        "| model | reward | path KL (nats) | lambda | recognised | spread within a class |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        kl = "0" if r.kl is None else f"{r.kl:.2f}"
        lam = "" if r.lam is None else f"{r.lam:.2f}"
        lines.append(
            f"| {r.name} | {r.reward:+.2f} | {kl} | {lam} | {r.recognised:.0%} | {r.spread:.0%} |"
        )
    return "\n".join(lines) + "\n"


def plot_samples(tuning: FineTuning, runs: list[Run], file: Path, copies: int = 4) -> None:
    """One grid per model: a column per digit, a row per draw of the noise."""
    from matplotlib import pyplot as plt

    grids = [("base", tuning.samples), *((run.name, run.samples) for run in runs)]
    figure, axes = plt.subplots(1, len(grids), figsize=(4.2 * len(grids), 2.1))
    for axis, (name, samples) in zip(axes, grids, strict=True):
        rows = samples[: copies * CLASSES].clamp(-1.0, 1.0).reshape(copies, CLASSES, 8, 8)
        framed = nn.functional.pad(rows, (0, 1, 0, 1), value=1.0)  # a white line between images
        grid = framed.permute(0, 2, 1, 3).reshape(copies * 9, CLASSES * 9)
        axis.imshow(grid.numpy(), cmap="gray")
        axis.set_title(name)
        axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def plot_curves(study: Study, runs: list[Run], file: Path) -> None:
    """Path KL over the updates, and reward against path KL."""
    from matplotlib import pyplot as plt

    window = max(1, study.updates // 15)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.4))
    for run, colour in zip(runs, ("tab:blue", "tab:red"), strict=False):
        kl, reward = (x.unfold(0, window, 1).mean(-1) for x in (run.kl, run.reward))
        left.plot(torch.arange(len(kl)) + window, kl, color=colour, label=run.name)
        right.plot(kl, reward, ".-", color=colour, markersize=3, linewidth=0.8)
    left.axhline(study.budget, color="0.5", linewidth=0.8, linestyle=":", label="budget")
    right.axvline(study.budget, color="0.5", linewidth=0.8, linestyle=":")
    left.set(xlabel="update", ylabel="path KL (nats)", yscale="symlog")
    right.set(xlabel="path KL (nats)", ylabel=f"{study.reward} (standard deviations)")
    right.set_xscale("symlog")
    left.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def fine_tune(tuning: FineTuning) -> list[Run]:
    """The two runs that are compared."""
    study = tuning.study
    held = DualDescent(budget=study.budget, rate=study.dual_rate, scale=1.0, initial=1.0)
    fixed = DualDescent(budget=study.budget, rate=0.0, scale=1.0, initial=study.fixed)
    return [
        tuning.run(f"KL budget {study.budget:g} nats", held),
        tuning.run(f"fixed lambda {study.fixed:g}", fixed),
    ]


def main() -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    parser = argparse.ArgumentParser(description="Digits under a trust region")
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--reward", choices=get_args(RewardName), default=Study().reward)
    parser.add_argument("--out", type=Path, default=here / "docs" / "figures")
    parser.add_argument("--base", type=Path, help="file that keeps the pretrained model")
    arguments = parser.parse_args()
    study = Study(reward=arguments.reward)
    tuning = FineTuning(study, base=arguments.base)
    runs = fine_tune(tuning)
    text = format_table(study, table(tuning, runs))
    name = "digits" if study.reward == Study().reward else f"digits_{study.reward}"
    arguments.out.mkdir(parents=True, exist_ok=True)
    plot_samples(tuning, runs, arguments.out / f"{name}_samples.png")
    plot_curves(study, runs, arguments.out / f"{name}_curves.png")
    (arguments.out / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
