"""Dictionary and image observations: played, stored, continued, and checked entry by entry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from bench.simulation import (
    ArraySpec,
    EnvironmentFaultError,
    OnlineEnvironments,
    SimulatorPool,
    evaluate,
    make,
    rehearse,
)
from bench.simulation._observations import announced

LEAVES = "contrived_environments:Leaves-None-v0"
PIXELS, IMAGES = (f"pixel_reaching:PixelReach{kind}-v0" for kind in ("", "Image"))
EXPECTED = {
    "image": ((4, 5, 3), np.uint8),
    "lamps": ((3,), np.int8),
    "robot/grip": ((1,), np.int64),
    "robot/joints": ((2,), np.float32),
}


@pytest.fixture(autouse=True)
def _examples_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "examples"))


def same(first: Any, second: Any) -> None:
    assert first.keys() == second.keys()
    for name, leaf in first.items():
        assert leaf.dtype == second[name].dtype
        np.testing.assert_array_equal(leaf, second[name])


def walk(observations: dict[str, np.ndarray]) -> np.ndarray:
    """To the pad with the most green, as the image shows it: what a trained policy would do."""
    image = observations["image"].astype(np.int64)
    green = (image[..., 1] > image[..., 0] + 60) & (image[..., 1] > image[..., 2] + 60)
    places = (np.arange(64) + 0.5) / 64
    weight = green.sum((-2, -1))[..., None]
    goal = np.stack([green.sum(-2) @ places, green.sum(-1) @ places], -1) / weight
    ahead = goal - observations["position"]
    return ahead / np.abs(ahead).max(-1, keepdims=True)


def test_policies_are_given_every_entry(pool: SimulatorPool) -> None:
    seen: list[dict[str, np.ndarray]] = []

    def policy(observations: dict[str, np.ndarray], alive: np.ndarray) -> np.ndarray:
        assert alive.shape == (2, 3)
        seen.append({name: leaf.copy() for name, leaf in observations.items()})
        first = 0.1 * observations["robot/joints"][..., :2]
        for leaf in observations.values():
            leaf[:] = 0  # a policy may overwrite what it was given
        return np.stack([first, first], axis=2)

    outcomes = []
    for mine in (None, pool):
        seen.clear()
        given = {"workers": 0} if mine is None else {"pool": mine}
        outcome = evaluate(policy, [LEAVES] * 2, (1, 2), 3, **given)
        outcome.raise_failures()
        outcomes.append((outcome, list(seen)))
    for (name, leaf), (expected, (shape, dtype)) in zip(
        seen[1].items(), EXPECTED.items(), strict=True
    ):
        assert name == expected
        assert leaf.shape == (2, 3, *shape)
        assert leaf.dtype == dtype
    assert (seen[2]["image"] == 80).all()
    assert (seen[2]["robot/grip"] == 4).all()
    assert (seen[2]["robot/joints"][..., 1] == 4).all()
    (here, first), (there, second) = outcomes
    np.testing.assert_array_equal(here.returns, there.returns)
    assert (here.lengths == 7).all()
    for mine, theirs in zip(first, second, strict=True):
        same(mine, theirs)


def test_an_online_phase_over_leaves_continues_from_its_state() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (16, 2, 2)).astype(np.float32)

    def play(environments: OnlineEnvironments, part: slice) -> list[dict[str, np.ndarray]]:
        taken = []
        for action in actions[part]:
            taken.append(environments.step(action).observations)
            taken.append(environments.observe())
        return taken

    for task in (LEAVES, PIXELS):
        with OnlineEnvironments([task] * 2, (3, 4), workers=0) as environments:
            assert isinstance(environments.spaces.observed, dict)
            whole = [environments.observe(), *play(environments, slice(0, 9))]
            saved = environments.state_dict()
            whole += play(environments, slice(9, 16))
        with OnlineEnvironments([task] * 2, (8, 9), workers=0) as other:
            other.load_state_dict(saved)
            same(other.observe(), whole[18])
            for mine, theirs in zip(play(other, slice(9, 16)), whole[19:], strict=True):
                same(mine, theirs)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("Missing", r"returned an observation of \['image', 'robot/grip', 'robot/joints'\], but"),
        ("Nan", r"an observation 'robot/joints' that is not finite in float32: entry \[0\]"),
        ("FloatImage", "an observation 'image' of float64 that its observation_space, of uint8"),
        ("Wide", r"an observation 'image' of shape \(5, 4, 3\), but .* has \(4, 5, 3\)"),
    ],
)
def test_a_fault_names_the_entry(trouble: str, reason: str) -> None:
    task = f"contrived_environments:Leaves-{trouble}-v0"
    policy = lambda seen, alive: np.zeros((*alive.shape, 2, 2))  # noqa: E731
    outcome = evaluate(policy, [LEAVES, task], (0, 0), 1, workers=0)
    assert outcome.failures[0] is None
    assert re.search(reason, str(outcome.failures[1]))


def test_pads_are_reached_from_pixels_by_whoever_looks_at_their_colour() -> None:
    policy = lambda seen, alive: walk(seen)[:, :, None]  # noqa: E731
    outcome = evaluate(policy, [PIXELS], (0,), 20, workers=0)
    assert outcome.successes.all()
    assert (outcome.returns == 1.0).all()
    assert 3 <= outcome.lengths.min() <= outcome.lengths.max() <= 9
    image_only = make(IMAGES)
    assert image_only.observed == ArraySpec((64, 64, 3), np.dtype(np.uint8))
    both, image = make(PIXELS).reset(5)[0], image_only.reset(5)[0]
    np.testing.assert_array_equal(both["image"], image)


def test_recorded_behaviour_has_five_modes() -> None:
    import pixel_reaching

    arrays = pixel_reaching.record(300, seed=1)
    ends = np.flatnonzero(arrays["terminals"])
    assert len(ends) == 300
    solved = arrays["rewards"].sum() / 300
    assert 0.13 < solved < 0.28
    assert arrays["observations/image"].dtype == np.uint8
    np.testing.assert_array_equal(arrays["rewards"][arrays["masks"] == 1.0], 0.0)
    # An ended episode has its flag one row before its final state.
    assert (arrays["masks"][ends - 1] == 0.0).all()
    again = pixel_reaching.record(300, seed=1)
    np.testing.assert_array_equal(again["observations/position"], arrays["observations/position"])


def test_spaces_are_read_or_refused() -> None:
    spaces = gymnasium.spaces
    assert announced(spaces.MultiDiscrete([2, 3])) == ArraySpec((2,), np.dtype(np.int64))
    for space, message in (
        (spaces.Discrete(3), "Discrete, expected a Box or a Dict"),
        (spaces.Tuple([spaces.Discrete(3)]), "Tuple, expected"),
        (spaces.Dict({"name": spaces.Text(4)}), "Text, expected"),
        (spaces.Dict({}), "without entries"),
    ):
        with pytest.raises(ValueError, match=message):
            announced(space)
    with pytest.raises(ValueError, match=r"image uint8\[4, 5, 3\].*Counting-None-v0' has obs"):
        OnlineEnvironments([LEAVES, "contrived_environments:Counting-None-v0"], (0, 0), workers=0)


def test_dictionary_environments_are_rehearsed() -> None:
    found = rehearse(PIXELS)
    assert (found.tells_success, found.reproducible, found.unsavable) == (True, True, None)
    assert found.spaces.observed == {
        "image": ArraySpec((64, 64, 3), np.dtype(np.uint8)),
        "position": ArraySpec((2,), np.dtype(np.float32)),
    }
    with pytest.raises(EnvironmentFaultError, match="'image' of shape"):
        rehearse("contrived_environments:Leaves-Wide-v0")
