"""Images are moved before an update reads them, by numbers from the run's own stream."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.agents import draw
from bench.suites import TrainingProtocol
from bench.training.augmentation import check_shift, shifted, update_noise
from bench.training.trainer import Trainer
from qlearn import ChunkBatch, LeafSpec, RandomStreams, random_shift

from .conftest import build_pack, build_trainer

SPEC = {"image": LeafSpec((8, 8, 3), torch.uint8), "state": LeafSpec((2,), torch.float32)}


def batch() -> ChunkBatch:
    source = torch.Generator().manual_seed(0)
    seen, after = (
        {
            "image": torch.randint(0, 256, (2, 4, 8, 8, 3), generator=source, dtype=torch.uint8),
            "state": torch.randn(2, 4, 2, generator=source),
        }
        for _ in range(2)
    )
    column = torch.ones(2, 4)
    return ChunkBatch(seen, torch.zeros(2, 4, 2), column, column, column, after)


class Quiet:
    """An agent that asks for one number a row."""

    def noise(self, size: int) -> dict[str, object]:
        from bench.agents.noise import uniform

        return {"own": uniform(size)}


def test_before_and_after_are_moved_each_in_their_own_way() -> None:
    protocol = TrainingProtocol(batch_size=4, random_shift=3)
    noise = draw(RandomStreams([0, 1]), update_noise(Quiet(), protocol))
    assert noise["shift"].shape == noise["next_shift"].shape == (2, 4, 2)
    given = batch()
    moved = shifted(given, noise, protocol)
    for side, name in (("observations", "shift"), ("next_observations", "next_shift")):
        seen = getattr(given, side)
        expected = random_shift(seen, noise[name], pad=3)
        assert torch.equal(getattr(moved, side)["image"], expected["image"])
        assert not torch.equal(getattr(moved, side)["image"], seen["image"])
        assert getattr(moved, side)["state"] is seen["state"]
    assert moved.actions is given.actions
    still = TrainingProtocol(batch_size=4)
    assert shifted(given, noise, still) is given
    assert set(update_noise(Quiet(), still)) == {"own"}


def test_updates_are_given_moved_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And vectors as they are: their numbers are those without a shift."""
    pack = build_pack()
    trainer = build_trainer(
        replace(pack, protocol=replace(pack.protocol, random_shift=2)), tmp_path
    )
    assert isinstance(trainer, Trainer)
    asked = []

    def moving(drawn: ChunkBatch, noise: object, protocol: TrainingProtocol) -> ChunkBatch:
        asked.append((protocol.random_shift, sorted(noise)[-1]))
        return shifted(drawn, noise, protocol)

    monkeypatch.setattr("bench.training.trainer.shifted", moving)
    trainer.advance()
    assert asked == [(2, "shift")]


def test_what_has_no_images_is_refused() -> None:
    check_shift(TrainingProtocol(random_shift=4), SPEC)
    check_shift(TrainingProtocol(), LeafSpec((3,), torch.float32))
    with pytest.raises(ValueError, match=r"random_shift=4 moves images, .*: float32\[3\]"):
        check_shift(TrainingProtocol(random_shift=4), LeafSpec((3,), torch.float32))
