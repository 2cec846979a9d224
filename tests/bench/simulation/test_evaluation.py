from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bench.simulation import Evaluation, Policy, Progress, SimulatorPool, evaluate

COUNTING = "contrived_environments:Counting-None-v0"
LENGTH = 7  # of its episodes
BuildPolicy = Callable[[int, int], Policy]


def assert_same(first: Evaluation, second: Evaluation) -> None:
    np.testing.assert_array_equal(first.successes, second.successes)
    np.testing.assert_array_equal(first.returns, second.returns)
    np.testing.assert_array_equal(first.lengths, second.lengths)
    assert first.steps == second.steps


@pytest.mark.parametrize(
    ("domain", "numbers", "size", "limit"),
    [("pointmaze-medium-navigate", (1, 4, 4), 2, 60), ("puzzle-3x3-play", (4, 4, 4), 5, 12)],
)
def test_the_number_of_workers_changes_nothing(
    domain: str,
    numbers: tuple[int, ...],
    size: int,
    limit: int,
    pool: SimulatorPool,
    linear_policy: BuildPolicy,
) -> None:
    tasks = [f"{domain}-singletask-task{number}-v0" for number in numbers]
    policy = linear_policy(size, 5)
    paths: list[list[np.ndarray]] = []

    def run(where: SimulatorPool) -> Evaluation:
        paths.append([])

        def watched(observations: np.ndarray, alive: np.ndarray) -> np.ndarray:
            paths[-1].append(observations)
            return policy(observations, alive)

        return evaluate(watched, tasks, (0, 1, 2), 3, pool=where, step_limit=limit)

    with SimulatorPool(0) as sequential, SimulatorPool(1) as single:
        expected = run(sequential)
        assert expected.steps == limit * 9
        for where in (sequential, single, pool, pool):
            assert_same(run(where), expected)
    # The scores of these short episodes are alike; what the policy saw is not.
    for path in paths[1:]:
        np.testing.assert_array_equal(np.stack(path), np.stack(paths[0]))
    seen = np.stack(paths[0])[-1].reshape(9, -1)
    assert len(np.unique(seen, axis=0)) == 9


def test_a_replica_in_a_pack_does_as_it_does_alone(
    pool: SimulatorPool, linear_policy: BuildPolicy
) -> None:
    policy = linear_policy(2, 4)
    packed = evaluate(policy, [COUNTING] * 3, (5, 6, 7), 4, pool=pool)
    for replica, seed in enumerate((5, 6, 7)):
        alone = evaluate(policy, [COUNTING], [seed], 4, pool=pool)
        np.testing.assert_array_equal(alone.returns[0], packed.returns[replica])
    assert len(np.unique(packed.returns)) == 12
    # Fewer episodes are the first ones of more.
    fewer = evaluate(policy, [COUNTING], [6], 2, pool=pool)
    np.testing.assert_array_equal(fewer.returns[0], packed.returns[1, :2])


@pytest.mark.parametrize("horizon", [1, 3, 5, 7, 9])
def test_a_chunk_is_played_open_loop_and_ends_with_the_episode(horizon: int) -> None:
    # Episodes take 7 steps and reward the first entry of each action.
    calls: list[np.ndarray] = []
    observed: list[np.ndarray] = []
    plan = np.linspace(0.1, 0.9, 9)

    def policy(observations: np.ndarray, alive: np.ndarray) -> np.ndarray:
        done = len(calls) * horizon
        calls.append(alive)
        observed.append(observations)
        chunk = np.zeros((2, 3, horizon, 2), dtype=np.float32)
        upcoming = np.pad(plan, (0, horizon))[done : done + horizon]
        chunk[..., 0] = upcoming
        return chunk

    result = evaluate(policy, [COUNTING] * 2, (0, 1), 3, workers=0)
    assert len(calls) == -(-LENGTH // horizon)
    assert all(alive.shape == (2, 3) and alive.all() for alive in calls)
    assert [int(step[0, 0, 1]) for step in observed] == list(range(0, LENGTH, horizon))
    assert (result.lengths == LENGTH).all()
    assert result.successes.all()
    np.testing.assert_allclose(result.returns, plan[:LENGTH].sum(), rtol=1e-6)
    assert result.steps == 6 * LENGTH


def test_finished_episodes_wait_and_are_not_touched(pool: SimulatorPool) -> None:
    task = "contrived_environments:Counting-Uneven-v0"
    masks: list[np.ndarray] = []
    last: dict[int, np.ndarray] = {}

    def policy(observations: np.ndarray, alive: np.ndarray) -> np.ndarray:
        masks.append(alive)
        for episode in np.flatnonzero(~alive[0]).tolist():
            previous = last.setdefault(episode, observations[0, episode])
            np.testing.assert_array_equal(previous, observations[0, episode])
        chunk = np.zeros((1, 12, 3, 2), dtype=np.float32)
        chunk[~alive] = np.nan  # what it says about finished episodes is nobody's business
        return chunk

    result = evaluate(policy, [task], [0], 12, pool=pool)
    assert result.failures == (None,)
    assert len(np.unique(result.lengths)) > 3
    chunks = np.stack(masks)[:, 0].sum(axis=0)
    np.testing.assert_array_equal(chunks, -(-result.lengths[0] // 3))
    assert len(masks) == chunks.max()
    for episode, observation in last.items():
        assert observation[1] == result.lengths[0, episode]
    assert result.steps == result.lengths.sum()


def test_actions_are_clipped_to_their_bounds() -> None:
    def policy(observations: np.ndarray, alive: np.ndarray) -> np.ndarray:
        return np.full((1, 1, 7, 2), 5.0, dtype=np.float32)

    result = evaluate(policy, [COUNTING], [0], 1, workers=0)
    assert result.returns[0, 0] == pytest.approx(LENGTH)


def test_progress_is_told_after_every_chunk() -> None:
    told: list[Progress] = []

    def policy(observations: np.ndarray, alive: np.ndarray) -> np.ndarray:
        return np.zeros((1, 2, 3, 2), dtype=np.float32)

    evaluate(policy, [COUNTING], [0], 2, workers=0, progress=told.append)
    assert [progress.steps for progress in told] == [6, 12, 14]
    assert [progress.finished for progress in told] == [0, 0, 2]
    assert all(progress.total == 2 for progress in told)
    assert told[0].seconds <= told[-1].seconds


def test_arguments_that_make_no_sense_are_refused(linear_policy: BuildPolicy) -> None:
    policy = linear_policy(2, 1)
    with pytest.raises(ValueError, match="one seed per task"):
        evaluate(policy, [COUNTING], [0, 1], workers=0)
    with pytest.raises(ValueError, match="episodes must be 1 or more"):
        evaluate(policy, [COUNTING], [0], 0, workers=0)
    with pytest.raises(ValueError, match="seeds must be 0 or more"):
        evaluate(policy, [COUNTING], [-1], workers=0)
    with pytest.raises(ValueError, match="step_limit"):
        evaluate(policy, [COUNTING], [0], workers=0, step_limit=0)
    with pytest.raises(ValueError, match="workers must be 0 or more"):
        SimulatorPool(-1)
    with pytest.raises(ValueError, match=r"shape \(1, 2, 2\), expected .* = \(1, 2, H, 2\)"):
        evaluate(lambda o, alive: np.zeros((1, 2, 2)), [COUNTING], [0], 2, workers=0)
    with pytest.raises(ValueError, match="horizon >= 1"):
        evaluate(lambda o, alive: np.zeros((1, 2, 0, 2)), [COUNTING], [0], 2, workers=0)


def test_tasks_of_different_shapes_or_unknown_ones_are_refused(
    pool: SimulatorPool, linear_policy: BuildPolicy
) -> None:
    with pytest.raises(ValueError, match="same observations and actions"):
        evaluate(linear_policy(2, 1), [COUNTING, "Pendulum-v1"], [0, 1], 2, pool=pool)
    with pytest.raises(ValueError, match="unknown task 'pointmaze-tiny-v0'"):
        evaluate(linear_policy(2, 1), ["pointmaze-tiny-v0"], [0], 2, pool=pool)
    # The pool is as good as new.
    assert evaluate(linear_policy(2, 1), [COUNTING], [0], 2, pool=pool).steps == 2 * LENGTH
