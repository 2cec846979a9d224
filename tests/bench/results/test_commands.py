"""`bench report`, `status`, `compare` and `reproduce`, as functions of run directories."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench.cli.compare import Compare
from bench.cli.report import Report
from bench.cli.reproduce import Reproduce
from bench.cli.status import Status
from bench.errors import ResultsError
from bench.results import (
    TRAINING,
    ResultWriter,
    check_data,
    compare_runs,
    metric_rows,
    run_progress,
)
from bench.storage import (
    PlannedCell,
    RunLock,
    RunRecord,
    collect_provenance,
    read_run,
    record_data,
    write_run,
)

from .make_runs import cell, evaluation, make_run, suite_settings


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


def test_report_of_what_has_not_begun_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = [PlannedCell(**cell(), final_steps={"offline": 100}, pack="p")]
    write_run(tmp_path / "a run", RunRecord(["bench"], {}, collect_provenance([]), planned))
    assert Report((tmp_path / "a run",)).run() == 0
    printed = capsys.readouterr().out
    assert printed.startswith("nothing has been evaluated yet; `bench status '")
    assert "success %" not in printed


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


def test_status_of_a_pack_whose_table_lies_elsewhere(tmp_path: Path) -> None:
    start_run(tmp_path)
    of_q = ResultWriter(tmp_path / "packs" / "renamed" / "training.parquet", TRAINING)
    of_q.append(metric_rows(cell(seed=1), "offline", 10, {"loss": 1.0}))
    (run,) = run_progress([tmp_path])
    assert (run.done, run.planned, run.share) == (0, 2, 0.25)


def test_status_of_packs_that_are_trained_side_by_side(tmp_path: Path) -> None:
    begun = start_run(tmp_path)
    of_q = ResultWriter(tmp_path / "packs" / "q" / "training.parquet", TRAINING)
    of_q.append(metric_rows(cell(seed=1), "offline", 10, {"loss": 1.0}))
    now = begun + timedelta(seconds=20)
    with RunLock(tmp_path), RunLock(tmp_path / "packs" / "p"), RunLock(tmp_path / "packs" / "q"):
        (run,) = run_progress([tmp_path], now)
    assert run.running == 2
    assert run.updates_per_second == 8.0  # q is taken to be as fast as p
    assert run.share == pytest.approx(0.25)  # 40 and 10 of 100 steps each
    # 60 steps of p and 90 of q at half a second, both at a time: q alone takes 45 seconds.
    assert run.remaining == timedelta(seconds=45)


def test_status_of_a_first_evaluation_reads_the_log(tmp_path: Path) -> None:
    begun = datetime.now(UTC) - timedelta(seconds=60)
    planned = [PlannedCell(**cell(), final_steps={"offline": 100}, pack="p")]
    write_run(tmp_path, RunRecord(["bench"], {}, collect_provenance([]), planned))
    ResultWriter(tmp_path / "packs" / "p" / "evaluations.parquet").append(
        [evaluation(cell(), 0, 1, recorded_at=begun)]
    )
    log = tmp_path / "packs" / "p" / "training.parquet"
    ResultWriter(log, TRAINING).append(metric_rows(cell(), "offline", 40, {"loss": 1.0}))
    os.utime(log, (begun.timestamp() + 20,) * 2)
    with RunLock(tmp_path):
        (run,) = run_progress([tmp_path], begun + timedelta(seconds=21))
    assert run.updates_per_second == pytest.approx(2.0)
    assert run.remaining == timedelta(seconds=30)  # 60 steps


def test_status_in_a_pipe_is_plain_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "[red]brackets", [(cell(), {100: 45})])
    assert Status((tmp_path,)).run() == 0
    printed = capsys.readouterr().out
    assert "[red]brackets" in printed
    assert printed.endswith("\n")
    assert printed.count("updates/s") == 1


def test_compare_in_a_pipe_keeps_its_cells_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swept = {"variant": "kl-budget=0.125, steps=200, learning-rate=0.0001, critics=10"}
    rows = [(cell(task, seed) | swept, {100: 20 + seed}) for task in (1, 2) for seed in (0, 1)]
    make_run(tmp_path / "a", rows, metrics=False)
    assert Compare(tmp_path / "a", tmp_path / "a").run() == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if " 41.0 " in line)
    assert f"trqam [{swept['variant']}]" in line


def test_status_counts_phases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = [cell(seed=0), cell(seed=1) | {"variant": "kl-budget=1"}]
    planned = [
        PlannedCell(**c, final_steps={phase: end}, pack=f"{phase}-{c['seed']}")
        for c in of
        for phase, end in (("offline", 100), ("online", 50))
    ]
    run = tmp_path / "a-name-that-would-be-folded-where-there-are-80-columns"
    write_run(run, RunRecord(["bench"], {}, collect_provenance([]), planned))
    for seed, steps in ((0, (50, 100)), (1, (50,))):
        ResultWriter(run / "packs" / f"offline-{seed}" / "evaluations.parquet").append(
            [evaluation(of[seed], step, 10) for step in steps]
        )
    ResultWriter(run / "packs" / "online-0" / "evaluations.parquet").append(
        [evaluation(of[0], 25, 10, phase="online")]
    )
    (progress,) = run_progress([tmp_path])
    assert progress.phases == {"offline": (1, 2), "online": (0, 2)}
    assert (progress.done, progress.planned, progress.state) == (0, 2, "stopped")
    assert progress.share == pytest.approx((100 + 50 + 25) / 300)
    ResultWriter(run / "packs" / "online-0" / "evaluations.parquet").append(
        [evaluation(of[0], 50, 10, phase="online")]
    )
    assert run_progress([tmp_path])[0].done == 1
    make_run(tmp_path / "other", [(cell(), {100: 45})])
    assert Status((tmp_path,)).run() == 0
    printed = capsys.readouterr().out
    assert run.name in printed
    assert "offline 1/2, online 1/2" in printed
    assert "1/2 runs done" in printed


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
    assert method.verdict == comparison.verdict
    assert method.verdict.startswith("A is better with trqam (offline): +40.0 points for A, 95 % [")
    assert "], significant (p = " in method.verdict
    assert "Holm" not in method.verdict
    assert Compare(a, b).run() == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith(comparison.verdict)
    assert compare_runs(b, a).verdict.startswith("B is better with trqam (offline): -40.0 points")


def test_compare_does_not_find_what_is_not_there(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", seeds("trqam", 20, 30, 40))
    b = make_run(tmp_path / "b", seeds("qam", 22, 31, 36))
    (method,) = compare_runs(a, b).methods
    assert (method.first, method.second) == ("trqam", "qam")
    assert method.verdict.startswith(
        "Neither is shown to be better with trqam against qam (offline): "
    )
    assert "not significant" in method.verdict


def test_compare_corrects_for_the_number_of_comparisons(tmp_path: Path) -> None:
    # Four seeds a side on one task: of 70 relabellings two are as extreme, p = 2/70.
    def one_task(agent: str, *finals: int) -> list[tuple[dict[str, object], dict[int, int]]]:
        return [(cell(1, seed, agent), {100: final}) for seed, final in enumerate(finals)]

    high, low = (40, 41, 42, 43), (20, 21, 22, 23)
    a = make_run(tmp_path / "a", one_task("trqam", *high))
    b = make_run(tmp_path / "b", one_task("trqam", *low))
    assert compare_runs(a, b).methods[0].better == "A"
    several = [
        make_run(tmp_path / name, [*one_task("trqam", *first), *one_task("qam", *second),
                                   *one_task("fql", 30)])
        for name, first, second in (("c", high, (30, 20, 25, 28)), ("d", low, (31, 19, 25, 27)))
    ]  # fmt: skip
    comparison = compare_runs(*several)
    fql, qam, trqam = comparison.methods
    assert trqam.p_value == pytest.approx(2 / 70, abs=0.005)
    assert trqam.p_corrected == pytest.approx(2 * trqam.p_value)
    assert (fql.better, qam.better, trqam.better) == (None, "neither", "neither")
    assert "corrected by Holm for 2 comparisons" in trqam.verdict
    assert comparison.verdict == (
        "Neither is shown to be better with qam (offline), trqam (offline); no claim can be made "
        "from one seed with fql (offline) (permutation tests over seeds within tasks, p corrected "
        "by Holm for 2 comparisons)"
    )


def test_compare_names_settings_as_the_user_gives_them(tmp_path: Path) -> None:
    domain = "pointmaze-medium-navigate"

    def run(name: str, budget: float, rate: float, agent: str = "trqam", **other: int) -> Path:
        settings = suite_settings("quick", domain, agent, **other)
        values = {"kl_budget": budget, "learning_rate": rate, "flow_steps": 10}
        settings["packs"]["pack"]["settings"] = values
        finals = (20, 21) if name == "a" else (20, 21, 22)
        return make_run(tmp_path / name, seeds(agent, *finals), settings=settings)

    a = run("a", 0.4, 1e-3)
    assert compare_runs(a, run("b", 0.7, 3e-4, offline_steps=100)).settings == {
        "--steps": ("8000", "100"),
        "seeds": ("0, 1", "0, 1, 2"),
        "--kl-budget": ("0.4", "0.7"),
        "--set learning_rate": ("0.001", "0.0003"),
    }
    # Of another agent: what both have.
    other = run("c", 0.4, 3e-4, "qam")
    record = read_run(other)
    del record.settings["packs"]["pack"]["settings"]["kl_budget"]
    write_run(other, record)
    assert compare_runs(a, other).settings == {
        "--agent": ("trqam", "qam"),
        "seeds": ("0, 1", "0, 1, 2"),
        "--set learning_rate": ("0.001", "0.0003"),
    }
    # What only one of them knows of is noted, not listed.
    newer = run("d", 0.4, 1e-3)
    record = read_run(newer)
    record.settings["packs"]["pack"]["settings"]["kernel"] = "follmer"
    write_run(newer, record)
    comparison = compare_runs(a, newer)
    assert comparison.settings == {"seeds": ("0, 1", "0, 1, 2")}
    assert "recorded by B only, so not compared: --set kernel" in comparison.notes


def test_compare_does_not_name_lists_after_options_that_take_numbers(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", seeds("trqam", 20, 21))
    b = make_run(tmp_path / "b", [(cell(1, seed), {100: 20}) for seed in (0, 1)])
    tasks = [cell(index)["task"] for index in (1, 2)]
    assert compare_runs(a, b).settings == {"tasks": (", ".join(tasks), tasks[0])}
    record = read_run(b)
    record.settings["compiled"] = True
    write_run(b, record)
    comparison = compare_runs(a, b)
    assert comparison.settings["--compile"] == ("False", "True")
    assert not any("recorded by" in note for note in comparison.notes)


def cloned_and(
    directory: Path, agent: str, *variants: str, cloned: int = 15, tasks: tuple[int, ...] = (1, 2)
) -> Path:
    """Runs of an agent (its variants) on the tasks, and of the policy that they start from."""
    methods = [("bc", "", cloned), *((agent, variant, 30) for variant in variants)]
    return make_run(
        directory,
        [
            (cell(task, seed, name) | {"variant": variant}, {100: finals + task + seed})
            for name, variant, finals in methods
            for task in (tasks if name != "bc" else (1, 2))
            for seed in (0, 1)
        ],
        metrics=False,
    )


def as_pretraining(run: Path) -> Path:
    """The same run with its cloned policies in the phase that they belong to."""
    record = read_run(run)
    record.cells[:] = [
        replace(of, final_steps={"pretrain": 100}) if of.agent == "bc" else of
        for of in record.cells
    ]
    write_run(run, record)
    table = run / "packs" / "pack" / "evaluations.parquet"
    cloned = pl.when(agent="bc").then(pl.lit("pretrain")).otherwise("phase")
    pl.read_parquet(table).with_columns(phase=cloned).write_parquet(table)
    return run


def test_compare_says_which_methods_it_did_not_compare(tmp_path: Path) -> None:
    trqam = as_pretraining(cloned_and(tmp_path / "a", "trqam", ""))
    two = as_pretraining(cloned_and(tmp_path / "b", "cgql-l", "mode=mse", "mode=simple"))
    comparison = compare_runs(trqam, two)
    assert [method.name for method in comparison.methods] == ["bc (pretrain)"]
    assert comparison.verdict.startswith("Only cloned policies are compared. Neither is shown")
    assert comparison.notes[0].startswith(
        "not compared: A has trqam, B has cgql-l [mode=mse], cgql-l [mode=simple]; "
    )
    # The single methods of both runs are compared, and lead.
    one = as_pretraining(cloned_and(tmp_path / "c", "cgql-l", "mode=mse"))
    comparison = compare_runs(trqam, one)
    assert [m.name for m in comparison.methods] == ["trqam against cgql-l [mode=mse] (offline)"]
    assert comparison.verdict.startswith("Neither is shown to be better with trqam against cgql-l")
    assert not any("not compared" in note for note in comparison.notes)
    # One of two has a partner of its name.
    comparison = compare_runs(two, one)
    assert [m.name for m in comparison.methods] == ["cgql-l [mode=mse] (offline)"]
    assert comparison.notes[0].startswith("not compared: A has cgql-l [mode=simple]; ")
    # A name in common is not enough.
    elsewhere = as_pretraining(cloned_and(tmp_path / "d", "trqam", "", tasks=(4, 5)))
    comparison = compare_runs(trqam, elsewhere)
    assert comparison.verdict.startswith("Only cloned policies are compared. ")
    assert comparison.notes[0].startswith("not compared: A has trqam, B has trqam; ")


def test_compare_prints_a_note_about_both_runs_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = make_run(tmp_path / "a", seeds("trqam", 20, 21))
    b = make_run(
        tmp_path / "b", seeds("trqam", 20, 21), more_cells=[cell(5)], data_source="random policy"
    )
    starts = [note.split(" ")[:4] for note in compare_runs(a, b).notes]
    assert sorted(" ".join(start) for start in starts) == [
        "A and B: 2",
        "B: incomplete: 2/3 tasks,",
        "B: trained on data",
        "trained on different data:",
    ]
    assert Compare(a, b).run() == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("bootstrap intervals over fewer than 5 seeds") == 1
    assert "note: A and B: 2 seeds: " in printed


def test_compare_of_single_seeds_makes_no_claim(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", seeds("trqam", 48))
    b = make_run(tmp_path / "b", seeds("trqam", 2), data_source="downloaded")
    comparison = compare_runs(a, b)
    assert comparison.verdict.startswith("No claim can be made with trqam (offline): +92.0 points")
    assert any("different data: generated and downloaded" in note for note in comparison.notes)
    c = make_run(tmp_path / "c", [(cell(5), {100: 1})])
    with pytest.raises(ResultsError, match="no finished runs of a common method and task"):
        compare_runs(a, c)


DATASET = "pointmaze-medium-navigate-100k-v0"


def write_data(folder: Path, seed: int) -> str:
    """A file in OGBench's layout; returns its fingerprint."""
    from bench.data import inspect_file

    folder.mkdir(exist_ok=True)
    source = np.random.default_rng(seed)
    file = folder / f"{DATASET}.npz"
    np.savez(
        file,
        observations=source.normal(size=(20, 2)).astype(np.float32),
        actions=source.uniform(-1, 1, size=(20, 2)).astype(np.float32),
        terminals=np.arange(1, 21) % 10 == 0,
    )
    return inspect_file(file).fingerprint


@pytest.fixture
def clean_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"commit": "c" * 40, "modified": False}
    monkeypatch.setattr("bench.storage._provenance._git_state", lambda _: state)


@pytest.mark.usefixtures("clean_tree")
def test_reproduce_prints_the_command_and_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", [(cell(), {100: 45})])
    fingerprint = write_data(tmp_path / "data", seed=0)
    provenance = collect_provenance([])
    command = ["bench", "offline", "--out", "my runs/a"]
    write_run(run, RunRecord(command, {}, provenance))
    folder = str(tmp_path / "data")
    origin = {"fingerprint": fingerprint, "source": "generated", "folder": folder}
    record_data(run, DATASET, origin)
    assert Reproduce(run).run() == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "bench offline --out 'my runs/a'",
        f"# source: git checkout {'c' * 40}",
        f"# data {DATASET}: generated, {fingerprint[:12]}: the same in {folder}",
        "# this environment is the same as the run's",
    ]
    other = write_data(tmp_path / "data", seed=1)
    (tmp_path / "data" / f"{DATASET}.json").unlink(missing_ok=True)
    assert Reproduce(run).run() == 1
    printed = capsys.readouterr().out.splitlines()
    assert f"# data {DATASET}: generated, {fingerprint[:12]}: not the same here" in printed
    assert f"hold other data, fingerprint {other[:12]}" in printed[-1]
    assert Reproduce(run, data_dir=tmp_path / "nowhere").run() == 1
    assert f"bench data generate {DATASET}" in capsys.readouterr().out
    write_data(tmp_path / "data", seed=0)
    record = read_run(run)
    record.provenance["packages"]["torch"] = "0.4"
    write_run(run, record)
    assert Reproduce(run).run() == 1
    differs = [line for line in capsys.readouterr().out.splitlines() if "differs" in line]
    assert len(differs) == 1
    assert "0.4 there" in differs[0]


def test_what_is_no_run_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path, tmp_path / "nothing"):
        with pytest.raises(ResultsError, match=r"is no run directory: it has no run\.json"):
            Reproduce(place).run()


def test_contents_count_and_not_what_is_noted_beside_them(tmp_path: Path) -> None:
    from bench.data import ensure_record, locate

    run = make_run(tmp_path / "run", [(cell(), {100: 45})])
    fingerprint = write_data(tmp_path / "data", seed=0)
    origin = {"source": "generated", "folder": str(tmp_path / "data")}
    record_data(run, DATASET, origin | {"fingerprint": fingerprint})
    ensure_record(locate(DATASET, tmp_path / "data"))  # writes the record with seed 0's fingerprint
    assert [check.problem for check in check_data(run)] == [""]
    write_data(tmp_path / "data", seed=1)  # of the same length
    (check,) = check_data(run)
    assert check.found is None
    assert "hold other data" in check.problem


def test_runs_that_did_not_note_their_data_are_asked_by_their_rows(tmp_path: Path) -> None:
    fingerprint = write_data(tmp_path / "data", seed=0)
    packs = {"packs": {"pack": {"dataset": DATASET}}}
    run = make_run(
        tmp_path / "run", [(cell(), {100: 45})], settings=packs, data_fingerprint=fingerprint
    )
    (check,) = check_data(run, tmp_path / "data")
    assert (check.dataset, check.found) == (DATASET, tmp_path / "data")
    unnamed = make_run(tmp_path / "unnamed", [(cell(), {100: 45})])
    (check,) = check_data(unnamed, tmp_path / "data")
    assert (check.dataset, check.found) == ("pointmaze-medium-navigate", None)
    assert check.problem


def test_the_command_modules_import_neither_torch_nor_polars() -> None:
    program = (
        "import sys, bench.cli.report, bench.cli.status, bench.cli.compare, bench.cli.reproduce;"
        "assert not {'torch', 'polars', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
