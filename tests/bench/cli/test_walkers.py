"""Ants and humanoids end to end, from data that the job makes itself."""

from pathlib import Path

import polars as pl
import pytest

from bench.cli import main


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["antmaze-large-navigate", "humanoidmaze-medium-navigate"])
def test_walkers_without_an_expert_are_labelled_in_every_row(
    domain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    given = [
        "offline", "--suite", "ogbench50", "--preset", "smoke", "--domains", domain,
        "--tasks", "1", "--episodes", "1", "--evaluate-every", "20", "--processes", "1",
        "--data-dir", str(tmp_path / "data"), "--out", str(out),
    ]  # fmt: skip
    assert main(given) == 0
    assert "random policy" in capsys.readouterr().out
    rows = pl.concat(
        pl.read_parquet(path).select("data_source", "data_fingerprint")
        for path in out.glob("packs/*/evaluations.parquet")
    )
    assert rows["data_source"].unique().to_list() == ["random policy"]
    assert rows["data_fingerprint"].n_unique() == 1
    assert "random policy" in (out / "results.md").read_text(encoding="utf-8")
