"""How well a rule for lambda holds the path KL at its budget, and how fast it gets there."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from bench.ablation.bandit import WarmStart
from bench.agents import TRQAM
from bench.agents.learning import update_on
from qlearn import CriticEnsemble, RandomStreams

__all__ = ["RULES", "Tracking", "followed", "summary"]

RULES: Mapping[str, Mapping[str, Any]] = {
    "descend": {},
    "descend, rate 0.1": {"dual_rate": 0.1},
    "solve": {"dual": "solve"},
    "solve, uncorrected": {"dual": "solve", "dual_rate": 0.0},
    "fixed lambda": {"dual_rate": 0.0},
}
_PHASES = ("start", "after the step")
# Updates whose KL is averaged, and how far from the budget counts as there.
_WINDOW, _BAND = 25, 0.2


@dataclass(frozen=True, slots=True)
class Tracking:
    """What is asked of every rule.

    Attributes:
        budget: path KL, nats per action.
        updates: before, and again after the critic's scale changes.
        factor: of the critic's values from then on.
    """

    budget: float
    updates: int
    factor: float


def followed(
    start: WarmStart, tracking: Tracking, tell: Callable[[int], None] = lambda done: None
) -> pl.DataFrame:
    """Train every rule from the same start on the same batches and noise.

    Critic and reference are held, so the only thing that changes is the critic's scale.

    Args:
        start: policy and critic.
        tracking: what is asked.
        tell: called with the number of updates done.

    Returns:
        Columns `rule`, `seed`, `update`, `path_kl`, `lambda`; a row per update.
    """
    parts: list[pl.DataFrame] = []
    for number, (rule, settings) in enumerate(RULES.items()):
        agent = start.agent(kl_budget=tracking.budget, **settings)
        kept: dict[str, list[NDArray[np.float32]]] = {"path_kl": [], "lambda": []}
        for update, metrics in enumerate(_updates(agent, start, tracking)):
            for name, values in kept.items():
                values.append(metrics[name].numpy())
            tell(2 * tracking.updates * number + update + 1)
        for replica, seed in enumerate(start.seeds):
            series = {name: [float(v[replica]) for v in values] for name, values in kept.items()}
            updates = range(1, 2 * tracking.updates + 1)
            parts.append(pl.DataFrame({"rule": rule, "seed": seed, "update": updates, **series}))
    return pl.concat(parts)


def _updates(
    agent: TRQAM, start: WarmStart, tracking: Tracking
) -> Iterator[dict[str, torch.Tensor]]:
    streams = RandomStreams(start.seeds).spawn("updates")
    for update in range(2 * tracking.updates):
        if update == tracking.updates:
            with torch.no_grad():
                for critic in (agent.critic, agent.target_critic):
                    assert isinstance(critic, CriticEnsemble)
                    critic.kernels[-1].mul_(tracking.factor)
                    critic.biases[-1].mul_(tracking.factor)
        batch = start.held(streams)
        yield update_on(agent, batch, streams)


def summary(curves: pl.DataFrame, tracking: Tracking) -> pl.DataFrame:
    """One row per rule and phase, each number a median over the seeds.

    Returns:
        Columns `rule`, `phase`; `reached`: updates until the windowed KL is first within the band
        around the budget; `settled`: updates until it is there to stay; `peak`: its largest value;
        `mean` and `error`: mean KL and mean absolute distance over the last quarter. All three in
        budgets. `settled_seeds` of `seeds` settled; the medians of the first two count the others
        as infinite, and are null where half of the seeds did not get there.
    """
    rows: list[dict[str, Any]] = []
    for rule in curves["rule"].unique(maintain_order=True):
        of_rule = curves.filter(rule=rule)
        for index, phase in enumerate(_PHASES):
            first = index * tracking.updates
            inside = (pl.col("update") > first) & (pl.col("update") <= first + tracking.updates)
            seeds = [
                _measures(part["path_kl"].to_numpy() / tracking.budget)
                for part in of_rule.filter(inside).partition_by("seed")
            ]
            medians = {name: float(np.median([s[name] for s in seeds])) for name in seeds[0]}
            rows.append(
                {
                    "rule": rule,
                    "phase": phase,
                    "reached": _whole(medians.pop("reached")),
                    "settled": _whole(medians.pop("settled")),
                    **medians,
                    "settled_seeds": sum(np.isfinite(s["settled"]) for s in seeds),
                    "seeds": len(seeds),
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None)


def _measures(ratio: NDArray[np.float64]) -> dict[str, float]:
    """Of one run and phase; ``ratio`` is KL over budget at every update."""
    window = min(_WINDOW, len(ratio))
    smooth = np.convolve(ratio, np.full(window, 1.0 / window), mode="valid")
    there = np.abs(smooth - 1.0) <= _BAND
    away = np.flatnonzero(~there)
    last_away = away[-1] if len(away) else -1
    tail = smooth[-max(1, len(ratio) // 4) :]
    return {
        "reached": float(np.argmax(there) + window) if there.any() else np.inf,
        "settled": float(last_away + 1 + window) if last_away + 1 < len(smooth) else np.inf,
        "peak": float(smooth.max()),
        "mean": float(tail.mean()),
        "error": float(np.abs(tail - 1.0).mean()),
    }


def _whole(updates: float) -> int | None:
    return round(updates) if np.isfinite(updates) else None
