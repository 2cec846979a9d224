"""Runs that were stored in November 2026 stay readable, with the numbers that they had.

Made by `bench sweep --over kl-budget=0.1,1 --suite quick --preset smoke --tasks 1 --processes 1`
and `bench online --suite quick --preset smoke --agent fql --tasks 1 --processes 1`; checkpoints
left out, host and folders replaced. These files are never made again: a change of format that this
test does not survive needs a step that reads the old one.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.results import (
    EVALUATIONS,
    TRAINING,
    final_table,
    recorded_data,
    run_progress,
    scan_evaluations,
    scan_training,
)
from bench.results.report import sweeps_of, write_report
from bench.storage import environment_differences, read_run

STORED = Path(__file__).parent / "data" / "runs-2026-11"
DOMAIN = "pointmaze-medium-navigate"
FINGERPRINT = "cb517f674a999a317fb383a95b77a595dab5ea2adfcd30b13fbffeb31df6d81a"


def test_every_row_is_there() -> None:
    rows = scan_evaluations([STORED]).collect()
    # Cloning once in each run; three packs of 20 updates, one of 40 steps, evaluated every 10.
    assert rows.height == 2 + 3 * 2 + 4
    assert set(rows["schema_version"]) == {1}
    assert rows["success_rate"].null_count() == 0
    assert set(rows["data_fingerprint"]) == {FINGERPRINT}
    assert set(rows.columns) == {*EVALUATIONS.columns, "run"}
    metrics = scan_training([STORED]).collect()
    assert set(metrics.columns) == {*TRAINING.columns, "run"}
    assert metrics.filter(metric="path_kl").height == 2 * 4


def test_the_tables_have_the_numbers_that_they_had() -> None:
    table = final_table([STORED])
    assert str(table.coverage) == "1/1 tasks, 4/4 runs"
    cells = table.cells.select("agent", "variant", "phase", "step", "return_mean", "path_kl")
    assert cells.drop("path_kl").rows() == [
        ("bc", "", "pretrain", 20, -1000.0),
        ("fql", "", "offline", 20, -1000.0),
        ("fql", "", "online", 40, -1000.0),
        ("trqam", "kl-budget=0.1", "offline", 20, -1000.0),
        ("trqam", "kl-budget=1", "offline", 20, -1000.0),
    ]
    kl = cells["path_kl"].drop_nulls().to_list()
    assert kl == pytest.approx([0.001069, 0.001283], abs=1e-6)


def test_reports_and_progress_can_be_made(tmp_path: Path) -> None:
    report = write_report([STORED], tmp_path / "report")
    assert "success-against-kl-budget.svg" in {path.name for path in report.files}
    ((line,),) = [sweep.lines.values() for sweep in sweeps_of(report.table.domains)]
    assert line["value"].to_list() == [0.1, 1.0]
    phases = {run.directory.name: run.phases for run in run_progress([STORED])}
    assert phases == {
        "online": {"pretrain": (1, 1), "offline": (1, 1), "online": (1, 1)},
        "sweep": {"pretrain": (1, 1), "offline": (2, 2)},
    }


def test_run_records_can_be_read() -> None:
    for name in ("sweep", "online"):
        record = read_run(STORED / name)
        assert record.command[1] == name
        assert json.loads((STORED / name / "run.json").read_text())["version"] == 1
        assert recorded_data(STORED / name)[f"{DOMAIN}-5k-v0"]["fingerprint"] == FINGERPRINT
        assert environment_differences(record.provenance)  # another commit at least
    assert {cell.variant for cell in read_run(STORED / "sweep").cells} == {
        "",
        "kl-budget=0.1",
        "kl-budget=1",
    }


def test_documented_columns_are_the_columns() -> None:
    text = (Path(__file__).parents[3] / "docs" / "results.md").read_text(encoding="utf-8")
    begin = text.index("## Columns of `evaluations`")
    section = text[begin : text.index("\n## ", begin + 1)]
    missing = [name for name in EVALUATIONS.columns if f"`{name}`" not in section]
    assert missing == []
    assert f"Version {EVALUATIONS.version}." in section
    assert {"metric", "value"} <= set(TRAINING.columns)
