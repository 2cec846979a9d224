"""The trust region at work, on a problem whose optimum is known.

A flow policy is behaviour-cloned on Gaussian actions and then fine-tuned as TRQAM does, with a
critic that is exact and with one whose error performs a random walk. Projected dual descent moves
lambda so that the path KL stays at its budget; next to it, adjoint matching at a fixed temperature,
the one that is optimal for the exact critic. All runs train as one pack, replica axis first.

    uv run python examples/trust_region_at_work.py      # under two minutes on one core

writes `trust_region_at_work.png` and the table beside it, and prints the table.
"""

import argparse
import copy
import functools
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from adjoint import lean_adjoint, matching_loss, terminal_gradient
from flowsde import (
    MemorylessEuler,
    VelocityField,
    flow_matching_loss,
    sample_path,
    velocities_along,
)
from trustregion import DualDescent, path_kl

CRITICS = ("exact", "corrupted")
METHODS = ("dual descent", "fixed temperature")
ACTION_STD = torch.tensor([0.5, 0.8])


def behaviour_mean(s: Tensor) -> Tensor:
    """Mean action of the data in state s (..., 1) -> (..., 2)."""
    return 0.5 * torch.cat([torch.sin(2.0 * s), torch.cos(2.0 * s)], -1)


def reward_slope(s: Tensor) -> Tensor:
    """The true Q(s, a) is linear in the action, `slope(s) . a`."""
    return torch.cat([1.5 + 0.5 * s, 1.0 - 0.5 * s], -1)


def mean_squared_tilt() -> float:
    """`E_s sum std^2 slope^2 = 2 lambda^2 KL*(lambda)`, for states uniform in [-1, 1]."""
    s = torch.linspace(-1.0, 1.0, 2001).unsqueeze(-1)
    return float((ACTION_STD * reward_slope(s)).square().sum(-1).mean())


@dataclass(frozen=True, slots=True)
class Study:
    """Sizes and settings; lengths in updates.

    Attributes:
        seeds: Independent runs of every combination of critic and method.
        pretrain: Behaviour-cloning updates before fine-tuning.
        updates: Fine-tuning updates.
        warm_up: Share of the updates after which the KL is judged.
        batch: States per update and run.
        width: Width of the policy's two hidden layers.
        steps: Flow steps K.
        budget: KL budget in nats.
        rate: Step size of the dual descent.
        corruption: Size of the critic's error at the end, relative to the slope of the true Q.
        learning_rate: Adam's step size.
    """

    seeds: int = 2
    pretrain: int = 1000
    updates: int = 3000
    warm_up: float = 0.3
    batch: int = 64
    width: int = 64
    steps: int = 10
    budget: float = 0.5
    rate: float = 0.01
    corruption: float = 1.5
    learning_rate: float = 1e-3

    @property
    def optimal_lambda(self) -> float:
        """Lambda at which the exact critic's optimum spends the budget."""
        return math.sqrt(mean_squared_tilt() / (2.0 * self.budget))


class Policy(nn.Module):
    """Velocity of R flow policies at once: weights (R, in, out), input [s, x, t]."""

    def __init__(self, replicas: int, width: int) -> None:
        super().__init__()
        sizes = (4, width, width, 2)
        self.weights = nn.ParameterList(
            torch.randn(replicas, n, m) / math.sqrt(n) for n, m in itertools.pairwise(sizes)
        )
        self.biases = nn.ParameterList(torch.zeros(replicas, 1, m) for m in sizes[1:])

    def forward(self, s: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Velocity at x (*lead, R, B, 2), t (*lead, R, B) in states s (R, B, 1)."""
        y = torch.cat([s.expand(*x.shape[:-1], 1), x, t.unsqueeze(-1)], -1)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            y = y @ weight + bias
            y = nn.functional.gelu(y) if i < last else y
        return y

    def field(self, s: Tensor) -> VelocityField:
        """The velocity field with the states (R, B, 1) closed over."""
        return lambda x, t: self(s, x, t)


class Critic:
    """The true Q plus, for corrupted replicas, a smooth error whose weights do a random walk.

    A bootstrapped critic's error does not average out: it wanders. Here it is a sum of cosines of
    (s, a), zero at first; after `updates` steps its gradient is `corruption` times the slope.
    """

    def __init__(self, study: Study, corrupted: Tensor, generator: torch.Generator) -> None:
        features, seeds = 32, study.seeds
        runs = len(corrupted) // seeds
        shape = (seeds, features, 3)
        self.frequencies = (1.5 * torch.randn(shape, generator=generator)).repeat(runs, 1, 1)
        self.phases = 2 * math.pi * torch.rand((seeds, features), generator=generator)
        self.phases = self.phases.repeat(runs, 1).unsqueeze(1)
        self.weights = torch.zeros(len(corrupted), 1, features)
        # RMS gradient of one cosine of weight w and frequency f is w f/sqrt(2), per coordinate.
        gradient = 1.5 * math.sqrt(features / 2.0)
        self.step = study.corruption * 1.25 / gradient / math.sqrt(study.updates)
        self.corrupted, self.runs, self.generator = corrupted, runs, generator

    def wander(self) -> None:
        """One step of the random walk, the same for the runs of one seed."""
        shape = (len(self.corrupted) // self.runs, 1, self.weights.shape[-1])
        noise = torch.randn(shape, generator=self.generator).repeat(self.runs, 1, 1)
        self.weights += self.step * noise * self.corrupted[:, None, None]

    def __call__(self, s: Tensor, a: Tensor) -> Tensor:
        """Q(s, a), (R, B)."""
        phase = torch.cat([s, a], -1) @ self.frequencies.mT + self.phases
        return (reward_slope(s) * a).sum(-1) + (self.weights * torch.cos(phase)).sum(-1)


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened; runs are ordered as `labels`, seeds innermost.

    Attributes:
        kl: Realised path KL per update, (updates, critics, methods, seeds).
        lam: Lambda per update, same shape.
        gain: True reward gained over the behaviour at the end, (critics, methods, seeds).
    """

    kl: Tensor
    lam: Tensor
    gain: Tensor


def clip_per_replica(parameters: list[nn.Parameter]) -> None:
    """Global-norm clip at 1 of every replica's gradient on its own."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.stack([g.square().sum((1, 2)) for g in gradients]).sum(0).sqrt()
    for gradient in gradients:
        gradient.mul_((1.0 / (norm + 1e-6)).clamp(max=1.0)[:, None, None])


def run(study: Study, seed: int = 0) -> Trace:
    """Pretrain, then fine-tune every combination of critic and method in one pack."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    combinations = len(CRITICS) * len(METHODS)
    replicas = combinations * study.seeds

    def normal(*shape: int) -> Tensor:
        # The combinations of one seed see the same random numbers, so only the method differs.
        draw = torch.randn((study.seeds, *shape), generator=generator)
        return draw.repeat(combinations, *(1,) * len(shape))

    def states_and_actions() -> tuple[Tensor, Tensor]:
        draw = 2.0 * torch.rand((study.seeds, study.batch, 1), generator=generator) - 1.0
        s = draw.repeat(combinations, 1, 1)
        return s, behaviour_mean(s) + ACTION_STD * normal(study.batch, 2)

    def cloning_loss() -> Tensor:
        s, a = states_and_actions()
        t = torch.rand((study.seeds, study.batch), generator=generator).repeat(combinations, 1)
        return flow_matching_loss(slow.field(s), a, normal(study.batch, 2), t).mean(-1)

    slow = Policy(replicas, study.width)
    with torch.no_grad():
        for parameter in slow.parameters():
            parameter.copy_(parameter[: study.seeds].repeat(combinations, 1, 1))
    optimiser = torch.optim.Adam(slow.parameters(), lr=study.learning_rate)
    for _ in range(study.pretrain):
        optimiser.zero_grad()
        torch.autograd.backward(cloning_loss().sum())
        optimiser.step()

    fast, base = copy.deepcopy(slow), copy.deepcopy(slow).requires_grad_(False)
    parameters = [*slow.parameters(), *fast.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=study.learning_rate)
    kernel = MemorylessEuler(study.steps)
    index = torch.arange(replicas) // study.seeds
    adaptive = index % len(METHODS) == 0
    critic = Critic(study, corrupted=index // len(METHODS) == 1, generator=generator)
    dual = DualDescent(replicas, budget=study.budget, rate=study.rate)
    kls, lams = [], []
    for _ in range(study.updates):
        lam = torch.where(adaptive, dual.lambda_, study.optimal_lambda)
        critic.wander()
        s, _ = states_and_actions()
        fine_field, base_field = fast.field(s), base.field(s)
        with torch.no_grad():
            noise = normal(study.batch, 2), normal(study.steps, study.batch, 2).movedim(1, 0)
            path = sample_path(kernel, fine_field, *noise, final_velocity=base_field)
            base_velocities = velocities_along(kernel, base_field, path)
        gradient = terminal_gradient(functools.partial(critic, s), path.sample)
        adjoints = lean_adjoint(kernel, base_field, path, -gradient)
        velocities = velocities_along(kernel, fine_field, path)
        loss = matching_loss(kernel, velocities, base_velocities, adjoints, lam[:, None]).mean(-1)
        optimiser.zero_grad()
        torch.autograd.backward((loss + cloning_loss()).sum())
        clip_per_replica(parameters)
        optimiser.step()
        with torch.no_grad():
            for reference, online in zip(base.parameters(), slow.parameters(), strict=True):
                reference.lerp_(online, 0.005)
            kl = path_kl(kernel, velocities, base_velocities).mean(-1)
            dual.update(kl)
        kls.append(kl)
        lams.append(lam)

    shape = (len(CRITICS), len(METHODS), study.seeds)
    return Trace(
        kl=torch.stack(kls).reshape(-1, *shape),
        lam=torch.stack(lams).reshape(-1, *shape),
        gain=true_gain(fast, base, kernel).reshape(shape),
    )


@torch.no_grad()
def true_gain(fast: Policy, base: Policy, kernel: MemorylessEuler, count: int = 4000) -> Tensor:
    """Mean true Q of the fine-tuned policy minus that of its reference, (R,), same noise."""
    replicas, generator = len(fast.weights[0]), torch.Generator().manual_seed(1)
    s = torch.linspace(-1.0, 1.0, count).reshape(1, count, 1).expand(replicas, -1, 1)
    start = torch.randn((1, count, 2), generator=generator).expand(replicas, -1, -1)
    steps = torch.randn((kernel.steps, 1, count, 2), generator=generator)
    steps = steps.expand(-1, replicas, -1, -1)
    ends = [
        sample_path(kernel, policy.field(s), start, steps, final_velocity=base.field(s)).sample
        for policy in (fast, base)
    ]
    return (reward_slope(s) * (ends[0] - ends[1])).sum(-1).mean(-1)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; KL in nats, means over seeds.

    Attributes:
        critic: Name of the critic.
        method: Name of the method.
        kl: Mean KL after the warm-up.
        worst: Largest deviation from the budget of a run's KL, averaged over a tenth of the time
            after the warm-up, as a share of the budget.
        lam: Lambda at the end.
        gain: True reward gained.
        best: The largest gain that any policy can have at that KL: `sqrt(2 KL E[std^2 slope^2])`.
    """

    critic: str
    method: str
    kl: float
    worst: float
    lam: float
    gain: float
    best: float


def table(study: Study, trace: Trace) -> list[Row]:
    """The rows of the result table."""
    judged = trace.kl[int(study.warm_up * study.updates) :]
    windows = torch.stack([window.mean(0) for window in judged.chunk(10)])
    deviation = (windows / study.budget - 1.0).abs().amax((0, -1))
    final = windows[-1].mean(-1)
    return [
        Row(
            critic,
            method,
            kl=float(judged[:, c, m].mean()),
            worst=float(deviation[c, m]),
            lam=float(trace.lam[-1, c, m].mean()),
            gain=float(trace.gain[c, m].mean()),
            best=math.sqrt(2.0 * float(final[c, m]) * mean_squared_tilt()),
        )
        for c, critic in enumerate(CRITICS)
        for m, method in enumerate(METHODS)
    ]


def format_table(study: Study, rows: list[Row]) -> str:
    """The table as Markdown."""
    lines = [
        f"KL budget {study.budget} nats; lambda of the optimum for the exact critic "
        f"{study.optimal_lambda:.3f}; {study.seeds} seeds, {study.updates} updates, "
        f"judged after the first {study.warm_up:.0%}.",
        "",
        "| critic | method | path KL | worst deviation | lambda | reward gained | best at that KL "
        "|",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.critic} | {r.method} | {r.kl:.3f} | {r.worst:.0%} | {r.lam:.2f} | {r.gain:.2f} "
        f"| {r.best:.2f} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def plot(study: Study, trace: Trace, file: Path) -> None:
    """KL and lambda over the updates, one column per critic."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    window = max(1, study.updates // 60)
    figure, axes = plt.subplots(2, 2, figsize=(9.0, 5.2), sharex=True, sharey="row")
    for c, critic in enumerate(CRITICS):
        above, below = axes[0, c], axes[1, c]
        above.axhspan(0.9 * study.budget, 1.1 * study.budget, color="0.9", label="budget ± 10 %")
        above.axhline(study.budget, color="0.5", linewidth=0.8)
        for m, method in enumerate(METHODS):
            colour = ("tab:blue", "tab:red")[m]
            for k in range(study.seeds):
                label = method if k == 0 else None
                kl = trace.kl[:, c, m, k].unfold(0, window, 1).mean(-1)
                x = torch.arange(len(kl)) + window
                above.plot(x, kl, color=colour, linewidth=1.2, label=label)
                below.plot(trace.lam[:, c, m, k], color=colour, linewidth=1.2)
        for axis in (above, below):
            axis.axvline(study.warm_up * study.updates, color="0.6", linestyle=":", linewidth=0.8)
        above.set_title(f"{critic} critic")
        below.set_xlabel("update")
    axes[0, 0].set_ylabel("realised path KL (nats)")
    axes[1, 0].set_ylabel("lambda")
    axes[0, 0].set_ylim(bottom=0.0)
    axes[0, 0].legend(loc="upper left", fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="The trust region at work")
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--out", type=Path, default=here / "docs" / "figures")
    arguments = parser.parse_args()
    study = Study()
    trace = run(study)
    text = format_table(study, table(study, trace))
    arguments.out.mkdir(parents=True, exist_ok=True)
    plot(study, trace, arguments.out / "trust_region_at_work.png")
    (arguments.out / "trust_region_at_work.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
