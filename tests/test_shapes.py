"""The example of captioned images at its smallest size: every run, the table, the pictures."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "examples" / "shapes"
MODULES = ("run", "report", "models", "world")


@pytest.fixture
def example() -> Iterator[ModuleType]:
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("run")
    finally:
        sys.path.remove(str(FOLDER))
        for name in MODULES:
            sys.modules.pop(name, None)


def test_the_study_runs_at_its_smallest_size(example: ModuleType, tmp_path: Path) -> None:
    study = example.Study(
        pretrain=20, updates=8, paths=32, width=16, layers=1, steps=3, copies=3,
        weights=(1.0, 0.01), budgets=(2.0,), pairs=(64, 64), judge_updates=20,
    )  # fmt: skip
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng():
            bench = example.Bench(study, tmp_path)
            results = [example.run(study, tmp_path, job) for job in example.jobs(study)]
            again = example.run(study, tmp_path, example.jobs(study)[-1])
            base = bench.evaluate(bench.base, 0, 0.0, float("inf"))
    finally:
        torch.set_num_threads(threads)
    assert again.points == results[-1].points
    assert [len(result.points) for result in results] == [8, 1, 1, 1]
    assert abs(base.reward) < 1e-5
    assert base.diversity == pytest.approx(1.0)
    loose, tight = results[-1].points[-1], results[-2].points[-1]
    assert loose.kl > 1.2 * tight.kl > 0.0
    assert loose.reward > tight.reward
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n")
    report = sys.modules["report"]
    report.write_report(
        base, bench.sample(bench.base)[:48].numpy(), results, 8, 60.0, readme, tmp_path
    )
    text = readme.read_text()
    assert text.startswith("before\n<!-- results -->\n4 runs of 8 updates in 1 min")
    assert "old" not in text
    assert text.count("| fixed lambda") == 2
    for name in ("frontier", "samples", "curves"):
        assert (tmp_path / f"shapes_{name}.png").stat().st_size > 5_000


def test_a_frontier_is_read_at_a_diversity(example: ModuleType) -> None:
    points = [
        example.Point(0, 0.0, 1.0, 0.0, reward, 0.0, diversity, 1.0)
        for diversity, reward in ((1.0, 0.0), (0.8, 2.0), (0.5, 1.0))
    ]
    frontier = sys.modules["report"].frontier
    found = [frontier(points, diversity) for diversity in (1.2, 0.9, 0.8, 0.65, 0.1)]
    assert found == pytest.approx([0.0, 1.0, 2.0, 1.5, 1.0])
