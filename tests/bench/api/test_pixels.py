"""A policy over images and a position, from stored data to a run that continues."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import bench


class Seeing(nn.Module):
    """Reads the image as bytes, as it was recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.eye = nn.Conv2d(3, 4, 8, stride=8)
        self.head = nn.Linear(4 * 64 + 2 + 4 + 1, 4)

    def encode(self, observations: dict[str, Tensor]) -> Tensor:
        image = observations["image"]
        assert image.dtype == torch.uint8
        seen = self.eye(image.movedim(-1, 1).float() / 255).flatten(1)
        return torch.cat([seen, observations["position"]], -1)

    def velocity(self, context: Tensor, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.head(torch.cat([context, x.flatten(1), t[:, None]], -1))
        return out.view(x.shape)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "examples"))
    import pixel_reaching

    bench.load_data(pixel_reaching.record(6), store=tmp_path / "reaching")
    return tmp_path


def fitted(folder: Path, out: str, *steps: int, **options: object) -> dict[str, Tensor]:
    torch.manual_seed(0)
    settings = {"num_critics": 2, "critic_hidden": (8,), "flow_steps": 2}
    tuner = bench.FineTuner(
        Seeing(),
        folder / "reaching",
        chunk_length=2,
        batch_size=4,
        settings=settings,
        device="cpu",
        **options,
    )
    for until in steps:
        tuner.fit(until, out=folder / out, checkpoint_every=2, log_every=2, progress="none")
    return tuner.policy.state_dict()


def test_shifted_images_train_a_policy_that_continues_bit_for_bit(folder: Path) -> None:
    whole = fitted(folder, "whole", 4, random_shift=3)
    parts = fitted(folder, "parts", 2, 4, random_shift=3)
    still = fitted(folder, "still", 4)
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name
    assert any(not torch.equal(value, still[name]) for name, value in whole.items())
    with pytest.raises(ValueError, match="holds a run with other settings"):
        fitted(folder, "whole", 6)
