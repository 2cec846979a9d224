from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.errors import BenchError
from bench.simulation import EnvironmentLimits, EvaluationError, OnlineEnvironments

COUNTING = "contrived_environments:Counting-None-v0"
CONTINUED = (
    "pointmaze-medium-navigate-singletask-task1-v0",
    "antmaze-large-navigate-singletask-task1-v0",
    "humanoidmaze-medium-navigate-singletask-task1-v0",
    "cube-double-play-singletask-task2-v0",
    "scene-play-singletask-task2-v0",
    "puzzle-3x3-play-singletask-task4-v0",
)


def test_episodes_follow_each_other_and_the_last_observation_is_kept() -> None:
    with OnlineEnvironments([COUNTING, COUNTING], (0, 1), workers=0) as environments:
        first = environments.observe()
        assert first.shape == (2, 2)
        assert first.dtype == np.float32
        for step in range(1, 22):
            result = environments.step(np.array([[0.5, 0.0], [0.25, 0.0]]))
            ended = step % 7 == 0
            place = (step - 1) % 7 + 1
            assert result.observations[:, 1].tolist() == [place, place]
            assert environments.observe()[:, 1].tolist() == ([0, 0] if ended else [place, place])
            assert result.terminated.tolist() == [ended, ended]
            assert not result.truncated.any()
            assert result.successes.tolist() == [ended, ended]
            assert result.rewards.tolist() == [0.5, 0.25]
            np.testing.assert_allclose(result.episode_returns, [0.5 * place, 0.25 * place])
            assert result.episode_lengths.tolist() == [place, place]
            assert not result.failed.any()


def test_undisturbed_environments_have_states_of_the_same_bytes() -> None:
    """OGBench's mazes write their XML to a temporary file, whose name is no part of an episode."""
    images = []
    for _ in range(2):
        with OnlineEnvironments(CONTINUED[:1], (0,), workers=0) as environments:
            environments.step(np.full((1, 2), 0.5))
            images.append(environments.state_dict())
    assert images[0].keys() == images[1].keys()
    for name, image in images[0].items():
        assert image.tobytes() == images[1][name].tobytes()


def test_episodes_depend_on_their_number_and_not_on_workers_or_company() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 3, 2)).astype(np.float32)

    def paths(workers: int, seeds: tuple[int, ...]) -> np.ndarray:
        with OnlineEnvironments([COUNTING] * len(seeds), seeds, workers=workers) as environments:
            taken = [environments.observe()]
            for action in actions:
                environments.step(action[: len(seeds)])
                taken.append(environments.observe())
        return np.stack(taken)

    together = paths(0, (4, 5, 6))
    np.testing.assert_array_equal(paths(2, (4, 5, 6)), together)
    np.testing.assert_array_equal(paths(0, (4,))[:, 0], together[:, 0])
    starts = together[::7, :, 0]
    assert len(np.unique(starts)) == starts.size


CONTINUATION = """
import sys
import numpy as np
from bench.simulation import OnlineEnvironments

files = sys.argv[1:]
for name in files:
    with np.load(name) as saved:
        saved = dict(saved)
    tasks, actions = [str(saved.pop("task"))] * 2, saved.pop("actions")
    with OnlineEnvironments(tasks, (8, 9), workers=0) as environments:
        environments.load_state_dict(saved)
        rows = [environments.observe()]
        for action in actions:
            result = environments.step(action)
            rows.append(np.concatenate([result.observations, environments.observe()], axis=0))
            rows.append(np.stack([result.rewards, result.episode_returns]))
    np.savez(name + ".continued.npz", *rows)
"""


def test_a_run_continued_in_a_new_process_is_bit_identical(tmp_path: Path) -> None:
    expected: dict[str, list[np.ndarray]] = {}
    generator = np.random.default_rng(1)
    for task in CONTINUED:
        with OnlineEnvironments([task, task], (3, 4), workers=0) as environments:
            size = environments._spaces.action_low.size
            before = generator.uniform(-1, 1, (20, 2, size)).astype(np.float32)
            after = generator.uniform(-1, 1, (40, 2, size)).astype(np.float32)
            for action in before:
                environments.step(action)
            state = environments.state_dict()
            np.savez(tmp_path / task, task=np.array(task), actions=after, **state)
            rows = [environments.observe()]
            for action in after:
                result = environments.step(action)
                rows.append(np.concatenate([result.observations, environments.observe()], axis=0))
                rows.append(np.stack([result.rewards, result.episode_returns]))
            expected[task] = rows
    files = [str(tmp_path / f"{task}.npz") for task in CONTINUED]
    subprocess.run([sys.executable, "-c", CONTINUATION, *files], check=True, timeout=300)
    for name, task in zip(files, CONTINUED, strict=True):
        with np.load(name + ".continued.npz") as continued:
            for place, row in enumerate(expected[task]):
                np.testing.assert_array_equal(continued[f"arr_{place}"], row, err_msg=task)
        moved = np.abs(expected[task][-2] - expected[task][0].repeat(2, axis=0)).max()
        assert moved > 1e-3, f"{task} did not move, so nothing was compared"


def test_a_continued_run_begins_the_same_next_episodes() -> None:
    # 150 of 200 steps, saved; the episode ends and the next one begins after that.
    task = "cube-single-play-singletask-task1-v0"
    action = np.array([[0.1, -0.2, 0.3, 0.0, 0.5]])
    with (
        OnlineEnvironments([task], [3], workers=0) as environments,
        OnlineEnvironments([task], [99], workers=0) as others,
    ):
        for _ in range(150):
            environments.step(action)
        others.load_state_dict(environments.state_dict())
        for step in range(60):
            mine, its = environments.step(action), others.step(action)
            np.testing.assert_array_equal(mine.observations, its.observations)
            np.testing.assert_array_equal(environments.observe(), others.observe())
            assert mine.truncated[0] == its.truncated[0] == (step == 49)
        assert its.episode_lengths[0] == 10


def test_a_failing_replica_stops_and_the_others_go_on() -> None:
    tasks = [COUNTING, "contrived_environments:Counting-Raise-v0", COUNTING]
    with OnlineEnvironments(tasks, (0, 1, 2), workers=0) as environments:
        for step in range(1, 6):
            actions = np.full((3, 2), 0.5)
            if step == 5:
                actions[2] = np.nan
            result = environments.step(actions)
            assert result.failed.tolist() == [False, step >= 3, step >= 5]
            assert result.rewards.tolist() == [0.5, 0.5 * (step < 3), 0.5 * (step < 5)]
        first, second, third = environments.failures
        assert first is None
        assert isinstance(second, EvaluationError)
        assert "ArithmeticError: the simulation diverged" in str(second)
        assert isinstance(third, EvaluationError)
        assert "not finite" in str(third)


def test_a_worker_that_dies_costs_time_and_one_that_dies_twice_its_replica() -> None:
    """Steps since the last saved state are played again, so that nobody else notices."""
    broken = [f"contrived_environments:Counting-{name}-v0" for name in ("Die", "Hang")]
    tasks = [COUNTING, COUNTING, *broken]
    actions = np.random.default_rng(0).uniform(-1, 1, (12, 4, 2))
    limits = EnvironmentLimits(seconds=3.0)
    with (
        OnlineEnvironments(tasks[:2], (0, 1), workers=0) as expected,
        OnlineEnvironments(tasks, (0, 1, 2, 3), workers=2, limits=limits) as environments,
        OnlineEnvironments(tasks, (0, 1, 2, 3), workers=1, limits=limits) as others,
    ):
        for step, action in enumerate(actions):
            if step in (1, 6):  # once before a state was saved, once after it
                os.kill(environments._pool.process_ids[0], signal.SIGKILL)
            mine, its = environments.step(action), expected.step(action[:2])
            assert mine.failed.tolist() == [False, False, step >= 2, step >= 2]
            np.testing.assert_array_equal(mine.observations[:2], its.observations)
            np.testing.assert_array_equal(mine.episode_returns[:2], its.episode_returns)
            np.testing.assert_array_equal(environments.observe()[:2], expected.observe())
            if step == 4:
                state = environments.state_dict()
                sizes = [state[f"replica{replica}"].size for replica in range(4)]
                assert [size > 0 for size in sizes] == [True, True, False, False]
        died, hung = map(str, environments.failures[2:])
        assert "exit code 3" in died
        assert "did not return from a call within 3 s" in hung
        others.load_state_dict(state)  # those that had stopped are not tried again
        for action in actions[5:]:
            mine = others.step(action)
        np.testing.assert_array_equal(others.observe()[:2], expected.observe())
        assert mine.failed.tolist() == [False, False, True, True]


def test_an_environment_that_cannot_be_reset_is_named() -> None:
    task = "contrived_environments:Counting-Reset-v0"
    for workers in (0, 1):
        with pytest.raises(BenchError, match=r"Counting-Reset-v0.* no ground to stand on"):
            OnlineEnvironments([task], [0], workers=workers)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="one seed per task"):
        OnlineEnvironments([COUNTING], [0, 1], workers=0)
    with pytest.raises(ValueError, match="unknown task"):
        OnlineEnvironments(["no-such-task-v0"], [0], workers=0)
    with pytest.raises(ValueError, match="same observations and actions"):
        OnlineEnvironments([COUNTING, "Pendulum-v1"], [0, 1], workers=0)
    with OnlineEnvironments([COUNTING], [0], workers=0) as environments:
        with pytest.raises(ValueError, match=r"shape \(2, 2\), expected \(1, 2\)"):
            environments.step(np.zeros((2, 2)))
        with pytest.raises(ValueError, match="another number of replicas"):
            environments.load_state_dict({})
