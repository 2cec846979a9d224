"""A finished run that is asked for again with more steps: as if it had been asked for at once."""

import json
from pathlib import Path

import polars as pl
import pytest

from bench.cli import main
from bench.data import generate
from bench.results import TIMING_COLUMNS
from bench.simulation import SimulatorPool
from bench.storage import load_checkpoint

COMMON = (
    "--suite", "quick", "--preset", "smoke", "--tasks", "1", "--device", "cpu", "--processes", "1",
    "--pack", "1", "--episodes", "1", "--evaluate-every", "20",
)  # fmt: skip


def state(out: Path) -> dict[str, object]:
    """All that a run directory says, without times."""
    record = json.loads((out / "run.json").read_text())
    found: dict[str, object] = {"settings": record["settings"], "cells": record["cells"]}
    for pack in sorted(out.glob("packs/*")):
        rows = pl.read_parquet(pack / "evaluations.parquet").drop(TIMING_COLUMNS)
        found[f"{pack.name} evaluations"] = rows.rows(named=True)
        # Metrics of one step stand in no order of their own after a resume.
        training = pl.read_parquet(pack / "training.parquet").sort("step", "task", "metric")
        found[f"{pack.name} training"] = training.rows()
        checkpoint = load_checkpoint(pack / "checkpoints")
        assert checkpoint is not None
        # An image of an OGBench environment may hold the name of a temporary file.
        found[f"{pack.name} tensors"] = {
            name: value.tolist()
            for name, value in checkpoint.tensors.items()
            if not name.startswith("experience.environments.")
        }
        found[f"{pack.name} failures"] = checkpoint.metadata["failures"]
    return found


@pytest.mark.slow
def test_a_longer_run_is_the_one_asked_for_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Simulators in this process: the same numbers, without a second of starting each.
    monkeypatch.setattr(
        "bench.training.job.SimulatorPool", lambda workers, limits: SimulatorPool(0, limits=limits)
    )
    data_dir = tmp_path / "data"
    generate("pointmaze-medium-navigate-5k-v0", data_dir, transitions=5_000, processes=1)

    def bench(phase: str, name: str, *more: str) -> int:
        # Each with clones of its own: they are part of what must be the same.
        out = tmp_path / name / "run"
        return main([phase, *COMMON, "--data-dir", str(data_dir), "--out", str(out), *more])

    first, second = tmp_path / "at once" / "run", tmp_path / "longer" / "run"
    assert bench("online", "at once", "--steps", "21", "--online-steps", "33") == 0
    assert bench("offline", "longer", "--steps", "13") == 0
    # Not shorter, and nothing else on the way.
    for more in (("--steps", "12"), ("--steps", "21", "--set", "flow_steps=4")):
        capsys.readouterr()
        assert bench("offline", "longer", *more) == 2
        assert "holds a run with other settings" in capsys.readouterr().err
    # The offline phase becomes longer and is followed by an online one, which becomes longer too.
    for steps in ("22", "33"):
        assert bench("online", "longer", "--steps", "21", "--online-steps", steps) == 0
    assert state(second) == state(first)
    capsys.readouterr()
    assert bench("offline", "longer", "--steps", "30") == 2
    assert "holds a run with other settings" in capsys.readouterr().err
