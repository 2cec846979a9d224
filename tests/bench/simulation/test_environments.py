from __future__ import annotations

import random
import threading
import warnings
from collections import deque
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.simulation import SeededEnv, make
from bench.simulation._plain import plain_attributes, restore_attributes

FAMILIES = (
    "pointmaze-medium-navigate-singletask-task2-v0",
    "antmaze-large-navigate-singletask-task2-v0",
    "humanoidmaze-medium-navigate-singletask-task2-v0",
    "antsoccer-arena-navigate-singletask-task2-v0",
    "cube-double-play-singletask-task2-v0",
    "scene-play-singletask-task2-v0",
    "puzzle-3x3-play-singletask-task2-v0",
)
STEPS = 25


@cache
def built(task: str) -> SeededEnv:
    """Building a manipulation task takes a second; tests that do not look at it share it."""
    return make(task)


def episode(environment: SeededEnv, seed: int, actions: np.ndarray) -> np.ndarray:
    first, _ = environment.reset(seed)
    return np.stack([first, *(environment.step(action)[0] for action in actions)])


def goal(environment: SeededEnv, seed: int) -> np.ndarray:
    """OGBench samples actions until the goal's observation has settled."""
    return np.asarray(environment.reset(seed)[1]["goal"])


def random_actions(environment: SeededEnv, steps: int = STEPS) -> np.ndarray:
    size = (steps, environment.action_low.size)
    return np.random.default_rng(7).uniform(-1, 1, size).astype(np.float32)


@pytest.mark.parametrize("task", FAMILIES)
def test_an_episode_depends_on_its_seed_alone(task: str) -> None:
    environment = built(task)
    actions = random_actions(environment)
    expected = episode(environment, 3, actions)
    other = episode(environment, 4, actions)
    assert not np.array_equal(expected, other)
    # Again after another episode, in another instance, and in a fork that shares the model.
    np.testing.assert_array_equal(episode(environment, 3, actions), expected)
    another = make(task)
    np.testing.assert_array_equal(episode(another, 3, actions), expected)
    fork = environment.fork()
    np.testing.assert_array_equal(episode(fork, 3, actions), expected)
    np.testing.assert_array_equal(goal(fork, 3), goal(environment, 3))
    np.testing.assert_array_equal(goal(another, 3), goal(environment, 3))
    # Forks that take turns do not disturb each other.
    environment.reset(3)
    fork.reset(4)
    mine, its = [], []
    for action in actions:
        mine.append(environment.step(action)[0])
        its.append(fork.step(action)[0])
    np.testing.assert_array_equal(np.stack(mine), expected[1:])
    np.testing.assert_array_equal(np.stack(its), other[1:])


def test_what_an_episode_writes_into_the_model_is_its_own() -> None:
    # As the scene tasks do, whose locks are dampings of joints.
    environment = make("antmaze-large-navigate-singletask-task2-v0")
    actions = random_actions(environment)
    expected = episode(environment, 3, actions)
    fork = environment.fork()

    fork.reset(3)
    fork.unseeded.unwrapped.model.dof_damping[6:] += 5.0
    damped = np.stack([fork.step(action)[0] for action in actions])
    assert np.abs(damped - expected[1:]).max() > 1e-3
    # Another scene on the same model, turn by turn, keeps its own...
    environment.reset(3)
    fork.reset(3)
    fork.unseeded.unwrapped.model.dof_damping[6:] += 5.0
    for place, action in enumerate(actions):
        np.testing.assert_array_equal(environment.step(action)[0], expected[place + 1])
        np.testing.assert_array_equal(fork.step(action)[0], damped[place])
    # ... the next episode has the model as it was, and a saved state has it as it is.
    state = fork.state()
    following = np.stack([fork.step(action)[0] for action in actions])
    np.testing.assert_array_equal(episode(fork, 3, actions), expected)
    other = make(environment.task_name)
    other.load_state(state)
    np.testing.assert_array_equal(
        np.stack([other.step(action)[0] for action in actions]), following
    )


def test_the_callers_draws_from_numpy_are_not_disturbed() -> None:
    environment = make("pointmaze-teleport-navigate-singletask-task1-v0")
    np.random.seed(0)  # noqa: NPY002
    expected = np.random.uniform(size=4)  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    draws = [np.random.uniform()]  # noqa: NPY002
    environment.reset(1)
    draws.append(np.random.uniform())  # noqa: NPY002
    for action in random_actions(environment, 5):
        environment.step(action)
    draws.extend(np.random.uniform(size=2))  # noqa: NPY002
    np.testing.assert_array_equal(draws, expected)


def test_observations_have_the_type_of_the_data() -> None:
    environment = make("cube-single-play-singletask-task1-v0")
    first, info = environment.reset(0)
    second, reward, terminated, truncated, info = environment.step(np.zeros(5, dtype=np.float32))
    for observation in (first, second):
        assert observation.dtype == np.float32
        assert observation.shape == environment.observation_shape == (28,)
    assert (reward, terminated, truncated) == (-1.0, False, False)
    assert not info["success"]
    assert environment.max_episode_steps == 200
    np.testing.assert_array_equal(environment.action_low, -np.ones(5, dtype=np.float32))


def test_building_and_stepping_warn_about_nothing() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        environment = make("cube-single-play-singletask-task1-v0")
        episode(environment, 0, random_actions(environment, 2))
    assert [str(warning.message) for warning in caught] == []


def test_other_warnings_of_the_same_kind_are_not_silenced() -> None:
    import gymnasium

    make("cube-single-play-singletask-task1-v0")
    with pytest.warns(UserWarning, match="precision lowered"):
        gymnasium.spaces.Box(-np.ones(5), np.ones(5), dtype=np.float32)


def test_any_gymnasium_environment_is_seeded_in_all_its_sources() -> None:
    environment = make("contrived_environments:Counting-None-v0")
    actions = np.zeros((5, 2), dtype=np.float32)
    expected = episode(environment, 5, actions)
    np.testing.assert_array_equal(episode(environment, 5, actions), expected)
    np.testing.assert_array_equal(episode(environment.fork(), 5, actions), expected)
    assert not np.array_equal(episode(environment, 6, actions), expected)


def test_tasks_without_box_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match="action_space Discrete"):
        make("CartPole-v1")


def test_image_tasks_need_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    with pytest.raises(ValueError, match="set MUJOCO_GL=egl"):
        make("visual-cube-single-play-singletask-task1-v0")


def test_a_state_that_cannot_be_stored_is_named() -> None:
    environment = make("contrived_environments:Counting-Unsavable-v0")
    environment.reset(0)
    with pytest.raises(ValueError, match=r"attribute 'thing' holds a contrived_environments\."):
        environment.state()


def test_a_state_of_another_task_or_a_damaged_one_is_refused() -> None:
    environment = make("pointmaze-medium-navigate-singletask-task1-v0")
    environment.reset(0)
    state = environment.state()
    with pytest.raises(ValueError, match="belongs to task"):
        make("pointmaze-medium-navigate-singletask-task2-v0").load_state(state)
    with pytest.raises(ValueError, match="not the state of an environment"):
        environment.load_state(state[: state.size // 2])


def test_plain_values_come_back_as_they_were() -> None:
    from bench.simulation._plain import pack, unpack

    value: dict[str, Any] = {
        "numbers": [1, 2.5, -0.0, float("inf"), 2**127, None, True],
        "pair": (np.float32(0.1), "text"),
        "nested": {"array": np.arange(6.0).reshape(2, 3), "empty": {}, "tuple": ()},
        "flags": np.array([True, False]),
        "seen": {(0, 1), (2, 3)},
        "by place": {(0, 1): "wall", 7: b"\x00\xff"},
        "frames": deque([np.zeros(2), np.ones(2), np.ones(2)], maxlen=2),
        "odd": (frozenset({1}), 1 - 2j),
    }
    copy = unpack(pack(value))
    assert copy["numbers"] == value["numbers"]
    assert copy["pair"] == value["pair"]
    assert type(copy["pair"][0]) is np.float32
    assert copy["nested"]["empty"] == {}
    assert copy["nested"]["tuple"] == ()
    np.testing.assert_array_equal(copy["nested"]["array"], value["nested"]["array"])
    np.testing.assert_array_equal(copy["flags"], value["flags"])
    for name in ("seen", "by place", "odd"):
        assert copy[name] == value[name]
    assert copy["frames"].maxlen == 2
    np.testing.assert_array_equal(np.array(copy["frames"]), np.ones((2, 2)))


class _Owner:
    python: random.Random
    old: np.random.RandomState


def test_attributes_that_hold_state_are_stored_or_refused() -> None:
    """Nothing that may change during an episode is left out without a word."""
    owner, like = _Owner(), _Owner()
    for one in (owner, like):
        vars(one).update(python=random.Random(1), old=np.random.RandomState(1), code=abs)
        vars(one).update(spaces=[np.ndarray, print])
    owner.python.random(), owner.old.uniform()
    restore_attributes(like, plain_attributes(owner))
    assert like.python.random() == owner.python.random()
    assert like.old.uniform() == owner.old.uniform()
    for held in (threading.Lock(), _Owner(), iter([1]), bytearray(1), [print, {1: {_Owner()}}]):
        with pytest.raises(ValueError, match=r"attribute 'held' holds a .*; expected numbers"):
            plain_attributes(SimpleNamespace(held=held))
