"""A short version of the study: the budget holds where a fixed temperature drifts off."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "trust_region_at_work.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    specification = importlib.util.spec_from_file_location("trust_region_at_work", EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    import sys

    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_budget_holds_with_an_exact_and_with_a_corrupted_critic(
    example: ModuleType, tmp_path: Path
) -> None:
    study = example.Study(
        seeds=2, pretrain=600, updates=1400, warm_up=0.5, batch=48, width=32, corruption=2.5
    )
    trace = example.run(study)
    rows = {(row.critic, row.method): row for row in example.table(study, trace)}
    for critic in ("exact", "corrupted"):
        held = rows[critic, "dual descent"]
        assert abs(held.kl / study.budget - 1.0) < 0.1, held
        assert held.worst < 0.3, held
        assert 0.0 < held.gain < 1.2 * held.best, held
    drifting = rows["corrupted", "fixed temperature"].worst
    assert drifting > 0.5
    assert drifting > 2.0 * rows["corrupted", "dual descent"].worst
    # The exact critic's optimum spends the budget at a lambda known in closed form.
    found = rows["exact", "dual descent"].lam
    assert abs(found / study.optimal_lambda - 1.0) < 0.15
    example.plot(study, trace, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
