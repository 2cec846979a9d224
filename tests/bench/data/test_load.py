import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.data import (
    DataDamaged,
    DataMissing,
    DataRecord,
    ensure_record,
    fingerprint,
    load,
    load_shards,
    locate,
    read_npz,
)

from .conftest import save

MAZE = "pointmaze-medium-navigate-v0"


def test_the_compact_layout(tiny_dir: Path) -> None:
    data = load(MAZE, ["task1", "pointmaze-medium-navigate-singletask-task3-v0"], tiny_dir)
    assert data.observations.shape == (123, 2)
    assert data.actions.shape == (123, 2)
    assert data.rewards.shape == data.masks.shape == (2, 123)
    assert (data.rewards.dtype, data.masks.dtype) == (np.int8, bool)
    np.testing.assert_array_equal(data.episode_ends, [40, 81, 122])
    assert data.transitions == 120
    # PyTorch refuses to share arrays that cannot be written to.
    for key in ("observations", "actions", "terminals", "rewards", "masks"):
        assert getattr(data, key).flags.writeable
        assert getattr(data, key).flags.c_contiguous
    assert data.source == "generated"
    assert data.versions["mujoco"]
    assert data.fingerprint == fingerprint(read_npz(tiny_dir / f"{MAZE}.npz"))


def test_missing_data_say_what_was_tried_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataMissing) as caught:
        load("cube-triple-play-10m-v0", ["task1"], tmp_path)
    text = str(caught.value)
    for folder in ("10m", "100m", "1b"):
        assert str(tmp_path / f"cube-triple-play-{folder}-v0") in text
    assert "bench data generate cube-triple-play-10m-v0" in text
    assert "bench data get cube-triple-play-10m-v0" in text
    assert "bench data import" in text
    with pytest.raises(DataMissing) as caught:
        locate("antsoccer-arena-navigate-v0", tmp_path)
    assert "generate" not in str(caught.value)
    with pytest.raises(DataMissing, match=r"no file .*mine\.npz"):
        locate(str(tmp_path / "mine.npz"))


def test_the_default_folder_is_that_of_ogbench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_DATA_DIR", raising=False)
    with pytest.raises(DataMissing, match=r"/\.ogbench/data/cube-octuple-play-v0\.npz"):
        locate("cube-octuple-play-v0")
    monkeypatch.setenv("BENCH_DATA_DIR", "/elsewhere")
    with pytest.raises(DataMissing, match="/elsewhere/cube-octuple-play-v0"):
        locate("cube-octuple-play-v0")


def _shards(folder: Path, arrays: dict[str, np.ndarray], count: int) -> None:
    for i in range(count):
        shifted = arrays | {"observations": arrays["observations"] + i}
        save(folder / f"pointmaze-medium-navigate-v0-{i:03d}.npz", shifted)


def test_shards_are_joined(tmp_path: Path, maze_arrays: dict[str, np.ndarray]) -> None:
    name = "pointmaze-medium-navigate-3m-v0"
    _shards(tmp_path / name, maze_arrays, 3)
    data = load(name, ["task1", "task2"], tmp_path)
    pieces = list(load_shards(name, ["task1", "task2"], tmp_path))
    assert len(pieces) == 3
    for key in ("observations", "actions", "terminals"):
        expected = np.concatenate([getattr(piece, key) for piece in pieces])
        np.testing.assert_array_equal(getattr(data, key), expected)
    for key in ("rewards", "masks"):
        expected = np.concatenate([getattr(piece, key) for piece in pieces], axis=1)
        np.testing.assert_array_equal(getattr(data, key), expected)
    assert data.observations[123 * 2, 0] == maze_arrays["observations"][0, 0] + 2
    assert len({piece.fingerprint for piece in pieces} | {data.fingerprint}) == 4
    (tmp_path / name / "pointmaze-medium-navigate-v0-001.npz").unlink()
    with pytest.raises(DataMissing, match=r"-001\.npz \(2 of 3 files there\)"):
        load(name, ["task1"], tmp_path)


def test_ten_million_are_the_first_of_a_hundred(
    tmp_path: Path, maze_arrays: dict[str, np.ndarray]
) -> None:
    _shards(tmp_path / "pointmaze-medium-navigate-100m-v0", maze_arrays, 11)
    found = locate("pointmaze-medium-navigate-10m-v0", tmp_path)
    assert found.name == "pointmaze-medium-navigate-100m-v0"
    assert [path.name[-7:-4] for path in found.files] == [f"{i:03d}" for i in range(10)]
    with pytest.raises(DataMissing, match="11 of 100 files there"):
        locate("pointmaze-medium-navigate-100m-v0", tmp_path)


def test_a_found_file_is_recorded_as_of_unknown_origin(
    edited: Callable[..., Path], maze_arrays: dict[str, np.ndarray]
) -> None:
    path = edited()
    data = load(MAZE, ["task1"], path.parent)
    assert data.source == "unknown"
    assert data.fingerprint == fingerprint(maze_arrays)
    record = DataRecord.read(path.with_suffix(".json"))
    assert record is not None
    assert record.files[path.name].episodes == 3
    assert load(MAZE, ["task1"], path.parent) is not None


def test_a_read_only_folder_is_enough(
    edited: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The superuser may write anywhere, so that permissions cannot be taken away here.
    def refuse(path: Path, document: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("bench.data._record.write_json", refuse)
    folder = edited().parent
    assert load(MAZE, ["task1"], folder).source == "unknown"
    assert not list(folder.glob("*.json"))


def test_a_file_that_changed_since_it_was_recorded_is_refused(edited: Callable[..., Path]) -> None:
    path = edited()
    ensure_record(locate(MAZE, path.parent))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataDamaged, match=r"bytes, but \d+ are recorded"):
        load(MAZE, ["task1"], path.parent)


def test_a_flipped_byte_is_refused(edited: Callable[..., Path]) -> None:
    path = edited()
    ensure_record(locate(MAZE, path.parent))
    content = bytearray(path.read_bytes())
    offset = read_npz(path, ["actions"])["actions"].offset
    content[offset + 40] ^= 16
    path.write_bytes(content)
    with pytest.raises(DataDamaged, match="CRC"):
        load(MAZE, ["task1"], path.parent)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON record"),
        ("[]", "not a record"),
        ('{"format": 99, "dataset": "x", "source": "generated", "files": {}}', "later version"),
        ('{"format": 1, "dataset": "x", "files": {"a": {"bytes": 1}}}', "not a record"),
    ],
)
def test_damaged_records_are_named(edited: Callable[..., Path], content: str, message: str) -> None:
    path = edited().with_suffix(".json")
    path.write_text(content)
    with pytest.raises(DataDamaged, match=rf"-v0\.json: .*{message}"):
        load(MAZE, ["task1"], path.parent)


def test_records_survive_a_round_trip(tmp_path: Path, tiny_dir: Path) -> None:
    record = DataRecord.read(tiny_dir / f"{MAZE}.json")
    assert record is not None
    record.write(tmp_path / "copy.json")
    assert DataRecord.read(tmp_path / "copy.json") == record
    assert json.loads((tmp_path / "copy.json").read_text())["source"] == "generated"
    assert DataRecord.read(tmp_path / "none.json") is None


def test_files_with_rewards_of_their_own(
    tmp_path: Path, maze_arrays: dict[str, np.ndarray]
) -> None:
    rewards = np.linspace(-1, 1, 123, dtype=np.float32)
    path = tmp_path / "mine.npz"
    keys = ("observations", "actions", "terminals")
    np.savez(path, **{key: maze_arrays[key] for key in keys}, rewards=rewards)
    data = load(str(path), ["mine"])
    np.testing.assert_array_equal(data.rewards, rewards[None])
    assert data.rewards.dtype == np.float32
    assert data.masks.all()
    with pytest.raises(ValueError, match="one task"):
        load(str(path), ["a", "b"])
    with pytest.raises(ValueError, match="sparse"):
        load(str(path), ["a"], sparse=True)


def test_reading_data_needs_no_torch() -> None:
    script = "import sys, bench.data; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_rewards_need_no_display(tiny_dir: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from bench.data import load\n"
        "load('scene-play-v0', ['task1'], Path(sys.argv[1]))"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "DISPLAY")}
    command = [sys.executable, "-W", "error", "-c", script, str(tiny_dir)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("mark", ["next_observations", "timeouts", "truncated", "done", "is_last"])
def test_a_table_of_transitions_is_not_read_as_rows_of_states(
    mark: str, tmp_path: Path, maze_arrays: dict[str, np.ndarray]
) -> None:
    kept = {key: maze_arrays[key] for key in ("observations", "actions", "terminals")}
    rows = len(kept["terminals"])
    kept["rewards"] = np.zeros(rows, np.float32)
    own, told = tmp_path / "own.npz", tmp_path / "told.npz"
    save(own, kept)
    assert load(str(own), ["task1"]).rewards.shape == (1, rows)
    save(told, kept | {mark: np.zeros(rows, np.float32)})
    with pytest.raises(DataDamaged, match=f"{mark}, so its rows are transitions.*data import"):
        load(str(told), ["task1"])
