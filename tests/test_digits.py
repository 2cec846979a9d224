"""A short version of the image example: the budget holds where a fixed temperature drifts off."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    specification = importlib.util.spec_from_file_location("digits", EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_budget_holds_and_a_fixed_temperature_drifts_off(
    example: ModuleType, tmp_path: Path
) -> None:
    study = example.Study(
        pretrain=150,
        updates=100,
        batch=64,
        paths=20,
        width=32,
        layers=1,
        steps=8,
        budget=2.0,
        dual_rate=0.02,
    )
    with torch.random.fork_rng():
        tuning = example.FineTuning(study, base=tmp_path / "base.pt")
        runs = example.fine_tune(tuning)
        again = example.FineTuning(study, base=tmp_path / "base.pt")
    base, held, fixed = example.table(tuning, runs)
    assert torch.equal(again.samples, tuning.samples)
    assert all(p.grad_fn is None and not p.requires_grad for p in tuning.base.parameters())
    assert base.reward == pytest.approx(0.0, abs=1e-5)
    assert 0.7 * study.budget < held.kl < 1.4 * study.budget
    assert fixed.kl > 5.0 * study.budget
    assert 0.3 < held.reward < fixed.reward
    assert 0.8 < held.spread < 1.2
    example.plot_samples(tuning, runs, tmp_path / "samples.png")
    example.plot_curves(study, runs, tmp_path / "curves.png")
    assert (tmp_path / "samples.png").stat().st_size > 5_000
    assert (tmp_path / "curves.png").stat().st_size > 5_000
    assert "recognised" in example.format_table(study, example.table(tuning, runs))


def test_every_class_is_drawn_equally_often(example: ModuleType) -> None:
    images, classes = example.digits()
    assert images.shape == (1797, 1, 8, 8)
    assert float(images.min()) == -1.0
    assert float(images.max()) == 1.0
    assert sorted(set(classes.tolist())) == list(range(10))
