"""Statistics for few seeds: seeds are the unit of replication, never episodes.

Scores are given as one array per task holding one number per run (seed), so tasks may have
different numbers of runs. References: Agarwal et al., Deep Reinforcement Learning at the Edge of
the Statistical Precipice (arXiv 2108.13264) for the interquartile mean, the stratified bootstrap,
probability of improvement and performance profiles; Wilson (1927) for the binomial interval; Holm
(1979) for several tests.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Interval",
    "bootstrap_interval",
    "holm_p_values",
    "interquartile_mean",
    "mean_over_tasks",
    "performance_profile",
    "permutation_p_value",
    "probability_of_improvement",
    "probability_of_improvement_interval",
    "wilson_interval",
]

Floats = NDArray[np.float64]
Scores = Sequence[ArrayLike]
Statistic = Callable[[Sequence[Floats]], Floats]
_CHUNK = 4_000_000  # resampled numbers held at once


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the ends of its confidence interval."""

    value: float
    low: float
    high: float


def mean_over_tasks(scores: Sequence[Floats]) -> Floats:
    """Mean of the task means, so that every task weighs the same.

    Args:
        scores: per task an array `(..., runs)`.

    Returns:
        `(...)`.
    """
    return np.asarray(np.mean([np.mean(task, axis=-1) for task in scores], axis=0))


def interquartile_mean(scores: Sequence[Floats]) -> Floats:
    """Mean of the middle half of all runs of all tasks; floor(n/4) are cut at each end.

    Args:
        scores: per task an array `(..., runs)`.

    Returns:
        `(...)`.
    """
    pooled = np.concatenate([np.asarray(task) for task in scores], axis=-1)
    count = pooled.shape[-1]
    cut = count // 4
    if cut:
        pooled = np.partition(pooled, (cut, count - cut - 1), axis=-1)
    return np.asarray(pooled[..., cut : count - cut].mean(axis=-1))


def bootstrap_interval(
    scores: Scores,
    statistic: Statistic = mean_over_tasks,
    *,
    level: float = 0.95,
    resamples: int = 50_000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of `statistic` when the runs of each task are drawn anew.

    Stratified: the resample of a task is taken from that task's runs only. With one run per task
    the interval has no width and says nothing; with fewer than about five it is too narrow.

    Args:
        scores: per task the scores of its runs.
        statistic: maps resampled tasks, each `(resamples, runs)`, to `(resamples,)`.
        level: coverage.
        resamples: number of bootstrap samples.
        seed: of the resampling, so that a report does not change when it is made again.

    Raises:
        ValueError: no task, a task without runs, or scores that are not finite.
    """
    tasks = _checked(scores)
    generator = np.random.default_rng(seed)
    width = sum(len(task) for task in tasks)
    drawn = [
        statistic([_resample(task, count, generator) for task in tasks])
        for count in _chunks(resamples, width)
    ]
    low, high = _ends(np.concatenate(drawn), level)
    return Interval(float(statistic(tasks)), low, high)


def probability_of_improvement(ours: Scores, theirs: Scores) -> float:
    """Probability that a run of ours beats a run of theirs on a task drawn at random.

    Ties count one half: the Mann-Whitney statistic over the number of pairs, averaged over tasks.

    Raises:
        ValueError: different numbers of tasks, or as `bootstrap_interval`.
    """
    pairs = list(zip(_checked(ours), _checked(theirs), strict=True))
    return float(np.mean([_wins(x, y) for x, y in pairs]))


def probability_of_improvement_interval(
    ours: Scores,
    theirs: Scores,
    *,
    level: float = 0.95,
    resamples: int = 5_000,
    seed: int = 0,
) -> Interval:
    """`probability_of_improvement` with its stratified bootstrap interval.

    Raises:
        ValueError: as `probability_of_improvement`.
    """
    value = probability_of_improvement(ours, theirs)
    generator = np.random.default_rng(seed)
    drawn = []
    pairs = list(zip(_checked(ours), _checked(theirs), strict=True))
    for count in _chunks(resamples, max(len(x) * len(y) for x, y in pairs)):
        per_task = [
            _wins(_resample(x, count, generator), _resample(y, count, generator)) for x, y in pairs
        ]
        drawn.append(np.mean(per_task, axis=0))
    low, high = _ends(np.concatenate(drawn), level)
    return Interval(value, low, high)


def performance_profile(
    scores: Scores,
    thresholds: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[Floats, Floats, Floats]:
    """Share of runs above each threshold, tasks weighing the same, with bootstrap bands.

    Args:
        scores: per task the scores of its runs.
        thresholds: `(thresholds,)`.
        level: coverage of the bands, each threshold on its own.
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Returns:
        Value, low and high end, each `(thresholds,)`.

    Raises:
        ValueError: as `bootstrap_interval`.
    """
    tasks = _checked(scores)
    grid = np.asarray(thresholds, dtype=np.float64)
    generator = np.random.default_rng(seed)

    def share(drawn: Sequence[Floats]) -> Floats:
        return np.stack([mean_over_tasks([(task > edge) * 1.0 for task in drawn]) for edge in grid])

    resampled = share([_resample(task, resamples, generator) for task in tasks])
    tail = (1 - level) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=-1)
    return share(tasks), np.asarray(low), np.asarray(high)


def permutation_p_value(
    ours: Scores, theirs: Scores, *, permutations: int = 20_000, seed: int = 0
) -> float:
    """Two-sided p-value of the difference of task means, labels permuted within each task.

    The hypothesis is that on every task the runs of both sides come from one distribution. The
    identity counts as one of the permutations, so the value is never 0.

    Raises:
        ValueError: as `probability_of_improvement`.
    """
    pairs = list(zip(_checked(ours), _checked(theirs), strict=True))
    generator = np.random.default_rng(seed)
    difference = np.zeros(permutations)
    observed = 0.0
    for x, y in pairs:
        pooled = np.concatenate([x, y])
        order = generator.permuted(np.tile(pooled, (permutations, 1)), axis=1)
        difference += order[:, : len(x)].mean(axis=1) - order[:, len(x) :].mean(axis=1)
        observed += float(x.mean() - y.mean())
    extreme = np.abs(difference) >= abs(observed) - 1e-9
    return float((1 + extreme.sum()) / (1 + permutations))


def holm_p_values(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of several tests; the chance of any false claim stays bounded.

    Args:
        p_values: of the single tests, in any order.

    Returns:
        The corrected ones, in the same order; none is smaller than before.
    """
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def wilson_interval(successes: int, episodes: int, *, level: float = 0.95) -> Interval:
    """Wilson's score interval of a success rate over independent episodes.

    Raises:
        ValueError: no episodes, or successes outside 0..episodes.
    """
    if episodes < 1 or not 0 <= successes <= episodes:
        raise ValueError(f"need 0 <= successes <= episodes, got {successes} of {episodes}")
    z = statistics.NormalDist().inv_cdf(0.5 + level / 2)
    rate = successes / episodes
    weight = 1 / (1 + z * z / episodes)
    centre = weight * (rate + z * z / (2 * episodes))
    spread = rate * (1 - rate) / episodes + (z / (2 * episodes)) ** 2
    half = weight * z * float(np.sqrt(spread))
    # At 0 and 1 the ends meet the rate exactly, but for rounding.
    return Interval(rate, max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half)))


def _checked(scores: Scores) -> list[Floats]:
    tasks = [np.asarray(task, dtype=np.float64) for task in scores]
    if not tasks or any(task.ndim != 1 or len(task) == 0 for task in tasks):
        shapes = [task.shape for task in tasks]
        raise ValueError(f"need one non-empty row of scores per task, got shapes {shapes}")
    if not all(np.isfinite(task).all() for task in tasks):
        raise ValueError("scores must be finite; leave unfinished or failed runs out, and say so")
    return tasks


def _resample(task: Floats, count: int, generator: np.random.Generator) -> Floats:
    kind = np.uint8 if len(task) < 256 else np.int64
    drawn: NDArray[np.integer] = generator.integers(0, len(task), (count, len(task)), dtype=kind)
    return np.asarray(task.take(drawn))


def _wins(x: Floats, y: Floats) -> Floats:
    above = (x[..., :, None] > y[..., None, :]).mean(axis=(-2, -1))
    equal = (x[..., :, None] == y[..., None, :]).mean(axis=(-2, -1))
    return np.asarray(above + equal / 2)


def _chunks(total: int, width: int) -> list[int]:
    size = max(1, min(total, _CHUNK // max(1, width)))
    return [size] * (total // size) + ([total % size] if total % size else [])


def _ends(drawn: Floats, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)
