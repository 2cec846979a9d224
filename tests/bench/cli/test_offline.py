"""The offline job from its command line: finish, continue, kill, refuse."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch

from bench.cli import main
from bench.data import generate
from bench.results import TIMING_COLUMNS, scan_training
from bench.storage import load_checkpoint, read_log, read_run, write_run
from bench.training.compilation import has_compiler
from bench.training.trainer import Trainer

from ..recorded_updates import RecordedUpdates

SMOKE = ("offline", "--suite", "quick", "--preset", "smoke")
STEPS = 120


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data")
    generate("pointmaze-medium-navigate-5k-v0", place, transitions=5_000, processes=1)
    return place


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )


def arguments(out: Path, data_dir: Path, *more: str) -> list[str]:
    return [*SMOKE, "--out", str(out), "--data-dir", str(data_dir), *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    done = run(*arguments(out, data_dir, "--steps", str(STEPS)))
    assert done.returncode == 0, done.stderr
    for text in ("task1", "task2", "trqam", "bc", "results.md", "next:"):
        assert text in done.stdout
    assert done.stderr == ""
    return out


def evaluations(out: Path) -> pl.DataFrame:
    files = sorted(out.glob("packs/*/evaluations.parquet"))
    assert len(files) == 2
    return pl.concat(map(pl.read_parquet, files)).drop(TIMING_COLUMNS)


def test_rows_say_where_they_come_from(finished: Path) -> None:
    rows = evaluations(finished)
    assert set(rows["phase"]) == {"pretrain", "offline"}
    assert rows.filter(phase="offline")["step"].unique().sort().to_list() == [
        *range(10, STEPS + 1, 10)
    ]
    assert set(rows["data_source"]) == {"generated"}
    for column in ("data_fingerprint", "protocol_fingerprint", "mujoco_version", "torch_version"):
        assert rows[column].null_count() == 0
    assert rows.filter(phase="offline")["path_kl"].null_count() == 0
    assert set(rows["kl_budget"].drop_nulls().round(6)) == {0.4}


def test_a_finished_run_is_not_repeated(finished: Path, data_dir: Path) -> None:
    before = evaluations(finished)
    stamps = {p: p.stat().st_mtime_ns for p in finished.glob("packs/*/checkpoints/*/*")}
    done = run(*arguments(finished, data_dir, "--steps", str(STEPS)))
    assert done.returncode == 0, done.stderr
    assert "trqam" in done.stdout
    assert evaluations(finished).equals(before)
    assert {p: p.stat().st_mtime_ns for p in finished.glob("packs/*/checkpoints/*/*")} == stamps


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_numbers(
    finished: Path, data_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    command = arguments(out, data_dir, "--steps", str(STEPS))
    waits = random.Random(7)
    resumed_from = []
    for _ in range(40):
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        before = newest(out)
        deadline = time.monotonic() + 120
        # Start-up takes most of the time; what is to be interrupted is the training after it.
        while newest(out) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(waits.uniform(0.0, 0.6))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if process.returncode == 0:
            break
        resumed_from.append(newest(out))
        if len(resumed_from) == 4:
            break
    assert len(resumed_from) >= 2
    assert any(0 < step < STEPS for step in resumed_from)
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert evaluations(out).equals(evaluations(finished))
    for pack in ("bc", "trqam"):
        (mine,) = out.glob(f"packs/*--{pack}--*")
        theirs = finished / mine.relative_to(out)
        found, expected = (
            load_checkpoint(mine / "checkpoints"),
            load_checkpoint(theirs / "checkpoints"),
        )
        assert found is not None
        assert expected is not None
        assert found.step == expected.step
        for name, value in expected.tensors.items():
            assert found.tensors[name].equal(value), name


def newest(out: Path) -> int:
    steps = [
        int(p.name.removeprefix("step-"))
        for p in out.glob("packs/*--trqam--*/*/step-*")
        if p.suffix == ""
    ]
    return max(steps, default=-1)


def test_another_process_on_the_directory_is_refused(tmp_path: Path, data_dir: Path) -> None:
    out = tmp_path / "held"
    command = arguments(out, data_dir, "--steps", "100000")
    holder = subprocess.Popen(
        [sys.executable, "-m", "bench", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (out / "run.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        second = run(*command)
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()
    assert second.returncode == 1
    assert f"process {holder.pid}" in second.stderr
    assert second.stderr.startswith("error: ")
    assert "Traceback" not in second.stderr


def test_other_settings_need_another_directory(
    finished: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(arguments(finished, data_dir, "--steps", str(STEPS), "--kl-budget", "0.7"))
    assert status == 2
    message = capsys.readouterr().err
    assert "(--kl-budget: 0.4 there, 0.7 asked for); repeat its command" in message
    assert "--out" in message


def test_a_command_that_trained_nothing_does_not_hold_its_directory(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    suite = ("offline", "--suite", "ogbench50", "--domains", "cube-double-play", "--tasks", "1")
    nowhere = ("--data-dir", str(tmp_path / "nowhere"), "--out", str(out), "--device", "cpu")
    assert main([*suite, *nowhere]) == 2
    assert "not on this machine" in capsys.readouterr().err
    assert read_run(out).settings["suite"] == "ogbench50"
    # Nor do the data that it was begun with.
    record = read_run(out)
    origin = {"fingerprint": "0" * 64, "source": "generated", "folder": "nowhere"}
    record.provenance["data"] = {"pointmaze-medium-navigate-5k-v0": origin}
    write_run(out, record)
    assert main([*arguments(out, data_dir, "--tasks", "1", "--steps", "5")]) == 0
    assert read_run(out).settings["suite"] == "quick"
    assert main([*arguments(out, data_dir, "--tasks", "1", "--steps", "4")]) == 2
    assert "--steps: 5 there, 4 asked for" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    finished: Path, data_dir: Path, tmp_path: Path
) -> None:
    import shutil

    out = tmp_path / "damaged"
    shutil.copytree(finished, out)
    (pack,) = out.glob("packs/*--trqam--*")
    newest_file = sorted(pack.glob("checkpoints/step-*/tensors.safetensors"))[-1]
    content = bytearray(newest_file.read_bytes())
    content[len(content) // 2] ^= 1
    newest_file.write_bytes(content)
    done = run(*arguments(out, data_dir, "--steps", str(STEPS)))
    assert done.returncode == 0, done.stderr
    warnings = [r["message"] for r in read_log(out / "log.jsonl") if r["level"] == "WARNING"]
    assert any("damaged" in text and newest_file.parent.name in text for text in warnings)
    assert f"warning: damaged checkpoint {newest_file.parent}" in done.stderr
    assert evaluations(out).equals(evaluations(finished))


@pytest.mark.slow
def test_a_lost_directory_or_damaged_checkpoints_end_the_command_until_somebody_decides(
    tmp_path: Path,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, elsewhere = tmp_path / "runs" / "run", tmp_path / "elsewhere"
    given = arguments(out, data_dir, "--tasks", "1")
    advance = Trainer.advance

    def renamed(trainer: Trainer) -> None:
        if trainer.pack.agent == "trqam" and trainer.step == 7:
            out.rename(elsewhere)
        advance(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", renamed)
        assert main(given) == 1
    assert "renamed or deleted" in capsys.readouterr().err
    assert not out.exists()
    elsewhere.rename(out)
    assert main(given) == 0  # clones, their rows and the steps before are there
    assert {path.name.split("--")[1] for path in (out / "packs").iterdir()} == {"bc", "trqam"}
    assert "2/2 runs finished" in capsys.readouterr().out
    for path in out.glob("packs/*trqam*/checkpoints/*/tensors.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    for _ in range(2):  # a queue repeats the command
        assert main(given) == 1
        assert "is damaged" in capsys.readouterr().err


def test_damaged_data_are_named(data_dir: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "data"
    shutil.copytree(data_dir, folder)
    file = folder / "pointmaze-medium-navigate-5k-v0.npz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    done = run(*arguments(tmp_path / "out", folder))
    assert done.returncode in (1, 2)
    assert str(file) in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_data_say_which_command_makes_them(tmp_path: Path) -> None:
    done = run(
        "offline", "--suite", "ogbench50", "--domains", "cube-double-play", "--tasks", "1",
        "--data-dir", str(tmp_path / "none"), "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert "bench data generate cube-double-play-v0" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--suite", "quik"], "quick"),
        (["--agent", "trqm"], "trqam"),
        (["--set", "kl_bugdet=1"], "kl_budget"),
        (["--agent", "trqam", "fql", "--set", "kl_bugdet=1"], "perhaps you meant kl_budget"),
        (["--agent", "bc", "--set", "kl_budget=1"], "unknown setting of bc"),
        (["--set", "num_critics=two"], "num_critics must be int, got 'two'"),
        (["--set", "num_critics=0"], "num_critics must be 1 to 1000, got 0"),
        (["--set", "actor_hidden=0"], "actor_hidden must be widths from 1 to 131,072, got 0"),
        (["--set", "budget_schedule=linear"], "rejects its settings: budget_schedule=linear goes"),
        (["--set", "kl_budget"], "--set takes name=value, got 'kl_budget'"),
        (["--set", "discount=1.5"], "discount must be 0 to 1, got 1.5"),
        (["--set", "num_action_samples=0"], "num_action_samples must be 1 to 10000, got 0"),
        (["--set", "rho=nan"], "rho must be finite, got nan"),
        (["--agent", "qam", "--set", "inverse_temperature=-3"], "inverse_temperature must be"),
        (["--kl-budget", "1", "--set", "kl_budget=2"], "kl_budget was given twice"),
        (["--set", "num_critics=2", "num_critics=3"], "num_critics was given twice"),
        (["--agent", "trqam", "fql", "trqam"], "--agent lists trqam twice; list each value once"),
        (["--tasks", "1,2,1"], "--tasks lists 1 twice"),
        (["--agent", "qam", "--dual", "solve"], "no trust region; --dual does not apply"),
        (["--kl-budget", "-1"], "--kl-budget must be above 0, got -1.0"),
        (
            ["--agent", "all", "qam"],
            "--agent all cannot be combined with other agents, got all qam",
        ),
        (["--first-seed", "9" * 20], "--first-seed must be a whole number of at most 18 digits"),
        (["--first-seed", "-1"], "--first-seed must be at least 0 and of at most 18 digits"),
        (["--seeds", "100000000"], "--seeds is a count of at most 10,000, got 100000000"),
        (["--set", "kl-budget=-1"], "error: kl-budget must be above 0, got -1.0"),
        (["--set", "kl_budget=-1"], "error: kl_budget must be above 0, got -1.0"),
        (["--agent", "bc", "--kl-budget", "1"], "no trust region; --kl-budget does not apply"),
        (
            ["--kl-budget", "1", "--set", "dual-rate=0"],
            "--kl-budget does not apply: dual_rate=0 holds",
        ),
        (["--set", "dual_rate=0", "dual_clip=3"], "dual_clip does not apply: dual_rate=0 holds"),
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--tasks", "9"], "1, 2"),
        (["--domains", "pointmaze-medum-navigate"], "pointmaze-medium-navigate"),
        (["--precision", "tf32", "--device", "cpu"], "float32 or bfloat16"),
        (["--device", "tpu"], "cpu, cuda"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--pack", "0"], "--pack must be at least 1, got 0"),
        (["--agent", "rlpd"], "only learns online"),
    ],
)
def test_bad_input_is_one_clear_line(
    given: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["offline", "--out", str(tmp_path / "out"), *given]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert expected in message
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_a_file_is_found_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for option in ("--out", "--data-dir"):
        assert main(["offline", "--dry-run", option, str(tmp_path / "file" / "below")]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"error: {option} ")
        assert "file is a file, expected a folder" in message


def test_a_repeated_option_adds_its_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["offline", "--agent", "trqam", "--set", "num_critics=3", "--tasks", "1", "--dry-run"]
    more = [
        "--set=num_action_samples=4",
        "--agent",
        "qam",
        "--tasks",
        "2",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*given, *more]) == 0
    text = capsys.readouterr().out
    assert "4 runs to fine-tune" in text
    assert "--trqam--" in text
    assert "--qam--" in text
    assert text.count("num_critics=3,") == text.count("num_action_samples=4") == 2
    assert main(["offline", "--seeds", "1", "--seeds", "2", "--dry-run", "--dry-run"]) == 2
    assert capsys.readouterr().err == "error: --seeds was given twice\n"
    assert main(["data", "get", "--retries", "1", "--retries", "2"]) == 2
    assert capsys.readouterr().err == "error: --retries was given twice\n"


def test_a_directory_that_cannot_be_made_is_an_error(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(arguments(tmp_path / "file" / "out", data_dir)) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["offline", "--suite", "quik", "--debug"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert text.splitlines()[-1].startswith("error: unknown suite 'quik'")


def test_dry_run_lists_settings_and_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["offline", "--dry-run", "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "pointmaze-medium-navigate--trqam" in text
    assert "kl_budget=0.4" in text
    assert not (tmp_path / "out").exists()


def test_measured_packs_are_those_of_the_run_when_it_goes_on(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments(tmp_path / "out", data_dir, "--seeds", "2", "--pack", "auto")
    assert main([*command, "--steps", "10"]) == 0
    found = read_run(tmp_path / "out").settings["largest_pack"]
    assert found in (1, 2, 4)
    assert main([*command, "--steps", "10"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.skipif(
    not has_compiler(torch.device("cpu")), reason="torch.compile needs a C++ compiler on a CPU"
)
def test_compiled_training_is_eager_training_up_to_rounding(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--tasks", "1", "--steps", "10")
    eager, compiled = (arguments(tmp_path / name, data_dir, *more) for name in ("e", "c"))
    assert main(eager) == 0
    assert main([*compiled, "--compile"]) == 0
    assert read_run(tmp_path / "c").settings["compiled"] is True
    keys = ["step", "metric"]  # the clone is taken from the first run
    tables = (scan_training([tmp_path / name]).collect() for name in ("e", "c"))
    rows = [table.filter(phase="offline").sort(keys) for table in tables]
    assert rows[0].select(keys).equals(rows[1].select(keys))
    assert {"total_loss", "path_kl", "gradient_norm"} <= set(rows[0]["metric"])
    torch.testing.assert_close(
        *(torch.tensor(table["value"].to_numpy()) for table in rows), rtol=1e-3, atol=1e-5
    )
    capsys.readouterr()
    assert main(compiled) != 0  # eager again: that is not the same run
    assert "compiled" in capsys.readouterr().err


def test_captured_training_is_eager_training(
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = arguments(tmp_path / "out", data_dir, "--steps", "10", "--processes", "1")
    assert main([*command, "--capture"]) != 0
    assert "--capture needs a CUDA device, not cpu; leave it out" in capsys.readouterr().err
    monkeypatch.setattr("bench.training.options._check_capture", lambda device: None)
    monkeypatch.setattr("bench.training.trainer.CapturedUpdates", RecordedUpdates)
    captured = arguments(tmp_path / "captured", data_dir, "--steps", "10", "--processes", "1")
    assert main(command) == 0
    assert main([*captured, "--capture"]) == 0
    streamed = arguments(tmp_path / "streamed", data_dir, "--steps", "10", "--processes", "1")
    assert main([*streamed, "--capture", "--data-memory", "0"]) == 0
    assert "not captured, as its data are read from the disk" in capsys.readouterr().out
    keys = ["task", "step", "metric"]  # the clone is taken from the first run
    tables = (scan_training([tmp_path / name]).collect() for name in ("out", "captured"))
    rows = [table.filter(phase="offline").sort(keys).select(*keys, "value") for table in tables]
    assert rows[0].height > 20
    assert rows[0].equals(rows[1])
    assert main(captured) == 0  # a finished run is the same run without --capture


def test_without_pretraining_agents_start_untrained(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "untrained"
    untrained = ("--pretrain-steps", "0", "--tasks", "1", "--processes", "1")
    assert main(arguments(out, data_dir, *untrained, "--agent", "fql")) == 0
    assert [pack.name.split("--")[1] for pack in (out / "packs").iterdir()] == ["fql"]
    assert not (tmp_path / "pretrained").exists()
    assert read_run(out).settings["protocol"]["pretrain_steps"] == 0
    (pack,) = (out / "packs").iterdir()
    assert set(scan_training([out]).collect()["phase"].to_list()) == {"offline"}
    assert load_checkpoint(pack / "checkpoints").step == 20  # type: ignore[union-attr]
    capsys.readouterr()
    assert main(arguments(tmp_path / "bc", data_dir, *untrained, "--agent", "bc")) == 2
    assert "agent 'bc' has nothing to train" in capsys.readouterr().err
    assert main(arguments(tmp_path / "bc", data_dir, "--pretrain-steps", "-1")) == 2
    assert "--pretrain-steps must be at least 0, got -1" in capsys.readouterr().err
