"""A sweep is one run directory: planned, run, interrupted, continued, reported."""

from pathlib import Path

import polars as pl
import pytest

from bench.cli import main
from bench.data import generate
from bench.experiment import SweepRequest
from bench.results import TIMING_COLUMNS, check_data, final_table, run_progress
from bench.storage import read_log, read_run
from bench.training.sweep import plan_sweep
from bench.training.trainer import Trainer

DOMAIN = "pointmaze-medium-navigate"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data")
    generate(f"{DOMAIN}-5k-v0", place, transitions=5_000, processes=1)
    return place


def command(out: Path, data_dir: Path) -> list[str]:
    return [
        "sweep", "--over", "kl-budget=0.1,0.40", "--suite", "quick", "--preset", "smoke",
        "--agent", "trqam", "fql", "--tasks", "1", "--out", str(out), "--data-dir", str(data_dir),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "sweep"
    assert main(command(out, data_dir)) == 0
    return out


def evaluations(out: Path) -> pl.DataFrame:
    files = sorted(out.glob("packs/*/evaluations.parquet"))
    return pl.concat(map(pl.read_parquet, files)).drop(TIMING_COLUMNS)


@pytest.mark.slow
def test_every_value_is_a_variant_of_one_table(finished: Path) -> None:
    rows = evaluations(finished)
    found = rows.select("agent", "variant", "kl_budget").unique().drop_nulls().sort("variant")
    assert found["agent"].to_list() == ["trqam", "trqam"]
    assert found["variant"].to_list() == ["kl-budget=0.1", "kl-budget=0.4"]
    assert found["kl_budget"].round(6).to_list() == [0.1, 0.4]
    # Neither behaviour cloning nor an agent without a budget is swept: one pack of each.
    assert set(rows.filter(pl.col("agent") != "trqam")["variant"]) == {""}
    packs = {path.name for path in (finished / "packs").iterdir()}
    assert packs == {
        f"{DOMAIN}--{method}--seeds-0"
        for method in ("bc", "fql", "trqam--kl-budget=0.1", "trqam--kl-budget=0.4")
    }
    assert len(list((finished.parent / "pretrained").iterdir())) == 1
    table = final_table([finished])
    assert table.coverage.complete
    assert "trqam [kl-budget=0.1]" in (finished / "results.md").read_text()
    assert (finished / "report" / "success-against-kl-budget.svg").exists()
    (progress,) = run_progress([finished])
    assert (progress.state, progress.done, progress.planned) == ("done", 4, 4)


@pytest.mark.slow
def test_a_run_says_what_it_was_made_with(finished: Path, data_dir: Path) -> None:
    provenance = read_run(finished).provenance
    ((dataset, origin),) = provenance["data"].items()
    assert dataset == f"{DOMAIN}-5k-v0"
    assert origin["folder"] == str(data_dir)
    assert {origin["fingerprint"]} == set(evaluations(finished)["data_fingerprint"])
    assert [check.found for check in check_data(finished)] == [data_dir]
    log = read_log(finished / "log.jsonl")
    assert log[0]["event"] == "begun"
    assert log[0]["provenance"]["packages"] == provenance["packages"]
    evaluated = [line for line in log if line.get("event") == "evaluated"]
    assert len(evaluated) == 1 + 3 * 2  # cloning once, three packs at steps 10 and 20
    assert {len(line["successes"]) for line in evaluated} == {1}


@pytest.mark.slow
def test_a_point_has_the_numbers_of_the_run_by_itself(
    finished: Path, data_dir: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    given = command(alone, data_dir)
    given[:3] = ["offline", "--kl-budget", "0.1"]
    assert main(given) == 0
    swept = evaluations(finished).filter(pl.col("variant") != "kl-budget=0.4")
    assert evaluations(alone).equals(swept.with_columns(variant=pl.lit("")))


@pytest.mark.slow
def test_interrupted_it_continues_with_the_same_numbers(
    finished: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "interrupted"
    advance = Trainer.advance

    def interrupted(trainer: Trainer) -> None:
        if "kl-budget=0.4" in trainer.pack.variant and trainer.step == 12:
            raise KeyboardInterrupt
        advance(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", interrupted)
        assert main([*command(out, data_dir), "--processes", "1"]) == 130
    # The evaluation of step 10 may have been under way, and is then played again.
    assert evaluations(out).filter(variant="kl-budget=0.4", step=20).is_empty()
    assert main(command(out, data_dir)) == 0
    assert evaluations(out).equals(evaluations(finished))
    assert [line["event"] for line in read_log(out / "log.jsonl")].count("continued") == 1


def test_settings_of_cloning_get_clones_of_their_own() -> None:
    options = SweepRequest(
        over=("actor-hidden=8x8,16x16", "kl-budget=0.1,1", "steps=30"),
        preset="smoke",
        agent=("trqam", "rebrac"),
    )
    plan = plan_sweep(options)
    assert plan.directory == Path("runs/quick-smoke-sweep-actor-hidden-kl-budget-steps")
    clones = {pack.variant: pack for pack in plan.pretraining}
    assert set(clones) == {("actor-hidden=8x8",), ("actor-hidden=16x16",)}
    trqam = [pack for pack in plan.packs if pack.agent == "trqam"]
    assert len(trqam) == 4
    for pack in trqam:
        (clone,) = plan.pretraining_of(pack)
        assert clone.variant == pack.variant[:1]
        assert plan.configs[clone.name].actor_hidden == plan.configs[pack.name].actor_hidden
        assert pack.protocol.offline_steps == pack.steps == 30
        settings = plan.settings()["packs"][pack.name]
        assert settings["variant"] == ", ".join(pack.variant)
        assert settings["protocol"] == {"offline_steps": 30}
    assert len({pack.name for pack in plan.in_order}) == len(plan.in_order) == 2 + 4 + 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "--over kl-budget=0.1"),
        (["--over", "kl-bugdet=1,2"], "perhaps you meant kl_budget"),
        (["--over", "kl-budget"], "name=value,value,..., got 'kl-budget'"),
        (["--over", "kl-budget=1,,2"], "name=value,value"),
        (["--over", "kl-budget=1,two"], "kl_budget must be float, got 'two'"),
        (["--over", "kl-budget=1,-2"], "at kl-budget=-2: kl_budget must be above 0, got -2"),
        (["--over", "steps=10,0"], "at steps=0: --steps must be at least 1, got 0"),
        (["--over", "steps=10,1.5"], "steps must be int, got '1.5'"),
        (["--over", "kl-budget=1", "--over", "kl-budget=2"], "swept twice"),
        (["--over", "kl-budget=1,3,1.0"], "--over kl-budget lists 1 twice; list each value once"),
        (["--over", "kl-budget=1", "--kl-budget", "3"], "is both swept and set"),
        (["--over", "num_critics=2,4", "--set", "num_critics=3"], "is both swept and set"),
        (
            ["--over", "kl-budget=1", "--agent", "fql"],
            "kl-budget is no setting of fql, bc; with --agent it can be swept for trqam",
        ),
    ],
)
def test_bad_input_is_one_clear_line(
    given: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "--out", str(tmp_path / "out"), *given]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert expected in message
    assert not (tmp_path / "out").exists()


def test_a_setting_without_which_nothing_can_be_planned_may_be_swept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["sweep", "--dry-run", "--out", str(tmp_path / "out"), "--over", "budget-end=0.2,0.3"]
    assert main([*given, "--set", "budget_schedule=linear", "budget_steps=1000"]) == 0
    text = capsys.readouterr().out
    assert text.count("budget_end=0.2,") == text.count("budget_end=0.3,") == 1


def test_dry_run_lists_the_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["sweep", "--over", "kl-budget=0.1,1", "--dry-run", "--out", str(tmp_path / "out")]
    assert main(given) == 0
    text = capsys.readouterr().out
    for budget in ("0.1", "1"):
        for task in (1, 2):
            assert f"trqam--kl-budget={budget}--tasks-{task}--seeds-0" in text
        assert text.count(f"kl_budget={float(budget)},") == 1  # settings once, not for every pack
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_stopped_run_fails_the_command_and_stands_in_no_mean(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str], processes: str
) -> None:
    given = [
        "sweep", "--over", "learning-rate=0.0003,1e30", "--suite", "quick", "--preset", "smoke",
        "--agent", "fql", "--tasks", "1", "--seeds", "2", "--out", str(tmp_path / "runs" / "one"),
        "--data-dir", str(data_dir), "--processes", processes, "--pack", "1",
    ]  # fmt: skip
    for _ in range(2):  # repeating the command changes nothing
        assert main(given) == 1
        shown = " ".join(capsys.readouterr().out.split())
        table = final_table([tmp_path])
        sound = table.cells.filter(pl.col("variant").str.contains("0.0003"))
        assert sound["finished"].all()
        lost = table.cells.filter(pl.col("variant").str.contains("1e30|1e\\+30"))
        assert lost.height >= 2
        assert lost["stopped"].all()
        assert table.domains.join(lost, on=["agent", "variant"], how="semi")["runs"].is_null().all()
        assert f"{table.coverage.runs}/{table.coverage.runs_planned} runs finished" in shown
        assert table.coverage.runs == table.coverage.runs_planned - len(table.coverage.failed)
        assert shown.count("failed: ") == len(table.coverage.failed) == lost.height
    assert main(["status", str(tmp_path)]) == 1
    assert main(["report", str(tmp_path)]) == 1
