"""LeRobot datasets, read from their parquet files; the package lerobot is not needed."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from bench.data._errors import DataDamaged
from bench.data._foreign import Tables

_STATE = "observation.state"
_OPTIONAL = ("next.reward", "next.success", "next.done")


def is_lerobot(path: Path) -> bool:
    """Whether a folder is a LeRobot dataset."""
    return (path / "meta" / "info.json").is_file()


def read_lerobot(folder: Path, observation_keys: Sequence[str]) -> list[tuple[str, Tables]]:
    """The frames of a LeRobot dataset of format 2 or 3, as one table of transitions.

    Only vectors are read, images and videos are not. An episode's last frame has no successor: it
    gives the final state only, unless the episode ends in a terminal state there. That is so where
    `next.success` says so, or, in data without it, where `next.done` does.

    Args:
        folder: with `meta/info.json` and `data/*/*.parquet`.
        observation_keys: columns that will be joined; `observation.state` if there are none.

    Returns:
        One table, rewards included where there is `next.reward`.

    Raises:
        DataDamaged: if files are missing or frames are not in order.
        ValueError: for another format, or columns that are not there.
    """
    info = _info(folder)
    files = sorted((folder / "data").glob("*/*.parquet"))
    if not files:
        raise DataDamaged(f"{folder}: no data/*/*.parquet; only part of the dataset is here")
    try:
        schema = pl.read_parquet_schema(files[0])
        states = [key for key in schema if _is_vector(key, schema[key])]
        wanted = [key for key in (*observation_keys, "action") if key not in schema]
        if wanted:
            raise ValueError(
                f"{folder}: no columns {', '.join(wanted)}; vectors are "
                f"{', '.join([*states, 'action'])}"
            )
        read = ["episode_index", "frame_index", "action", *states]
        read += [key for key in _OPTIONAL if key in schema]
        frames = pl.concat([pl.read_parquet(file, columns=read) for file in files])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataDamaged(f"{folder}: its parquet files cannot be read ({error})") from error
    frames = frames.sort("episode_index", "frame_index")
    _check_complete(folder, frames, info)
    observations = {key: _vectors(folder, frames, key) for key in states}
    alone = observations[_STATE] if _STATE in states and not observation_keys else observations
    ends = np.append(np.diff(frames["episode_index"].to_numpy()) != 0, values=True)
    terminals = np.zeros(len(ends), bool)
    for key in ("next.done", "next.success"):
        if key in frames.columns:
            terminals = ends & frames[key].to_numpy().astype(bool).reshape(-1)
    table = {
        "observations": alone,
        "actions": _vectors(folder, frames, "action"),
        "terminals": terminals,
        "timeouts": ends & ~terminals,
    }
    if "next.reward" in frames.columns:
        table["rewards"] = frames["next.reward"].to_numpy().reshape(len(ends))
    return [("", table)]


def _info(folder: Path) -> dict[str, int]:
    path = folder / "meta" / "info.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version = str(info["codebase_version"])
        counts = {key: int(info[key]) for key in ("total_frames", "total_episodes")}
    except (KeyError, TypeError, ValueError) as error:
        raise DataDamaged(
            f"{path}: not the description of a LeRobot dataset ({error!r})"
        ) from error
    if not version.startswith(("v2.", "v3.")):
        raise ValueError(f"{path}: format {version}, expected v2.* or v3.*; LeRobot converts it")
    return counts


def _is_vector(key: str, kind: pl.DataType) -> bool:
    if not key.startswith("observation."):
        return False
    return isinstance(kind, (pl.List, pl.Array)) and kind.inner.is_numeric()


def _check_complete(folder: Path, frames: pl.DataFrame, info: dict[str, int]) -> None:
    episodes = frames["episode_index"].n_unique()
    if (len(frames), episodes) != (info["total_frames"], info["total_episodes"]):
        raise DataDamaged(
            f"{folder}: {len(frames):,} frames of {episodes:,} episodes are here, meta/info.json "
            f"speaks of {info['total_frames']:,} of {info['total_episodes']:,}: files are missing"
        )
    place = pl.int_range(pl.len()).over("episode_index")
    torn = frames.filter(pl.col("frame_index") != place)
    if torn.height:
        row = torn.row(0, named=True)
        raise DataDamaged(
            f"{folder}: episode {row['episode_index']}: frame {row['frame_index']} is missing or "
            "there twice"
        )


def _vectors(folder: Path, frames: pl.DataFrame, key: str) -> np.ndarray:
    column = frames[key]
    widths = column.list.len() if isinstance(column.dtype, pl.List) else None
    if column.null_count() or (widths is not None and widths.n_unique() != 1):
        raise DataDamaged(
            f"{folder}: '{key}' has rows of different lengths, or none in some frames"
        )
    if widths is not None:
        column = column.list.to_array(int(widths[0]))
    return column.to_numpy()
