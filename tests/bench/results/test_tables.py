"""Result tables: what they refuse, what they keep, and what they say is missing."""

from __future__ import annotations

import datetime as dt
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bench.errors import FormatVersionError, MixedOriginError, ResultsError
from bench.results import (
    EVALUATIONS,
    TRAINING,
    ResultWriter,
    cell_results,
    compare_runs,
    domain_view,
    final_table,
    is_task,
    labelled_evaluations,
    metric_rows,
    planned_cells,
    print_table,
    published_domains,
    run_progress,
    scan_evaluations,
    scan_training,
    task_label,
    task_view,
    wilson_interval,
    write_table,
)
from bench.results.report._curves import success_curves, training_curves
from bench.storage import PlannedCell, RunRecord, collect_provenance, write_run
from bench.suites import SUITES

from .make_runs import cell, evaluation, make_run, suite_settings, task_name

DATA = Path(__file__).parent / "data"


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "run" / "packs" / "p" / "evaluations.parquet"
    writer = ResultWriter(path)
    writer.append([evaluation(cell(), 10, 20)])
    writer.append([evaluation(cell(), 20, 30), evaluation(cell(2), 20, 0)])
    again = ResultWriter(path)
    assert again.frame.equals(writer.frame)
    scanned = scan_evaluations([tmp_path]).collect()
    assert scanned["success_rate"].to_list() == [0.4, 0.6, 0.0]
    assert scanned["schema_version"].to_list() == [1, 1, 1]
    assert scanned["run"].unique().to_list() == [str(tmp_path / "run")]
    assert scanned.drop("run").schema == pl.Schema(EVALUATIONS.columns)
    assert [path.name for path in path.parent.iterdir()] == ["evaluations.parquet"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sucesses": 1}, "unknown column 'sucesses'; did you mean 'successes'"),
        ({"task": None}, "row 1 lacks 'task'"),
        ({"phase": "ofline"}, "phase 'ofline'"),
        ({"successes": 51}, "51 successes in 50 episodes"),
        ({"success_rate": 0.3}, "success_rate 0.3, but 10/50"),
        ({"successes": None, "success_rate": 0.3}, "give episodes and successes"),
        ({"seed": "zero"}, "wrong type"),
        ({"schema_version": 1}, "unknown column 'schema_version'"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_nothing_is_added(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    writer = ResultWriter(tmp_path / "evaluations.parquet")
    good = evaluation(cell(), 10, 10)
    with pytest.raises(ValueError, match=message):
        writer.append([good, good | change])
    assert writer.frame.height == 0


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.parquet"
    writer = ResultWriter(path)
    for phase in ("pretrain", "offline", "online"):
        writer.append([evaluation(cell(), step, 1) | {"phase": phase} for step in (10, 20, 30)])
    assert ResultWriter(path).truncate("offline", 20) == 4
    kept = ResultWriter(path).frame
    assert kept.select("phase", "step").rows() == [
        *(("pretrain", step) for step in (10, 20, 30)),
        ("offline", 10),
        ("offline", 20),
    ]
    assert ResultWriter(path).truncate("offline", 20) == 0
    with pytest.raises(ValueError, match="phase 'of'"):
        writer.truncate("of", 1)


def test_metrics_are_buffered_until_flushed(tmp_path: Path) -> None:
    path = tmp_path / "packs" / "p" / "training.parquet"
    writer = ResultWriter(path, TRAINING)
    writer.append(
        metric_rows(cell(), "offline", 5, {"loss": 1.5, "bad": float("nan")}), flush=False
    )
    assert not path.exists()
    assert writer.frame.height == 2
    writer.flush()
    scanned = scan_training([tmp_path]).collect()
    assert scanned.filter(pl.col("metric") == "loss")["value"].to_list() == [1.5]
    assert np.isnan(scanned.filter(pl.col("metric") == "bad")["value"].item())


def test_a_full_disk_is_reported_and_keeps_the_table(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.parquet"
    ResultWriter(path).append([evaluation(cell(), 10, 10)])
    before = path.read_bytes()
    program = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from bench.errors import BenchError
from bench.results import ResultWriter
from make_runs import cell, evaluation
writer = ResultWriter(Path({str(path)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    writer.append([evaluation(cell(), step, step % 50) for step in range(5000)])
except BenchError as error:
    raise SystemExit(f"error: {{error}}")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["evaluations.parquet"]


def test_killing_the_writer_never_leaves_an_unreadable_table(tmp_path: Path) -> None:
    path = tmp_path / "run" / "packs" / "p" / "evaluations.parquet"
    program = f"""
import itertools, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from bench.results import ResultWriter
from make_runs import cell, evaluation
writer = ResultWriter(Path({str(path)!r}))
for step in itertools.count(writer.frame.height):
    writer.append([evaluation(cell(), step, step % 50)])
    print(step, flush=True)
"""
    reached = -1
    for attempt in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(4 + 6 * attempt):
            reached = int(process.stdout.readline())
            # A reader beside the writer always sees a whole table.
            steps = scan_evaluations([tmp_path]).collect()["step"].to_list()
            assert steps == list(range(len(steps)))
            assert len(steps) > reached
        time.sleep(0.0011 * (attempt + 1))
        process.send_signal(signal.SIGKILL)
        last = process.stdout.read().split()
        reached = int(last[-1]) if last else reached
        process.wait()
        process.stdout.close()
        steps = scan_evaluations([tmp_path]).collect()["step"].to_list()
        assert steps == list(range(len(steps)))
        assert len(steps) > reached
    assert reached > 20


def test_files_that_are_no_table_are_named(tmp_path: Path) -> None:
    path = tmp_path / "packs" / "p" / "evaluations.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(ResultsError, match=r"evaluations\.parquet is damaged"):
        ResultWriter(path)
    with pytest.raises(ResultsError, match=r"evaluations\.parquet is damaged"):
        scan_evaluations([tmp_path])
    pl.DataFrame({"schema_version": [1], "x": [2]}).write_parquet(path)
    with pytest.raises(ResultsError, match="not a table of evaluations"):
        ResultWriter(path)
    with pytest.raises(ResultsError, match="does not exist"):
        scan_evaluations([tmp_path / "nowhere"])


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "packs" / "p" / "evaluations.parquet"
    writer = ResultWriter(path)
    writer.append([evaluation(cell(), 10, 10)])
    writer.frame.with_columns(schema_version=pl.lit(7, pl.Int16)).write_parquet(path)
    with pytest.raises(FormatVersionError, match="version 7 of table evaluations"):
        scan_evaluations([tmp_path])
    with pytest.raises(FormatVersionError, match="reads up to 1"):
        ResultWriter(path)


def test_fewer_and_more_columns_are_readable(tmp_path: Path) -> None:
    for name, change in (("older", "drop"), ("newer", "add"), ("now", "none")):
        path = tmp_path / name / "packs" / "p" / "evaluations.parquet"
        writer = ResultWriter(path)
        writer.append([evaluation(cell(seed=len(name)), 10, 10)])
        if change == "drop":
            writer.frame.drop("lambda", "precision").write_parquet(path)
        elif change == "add":
            writer.frame.with_columns(mood=pl.lit("good")).write_parquet(path)
    rows = scan_evaluations([tmp_path]).collect().sort("run")
    assert rows["success_rate"].to_list() == [0.2, 0.2, 0.2]
    assert rows["lambda"].to_list() == [0.42, 0.42, None]
    reopened = ResultWriter(tmp_path / "older" / "packs" / "p" / "evaluations.parquet")
    reopened.append([evaluation(cell(), 20, 10)])
    assert reopened.frame["precision"].to_list() == [None, "float32"]


def test_tables_of_version_1_stay_readable() -> None:
    rows = scan_evaluations([DATA / "run-v1"]).collect()
    assert rows.height == 4
    assert rows["recorded_at"][0] == dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
    table = final_table([DATA / "run-v1"])
    assert table.coverage.complete
    assert table.tasks["success"].to_list() == [0.96, 0.04]
    assert scan_training([DATA / "run-v1"]).collect()["value"].to_list() == [0.4, 1.5]


def test_one_seed_gets_wilsons_interval(tmp_path: Path) -> None:
    make_run(tmp_path, [(cell(), {50: 49, 100: 45})])
    table = final_table([tmp_path])
    row = table.tasks.row(0, named=True)
    wilson = wilson_interval(45, 50)
    assert row["success"] == 0.9
    assert row["best"] == 0.98
    assert (row["success_low"], row["success_high"]) == (wilson.low, wilson.high)
    assert row["interval"] == "Wilson over episodes"
    assert (row["seeds"], row["episodes"], row["step"]) == (1, 50, 100)
    assert row["success_std"] is None
    assert any("no difference between methods is supported" in note for note in table.notes)
    assert task_view(table).row(0, named=True) == {
        "task": "pointmaze-medium-navigate-task1",
        "phase": "offline",
        "method": "trqam",
        "success %": "90.0",
        "95 %": f"[{100 * wilson.low:.1f}, {100 * wilson.high:.1f}]",
        "best %": "98.0",
        "seeds": "1",
        "episodes": "50",
        "KL / budget": "0.39 / 0.4",
        "step": "100",
    }


def test_seeds_are_the_unit_and_tasks_weigh_the_same(tmp_path: Path) -> None:
    successes = {(1, 0): 50, (1, 1): 40, (1, 2): 30, (2, 0): 10, (2, 1): 10, (2, 2): 40}
    make_run(tmp_path, [(cell(t, s), {100: n}) for (t, s), n in successes.items()])
    table = final_table([tmp_path])
    first = table.tasks.row(0, named=True)
    assert first["success"] == pytest.approx(0.8)
    assert first["success_std"] == pytest.approx(0.2)  # sample deviation of 1, .8, .6
    assert (first["success_low"], first["success_high"]) == pytest.approx((0.6, 1.0))
    domain = table.domains.row(0, named=True)
    assert domain["success"] == pytest.approx(0.6)
    # Seeds' means over tasks: .6, .5, .7.
    assert domain["success_std"] == pytest.approx(0.1)
    assert domain["interval"] == "bootstrap over seeds"
    assert 0.4 < domain["success_low"] < 0.6 < domain["success_high"] <= 0.9
    assert domain_view(table, "offline").row(0) == ("pointmaze-medium-navigate", "60.0 ± 10.0")


def test_missing_cells_are_counted_and_left_out(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "a",
        [(cell(1, 0), {100: 50}), (cell(1, 1), {50: 10}), (cell(2, 0), {100: 20})],
        more_cells=[cell(3, 0)],
    )
    writer = ResultWriter(run / "packs" / "pack" / "evaluations.parquet")
    failed = {"failed_at_step": 60, "failure": "loss is not finite"}
    writer.append([cell(3, 0) | {"phase": "offline", "step": 60, **failed}])
    table = final_table([tmp_path])
    assert str(table.coverage) == "1/3 tasks, 2/4 runs"
    assert not table.coverage.complete
    assert table.coverage.failed == (
        f"{task_name('pointmaze-medium-navigate', 3)}, trqam, seed 0: failed at step 60: "
        "loss is not finite",
    )
    assert table.coverage.unfinished == (
        f"{task_name('pointmaze-medium-navigate', 1)}, trqam, seed 1: at offline step 50 of 100",
    )
    assert table.tasks["success"].to_list() == [1.0, 0.4, None]
    assert task_view(table)["seeds"].to_list() == ["1/2", "1", "0/1"]
    assert domain_view(table, "offline")["trqam"].to_list() == ["70.0 (2/4 runs)"]
    with_unfinished = final_table([tmp_path], unfinished=True)
    assert with_unfinished.tasks["success"].to_list() == [0.6, 0.4, None]
    assert any("used at their last evaluation" in note for note in with_unfinished.notes)


def test_without_a_plan_the_longest_run_sets_the_length(tmp_path: Path) -> None:
    make_run(tmp_path, [(cell(1, 0), {100: 50}), (cell(1, 1), {50: 10})])
    (tmp_path / "run.json").unlink()
    table = final_table([tmp_path])
    assert str(table.coverage) == "0/1 tasks, 1/2 runs"
    assert table.tasks["success"].to_list() == [1.0]


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"data_source": "downloaded"}, "data_source"),
        ({"data_fingerprint": "bbbb"}, "data_fingerprint"),
        ({"protocol_fingerprint": "qqqq"}, "protocol_fingerprint"),
        ({"mujoco_version": "3.5.0"}, "simulator"),
        ({"ogbench_version": "1.1.5"}, "simulator"),
        ({"kl_budget": 1.0}, "kl_budget"),
        ({"mujoco_version": "3.4.0"}, None),
        ({"device": "cuda"}, None),
    ],
)
def test_rows_of_different_origin_are_not_averaged(
    tmp_path: Path, change: dict[str, Any], refused: str | None
) -> None:
    make_run(tmp_path / "a", [(cell(seed=0), {100: 10})])
    make_run(tmp_path / "b", [(cell(seed=1), {100: 20})], **change)
    if refused is None:
        assert final_table([tmp_path]).tasks["success"].to_list() == [pytest.approx(0.3)]
        return
    with pytest.raises(MixedOriginError, match=f"differ in {refused}") as caught:
        final_table([tmp_path])
    assert str(tmp_path / "a") in str(caught.value)
    assert "--mix" in str(caught.value)
    mixed = final_table([tmp_path], mix=True)
    assert mixed.tasks["success"].to_list() == [pytest.approx(0.3)]


def test_a_change_of_data_inside_a_run_is_noticed(tmp_path: Path) -> None:
    run = make_run(tmp_path, [(cell(), {50: 10})])
    writer = ResultWriter(run / "packs" / "pack" / "evaluations.parquet")
    writer.append([evaluation(cell(), 100, 20, data_fingerprint="cccc")])
    with pytest.raises(MixedOriginError, match="aaaa"):
        final_table([tmp_path])


def test_the_same_cell_twice_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "a", [(cell(), {100: 10})])
    make_run(tmp_path / "b", [(cell(), {100: 20})])
    make_run(tmp_path / "c", [(cell(agent="qam"), {100: 30})])
    with pytest.raises(ResultsError, match="is there 2 times, differing in successes") as caught:
        final_table([tmp_path])
    for successes, run in ((10, "a"), (20, "b")):
        assert f"{successes} of 50 solved in {tmp_path / run}" in str(caught.value)
    assert str(tmp_path / "c") not in str(caught.value)


def test_a_run_that_was_continued_by_another_version_is_one_run(tmp_path: Path) -> None:
    # Who hashes a protocol otherwise does not make it another one: `run.json` holds the settings.
    run = make_run(tmp_path / "run", [(cell(), {50: 5, 100: 10})], metrics=False)
    table = run / "packs" / "pack" / "evaluations.parquet"
    rows = pl.read_parquet(table)
    earlier = pl.when(step=50).then(pl.lit("older")).otherwise("protocol_fingerprint")
    rows.with_columns(protocol_fingerprint=earlier).write_parquet(table)
    assert final_table([run]).cells["best_rate"].to_list() == [0.2]


def test_the_same_cell_twice_is_refused_without_a_column_of_it(tmp_path: Path) -> None:
    # Of tables without a column that says which cell it is, that column is null.
    for name, successes in (("a", 10), ("b", 20)):
        run = make_run(tmp_path / name, [(cell(), {100: successes})], metrics=False)
        table = run / "packs" / "pack" / "evaluations.parquet"
        pl.read_parquet(table).drop("variant").write_parquet(table)
    with pytest.raises(ResultsError, match="is there 2 times, differing in successes"):
        final_table([tmp_path])


def test_the_same_measurement_in_two_runs_counts_once(tmp_path: Path) -> None:
    # Every run of an agent evaluates the cloned policy that it starts from.
    for agent, seconds in (("trqam", 1.0), ("qam", 2.0)):
        make_run(
            tmp_path / agent,
            [(cell(agent="bc"), {50: 5, 100: 10}), (cell(agent=agent), {100: 20})],
            seconds_training=seconds,
            seconds_evaluation=0.5,
        )
    # A third has only begun with it.
    make_run(tmp_path / "ifql", [(cell(agent="bc"), {50: 5}), (cell(agent="ifql"), {100: 30})])
    table = final_table([tmp_path])
    assert str(table.coverage) == "1/1 tasks, 4/4 runs"
    # Of training the clock runs on from row to row; each evaluation has its own.
    bc = final_table([tmp_path / "qam"]).cells.filter(agent="bc")
    assert bc["seconds"].item() == 2.0 + 2 * 0.5
    cells = table.cells.select("agent", "success_rate", "evaluations")
    assert cells.sort("agent").rows() == [
        ("bc", 0.2, 2), ("ifql", 0.6, 1), ("qam", 0.4, 1), ("trqam", 0.4, 1)
    ]  # fmt: skip
    assert table.tasks.filter(agent="bc")["episodes"].to_list() == [50]
    assert final_table([tmp_path / "qam"]).coverage.runs == 2
    # With another outcome it is no repetition.
    make_run(tmp_path / "dsrl", [(cell(agent="bc"), {100: 11})])
    with pytest.raises(ResultsError, match="is there 2 times"):
        final_table([tmp_path])


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"dual_rate": 0.01, "dual": "descend"}, "0.39 / 0.4"),
        ({"dual_rate": 0.0, "dual": "descend"}, "0.39 / –"),
        ({"dual_rate": 0.0}, "0.39 / –"),  # from before lambda could be solved for
        ({"dual_rate": 0.0, "dual": "solve"}, "0.39 / 0.4"),
    ],
)
def test_a_fixed_lambda_has_no_budget(tmp_path: Path, settings: dict[str, Any], shown: str) -> None:
    packs = {"packs": {"pack": {"agent": "trqam", "settings": settings}}}
    table = final_table([make_run(tmp_path, [(cell(), {100: 10})], settings=packs)])
    assert task_view(table)["KL / budget"].to_list() == [shown]
    assert table.cells["kl_budget"].is_null().to_list() == [shown.endswith("–")]


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no evaluations"):
        final_table([tmp_path])


def test_a_stopped_run_is_never_a_result_whatever_was_recorded_later(tmp_path: Path) -> None:
    """Version 0.1 went on writing ordinary rows of stopped runs."""
    run = make_run(tmp_path / "run", [(cell(seed=s), {50: 10, 100: 20}) for s in range(3)])
    other = make_run(tmp_path / "other", [(cell(seed=s, agent="qam"), {100: 5}) for s in range(2)])
    writer = ResultWriter(run / "packs" / "pack" / "evaluations.parquet")
    stop = {"phase": "offline", "step": 60, "failed_at_step": 60, "failure": "not finite"}
    writer.append([cell(seed=1) | stop])
    for table in (final_table([run]), final_table([run], unfinished=True)):
        assert (table.coverage.runs, table.coverage.runs_planned) == (2, 3)
        assert not table.coverage.complete
        (line,) = table.coverage.failed
        assert "seed 1: failed at step 60: not finite" in line
        assert table.tasks.filter(agent="trqam")["runs"].to_list() == [2]
        assert table.tasks.filter(agent="trqam")["seeds"].to_list() == [2]
        assert any(note.startswith("1 run was stopped") for note in table.notes)
    cells = cell_results([run]).filter(seed=1)
    assert cells.select("finished", "stopped", "step", "success_rate", "best_step").row(0) == (
        False, True, 50, 0.2, 50,
    )  # fmt: skip
    # Nothing that was measured of it since the stop is drawn, and nothing at all beside sound runs.
    assert labelled_evaluations([run]).filter(pl.col("success_rate").is_not_null(), seed=1)[
        "step"
    ].to_list() == [50]
    table = final_table([run])
    (curve,) = success_curves(labelled_evaluations([run]), table.cells)
    assert (curve.runs, curve.steps.tolist()) == (2, [50.0, 100.0])
    (kl,) = training_curves([run], table.cells, "path_kl")
    assert kl.runs == 2
    (progress,) = run_progress([run])
    assert (progress.state, progress.done, progress.failed) == ("failed", 2, 1)
    comparison = compare_runs(run, other)
    assert [line[:2] for line in comparison.failed] == ["A:"]
    assert comparison.methods[0].runs == (2, 2)


def test_a_stop_in_one_run_is_not_made_good_by_another(tmp_path: Path) -> None:
    shared = cell(agent="bc") | {"variant": ""}
    for name in ("a", "b"):
        make_run(tmp_path / name, [(shared, {100: 20})])
    writer = ResultWriter(tmp_path / "a" / "packs" / "pack" / "evaluations.parquet")
    stop = {"phase": "offline", "step": 60, "failed_at_step": 60, "failure": "not finite"}
    writer.append([shared | stop])
    assert final_table([tmp_path / "b"]).coverage.complete
    assert final_table([tmp_path / "a"]).coverage.failed
    assert final_table([tmp_path]).coverage.failed


def test_an_evaluation_that_failed_on_the_way_is_noted_beside_the_result(tmp_path: Path) -> None:
    run = make_run(tmp_path, [(cell(), {50: 10})])
    writer = ResultWriter(run / "packs" / "pack" / "evaluations.parquet")
    failed = {"failed_at_step": 60, "failure": "the environment broke", "seconds_evaluation": 1.0}
    writer.append([cell() | {"phase": "offline", "step": 60, **failed}])
    assert final_table([tmp_path]).coverage.failed
    writer.append([evaluation(cell(), 100, 20)])
    table = final_table([tmp_path])
    assert table.coverage.complete
    assert table.coverage.failed == ()
    assert any(note.startswith("1 evaluation on the way failed") for note in table.notes)
    assert cell_results([tmp_path])["best_step"].to_list() == [100]


def test_printed_and_written_tables_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [(cell(t, s, agent), {100: 10 * t + s}) for t in (1, 2) for s in (0, 1, 2)
             for agent in ("trqam", "bc")]  # fmt: skip
    cells += [(cell(1, s) | {"variant": "kernel=follmer"}, {100: s}) for s in (0, 1, 2)]
    table = final_table([make_run(tmp_path / "run", cells)])
    print_table(table)
    printed = capsys.readouterr().out
    files = write_table(table, tmp_path / "report")
    markdown = files[0].read_text()
    for row in task_view(table).iter_rows(named=True):
        assert row["success %"] in printed
        assert f"| {row['success %']} | {row['95 %']} |" in markdown
    for text in (printed, markdown):
        assert "trqam [kernel=follmer]" in text
        assert "2/2 tasks, 15/15 runs" in text
    stored = pl.read_parquet(tmp_path / "report" / "tasks.parquet")
    assert stored.equals(table.tasks)
    as_text = pl.read_csv(tmp_path / "report" / "tasks.csv")
    assert as_text["success"].to_list() == table.tasks["success"].to_list()


def test_published_numbers_say_whose_they_are(tmp_path: Path) -> None:
    everything = published_domains()
    qam = everything.filter(
        (pl.col("method") == "QAM") & (pl.col("domain") == "all") & (pl.col("phase") == "offline")
    )
    assert sorted(qam.select("mean", "source").rows()) == [
        (35.0, "TRQAM, arXiv 2605.27079"),
        (44.4, "QAM, arXiv 2601.14234"),
    ]
    theirs = everything.filter(
        (pl.col("method") == "QAM") & (pl.col("domain") == CUBES) & (pl.col("phase") == "offline")
    ).row(0, named=True)
    published = f"{theirs['mean']:.1f} ± {theirs['std']:.1f}"
    source = "QAM, arXiv 2601.14234"
    for suite, beside in (
        ("ogbench50-qam", {f"QAM (published: {source})": published}),
        ("ogbench50", {}),  # measured under another protocol
    ):
        run = cube_run(tmp_path / suite, suite)
        assert domain_view(final_table([run]), "offline").row(0, named=True) == {
            "domain": CUBES,
            "qam": "50.0 ± 0.0",
            **beside,
        }
    with pytest.raises(ResultsError, match="no online phase"):
        domain_view(final_table([tmp_path / "ogbench50"]), "online")


CUBES = "cube-double-play"


def cube_run(directory: Path, suite: str, tasks: int = 5, **other: Any) -> Path:
    """QAM on so many tasks of a domain of the 50, two seeds, by the suite's protocol."""
    cells = [
        cell(task, seed, "qam", CUBES) | {"suite": suite}
        for task in range(1, tasks + 1)
        for seed in (0, 1)
    ]
    steps = int(other.get("offline_steps", 1_000_000))
    settings = suite_settings(suite, CUBES, **other)
    return make_run(
        directory, [(of, {steps: 25}) for of in cells], planned_step=steps, settings=settings,
        metrics=False,
    )  # fmt: skip


def test_published_numbers_stand_beside_the_suites_protocol_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = final_table([cube_run(tmp_path / "whole", "ogbench50-qam")])
    assert not any("protocol" in note for note in whole.notes)
    assert whole.domains["off_protocol"].to_list() == [""]
    print_table(whole)
    write_table(whole, tmp_path)
    for text in (capsys.readouterr().out, (tmp_path / "results.md").read_text()):
        assert "published" in text
        assert "arXiv" in text
    short = cube_run(tmp_path / "short", "ogbench50-qam", offline_steps=200, episodes=4)
    cloned = cube_run(tmp_path / "cloned", "ogbench50-qam", pretrain_steps=300_000)
    for run, note in (
        (cloned, "pretrain steps 300,000 instead of 0"),  # as version 0.1 trained that suite
        (short, "offline steps 200 instead of 1,000,000; episodes 4 instead of 50"),
        (cube_run(tmp_path / "narrow", "ogbench50-qam", tasks=2), None),
        (cube_run(tmp_path / "fql", "ogbench50-fql"), None),
    ):
        table = final_table([run])
        notes = [text for text in table.notes if "not the suite's protocol" in text]
        assert [note is None or note in text for text in notes] == [True] * (note is not None)
        print_table(table)
        write_table(table, tmp_path)
        printed, written = capsys.readouterr().out, (tmp_path / "results.md").read_text()
        assert "(published" not in printed + written
        assert (note is not None) == ("not the suite's protocol" in written)
    # Nothing is known of tables without their run.json.
    (tmp_path / "whole" / "run.json").unlink()
    alone = final_table([tmp_path / "whole"])
    assert alone.domains["off_protocol"].to_list() == [None]
    assert domain_view(alone, "offline").columns == ["domain", "qam"]


def test_a_table_too_wide_is_printed_in_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agents = [f"an-agent-with-a-name-{index}" for index in range(12)]
    cells = [(cell(task, 0, agent), {100: 5 * task}) for agent in agents for task in (1, 2)]
    table = final_table([make_run(tmp_path, cells, metrics=False)])
    print_table(table)
    lines = capsys.readouterr().out.splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("By domain"))
    shown = " ".join(lines[begin:]).split()
    assert [word for word in shown if word in agents] == sorted(agents)
    assert shown.count("pointmaze-medium-navigate") == 3
    assert max(map(len, lines)) <= 160


def test_what_differs_from_the_protocol_is_said_per_phase_and_once(tmp_path: Path) -> None:
    domain = "pointmaze-medium-navigate"
    settings = suite_settings("quick", domain, "trqam", offline_steps=2_000)
    online = asdict(SUITES["quick"].protocol.online)
    bc = {"bc": {"agent": "bc", "dataset": f"{domain}-5k-v0"}}
    settings["packs"] = bc | settings["packs"]
    settings["online"] = {
        "protocol": online | {"steps": 40},
        "packs": {"pack--online": settings["packs"]["pack"]},
    }
    plan = [
        PlannedCell(**cell(agent=agent), final_steps={phase: 100}, pack=pack)
        for agent, phase, pack in (
            ("bc", "pretrain", "bc"), ("trqam", "offline", "pack"),
            ("trqam", "online", "pack--online"),
        )
    ]  # fmt: skip
    write_run(tmp_path, RunRecord(["bench"], settings, collect_provenance([]), plan))
    found = dict(planned_cells([tmp_path]).select("phase", "off_protocol").iter_rows())
    assert found == {
        "pretrain": "data of another size",
        # 2,000 offline updates are the protocol of `bench online --suite quick`.
        "offline": "",
        "online": "online steps 40 instead of 6,000",
    }
    del settings["online"]
    write_run(tmp_path, RunRecord(["bench"], settings, collect_provenance([]), plan[:2]))
    found = dict(planned_cells([tmp_path]).select("phase", "off_protocol").iter_rows())
    assert found["offline"] == "offline steps 2,000 instead of 8,000"


def test_data_that_a_record_does_not_name_are_unknown_not_of_another_size(tmp_path: Path) -> None:
    domain = "pointmaze-medium-navigate"

    def off_protocol(**other: Any) -> str | None:
        settings = suite_settings("quick", domain, "trqam", **other)
        del settings["packs"]["pack"]["dataset"]
        plan = [PlannedCell(**cell(), final_steps={"offline": 100}, pack="pack")]
        write_run(tmp_path, RunRecord(["bench"], settings, collect_provenance([]), plan))
        (found,) = planned_cells([tmp_path])["off_protocol"]
        return None if found is None else str(found)

    assert off_protocol() is None
    assert off_protocol(episodes=4) == "episodes 4 instead of 50"


def test_four_hundred_runs_are_summarised_in_seconds(tmp_path: Path) -> None:
    for seed in range(8):
        for task in range(1, 6):
            for index in range(10):
                of = cell(task, seed, domain=f"domain-{index}")
                path = tmp_path / f"{seed}-{task}-{index}" / "packs" / "p" / "evaluations.parquet"
                ResultWriter(path).append([evaluation(of, 100, (seed + task + index) % 50)])
    start = time.perf_counter()
    table = final_table([tmp_path], resamples=5_000)
    assert time.perf_counter() - start < 20  # 1.5 s on an idle core
    assert str(table.coverage) == "50/50 tasks, 400/400 runs"
    assert table.domains.filter(pl.col("domain") == "all")["runs"].to_list() == [400]


def test_only_names_of_ogbench_are_shortened() -> None:
    assert task_label("cube-double-play-singletask-task2-v0") == "cube-double-play-task2"
    assert task_label("myarm:MyArm-v0") == "myarm:MyArm-v0"
    assert is_task("myarm:MyArm-v0", "1")
    assert not is_task("cube-double-play-singletask-task2-v0", "1")
