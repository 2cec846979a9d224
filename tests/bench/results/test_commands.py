"""`bench report`, `status`, `compare` and `reproduce`, as functions of run directories."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench.cli.compare import Compare
from bench.cli.report import Report
from bench.cli.reproduce import Reproduce
from bench.cli.status import Status
from bench.errors import ResultsError
from bench.results import ResultWriter, compare_runs, run_progress
from bench.storage import PlannedCell, RunLock, RunRecord, collect_provenance, write_run

from .make_runs import cell, evaluation, make_run


def test_report_prints_where_everything_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, [(cell(), {100: 45})])
    assert Report((tmp_path,)).run() == 0
    printed = capsys.readouterr().out
    assert "90.0" in printed
    assert str(tmp_path / "report" / "report.html") in printed.replace("\n", "")
    with pytest.raises(ValueError, match="bench report runs/quick"):
        Report(()).run()


def test_report_of_a_failed_cell_exits_with_1(tmp_path: Path) -> None:
    run = make_run(tmp_path, [(cell(), {50: 45})])
    ResultWriter(run / "packs" / "pack" / "evaluations.parquet").append(
        [cell() | {"phase": "offline", "step": 60, "failed_at_step": 60, "failure": "x"}]
    )
    assert Report((tmp_path,)).run() == 1


def start_run(directory: Path) -> datetime:
    """Two packs of one cell each; the first made 40 of 100 steps at 2 steps a second."""
    begun = datetime.now(UTC) - timedelta(seconds=20)
    cells = {"p": cell(seed=0), "q": cell(seed=1)}
    planned = [PlannedCell(**of, final_steps={"offline": 100}, pack=p) for p, of in cells.items()]
    write_run(directory, RunRecord(["bench"], {}, collect_provenance([]), planned))
    ResultWriter(directory / "packs" / "p" / "evaluations.parquet").append(
        [
            evaluation(
                cells["p"],
                step,
                1,
                recorded_at=begun + timedelta(seconds=step / 2),
                updates_per_second=4.0,
            )
            for step in (0, 20, 40)
        ]
    )
    return begun


def test_status_counts_and_estimates(tmp_path: Path) -> None:
    begun = start_run(tmp_path / "run")
    (stopped,) = run_progress([tmp_path])
    assert (stopped.state, stopped.done, stopped.planned, stopped.running) == ("stopped", 0, 2, 0)
    assert stopped.remaining is None
    with RunLock(tmp_path / "run"):
        now = begun + timedelta(seconds=30)  # 10 seconds after the last row
        (run,) = run_progress([tmp_path], now)
    assert (run.state, run.done, run.running, run.failed) == ("running", 0, 1, 0)
    assert run.updates_per_second == 4.0
    # 60 steps of p and 100 of q at half a second each, 10 seconds of them gone.
    assert run.remaining == timedelta(seconds=70)
    assert run.last_row == begun + timedelta(seconds=20)
    with RunLock(tmp_path / "run"):
        (overdue,) = run_progress([tmp_path], begun + timedelta(seconds=500))
    assert overdue.remaining is None


def test_status_of_done_and_failed_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "good", [(cell(), {100: 45})])
    assert Status((tmp_path,)).run() == 0
    assert "1/1" in capsys.readouterr().out
    bad = make_run(tmp_path / "bad", [(cell(), {50: 45})])
    ResultWriter(bad / "packs" / "pack" / "evaluations.parquet").append(
        [cell() | {"phase": "offline", "step": 60, "failed_at_step": 60, "failure": "x"}]
    )
    assert Status((tmp_path,)).run() == 1
    assert [run.state for run in run_progress([tmp_path])] == ["failed", "done"]
    with pytest.raises(ResultsError, match="no run"):
        Status((tmp_path / "good" / "packs",)).run()
    with pytest.raises(ValueError, match="positive"):
        Status((tmp_path,), watch=0).run()


def seeds(agent: str, *finals: int) -> list[tuple[dict[str, object], dict[int, int]]]:
    return [
        (cell(task, seed, agent), {100: final + task})
        for task in (1, 2)
        for seed, final in enumerate(finals)
    ]


def test_compare_finds_a_real_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = make_run(tmp_path / "a", seeds("trqam", 40, 42, 41, 43), settings={"lr": 1, "same": 0})
    b = make_run(tmp_path / "b", seeds("trqam", 20, 22, 21, 23), settings={"lr": 2, "same": 0})
    comparison = compare_runs(a, b)
    assert comparison.settings == {"lr": ("1", "2")}
    assert comparison.environment == {}
    (method,) = comparison.methods
    assert method.tasks == 2
    assert method.runs == (8, 8)
    assert method.difference.value == pytest.approx(0.4)
    assert 0.3 < method.difference.low < 0.4 < method.difference.high < 0.5
    assert method.improvement == 1.0
    assert method.p_value < 0.01
    assert "+40.0 points for A, significant" in method.verdict
    assert Compare(a, b).run() == 0
    assert "significant" in capsys.readouterr().out


def test_compare_does_not_find_what_is_not_there(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", seeds("trqam", 20, 30, 40))
    b = make_run(tmp_path / "b", seeds("qam", 22, 31, 36))
    (method,) = compare_runs(a, b).methods
    assert (method.first, method.second) == ("trqam", "qam")
    assert "not significant" in method.verdict


def test_compare_of_single_seeds_makes_no_claim(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", seeds("trqam", 48))
    b = make_run(tmp_path / "b", seeds("trqam", 2), data_source="downloaded")
    comparison = compare_runs(a, b)
    assert "no claim" in comparison.methods[0].verdict
    assert any("different data: generated and downloaded" in note for note in comparison.notes)
    c = make_run(tmp_path / "c", [(cell(5), {100: 1})])
    with pytest.raises(ResultsError, match="no finished runs of a common method and task"):
        compare_runs(a, c)


def test_reproduce_prints_the_command_and_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, [(cell(), {100: 45})])
    provenance = collect_provenance([])
    provenance["git"] = None if provenance["git"] is None else provenance["git"] | {"modified": 0}
    command = ["bench", "offline", "--out", "my runs/a"]
    write_run(run, RunRecord(command, {}, provenance))
    assert Reproduce(run).run() == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "bench offline --out 'my runs/a'"
    assert "# data of pointmaze-medium-navigate: generated, fingerprint aaaa" in printed
    provenance["packages"] |= {"torch": "0.4"}
    write_run(run, RunRecord(command, {}, provenance))
    assert Reproduce(run).run() == 1
    assert "0.4 there" in capsys.readouterr().out


def test_the_command_modules_import_neither_torch_nor_polars() -> None:
    program = (
        "import sys, bench.cli.report, bench.cli.status, bench.cli.compare, bench.cli.reproduce;"
        "assert not {'torch', 'polars', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
