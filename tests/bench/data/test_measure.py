"""Figures of making and reading data, and the command that prints them."""

from pathlib import Path

import numpy as np
import pytest

from bench.cli import main
from bench.data import generate, read_npz
from bench.data._measure import _repeat, measure_generation, measure_reading

NAME = "pointmaze-medium-navigate-2k-v0"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data")
    generate(NAME, place, processes=1)
    return place


def test_the_simulator_takes_a_share_of_generation(tmp_path: Path) -> None:
    rate = measure_generation(NAME, tmp_path)
    assert rate.transitions == 3_000  # two episodes, and one for validation
    assert rate.rate == pytest.approx(3_000 / rate.seconds)
    assert rate.efficiency == pytest.approx(rate.rate * rate.step_seconds)
    # Far from both ends: neither nothing nor more than all of the time is the simulator's.
    assert 0.2 < rate.processor_efficiency < 1.1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("wanted", "rows"), [(None, 2002), (500, 1001), (5_000, 5005)])
def test_episodes_are_repeated_as_a_whole(
    made: Path, tmp_path: Path, wanted: int | None, rows: int
) -> None:
    source, target = made / f"{NAME}.npz", tmp_path / "longer.npz"
    _repeat(source, target, wanted)
    before, after = read_npz(source), read_npz(target)
    assert set(before) == set(after)
    for key, array in after.items():
        assert len(array) == rows
        np.testing.assert_array_equal(array, np.concatenate([before[key]] * 3)[:rows])
    assert after["terminals"][-1]


@pytest.mark.slow
def test_reading_costs_less_than_that_of_ogbench(made: Path) -> None:
    ours, theirs = measure_reading(NAME, made, transitions=200_000)
    assert (ours.reader, theirs.reader) == ("bench.data.load", "ogbench.make_env_and_datasets")
    assert 0.0 < ours.processor_seconds < theirs.processor_seconds
    assert 0 < ours.peak_bytes < theirs.peak_bytes
    assert not list(made.glob(".measure*"))


def test_the_command_prints_rate_and_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["data", "measure", "generation", NAME, "--data-dir", str(tmp_path)]
    assert main(given) == 0
    printed = capsys.readouterr().out
    assert "3,000 transitions" in printed
    assert "by processor time" in printed
