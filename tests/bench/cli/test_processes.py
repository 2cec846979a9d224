"""Packs in several processes: the same numbers, and nobody outlives a kill."""

import contextlib
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from bench.cli import main
from bench.data import generate
from bench.errors import BenchError
from bench.results import TIMING_COLUMNS
from bench.simulation import SimulatorPool
from bench.training import job
from bench.training.cells import Pack
from bench.training.left_out import LeftOut, PackFailedError
from bench.training.processes import _receive, _serve, _tell, _Worker
from bench.training.run_plan import Plan

COMMAND = ("offline", "--suite", "quick", "--preset", "smoke", "--pack", "1")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data")
    generate("pointmaze-medium-navigate-5k-v0", place, transitions=5_000, processes=1)
    return place


def places(out: Path, data_dir: Path) -> tuple[str, ...]:
    return ("--out", str(out), "--data-dir", str(data_dir))


def start(out: Path, data_dir: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *COMMAND, *places(out, data_dir), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
        # A shell that starts tests in the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def rows(out: Path) -> pl.DataFrame:
    files = sorted(out.glob("packs/*/evaluations.parquet"))
    return pl.concat(map(pl.read_parquet, files)).drop(TIMING_COLUMNS)


def children(pid: int) -> list[int]:
    """Living processes of the group that ``pid`` leads, without itself."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != pid:
            try:
                state, _, group = (entry / "stat").read_text().rpartition(") ")[2].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(group) == pid and state != "Z":
                found.append(int(entry.name))
    return found


def nobody_is_left(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while children(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not children(pid)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    out = tmp_path_factory.mktemp("one") / "run"
    process = start(out, data_dir, "--processes", "1")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out


def test_numbers_do_not_depend_on_the_number_of_processes(
    one_process: Path, data_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "two"
    process = start(out, data_dir, "--processes", "2")
    text, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert errors == ""
    assert "2/2 tasks, 4/4 runs finished" in text
    assert "next: more seeds" in text
    names = sorted(folder.name for folder in out.glob("packs/*"))
    assert [name.split("--")[2] for name in names if "trqam" in name] == ["tasks-1", "tasks-2"]
    assert rows(out).equals(rows(one_process))


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_training_begins_is_said_too(
    sent: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def planned(*_: object) -> None:
        signal.raise_signal(sent)
        raise AssertionError("planning went on")

    before = signal.getsignal(sent)
    monkeypatch.setattr("bench.api.runs.plan_offline", planned)
    assert main(["offline", "--suite", "quick", "--preset", "smoke"]) == 128 + sent
    said = f"error: ended by {sent.name}; rerun the command to resume from the last checkpoint\n"
    assert capsys.readouterr().err == said
    assert signal.getsignal(sent) is before


def test_a_process_that_nobody_hears_ends_without_a_word(
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine, theirs = Pipe()
    mine.close()
    with pytest.raises(SystemExit) as ended:
        _tell(theirs, "failed", (ValueError, "the reason"))
    assert ended.value.code == 1
    assert capsys.readouterr().err == ""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data_dir: Path) -> list[str]:
    """A command that trains three packs in this process, in a moment."""
    monkeypatch.setattr(
        "bench.training.job.SimulatorPool", lambda workers, limits: SimulatorPool(0, limits=limits)
    )
    sizes = ["--steps", "4", "--pretrain-steps", "4", "--evaluate-every", "4", "--episodes", "1"]
    return [*COMMAND, *sizes, "--processes", "1", *places(tmp_path / "run", data_dir)]


def test_a_pack_that_fails_is_left_out_and_the_others_go_on(
    small: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    build, log = job.build_recorder, tmp_path / "run" / "log.jsonl"
    raised = 0

    def failing(part: str, error: BaseException) -> None:
        def built(plan: Plan, pack: Pack, *others: Any) -> Any:
            nonlocal raised
            if part in pack.name:
                raised = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
                raise error
            return build(plan, pack, *others)

        monkeypatch.setattr(job, "build_recorder", built)

    name = "pointmaze-medium-navigate"
    clones = f"{name}--bc--seeds-0"
    failing("--bc--", KeyError("a key"))
    assert main(small) == 1
    said = capsys.readouterr()
    assert "0/4 runs finished" in said.out
    assert said.err.splitlines() == [
        f"error: {clones} was left out: unexpected KeyError in test_processes.py, line {raised}: "
        f"'a key' (traceback: {log}); the other packs go on",
        *(
            f"error: {name}--trqam--tasks-{task}--seeds-0 was left out: it starts from {clones}; "
            "the other packs go on"
            for task in (1, 2)
        ),
    ]

    failing("--tasks-1--", MemoryError())
    assert main(small) == 1
    said = capsys.readouterr()
    (line,) = (line for line in said.err.splitlines() if line.startswith("error: "))
    assert line.startswith(
        f"error: {name}--trqam--tasks-1--seeds-0 was left out: there is not enou"
    )
    assert "3/4 runs finished" in said.out
    assert "MemoryError" in log.read_text()

    failing("nowhere", MemoryError())
    assert main(small) == 0  # nothing was lost, and nothing of it counts as a stopped run
    assert "4/4 runs finished" in capsys.readouterr().out


def served(plan: Any, build: Any, names: Sequence[str] = ()) -> list[tuple[str, Any]]:
    """What a process says that trains the packs of these names."""
    mine, theirs = Pipe()
    thread = threading.Thread(target=_serve, args=(plan, build, theirs))
    thread.start()
    said = []
    for name in names:
        mine.send(name)
        said.append(mine.recv())
    if not names:
        said.append(mine.recv())
    mine.close()
    thread.join(timeout=60)
    assert not thread.is_alive()
    return said


def test_whatever_ends_a_process_is_told_in_words(tmp_path: Path) -> None:
    plan = SimpleNamespace(directory=tmp_path, processes=1, in_order=())

    def told(error: BaseException) -> tuple[type[BaseException], str]:
        @contextlib.contextmanager
        def build(*_: object) -> Iterator[Any]:
            raise error
            yield

        ((kind, content),) = served(plan, build)
        assert kind == "failed"
        return content  # type: ignore[no-any-return]

    assert told(BenchError("in words")) == (BenchError, "in words")
    trace = f"(traceback: {tmp_path / 'log.jsonl'})"
    for error in (KeyError("a"), RecursionError(), MemoryError(), ImportError("b"), TypeError("c")):
        kind, text = told(error)
        assert kind is BenchError
        assert text.endswith(trace)
        assert type(error).__name__ in (tmp_path / "log.jsonl").read_text()
    kind, text = told(BaseException("such as polars raises"))
    assert (kind, text[:24]) == (BenchError, "unexpected BaseException")


def test_a_process_goes_on_after_a_pack_that_fails(tmp_path: Path) -> None:
    packs = [SimpleNamespace(name=name) for name in ("first", "second")]
    plan = SimpleNamespace(
        directory=tmp_path, processes=1, in_order=packs, required=lambda p: set()
    )

    @contextlib.contextmanager
    def build(*_: object) -> Iterator[Any]:
        def train(pack: Any, display: object) -> list[str]:
            if pack.name == "first":
                raise PackFailedError("the reason")
            return ["of a run"]

        yield train

    said = served(plan, build, ["first", "second"])
    assert said == [("left out", "the reason"), ("finished", ["of a run"])]
    # And its parent.
    mine, theirs = Pipe()
    left_out, finished = LeftOut(cast("Plan", plan)), set[str]()
    for message, pack in zip(said, packs, strict=True):
        theirs.send(message)
        worker = _Worker(cast("Any", None), mine, cast("Pack", pack))
        problems = _receive(worker, finished, left_out, cast("Any", None))
        assert worker.pack is None
        assert problems == ([] if pack.name == "first" else ["of a run"])
    assert finished == {"second"}
    assert left_out.problems == ["first was left out: the reason"]
    plan.required = lambda pack: {"first"}
    assert left_out.reject(cast("Pack", packs[1]))
    assert left_out.problems[-1] == "second was left out: it starts from first"


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_stopping_the_parent_ends_all_and_the_next_run_continues(
    sent: signal.Signals, one_process: Path, data_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    process = start(out, data_dir, "--processes", "2")
    deadline = time.monotonic() + 120
    while not list(out.glob("packs/*trqam*/checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    if sent is signal.SIGINT:
        os.killpg(process.pid, sent)  # Ctrl-C reaches the workers as well
    else:
        os.kill(process.pid, sent)
    _, errors = process.communicate()  # workers hold the pipes' other ends until they have gone
    assert nobody_is_left(process.pid)
    if sent is signal.SIGINT:
        assert process.returncode == 130
        assert errors == "interrupted; rerun the command to resume from the last checkpoint\n"
    if sent is signal.SIGTERM:
        assert process.returncode == 143
        said = "error: ended by SIGTERM; rerun the command to resume from the last checkpoint\n"
        assert errors == said
    process = start(out, data_dir, "--processes", "2")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert rows(out).equals(rows(one_process))


@pytest.mark.slow
def test_a_process_that_dies_is_named(data_dir: Path, tmp_path: Path) -> None:
    process = start(tmp_path / "out", data_dir, "--processes", "2", "--steps", "100000")
    deadline = time.monotonic() + 120
    while (
        not list(tmp_path.glob("out/packs/*trqam*/checkpoints/step-*"))
        and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    workers = [
        pid
        for pid in children(process.pid)
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(max(workers), signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.startswith("error: the worker training pointmaze-medium-navigate--trqam")
    assert "rerun the command to resume" in errors
    assert nobody_is_left(process.pid)
