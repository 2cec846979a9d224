"""LeRobot datasets, written here as its formats 2 and 3 have them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bench.data import DataDamaged, import_data, load, read_npz

LENGTHS = (4, 6, 3)
SOLVED = (False, True, False)


def frames() -> pl.DataFrame:
    source = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for episode, (length, solved) in enumerate(zip(LENGTHS, SOLVED, strict=True)):
        for frame in range(length):
            last = frame == length - 1
            rows.append(
                {
                    "observation.state": source.normal(size=3).astype(np.float32).tolist(),
                    "observation.environment_state": [float(len(rows)), 7.0],
                    "action": source.uniform(-1, 1, 2).astype(np.float32).tolist(),
                    "next.reward": float(last and solved) - 1.0,
                    "next.done": last,
                    "next.success": last and solved,
                    "timestamp": frame / 10,
                    "frame_index": frame,
                    "episode_index": episode,
                    "index": len(rows),
                    "task_index": 0,
                }
            )
    vector = pl.List(pl.Float32)
    types = {"observation.state": vector, "observation.environment_state": vector, "action": vector}
    return pl.DataFrame(rows, schema_overrides=types)


def write(folder: Path, table: pl.DataFrame, version: str = "v3.0") -> Path:
    """One file per episode as in format 2, or two files cut anywhere as format 3 may have them."""
    data = folder / "data" / "chunk-000"
    data.mkdir(parents=True)
    (folder / "meta").mkdir()
    info = {"codebase_version": version, "fps": 10, "total_episodes": 3, "total_frames": 13}
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    if version.startswith("v2"):
        for (episode,), part in table.group_by("episode_index"):
            part.write_parquet(data / f"episode_{episode:06d}.parquet")
    else:
        for number, part in enumerate((table[:5], table[5:])):
            part.write_parquet(data / f"file-{number:03d}.parquet")
    return folder


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("fixed", [False, True])
def test_both_formats_are_read(version: str, *, fixed: bool, tmp_path: Path) -> None:
    table = frames()
    written = table
    if fixed:  # Arrow's fixed-size lists
        written = table.with_columns(pl.col("observation.state").list.to_array(3))
    folder = write(tmp_path / "robot", written, version)
    import_data(str(folder), "mine", tmp_path)
    data = load("mine", ["mine"], tmp_path)
    states = np.array(table["observation.state"].to_list(), np.float32)
    actions = np.array(table["action"].to_list(), np.float32)
    # 4 frames that end in nothing: 3 transitions. 6 that end in success: 6, the last one terminal.
    assert data.episode_ends.tolist() == [3, 10, 13]
    rows = [0, 1, 2, 3, *range(4, 10), 9, 10, 11, 12]
    np.testing.assert_array_equal(data.observations, states[rows])
    for row, frame in ((0, 0), (2, 2), (4, 4), (9, 9), (11, 10)):
        np.testing.assert_array_equal(data.actions[row], actions[frame])
    rewards = [-1.0] * 14
    rewards[9] = 0.0
    kept = ~data.terminals
    np.testing.assert_array_equal(data.rewards[0, kept], np.array(rewards)[kept])
    assert np.flatnonzero(~data.masks[0]).tolist() == [9]
    assert data.source == "imported"


def test_vectors_are_joined_in_the_order_given(tmp_path: Path) -> None:
    folder = write(tmp_path / "robot", frames())
    keys = ("observation.environment_state", "observation.state")
    file = import_data(str(folder), "mine", tmp_path, observation_keys=keys)
    observations = read_npz(file.path)["observations"]
    assert observations.shape == (14, 5)
    np.testing.assert_array_equal(observations[:4, 0], [0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"no vectors observation\.pixels; vectors are"):
        import_data(str(folder), "x", tmp_path, observation_keys=("observation.pixels",))


def test_without_success_the_user_says_what_an_end_is(tmp_path: Path) -> None:
    folder = write(tmp_path / "robot", frames().drop("next.success", "next.reward"))
    with pytest.raises(ValueError, match=r"give --terminals next\.done .*or --terminals none"):
        import_data(str(folder), "mine", tmp_path)
    ended = read_npz(import_data(str(folder), "ended", tmp_path, terminals="next.done").path)
    assert "rewards" not in ended
    assert np.flatnonzero(ended["terminals"]).tolist() == [4, 11, 15]
    cut_off = read_npz(import_data(str(folder), "cut", tmp_path, terminals="none").path)
    assert np.flatnonzero(cut_off["terminals"]).tolist() == [3, 9, 12]


def _drop_file(folder: Path) -> None:
    (folder / "data/chunk-000/file-001.parquet").unlink()


def _drop_all(folder: Path) -> None:
    _drop_file(folder)
    (folder / "data/chunk-000/file-000.parquet").unlink()


def _tear(folder: Path) -> None:
    path = folder / "data/chunk-000/file-000.parquet"
    table = pl.read_parquet(path)
    table.with_columns(frame_index=pl.col("frame_index") + pl.col("episode_index")).write_parquet(
        path
    )


def _shorten(folder: Path) -> None:
    path = folder / "data/chunk-000/file-000.parquet"
    table = pl.read_parquet(path)
    ragged = pl.when(pl.col("frame_index") == 2).then(pl.col("action").list.head(1))
    table.with_columns(ragged.otherwise("action").alias("action")).write_parquet(path)


def _cut_bytes(folder: Path) -> None:
    path = folder / "data/chunk-000/file-001.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def _no_info(folder: Path) -> None:
    (folder / "meta/info.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop_file, r"5 frames are here, meta/info\.json speaks of 13 of 3"),
        (_drop_all, r"no data/\*/\*\.parquet"),
        (_tear, "episode 1: frame 1 is missing or there twice"),
        (_shorten, "'action' has rows of different lengths"),
        (_cut_bytes, "not a readable set of parquet files"),
        (_no_info, "not the description of a LeRobot dataset"),
    ],
)
def test_damage_is_named(damage: Any, message: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "robot", frames())
    damage(folder)
    with pytest.raises(DataDamaged, match=message):
        import_data(str(folder), "mine", tmp_path)
    assert not (tmp_path / "mine.npz").exists()


def test_other_formats_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "robot", frames(), "v1.6")
    with pytest.raises(ValueError, match=r"format v1\.6, expected v2"):
        import_data(str(folder), "mine", tmp_path)
