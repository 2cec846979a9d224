"""The online job from its command line: both phases in one table, continue, kill, refuse."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from bench.cli import main
from bench.data import generate
from bench.results import TIMING_COLUMNS
from bench.storage import load_checkpoint, read_run

STEPS = "200"
SMOKE = ("--suite", "quick", "--preset", "smoke")
EVALUATION = ("--evaluate-every", "50")
OFFLINE_FIRST = ("online", *SMOKE, *EVALUATION)
ONLINE = (*OFFLINE_FIRST, "--online-steps", STEPS, "--warm-up", "20")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data")
    generate("pointmaze-medium-navigate-5k-v0", place, transitions=5_000, processes=1)
    return place


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    done = run(*ONLINE, "--out", str(out), "--data-dir", str(data_dir))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "By domain, offline" in done.stdout
    assert "By domain, online" in done.stdout
    return out


def rows(out: Path) -> pl.DataFrame:
    files = sorted(out.glob("packs/*/evaluations.parquet"))
    return pl.concat(map(pl.read_parquet, files)).drop(TIMING_COLUMNS)


def test_both_phases_are_in_the_table(finished: Path) -> None:
    table = rows(finished)
    assert set(table["phase"]) == {"pretrain", "offline", "online"}
    online = table.filter(phase="online")
    assert set(online["task"].unique()) == {
        f"pointmaze-medium-navigate-singletask-task{task}-v0" for task in (1, 2)
    }
    assert online["step"].max() == int(STEPS)
    assert online["path_kl"].null_count() == 0
    assert len(read_run(finished).cells) == 6
    written = (finished / "results.md").read_text()
    assert "online" in written
    assert "offline" in written


def test_an_offline_run_is_continued_where_it_lies(
    tmp_path: Path, finished: Path, data_dir: Path
) -> None:
    out = tmp_path / "offline-first"
    places = ("--out", str(out), "--data-dir", str(data_dir))
    done = run("offline", *SMOKE, *EVALUATION, *places)
    assert done.returncode == 0, done.stderr
    stamps = {p: p.stat().st_mtime_ns for p in out.glob("packs/*/checkpoints/*/*")}
    assert stamps
    done = run(*ONLINE, *places)
    assert done.returncode == 0, done.stderr
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert (
        rows(out).sort("phase", "task", "step").equals(rows(finished).sort("phase", "task", "step"))
    )


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_numbers(
    finished: Path, data_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    command = [*ONLINE, "--out", str(out), "--data-dir", str(data_dir)]
    waits = random.Random(11)
    resumed_from = []
    for _ in range(30):
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        before = newest(out)
        deadline = time.monotonic() + 120
        while newest(out) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(waits.uniform(0.0, 1.0))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if process.returncode == 0:
            break
        resumed_from.append(newest(out))
        if len(resumed_from) == 4:
            break
    assert len(resumed_from) >= 2
    assert any(0 < step < int(STEPS) for step in resumed_from)
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert rows(out).equals(rows(finished))
    (mine,) = out.glob("packs/*--online")
    found = load_checkpoint(mine / "checkpoints")
    expected = load_checkpoint(finished / mine.relative_to(out) / "checkpoints")
    assert found is not None
    assert expected is not None
    assert found.step == expected.step == int(STEPS)
    for name, value in expected.tensors.items():
        if ".environments." not in name:  # wrappers keep the time of day
            assert found.tensors[name].equal(value), name


def newest(out: Path) -> int:
    steps = [
        int(p.name.removeprefix("step-"))
        for p in out.glob("packs/*--online/*/step-*")
        if p.suffix == ""
    ]
    return max(steps, default=-1)


def test_rlpd_learns_without_an_offline_phase(tmp_path: Path, data_dir: Path) -> None:
    out = tmp_path / "rlpd"
    done = run(*ONLINE, "--agent", "rlpd", "--out", str(out), "--data-dir", str(data_dir))
    assert done.returncode == 0, done.stderr
    assert set(rows(out)["phase"]) == {"online"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--online-steps", STEPS, "--warm-up", STEPS), "--warm-up must be at least 0"),
        (("--online-steps", "0"), "--online-steps must be at least 1"),
        (("--offline-share", "0.3"), "add --replay balanced"),
        (("--agent", "bc"), "no online phase"),
        (("--agent", "fql", "--online-kl-budget", "0.3"), "no trust region"),
        (
            ("--online-kl-budget", "0.3", "--set", "dual-rate=0"),
            "--online-kl-budget does not apply: dual_rate=0",
        ),
        (("--online-kl-budget", "-1"), "--online-kl-budget must be above 0, got -1"),
        (("--online-kl-budget", "30", "--dual", "solve"), "dual=solve needs at least e^"),
    ],
)
def test_impossible_options_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert main([*OFFLINE_FIRST, "--out", str(tmp_path / "refused"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert not (tmp_path / "refused").exists()


def test_the_online_budget_is_the_online_phases_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "planned"
    assert main([*ONLINE, "--out", str(out), "--online-kl-budget", "0.15", "--dry-run"]) == 0
    lines = capsys.readouterr().out.replace("\n", " ")
    assert "kl_budget=0.4" in lines
    assert "kl_budget=0.15" in lines
