"""Evaluations that training does not wait for."""

import threading
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

from bench.agents import Problem
from bench.results import TIMING_COLUMNS
from bench.simulation import SimulatorPool
from bench.training.policy import Normalizer
from bench.training.recorder import PackRecorder, protocol_fingerprint
from bench.training.trainer import Trainer

from .conftest import CONFIG, build_pack, build_trainer

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


def build(directory: Path, pool: SimulatorPool, *, overlap: bool) -> Trainer:
    trainer = build_trainer(build_pack(), directory, problem=Problem(2, 2, 5))
    trainer.recorder = PackRecorder(
        trainer.pack,
        trainer.agent,
        Problem(2, 2, 5),
        Normalizer.identity(2),
        pool,
        torch.device("cpu"),
        directory,
        SHARED,
        overlap=overlap,
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
