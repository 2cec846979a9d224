"""Experts of ants and humanoids, and the data that they or nobody collect."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.data import DataMissing, DataRecord, DatasetName, generate, read_npz, recipe_for
from bench.data._walkers import BODIES, DirectionTask, _standing
from bench.data.expert import Expert, ExpertProgress, measure_expert, train_expert
from bench.storage import load_checkpoint

NAME = "antmaze-large-navigate-2k-v0"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data")
    train_expert("ant", place, steps=5_200, checkpoint_every=5_100, walkers=4)
    return place


@pytest.mark.parametrize("name", ["ant", "humanoid"])
def test_the_reward_is_the_way_along_the_wanted_direction(name: str) -> None:
    body = BODIES[name]
    task = DirectionTask(body, seed=3)
    seen = task.reset()
    assert seen.shape == (body.observation_dim,)
    random = np.random.default_rng(0)
    directions = []
    for step in range(200):
        before, direction = task.position, task.observe()[-2:]
        directions.append(direction)
        reached, reward, cut, upright = task.step(random.uniform(-1, 1, body.action_dim))
        np.testing.assert_allclose(np.linalg.norm(direction), 1.0, rtol=1e-6)
        np.testing.assert_array_equal(reached[-2:], direction)
        along = float((task.position - before) @ direction)
        if name == "ant":
            assert reward == pytest.approx(10.0 * along, abs=1e-6)
        else:
            stands = _standing(task._environment.data)
            assert reward == pytest.approx(stands * (1.0 + 100.0 * along), abs=1e-5)
            assert upright == (stands > 0.5)
        assert cut == (step == 199)
    assert len({tuple(direction) for direction in directions}) == 2
    assert tuple(directions[99]) != tuple(directions[100])


def test_humanoids_are_rewarded_as_ogbench_does() -> None:
    from ogbench.online_locomotion.humanoid import tolerance

    task = DirectionTask(BODIES["humanoid"], seed=0)
    task.reset()
    data = task._environment.data
    rewards = []
    for height in (0.2, 0.9, 1.2, 1.39, 1.5):
        for vertical in (-0.9, 0.0, 0.8, 0.95):
            expected = tolerance(height, bounds=(1.4, float("inf")), margin=0.35) * tolerance(
                vertical,
                bounds=(0.9, float("inf")),
                margin=1.9,
                sigmoid="linear",
                value_at_margin=0,
            )
            data.xpos[2, 2], data.xmat[1, 8] = height, vertical
            rewards.append(_standing(data))
            assert rewards[-1] == pytest.approx(expected, abs=1e-9)
    assert max(rewards) == 1.0
    assert min(rewards) < 1e-6


def test_training_continues(tmp_path: Path) -> None:
    told: list[ExpertProgress] = []
    train_expert("ant", tmp_path, steps=5_100, walkers=4, progress=told.append)
    train_expert("ant", tmp_path, steps=5_140, walkers=4, progress=told.append)
    assert [state.steps for state in told] == [5_100, 5_140]
    assert told[1].seconds > told[0].seconds
    checkpoint = load_checkpoint(tmp_path / "experts" / "ant")
    assert checkpoint is not None
    assert checkpoint.metadata["updates"] == 35
    assert int(checkpoint.tensors["ring.added"]) == 5_140
    again = Expert.load(tmp_path, "ant")
    assert again.steps == 5_140
    assert again.fingerprint == Expert.load(tmp_path, "ant").fingerprint


def test_scores_are_of_the_expert_given(trained: Path) -> None:
    expert = Expert.load(trained, "ant")
    score = measure_expert(expert, episodes=1)
    assert score == measure_expert(expert, episodes=1)
    assert abs(score.speed) < 0.1
    assert 0.0 <= score.upright <= 1.0
    action = expert.act(np.zeros(27, np.float32), np.array([1.0, 0.0]))
    assert action.shape == (8,)
    assert np.abs(action).max() <= 1.0


def test_the_expert_plays_the_mode_of_its_learner(trained: Path) -> None:
    expert = Expert.load(trained, "ant")
    random = np.random.default_rng(0)
    for _ in range(20):
        body, angle = random.normal(0.0, 2.0, 27), random.uniform(0.0, 2 * np.pi)
        direction = np.array([np.cos(angle), np.sin(angle)])
        seen = torch.tensor(np.concatenate([body, direction]), dtype=torch.float32)
        with torch.no_grad():
            law = expert.agent.actor(seen.reshape(1, 1, -1))
        expected = law.mean.tanh().flatten().numpy()
        np.testing.assert_allclose(expert.act(body, direction), expected, atol=1e-5)


def test_data_need_an_expert_and_name_it(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="bench data expert ant"):
        generate(NAME, tmp_path, processes=1)
    (path,) = generate(NAME, trained, processes=1)
    record = DataRecord.read(DatasetName.parse(NAME).record_file(trained))
    assert record is not None
    assert record.source == "generated"
    assert record.recipe["expert"] == Expert.load(trained, "ant").fingerprint
    arrays = read_npz(path)
    assert arrays["observations"].shape == (2 * 1001, 29)
    assert arrays["actions"].shape == (2 * 1001, 8)
    assert np.flatnonzero(arrays["terminals"]).tolist() == [1000, 2001]
    # What the expert does, and noise of standard deviation 0.2.
    expert = Expert.load(trained, "ant")
    observation = arrays["observations"][100]
    towards = [
        expert.act(observation[2:], np.array([np.cos(a), np.sin(a)]))
        for a in np.linspace(0, 2 * np.pi, 64)
    ]
    distance = min(np.abs(action - arrays["actions"][100]).max() for action in towards)
    assert distance < 0.8
    assert generate(NAME, trained, processes=2) == [path]


def test_a_random_policy_is_named_as_the_source(tmp_path: Path) -> None:
    name = "humanoidmaze-medium-navigate-2k-v0"
    assert recipe_for(DatasetName.parse(name)).rows == 2001
    (path,) = generate(name, tmp_path, processes=1, policy="random")
    record = DataRecord.read(DatasetName.parse(name).record_file(tmp_path))
    assert record is not None
    assert record.source == "random policy"
    actions = read_npz(path)["actions"]
    assert actions.shape == (2001, 21)
    assert 0.30 < float(actions.var()) < 0.37  # uniform on [-1, 1]: 1/3
    with pytest.raises(DataMissing):
        generate(name, tmp_path, processes=1)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("horse", {}, "known: ant, humanoid"),
        ("ant", {"steps": 0}, "at least 1"),
        ("ant", {"updates_per_step": 0.0}, "positive"),
    ],
)
def test_impossible_settings_are_refused(
    tmp_path: Path, name: str, changes: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train_expert(name, tmp_path, **changes)  # type: ignore[arg-type]
    assert not (tmp_path / "experts").exists()


def test_learning_from_few_steps_is_finite(trained: Path) -> None:
    agent = Expert.load(trained, "ant").agent
    assert all(bool(torch.isfinite(value).all()) for value in agent.state_dict().values())
