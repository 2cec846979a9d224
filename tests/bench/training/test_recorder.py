"""Evaluations that training does not wait for."""

import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from bench.agents import Problem
from bench.errors import StoppedError
from bench.results import TIMING_COLUMNS
from bench.simulation import SimulatorPool
from bench.storage import checkpoint_steps, load_checkpoint
from bench.tracking import Curves
from bench.training.policy import Normalizer
from bench.training.recorder import PackRecorder, protocol_fingerprint
from bench.training.stopping import heeding_signals
from bench.training.trainer import Trainer

from .conftest import CONFIG, Poisoned, build_pack, build_trainer

SHARED = {
    "data_source": "generated",
    "data_fingerprint": "0",
    "protocol_fingerprint": "0",
    "mujoco_version": "0",
    "ogbench_version": "0",
    "torch_version": "0",
    "device": "cpu",
    "precision": "float32",
}


class SeenError(Exception):
    pass


@pytest.mark.parametrize(
    ("change", "agents"),
    [
        ({"evaluate_every": 7, "log_every": 3, "checkpoint_every": 9}, set()),
        ({"offline_steps": 21}, {"trqam"}),
        ({"episodes": 3}, {"bc", "trqam"}),
        ({"pretrain_steps": 21}, {"bc", "trqam"}),
    ],
)
def test_protocols_differ_where_final_numbers_may(change: dict[str, int], agents: set[str]) -> None:
    differing = set()
    for agent in ("bc", "trqam"):
        pack = replace(build_pack(), agent=agent)
        other = replace(pack, protocol=replace(pack.protocol, **change))  # type: ignore[arg-type]
        if protocol_fingerprint(pack, CONFIG) != protocol_fingerprint(other, CONFIG):
            differing.add(agent)
    assert differing == agents


def build(
    directory: Path, pool: SimulatorPool, *, overlap: bool, track: Sequence[str] = ()
) -> Trainer:
    trainer = build_trainer(build_pack(), directory, problem=Problem(2, 2, 5))
    trainer.recorder = PackRecorder(
        trainer.pack,
        trainer.agent,
        CONFIG,
        Problem(2, 2, 5),
        Normalizer.identity(2),
        pool,
        torch.device("cpu"),
        directory,
        SHARED,
        overlap=overlap,
        track=track,
    )
    return trainer


def rows(directory: Path) -> pl.DataFrame:
    return pl.read_parquet(directory / "evaluations.parquet").drop(TIMING_COLUMNS)


@pytest.fixture(scope="module")
def sequential(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sequential")
    with SimulatorPool(0) as pool:
        build(directory, pool, overlap=False).run()
    return directory


def test_overlapped_evaluations_give_the_same_rows(sequential: Path, tmp_path: Path) -> None:
    with SimulatorPool(1) as pool:
        trainer = build(tmp_path, pool, overlap=True)
        threads: list[str] = []
        play = PackRecorder._play

        def watched(self: PackRecorder, *arguments: object) -> object:
            threads.append(threading.current_thread().name)
            return play(self, *arguments)  # type: ignore[arg-type]

        PackRecorder._play = watched  # type: ignore[assignment, method-assign]
        try:
            trainer.run()
        finally:
            PackRecorder._play = play  # type: ignore[method-assign]
    assert len(threads) == 2
    assert all(name.startswith("evaluation") for name in threads)
    assert rows(tmp_path).equals(rows(sequential))


@pytest.mark.parametrize("stop", [12, 15])
def test_a_signal_saves_the_step_although_an_evaluation_is_still_played(
    sequential: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    ended, play, wait = threading.Event(), PackRecorder._play, PackRecorder.wait
    main = threading.main_thread().ident
    assert main is not None

    def endless(self: PackRecorder, *given: Any) -> Any:
        assert ended.wait(60.0)
        return play(self, *given)

    def interrupted(self: PackRecorder, before: int | None = None) -> None:
        # The checkpoint of step 15 waits for the evaluation of step 10.
        if self._begun is not None and before is not None and self._begun[0].step < before:
            threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGTERM)).start()
        wait(self, before)

    with SimulatorPool(1) as pool:
        trainer = build(tmp_path, pool, overlap=True)
        trainer.tick = lambda step: signal.raise_signal(signal.SIGTERM) if step == 12 else None
        if stop == 15:
            trainer.tick = lambda step: None
        with monkeypatch.context() as patched:
            patched.setattr(PackRecorder, "_play", endless)
            patched.setattr(PackRecorder, "wait", interrupted)
            with pytest.raises(StoppedError), heeding_signals():
                trainer.run()
        assert checkpoint_steps(trainer.checkpoints)[-1] == stop
        ended.set()
        assert isinstance(trainer.recorder, PackRecorder)
        assert trainer.recorder._begun is not None
        trainer.recorder._begun[-1].result()
        build(tmp_path, pool, overlap=True).run()
    assert rows(tmp_path).equals(rows(sequential))
    first, second = (load_checkpoint(place / "checkpoints") for place in (sequential, tmp_path))
    assert first is not None
    assert second is not None
    assert first.tensors.keys() == second.tensors.keys()
    for name, value in first.tensors.items():
        assert torch.equal(second.tensors[name], value), name


def test_an_evaluation_ends_with_its_recorder(tmp_path: Path) -> None:
    with SimulatorPool(0) as pool:
        trainer = build(tmp_path, pool, overlap=True)
        recorder = trainer.recorder
        assert isinstance(recorder, PackRecorder)

        def stop_at(step: int) -> None:
            if step == 10:
                raise SeenError

        trainer.tick = stop_at
        with pytest.raises(SeenError):
            trainer.run()
        recorder.close()
        assert recorder._begun is not None
        assert isinstance(recorder._begun[-1].exception(timeout=60.0), CancelledError)


@pytest.mark.parametrize("stop", [10, 12, 15, 20])
def test_an_evaluation_lost_with_its_process_is_played_again(
    sequential: Path, tmp_path: Path, stop: int
) -> None:
    with SimulatorPool(1) as pool:
        trainer = build(tmp_path, pool, overlap=True)
        recorder = trainer.recorder
        assert isinstance(recorder, PackRecorder)

        def stop_at(step: int) -> None:
            if step == stop:
                raise SeenError

        trainer.tick = stop_at
        with pytest.raises(SeenError):
            trainer.run()
        if recorder._begun is not None:  # what a kill would take with it
            recorder._begun[-1].result()
        resumed = build(tmp_path, pool, overlap=True)
        resumed.run()
    assert rows(tmp_path).equals(rows(sequential))


def poisoned(
    directory: Path, pool: SimulatorPool, *, overlap: bool, track: Sequence[str] = ()
) -> Trainer:
    """Its second run is stopped at step 8, seen at the evaluation at step 9 or the log at 10."""
    trainer = build(directory, pool, overlap=overlap, track=track)
    protocol = replace(trainer.pack.protocol, evaluate_every=9, log_every=5)
    trainer.pack = replace(trainer.pack, protocol=protocol)
    trainer.recorder.pack = trainer.pack  # type: ignore[attr-defined]
    trainer.sampler = Poisoned(trainer.sampler, first=8)
    return trainer


@pytest.mark.parametrize("overlap", [False, True])
def test_nothing_is_recorded_of_a_stopped_run_once_it_is_stopped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, overlap: bool
) -> None:
    with SimulatorPool(0) as pool:
        poisoned(tmp_path, pool, overlap=overlap).run()
        found = rows(tmp_path).sort("step")
        sound, stopped = (found.filter(task=task) for task in sorted(found["task"].unique()))
        assert sound["step"].to_list() == [9, 18, 20]
        assert sound["failure"].null_count() == 3
        assert stopped["step"].to_list() == [8]
        assert stopped["success_rate"].to_list() == [None]
        assert "was not finite" in stopped["failure"][0]
        logged = pl.read_parquet(tmp_path / "training.parquet")
        steps = logged.group_by("task").agg(pl.col("step").unique().sort()).sort("task")
        assert steps["step"].to_list() == [[5, 10, 15, 20], [5]]
        # Neither a resume nor a lost table restores it.
        poisoned(tmp_path, pool, overlap=overlap).run()
        assert rows(tmp_path).sort("step").equals(found)
        (tmp_path / "evaluations.parquet").unlink()
        with caplog.at_level("WARNING"):
            poisoned(tmp_path, pool, overlap=overlap).run()
        assert "evaluations.parquet is gone: its rows up to offline step 20" in caplog.text
        again = rows(tmp_path).sort("step")
    assert again.filter(task=stopped["task"][0]).equals(stopped)
    assert again.filter(task=sound["task"][0])["step"].to_list() == [20]


@dataclass
class Shown:
    """A tracker that keeps what it is told."""

    logged: list[tuple[int, str, int]] = field(default_factory=list)
    stopped: list[tuple[int, int, str]] = field(default_factory=list)

    def log(self, cell: int, group: str, step: int, values: Mapping[str, float]) -> None:
        self.logged.append((cell, group, step))

    def failed(self, cell: int, step: int, reason: str) -> None:
        self.stopped.append((cell, step, reason))

    def close(self) -> None:
        pass


def test_trackers_show_the_settings_that_are_used_and_why_a_run_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Shown] = []

    def opened(curves: Curves, name: str) -> Shown:
        for cell in curves.cells:
            assert cell.settings["settings"] == asdict(CONFIG)
        shown.append(Shown())
        return shown[-1]

    monkeypatch.setattr(Curves, "_tracker", opened)

    def run(stop: int) -> None:
        trainer = poisoned(tmp_path, pool, overlap=False, track=("tensorboard",))

        def stop_at(step: int) -> None:
            if step == stop:
                raise SeenError

        trainer.tick = stop_at
        trainer.run()

    with SimulatorPool(0) as pool:
        with pytest.raises(SeenError):
            run(stop=12)
        run(stop=99)
    first, second = shown
    assert {entry[2] for entry in first.logged if entry[0] == 1} == {5}
    assert {entry[0] for entry in second.logged} == {0}
    for tracker in shown:
        ((cell, step, reason),) = tracker.stopped
        assert (cell, step) == (1, 8)
        assert "was not finite" in reason
