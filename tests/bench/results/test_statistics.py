"""The statistics against scipy and against written-out loops."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bench.results import (
    bootstrap_interval,
    holm_p_values,
    interquartile_mean,
    mean_over_tasks,
    performance_profile,
    permutation_p_value,
    probability_of_improvement,
    probability_of_improvement_interval,
    wilson_interval,
)

RATES = st.integers(2, 9).flatmap(lambda n: arrays(np.float64, n, elements=st.floats(0, 1)))


def draw(*counts: int, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.random(count) for count in counts]


@given(st.lists(RATES, min_size=1, max_size=5))
def test_interquartile_mean_is_scipys_trimmed_mean(tasks: list[np.ndarray]) -> None:
    expected = scipy.stats.trim_mean(np.concatenate(tasks), 0.25)
    assert float(interquartile_mean(tasks)) == pytest.approx(expected, abs=1e-12)


def test_interquartile_mean_ignores_outliers_and_the_mean_does_not() -> None:
    tasks = [np.array([0.0, 0.5, 0.5, 100.0])]
    assert float(interquartile_mean(tasks)) == 0.5
    assert float(mean_over_tasks(tasks)) == 25.25


def test_tasks_weigh_the_same_whatever_their_number_of_runs() -> None:
    assert float(mean_over_tasks([np.array([1.0]), np.zeros(9)])) == 0.5


@pytest.mark.parametrize("counts", [(7,), (4, 6), (5, 5, 3)])
def test_bootstrap_agrees_with_scipy(counts: tuple[int, ...]) -> None:
    tasks = draw(*counts)
    ours = bootstrap_interval(tasks, resamples=100_000)
    theirs = scipy.stats.bootstrap(
        tasks,
        lambda *drawn, axis: np.mean([np.mean(task, axis=axis) for task in drawn], axis=0),
        n_resamples=20_000,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert ours.value == pytest.approx(np.mean([task.mean() for task in tasks]))
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)
    assert ours.low < ours.value < ours.high


def test_bootstrap_of_two_runs_is_exact() -> None:
    # Means 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
    interval = bootstrap_interval([[0.0, 1.0]], resamples=40_000)
    assert (interval.low, interval.value, interval.high) == (0.0, 0.5, 1.0)
    narrow = bootstrap_interval([[0.0, 1.0]], level=0.4, resamples=40_000)
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_strata_are_not_mixed() -> None:
    interval = bootstrap_interval([np.zeros(5), np.ones(5)])
    assert (interval.low, interval.value, interval.high) == (0.5, 0.5, 0.5)


def test_bootstrap_repeats_itself_and_is_fast_enough_for_a_report() -> None:
    tasks = draw(*[8] * 50)
    start = time.perf_counter()
    first = bootstrap_interval(tasks, interquartile_mean)
    assert time.perf_counter() - start < 6  # 0.4 s on an idle core
    assert first == bootstrap_interval(tasks, interquartile_mean)
    assert 0 < first.high - first.low < 0.1


@pytest.mark.parametrize("scores", [[], [[]], [[0.1], []], [[float("nan")]], [[[0.1]]]])
def test_scores_that_are_none_are_refused(scores: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"task|finite"):
        bootstrap_interval(scores)


@given(RATES, RATES)
def test_probability_of_improvement_is_mann_whitney(x: np.ndarray, y: np.ndarray) -> None:
    x, y = np.round(x, 1), np.round(y, 1)  # with ties
    expected = scipy.stats.mannwhitneyu(x, y).statistic / (len(x) * len(y))
    assert probability_of_improvement([x], [y]) == pytest.approx(expected)
    assert probability_of_improvement([y], [x]) == pytest.approx(1 - expected)


def test_probability_of_improvement_and_its_interval() -> None:
    better, worse = [np.array([0.8, 0.9, 0.7])], [np.array([0.1, 0.2, 0.3])]
    interval = probability_of_improvement_interval(better, worse)
    assert (interval.low, interval.value, interval.high) == (1.0, 1.0, 1.0)
    ours, theirs = draw(8, 8, seed=3), draw(8, 8, seed=4)
    interval = probability_of_improvement_interval(ours, theirs)
    assert interval.low < interval.value < interval.high
    assert 0.2 < interval.high - interval.low < 0.6
    with pytest.raises(ValueError, match="argument 2"):
        probability_of_improvement(ours, theirs[:1])


def test_performance_profile_against_loops() -> None:
    tasks = draw(4, 6, seed=5)
    edges = np.linspace(0, 1, 11)
    value, low, high = performance_profile(tasks, edges)
    for index, edge in enumerate(edges):
        shares = [sum(float(run) > edge for run in task) / len(task) for task in tasks]
        assert value[index] == pytest.approx(sum(shares) / 2)
    assert (np.diff(value) <= 0).all()
    assert ((low <= value) & (value <= high)).all()
    assert (high - low).max() > 0.1


def test_permutation_test_against_enumeration() -> None:
    x, y = draw(4, 4, seed=6)
    y = y + 0.4
    pooled = np.concatenate([x, y])
    observed = abs(x.mean() - y.mean())
    extreme = [
        abs(pooled[list(chosen)].mean() - np.delete(pooled, chosen).mean()) >= observed - 1e-12
        for chosen in itertools.combinations(range(8), 4)
    ]
    expected = float(np.mean(extreme))
    assert permutation_p_value([x], [y]) == pytest.approx(expected, abs=0.01)
    theirs = scipy.stats.permutation_test(
        (x, y), lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis), vectorized=True
    )
    assert expected == pytest.approx(theirs.pvalue, abs=0.01)


def test_permutation_test_of_no_difference_is_uniform_enough() -> None:
    generator = np.random.default_rng(7)
    values = [
        permutation_p_value(generator.random((2, 5)), generator.random((2, 5)), permutations=500)
        for _ in range(400)
    ]
    assert 0.02 < np.mean(np.array(values) <= 0.05) < 0.09
    assert 0.42 < np.mean(values) < 0.58


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_is_scipys(counts: tuple[int, int]) -> None:
    successes, episodes = counts
    ours = wilson_interval(successes, episodes)
    theirs = scipy.stats.binomtest(successes, episodes).proportion_ci(0.95, method="wilson")
    assert ours.low == pytest.approx(theirs.low, abs=1e-12)
    assert ours.high == pytest.approx(theirs.high, abs=1e-12)
    assert 0 <= ours.low <= ours.value <= ours.high <= 1


@pytest.mark.parametrize(("successes", "episodes"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_interval_of_nonsense(successes: int, episodes: int) -> None:
    with pytest.raises(ValueError, match="successes <= episodes"):
        wilson_interval(successes, episodes)


def test_holm_correction_by_its_definition() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005]
    # Ordered 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, and never below an earlier one.
    assert holm_p_values(p_values) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_p_values([0.9, 0.8]) == [1.0, 1.0]
    assert holm_p_values([]) == []


def test_holm_correction_bounds_the_chance_of_any_false_claim() -> None:
    source = np.random.default_rng(0)
    draws = source.uniform(size=(4_000, 5))
    false_claims = np.mean([min(holm_p_values(row)) < 0.05 for row in draws])
    assert 0.04 < false_claims < 0.06  # 1 - 0.99**5 = 0.049; uncorrected it is 0.23
