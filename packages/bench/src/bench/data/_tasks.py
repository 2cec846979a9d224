"""Rewards and masks of OGBench's five single tasks, from the states in the data.

As `ogbench` 1.2 times them: the reward of row i speaks of the state before action i. A reward is
minus the number of parts of the goal that are unsolved; a mask is 0 where all are solved.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Int8, Shaped

from bench.data._environments import make_environment
from bench.data._names import DatasetName

_COLUMNS = {
    "pointmaze": ("qpos",),
    "antmaze": ("qpos",),
    "humanoidmaze": ("qpos",),
    "antsoccer": ("qpos",),
    "cube": ("qpos",),
    "scene": ("qpos", "button_states"),
    "puzzle": ("button_states",),
}
_OBJECTS = 14  # Index in qpos of the first object: the arm and its gripper come before.
_CUBE = 7  # Entries of qpos a cube takes: position, then orientation.
_BALL = 15  # Index in qpos of the ball of antsoccer: the ant comes before.
_TOLERANCE = 0.04  # Metres; also of the drawer's and the window's slide.
_BLOCK = 1 << 18  # Rows treated together: bounds the memory of the distances.


def reward_columns(name: DatasetName) -> tuple[str, ...]:
    """The arrays of a data file that the rewards are computed from.

    Raises:
        ValueError: for an environment whose tasks are not known.
    """
    family = name.environment.split("-")[0]
    if family not in _COLUMNS:
        raise ValueError(
            f"'{name}' has no tasks: rewards are known for {', '.join(_COLUMNS)} environments"
        )
    return _COLUMNS[family]


def task_rewards(
    name: DatasetName,
    columns: Mapping[str, Shaped[np.ndarray, "rows _"]],
    tasks: Sequence[int],
    *,
    sparse: bool = False,
) -> tuple[Int8[np.ndarray, "tasks rows"], Bool[np.ndarray, "tasks rows"]]:
    """Rewards and masks of every row for each task.

    Args:
        name: the dataset.
        columns: `reward_columns(name)` of the data, N rows each.
        tasks: task numbers, 1 to 5.
        sparse: reward -1 until everything is solved, then 0, instead of minus the number of
            unsolved parts.

    Returns:
        Rewards (T, N), and masks (T, N), false where the task is solved.

    Raises:
        ValueError: for an unknown environment or task.
    """
    needed = reward_columns(name)
    goals = _goals(name.environment_id)
    for task in tasks:
        if not 1 <= task <= len(goals):
            raise ValueError(f"'{name}' has tasks 1 to {len(goals)}; got {task}")
    rows = len(columns[needed[0]])
    rewards = np.empty((len(tasks), rows), np.int8)
    masks = np.empty((len(tasks), rows), bool)
    for start in range(0, rows, _BLOCK):
        block = slice(start, start + _BLOCK)
        states = {key: np.asarray(columns[key][block]) for key in needed}
        for index, task in enumerate(tasks):
            solved = np.concatenate(list(_solved(name, states, goals[task - 1])), axis=-1)
            masks[index, block] = ~solved.all(axis=-1)
            rewards[index, block] = solved.sum(axis=-1) - solved.shape[-1]
    return (np.negative(masks, dtype=np.int8) if sparse else rewards), masks


def _solved(
    name: DatasetName, states: Mapping[str, np.ndarray], goal: Mapping[str, Any]
) -> Iterator[Bool[np.ndarray, "rows parts"]]:
    """Which parts of a goal each row has solved, object by object."""
    family = name.environment.split("-")[0]
    if "maze" in family or family == "antsoccer":
        first = _BALL if family == "antsoccer" else 0
        distance = np.linalg.norm(states["qpos"][:, first : first + 2] - goal["goal_xy"], axis=-1)
        yield (distance <= goal["tolerance"])[:, None]
        return
    slides = _OBJECTS
    if "cubes" in goal:
        cubes = np.asarray(goal["cubes"])
        slides += _CUBE * len(cubes)
        positions = np.stack(
            [states["qpos"][:, i : i + 3] for i in range(_OBJECTS, slides, _CUBE)], axis=1
        )
        yield np.linalg.norm(cubes - positions, axis=-1) <= _TOLERANCE
    if "buttons" in goal:
        yield states["button_states"] == goal["buttons"]
        slides += len(goal["buttons"])
    if "slides" in goal:
        drawer_and_window = states["qpos"][:, slides : slides + 2]
        yield np.abs(drawer_and_window - goal["slides"]) <= _TOLERANCE


@lru_cache(maxsize=8)
def _goals(environment_id: str) -> list[dict[str, Any]]:
    """The goals of an environment's tasks, read off OGBench's own tables."""
    environment = make_environment(environment_id)
    family = environment_id.split("-")[0]
    goals: list[dict[str, Any]] = []
    for task in environment.task_infos:
        if family == "cube":
            goals.append({"cubes": task["goal_xyzs"]})
        elif family == "puzzle":
            goals.append({"buttons": task["goal_button_states"]})
        elif family == "scene":
            goal = task["goal"]
            goals.append(
                {
                    "cubes": goal["block_xyzs"],
                    "buttons": goal["button_states"],
                    "slides": np.array([goal["drawer_pos"], goal["window_pos"]]),
                }
            )
        else:
            # OGBench keeps the tolerance (metres) in the environment and not in the task.
            goals.append({"goal_xy": np.array(task["goal_xy"]), "tolerance": environment._goal_tol})
    environment.close()
    return goals
