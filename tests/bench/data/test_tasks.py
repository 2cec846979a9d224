from pathlib import Path
from typing import Any

import numpy as np
import ogbench
import pytest

from bench.data import DatasetName, load, read_npz, task_rewards
from bench.data._tasks import _goals

from .conftest import FAMILIES, save

TASKS = [f"task{i}" for i in range(1, 6)]


def _plant_goals(dataset: str, environment: Any, arrays: dict[str, np.ndarray]) -> None:
    """Put states that solve a task, wholly or in part, into rows of the data.

    A few short episodes of play solve nothing. The goals are read off a reset environment here.
    """
    generator = np.random.default_rng(environment._reward_task_id)
    environment.reset()
    for row in generator.choice(len(arrays["qpos"]), 10, replace=False):
        whole = row % 2 == 0
        if "maze" in dataset:
            near = environment.cur_goal_xy + generator.uniform(-1.2, 1.2, 2)
            arrays["qpos"][row] = environment.cur_goal_xy if whole else near
            continue
        if "button_states" in arrays:
            target = environment._target_button_states
            flip = 0 if whole else generator.integers(0, 2, len(target))
            arrays["button_states"][row] = (target + flip) % 2
        if "puzzle" in dataset:
            continue
        cubes = environment._data.mocap_pos
        for i in range(len(cubes)):
            offset = 0 if whole else generator.uniform(-0.04, 0.04, 3)
            arrays["qpos"][row, 14 + 7 * i : 17 + 7 * i] = cubes[i] + offset
        if "scene" in dataset:
            slides = np.array([environment._target_drawer_pos, environment._target_window_pos])
            offset = 0 if whole else generator.uniform(-0.06, 0.06, 2)
            arrays["qpos"][row, 23:25] = slides + offset


@pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")
@pytest.mark.parametrize("dataset", FAMILIES)
def test_arrays_and_rewards_equal_those_of_ogbench(
    dataset: str, tiny_dir: Path, tmp_path: Path
) -> None:
    names = [DatasetName.parse(dataset).task(task) for task in range(1, 6)]
    environments = [ogbench.make_env_and_datasets(name, env_only=True) for name in names]
    for suffix in (".npz", "-val.npz"):
        stored = read_npz(tiny_dir / f"{dataset}{suffix}")
        arrays = {key: array.copy() for key, array in stored.items()}
        for environment in environments:
            _plant_goals(dataset, environment.unwrapped, arrays)
        save(tmp_path / f"{dataset}{suffix}", arrays)

    theirs_by_task = [
        ogbench.make_env_and_datasets(
            name,
            dataset_path=str(tmp_path / f"{dataset}.npz"),
            dataset_only=True,
            cur_env=environment,
        )
        for name, environment in zip(names, environments, strict=True)
    ]
    for index, validation in enumerate((False, True)):
        data = load(dataset, TASKS, tmp_path, validation=validation)
        begins = np.flatnonzero(~data.terminals)
        solved, rewards = 0, set()
        for task, splits in enumerate(theirs_by_task):
            theirs = splits[index]
            ours = {
                "observations": data.observations[begins],
                "actions": data.actions[begins],
                "next_observations": data.observations[begins + 1],
                "terminals": data.terminals[begins + 1].astype(np.float32),
                "rewards": data.rewards[task, begins].astype(np.float32),
                "masks": data.masks[task, begins].astype(np.float32),
            }
            assert set(theirs) == set(ours)
            for key, array in theirs.items():
                assert array.dtype == ours[key].dtype
                np.testing.assert_array_equal(ours[key], array, err_msg=f"{key} of {names[task]}")
            solved += int((theirs["masks"] == 0).sum())
            rewards |= set(theirs["rewards"].tolist())
        # The comparison means nothing if no row solves a task.
        assert solved >= 5
        assert len(rewards) >= 2


@pytest.mark.parametrize("dataset", FAMILIES)
def test_sparse_rewards_are_minus_one_until_solved(dataset: str, tiny_dir: Path) -> None:
    dense = load(dataset, TASKS, tiny_dir)
    sparse = load(dataset, TASKS, tiny_dir, sparse=True)
    np.testing.assert_array_equal(sparse.masks, dense.masks)
    np.testing.assert_array_equal(sparse.rewards, np.where(dense.rewards == 0, 0, -1))
    np.testing.assert_array_equal(dense.rewards == 0, ~dense.masks)


def test_blocks_do_not_show(tiny_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = DatasetName.parse("scene-play-v0")
    columns = read_npz(tiny_dir / "scene-play-v0.npz", ["qpos", "button_states"])
    whole = task_rewards(name, columns, [1, 2, 3, 4, 5])
    monkeypatch.setattr("bench.data._tasks._BLOCK", 7)
    for ours, expected in zip(task_rewards(name, columns, [1, 2, 3, 4, 5]), whole, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_tasks_come_in_the_order_asked_for(tiny_dir: Path) -> None:
    one = load("pointmaze-medium-navigate-v0", ["task5", "task1"], tiny_dir)
    other = load("pointmaze-medium-navigate-v0", TASKS, tiny_dir)
    np.testing.assert_array_equal(one.rewards, other.rewards[[4, 0]])


@pytest.mark.parametrize(
    ("environment", "tolerance"),
    [("antmaze-large-v0", 0.5), ("pointmaze-large-v0", 1.0), ("antsoccer-arena-v0", 0.5)],
)
def test_goals_of_mazes(environment: str, tolerance: float) -> None:
    goals = _goals(environment)
    assert len(goals) == 5
    assert all(goal["tolerance"] == tolerance for goal in goals)


def test_the_ball_counts_in_antsoccer() -> None:
    name = DatasetName.parse("antsoccer-arena-navigate-v0")
    positions = np.zeros((2, 22), np.float32)
    positions[1, 15:17] = _goals(name.environment_id)[0]["goal_xy"]
    rewards, masks = task_rewards(name, {"qpos": positions}, [1])
    np.testing.assert_array_equal(rewards, [[-1, 0]])
    np.testing.assert_array_equal(masks, [[True, False]])


def test_unknown_tasks_are_refused(tiny_dir: Path) -> None:
    with pytest.raises(ValueError, match="names no task"):
        load("scene-play-v0", ["task6"], tiny_dir)
    with pytest.raises(ValueError, match="rewards are known for"):
        task_rewards(DatasetName.parse("kitchen-play-v0"), {}, [1])
