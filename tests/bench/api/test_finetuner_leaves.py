"""`bench.FineTuner` on images and named leaves: data, critic, judge, loop, file."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bench

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def reaching() -> Iterator[Any]:
    sys.path.append(str(EXAMPLES))
    import pixel_reaching

    yield pixel_reaching
    sys.path.remove(str(EXAMPLES))


class Policy(nn.Module):
    """Moves from an image and a position; the image is read by one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.eye, self.head = nn.Conv2d(3, 2, 8, stride=8), nn.Linear(2 * 64 + 2 + 4 + 1, 4)

    def encode(self, observations: dict[str, Tensor]) -> Tensor:
        assert observations["image"].dtype == torch.uint8
        image = self.eye(observations["image"].movedim(-1, 1) / 255.0).flatten(1)
        return torch.cat([image, observations["position"]], -1)

    def velocity(self, context: Tensor, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.head(torch.cat([context, x.flatten(1), t[:, None]], -1))
        return out.reshape(x.shape)


def tuner(reaching: Any, data: Any = None, **options: Any) -> bench.FineTuner:
    given = {
        "chunk_length": 2, "batch_size": 4, "device": "cpu",
        "settings": {
            "num_critics": 2, "critic_hidden": (8,), "flow_steps": 2, "num_action_samples": 2,
        },
    } | options  # fmt: skip
    return bench.FineTuner(Policy, reaching.record(4) if data is None else data, **given)


def test_from_images_and_positions_to_a_policy_that_acts(reaching: Any, tmp_path: Path) -> None:
    environment = gymnasium.make("PixelReach-v0", max_episode_steps=5)
    mine = tuner(reaching)
    result = mine.fit(2, out=tmp_path / "run", evaluate=environment, episodes=2, progress="none")
    assert result.complete
    assert result.cells["length_mean"].item() <= 5
    loaded = bench.load_policy(tmp_path / "run", policy=Policy)
    observation, _ = environment.reset(seed=0)
    chunk = loaded(observation)
    assert chunk.shape == (2, 2)
    rows = {name: np.stack([leaf] * 3) for name, leaf in observation.items()}
    assert loaded(rows).shape == (3, 2, 2)
    for wrong, says in (
        ({"image": observation["image"]}, "expected leaves"),
        ({**observation, "image": observation["image"] / 255.0}, "uint8"),
        ({**observation, "position": np.full(2, np.nan)}, "must be finite"),
    ):
        with pytest.raises(ValueError, match=says):
            loaded(wrong)

    with mine.online(6, warm_up=3, checkpoint_every=1) as live:
        while not live.finished:
            observation, _ = environment.reset(seed=live.episodes)
            ended = False
            while not ended and not live.finished:
                action = live.act(observation)
                observation, reward, terminated, truncated, _ = environment.step(action)
                live.observe(observation, float(reward), terminated, truncated)
                ended = terminated or truncated
    with mine.online(8, warm_up=3) as again:  # the ring with its images comes back
        assert again.steps == 6


def test_a_critic_over_the_policys_context_is_found_again(reaching: Any, tmp_path: Path) -> None:
    mine = tuner(reaching, critic="context")
    mine.fit(1, out=tmp_path, progress="none")
    again = tuner(reaching, critic="context")
    again.fit(2, out=tmp_path, progress="none")
    loaded = bench.load_policy(tmp_path, policy=Policy)
    observation, _ = gymnasium.make("PixelReach-v0").reset(seed=0)
    assert loaded(observation).shape == (2, 2)
    with pytest.raises(ValueError, match="other settings"):
        tuner(reaching).fit(3, out=tmp_path, progress="none")


def test_methods_over_one_vector_say_so(reaching: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"agent 'fql' reads one vector.*bc, trqam, sqam, qam"):
        tuner(reaching, method="fql").fit(1, out=tmp_path, progress="none")


def test_images_as_floats_are_refused(reaching: Any, tmp_path: Path) -> None:
    data = reaching.record(2)
    data["observations/image"] = data["observations/image"].astype(np.float32)
    with pytest.raises(ValueError, match=r"image.*uint8"):
        tuner(reaching, data).fit(1, out=tmp_path, progress="none")
