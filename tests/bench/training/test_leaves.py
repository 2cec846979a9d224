"""Packs act on, keep and replay named leaves as the environment and the data have them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.agents import Problem
from bench.data import load_data
from bench.simulation import evaluate
from bench.suites import CustomTask, OnlineProtocol, custom_suite
from bench.training.cells import Pack
from bench.training.online import OnlineExperience
from bench.training.policy import Normalizer, PackPolicy
from bench.training.training_data import TrainingData
from qlearn import ChunkSampler, RandomStreams, UnionSampler

PIXELS = "pixel_reaching:PixelReach-v0"
PROBLEM = Problem(0, 2, 2)


@pytest.fixture(autouse=True)
def _examples_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "examples"))


class Seeing:
    """Walks to the green pad; acts on leaves (R, n, ...) as agents with a policy of the user's."""

    def acting_noise(self, rows: int) -> dict[str, Any]:
        del rows
        return {}

    def act(self, observations: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> Tensor:
        assert not noise
        image, position = observations["image"], observations["position"]
        assert image.dtype == torch.uint8
        assert image.shape[2:] == (64, 64, 3)
        colours = image.long()
        green = (colours[..., 1] > colours[..., 0] + 60) & (colours[..., 1] > colours[..., 2] + 60)
        places = (torch.arange(64) + 0.5) / 64
        columns, rows = green.sum(-2).float(), green.sum(-1).float()
        goal = torch.stack([columns @ places, rows @ places], -1) / rows.sum(-1, keepdim=True)
        ahead = goal - position
        step = ahead / ahead.abs().amax(-1, keepdim=True)
        return torch.cat([step, torch.zeros_like(step)], -1)


def pack() -> Pack:
    suite = custom_suite("pixels", CustomTask(PIXELS, "reaching"), transitions=60, chunk_length=2)
    online = replace(OnlineProtocol(), steps=40)
    return Pack("pixels", suite.domains[0], replace(suite.protocol, online=online), "trqam", (0, 1))


def test_evaluations_hand_leaves_to_agents() -> None:
    policy = PackPolicy(pack(), Seeing(), PROBLEM, Normalizer.none(), RandomStreams([0, 1]))
    outcome = evaluate(policy, [PIXELS] * 2, (0, 1), 3, workers=0)
    outcome.raise_failures()
    assert outcome.successes.all()


def test_online_leaves_join_those_of_the_data_and_continue(tmp_path: Path) -> None:
    import pixel_reaching

    data = load_data(pixel_reaching.record(6), store=tmp_path / "reaching")
    tables = TrainingData.of(data, torch.device("cpu"), standardise=True)
    assert tables.normalizer.passes
    online = replace(pack(), online=True)

    def begin() -> OnlineExperience:
        streams = RandomStreams([0, 1])
        return OnlineExperience.of(online, PROBLEM, Normalizer.none(), streams, 0.9, workers=0)

    whole, other = begin(), begin()
    assert whole.ring.spec == tables.episodes.spec
    for _ in range(14):
        whole.step(Seeing())
    saved = {name: value.clone() for name, value in whole.state_dict().items()}
    other.load_state_dict(saved)
    for experience in (whole, other):
        for _ in range(9):
            experience.step(Seeing())
    for (name, mine), theirs in zip(
        whole.ring.state_dict().items(), other.ring.state_dict().items(), strict=True
    ):
        assert torch.equal(mine, theirs[1]), name
    assert whole.metrics() == other.metrics()
    assert min(whole.metrics()["episodes_solved"]) >= 2
    offline = ChunkSampler(tables.episodes, 2, 0.9, tasks=[0, 0])
    batch = UnionSampler(offline, whole.ring).sample(RandomStreams([3, 4]), 64)
    assert batch.observations["image"].shape == (2, 64, 64, 64, 3)
    assert batch.observations["image"].dtype == torch.uint8
    known = {image.tobytes() for image in np.asarray(data.observations["image"])}
    seen = [image.numpy().tobytes() in known for image in batch.observations["image"][0]]
    assert 0 < sum(seen) < 64  # from both
    whole.environments.close()
    other.environments.close()
