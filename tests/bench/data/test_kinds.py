"""Data of mazes by OGBench's other recipes: stitch and explore."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.data import makeable_kinds, published_kinds
from bench.data._names import DatasetName
from bench.data._recipes import recipe_for
from bench.data._rollouts import Episode, _cells_away, roll_out

EPISODES = 6


def episodes(kind: str, tmp_path: Path) -> tuple[list[Episode], np.ndarray]:
    """Some episodes, and which cells of the maze are free."""
    recipe = recipe_for(DatasetName.parse(f"pointmaze-medium-{kind}-v0"))
    rollout = roll_out("pointmaze-medium-v0", recipe, tmp_path)
    found = [rollout.episode(0, "train", number) for number in range(EPISODES)]
    return found, rollout.environment.maze_map == 0


def cells_of(episode: Episode) -> list[tuple[int, int]]:
    """The cells that an episode goes through, each time that it enters one."""
    cells = np.round(episode["qpos"][:, :2] / 4.0).astype(int)
    return [tuple(map(int, cell)) for cell in cells]


def test_a_stitched_episode_walks_four_cells_and_stays(tmp_path: Path) -> None:
    found, _ = episodes("stitch", tmp_path)
    for episode in found:
        assert len(episode["actions"]) == 201
        last = np.linalg.norm(np.diff(episode["qpos"][-60:, :2], axis=0), axis=1)
        assert np.ptp(episode["qpos"][-60:, :2], axis=0).max() < 2.5
        assert last.max() <= 0.3
        assert 3 <= len(set(cells_of(episode))) <= 9
    firsts = {cells_of(episode)[0] for episode in found}
    assert len(firsts) > 2


def test_an_explored_episode_turns_every_ten_steps(tmp_path: Path) -> None:
    found, _ = episodes("explore", tmp_path)
    actions = np.stack([episode["actions"][:500] for episode in found])
    assert actions.shape == (EPISODES, 500, 2)
    means = actions.reshape(EPISODES * 50, 10, 2).mean(1)
    # Clipped to [-1, 1] with noise of 1, a unit direction is worth 0.6 of itself; between the
    # stretches the directions have nothing in common.
    assert 0.4 < np.linalg.norm(means, axis=1).mean() < 0.8
    assert np.abs(means.mean(0)).max() < 0.12
    product = (means[:-1] * means[1:]).sum(1).mean()
    assert abs(product) < 0.08


def test_noisy_manipulation_moves_things_with_actions_of_its_own(tmp_path: Path) -> None:
    name = DatasetName.parse("cube-single-noisy-v0")
    recipe = replace(recipe_for(name), rows=241)
    rollout = roll_out(name.environment_id, recipe, tmp_path)
    first, again, other = (rollout.episode(0, "train", number) for number in (0, 0, 1))
    np.testing.assert_array_equal(first["actions"], again["actions"])
    assert not np.array_equal(first["actions"], other["actions"])
    # The cube's position is behind the arm's 14 joints.
    moved = [float(np.ptp(episode["qpos"][:, 14:17], axis=0).max()) for episode in (first, other)]
    assert max(moved) > 0.05
    plain = roll_out(name.environment_id, replace(recipe, noise=0.0, random_actions=0.0), tmp_path)
    smooth = plain.episode(0, "train", 0)["actions"]
    jumps = [float(np.abs(np.diff(a[:, :3], axis=0)).mean()) for a in (smooth, first["actions"])]
    assert jumps[1] > jumps[0] + 0.02


def test_cells_at_a_distance_are_those_of_the_shortest_path() -> None:
    free = np.zeros((7, 7), bool)
    free[1, 1:6] = free[1:6, 5] = free[5, 1:6] = True  # a path in three straight pieces
    assert _cells_away(free, (1, 1), 4) == [(1, 5)]
    assert _cells_away(free, (1, 5), 4) == [(1, 1), (5, 5)]
    assert _cells_away(free, (1, 3), 4) == [(3, 5)]
    assert _cells_away(free, (5, 1), 20) == []


@pytest.mark.parametrize(
    ("environment", "made", "published"),
    [
        ("pointmaze-medium", ("navigate", "stitch", "explore"), ("navigate", "stitch")),
        ("antmaze-large", ("navigate", "stitch", "explore"), ("explore", "navigate", "stitch")),
        ("humanoidmaze-medium", ("navigate", "stitch"), ("navigate", "stitch")),
        ("cube-single", ("play", "noisy"), ("noisy", "play")),
        ("antsoccer-arena", (), ("navigate", "stitch")),
        ("elsewhere", (), ()),
    ],
)
def test_which_kinds_there_are(
    environment: str, made: tuple[str, ...], published: tuple[str, ...]
) -> None:
    assert makeable_kinds(environment) == made
    assert published_kinds(environment) == published
