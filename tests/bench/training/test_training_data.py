"""Data on the disk train the runs that data in memory train."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.cli import main
from bench.data import MappedTaskData, TaskData, bytes_in_memory, load, load_mapped, read_npz
from bench.errors import BenchError
from bench.storage import load_checkpoint
from bench.training.training_data import TrainingData, load_fitting, memory_limit

DATASET = "pointmaze-medium-navigate-5k-v0"
TASKS = ["task1", "task2"]
CPU = torch.device("cpu")


@pytest.fixture(params=["stored", "compressed", "shards"])
def folder(request: pytest.FixtureRequest, data_dir: Path, tmp_path: Path) -> tuple[Path, str]:
    """The same rows in one file that can be mapped, in one that cannot, and in three shards."""
    arrays = read_npz(data_dir / f"{DATASET}.npz", mapped=False)
    if request.param == "shards":
        # Ten million are looked for in ten files; three of them, cut at the ends of episodes.
        name = "pointmaze-medium-navigate-3m-v0"
        ends = np.flatnonzero(arrays["terminals"]) + 1
        cuts = [0, *(int(ends[len(ends) * part // 3 - 1]) for part in (1, 2, 3))]
        for number, rows in enumerate(map(slice, cuts[:-1], cuts[1:])):
            file = tmp_path / name / f"pointmaze-medium-navigate-v0-{number:03d}.npz"
            file.parent.mkdir(exist_ok=True)
            save = np.savez_compressed if number == 1 else np.savez
            save(file, **{key: array[rows] for key, array in arrays.items()})  # type: ignore[arg-type]
        return tmp_path, name
    save = np.savez if request.param == "stored" else np.savez_compressed
    save(tmp_path / f"{DATASET}.npz", **arrays)  # type: ignore[arg-type]
    return tmp_path, DATASET


def test_mapped_data_are_the_loaded_ones(folder: tuple[Path, str]) -> None:
    place, name = folder
    loaded = load(name, TASKS, place)
    for _ in range(2):  # The second time from what the first has written.
        mapped = load_mapped(name, TASKS, place)
        for key in ("observations", "actions"):
            pieces = getattr(mapped, key)
            assert all(isinstance(piece, np.memmap) for piece in pieces)
            np.testing.assert_array_equal(np.concatenate(pieces), getattr(loaded, key))
        for key in ("terminals", "rewards", "masks"):
            np.testing.assert_array_equal(getattr(mapped, key), getattr(loaded, key))
        assert mapped.fingerprint == loaded.fingerprint
        assert mapped.transitions == loaded.transitions
    found = sum(
        getattr(loaded, key).nbytes
        for key in ("observations", "actions", "terminals", "rewards", "masks")
    )
    assert bytes_in_memory(name, len(TASKS), place) == found


@pytest.mark.parametrize("standardise", [False, True])
def test_tables_are_the_same_rows(data_dir: Path, *, standardise: bool) -> None:
    loaded = TrainingData.of(load(DATASET, TASKS, data_dir), CPU, standardise=standardise)
    mapped = TrainingData.of(load_mapped(DATASET, TASKS, data_dir), CPU, standardise=standardise)
    assert mapped.streamed
    assert not loaded.streamed
    np.testing.assert_array_equal(mapped.normalizer.shift, loaded.normalizer.shift)
    np.testing.assert_array_equal(mapped.normalizer.scale, loaded.normalizer.scale)
    np.testing.assert_allclose(mapped.action_std, loaded.action_std, rtol=1e-12)
    rows = torch.arange(len(loaded.episodes.observations))
    assert torch.equal(mapped.episodes.observations[rows], loaded.episodes.observations[rows])
    assert torch.equal(mapped.episodes.actions[rows], loaded.episodes.actions[rows])
    assert mapped.episodes.nbytes < 0.3 * loaded.episodes.nbytes
    assert "on the disk" in mapped.describe()
    assert "in memory on cpu" in loaded.describe()


def test_what_fits_is_loaded(data_dir: Path) -> None:
    needed = bytes_in_memory(DATASET, 1, data_dir)
    assert isinstance(load_fitting(DATASET, ["task1"], data_dir, needed, sparse=False), TaskData)
    limited = load_fitting(DATASET, ["task1"], data_dir, needed - 1, sparse=False)
    assert isinstance(limited, MappedTaskData)


def test_a_full_disk_is_noticed_before_anything_is_written(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = read_npz(data_dir / f"{DATASET}.npz", mapped=False)
    np.savez_compressed(tmp_path / f"{DATASET}.npz", **arrays)  # type: ignore[arg-type]
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BenchError, match=r"written once to .*\.mapped"):
        load_mapped(DATASET, TASKS, tmp_path)
    assert not (tmp_path / ".mapped").exists()


@pytest.mark.parametrize(
    ("text", "amount"), [("8GB", 8 * 10**9), ("500 mb", 5 * 10**8), ("0", 0), ("1.5k", 1500)]
)
def test_amounts(text: str, amount: int) -> None:
    assert memory_limit(text, CPU, 4) == amount


def test_amounts_that_are_none() -> None:
    with pytest.raises(ValueError, match="data-memory must be auto or an amount"):
        memory_limit("much", CPU, 1)


def test_automatic_amounts_are_shared_by_the_processes() -> None:
    assert 0 < memory_limit("auto", CPU, 2) <= memory_limit("auto", CPU, 1)


def test_a_run_from_the_disk_is_the_run_from_memory(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "offline",
        "--suite",
        "quick",
        "--preset",
        "smoke",
        "--tasks",
        "1",
        "--device",
        "cpu",
    ]
    for name, memory, steps in (("memory", "auto", "20"), ("disk", "0", "20")):
        options = ["--data-dir", str(data_dir), "--out", str(tmp_path / name / "run")]
        assert main([*command, *options, "--data-memory", memory, "--steps", steps]) == 0
    said = capsys.readouterr().out
    assert "of rows on the disk" in said
    assert "waited" in said
    for pack in ("bc", "trqam"):
        first, second = (
            load_checkpoint(next((tmp_path / name).glob(f"run/packs/*--{pack}--*")) / "checkpoints")
            for name in ("memory", "disk")
        )
        assert first is not None
        assert second is not None
        assert first.step == second.step == 20
        for name, value in first.tensors.items():
            assert second.tensors[name].equal(value), name
