"""LeRobot datasets, read from their parquet files; the package lerobot is not needed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench.data._errors import DataDamaged
from bench.data._files import (
    available_memory,
    check_fits,
    check_keys,
    check_regular,
    read_document,
    reading,
)
from bench.data._flags import read_flags
from bench.data._layout import NONE, Choices, Layout, Table
from bench.data._lerobot_images import image_leaves
from bench.data._tree import Leaf, leaf_of

_STATE = "observation.state"
_REWARD, _SUCCESS = "next.reward", "next.success"


def is_lerobot(path: Path) -> bool:
    """Whether a folder is a LeRobot dataset."""
    return (path / "meta" / "info.json").is_file()


def read_lerobot(folder: Path, choices: Choices) -> Layout:
    """The frames of a LeRobot dataset of format 2 or 3, as one table of transitions.

    Only the columns that are needed are read; images and videos only where leaves are kept apart,
    and then one episode at a time. An episode's last frame has no successor: it gives the final
    state only, unless the episode ends in a terminal state there. That is so where `next.success`
    says so. Recorders set `next.done` in the last frame of every episode, however it ended: in data
    without `next.success` the user says what it means.

    Args:
        folder: with `meta/info.json` and `data/*/*.parquet`.
        choices: columns that will be joined, `observation.state` if there are none; the column of
            the true ends.

    Raises:
        DataDamaged: if files are missing or frames are not in order.
        ValueError: for another format, columns that are not there, or ends of unknown kind.
    """
    document, info = _info(folder)
    files = sorted((folder / "data").glob("*/*.parquet"))
    if not files:
        raise DataDamaged(f"{folder}: no data/*/*.parquet; only part of the dataset is here")
    with _parquet(folder):
        for file in files:
            check_regular(file)
        schema = pl.read_parquet_schema(files[0])
        counts = sum(int(pl.scan_parquet(file).select(pl.len()).collect().item()) for file in files)
    check_keys(folder, schema)
    _check_frames(folder, counts, info)
    pictures = image_leaves(folder, document, schema, 0, 0) if choices.keep_leaves else {}
    wanted = [key for key in choices.observation_keys if key not in pictures]
    states = _states(folder, schema, wanted, all_of_them=choices.keep_leaves)
    if choices.observation_keys:
        pictures = {key: pictures[key] for key in choices.observation_keys if key in pictures}
        states = wanted
    ends_key = _terminal_key(folder, schema, choices)
    read = ["episode_index", "frame_index", "action", *states]
    read += [key for key in (_REWARD, ends_key) if key in schema and key not in read]
    check_fits(folder, 16 * counts * len(read), available_memory())
    with _parquet(folder):
        frames = pl.concat([pl.read_parquet(file, columns=read) for file in files])
    _check_values(folder, frames)
    frames = frames.sort("episode_index", "frame_index")
    _check_complete(folder, frames, info)
    last = np.append(np.diff(frames["episode_index"].to_numpy()) != 0, values=True)
    terminals = np.zeros(len(last), bool)
    if ends_key:
        flags = read_flags(leaf_of(folder, ends_key, _numbers(folder, frames, ends_key)))
        terminals = last & flags
    rewards = None
    if _REWARD in read:
        rewards = leaf_of(folder, _REWARD, _numbers(folder, frames, _REWARD))
    table = Table(
        "",
        tuple(leaf_of(folder, key, _numbers(folder, frames, key)) for key in states),
        leaf_of(folder, "action", _numbers(folder, frames, "action")),
        rewards=rewards,
        terminals=leaf_of(folder, ends_key or "none", terminals),
        timeouts=leaf_of(folder, "episode_index", last & ~terminals),
    )
    tables = [table]
    if pictures:
        tables = _by_episode(table, last)
        for number, part in enumerate(tables):
            episode = int(frames["episode_index"][int(np.flatnonzero(last)[number])])
            seen = image_leaves(folder, document, schema, episode, part.actions.rows)
            leaves = (*part.observations, *(seen[key] for key in pictures))
            tables[number] = replace(part, observations=leaves)
    ignored = tuple(key for key in schema if key not in (*read, *pictures))
    return Layout("frames (LeRobot)", tuple(tables), ignored=ignored)


def _by_episode(table: Table, last: np.ndarray) -> list[Table]:
    """The table cut into those of its episodes, so that their images need not be held together."""
    ends = np.flatnonzero(last) + 1
    starts = np.concatenate([[0], ends[:-1]])

    def cut(leaf: Leaf, start: int, end: int) -> Leaf:
        return leaf_of(leaf.file, leaf.key, leaf.read()[start:end])

    tables = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        rewards, terminals, timeouts = (
            None if leaf is None else cut(leaf, start, end)
            for leaf in (table.rewards, table.terminals, table.timeouts)
        )
        tables.append(
            replace(
                table,
                observations=tuple(cut(leaf, start, end) for leaf in table.observations),
                actions=cut(table.actions, start, end),
                rewards=rewards,
                terminals=terminals,
                timeouts=timeouts,
            )
        )
    return tables


def _check_values(folder: Path, frames: pl.DataFrame) -> None:
    for key in frames.columns:
        if frames[key].null_count():
            row = frames[key].is_null().arg_true()[0]
            raise DataDamaged(f"{folder}: '{key}', frame {row}: there is no value")


@contextmanager
def _parquet(folder: Path) -> Iterator[None]:
    """Polars gives up on some damaged files by a panic, which is no `Exception`."""
    try:
        with reading(folder, "set of parquet files"):
            yield
    except pl.exceptions.PanicException as error:
        raise DataDamaged(f"{folder}: its parquet files cannot be read ({error})") from None


def _states(
    folder: Path,
    schema: Mapping[str, pl.DataType],
    wanted: Sequence[str],
    *,
    all_of_them: bool = False,
) -> Sequence[str]:
    """The columns of the observations."""
    numeric = [key for key in schema if _is_vector(schema[key])]
    vectors = [key for key in numeric if key.startswith("observation.")]
    absent = [key for key in (*wanted, "action") if key not in numeric]
    if absent:
        raise ValueError(
            f"{folder}: no vectors {', '.join(absent)}; vectors are {', '.join(vectors)}, action"
        )
    if wanted:
        return wanted
    if all_of_them:
        return vectors
    if _STATE in vectors:
        return [_STATE]
    raise ValueError(
        f"{folder}: no column {_STATE}: say which of {', '.join(vectors) or 'no vectors'} to join, "
        "and in which order, with --observation-keys"
    )


def _terminal_key(folder: Path, schema: Mapping[str, pl.DataType], choices: Choices) -> str:
    """The column of the true ends; empty where there are none."""
    if choices.terminals == NONE:
        return ""
    if choices.terminals is not None:
        if choices.terminals not in schema:
            raise ValueError(f"{folder}: --terminals {choices.terminals}: there is no such column")
        return choices.terminals
    if _SUCCESS in schema:
        return _SUCCESS
    raise ValueError(
        f"{folder}: no column {_SUCCESS} says which episodes end in a terminal state, behind which "
        "no value follows: give --terminals next.done if all that are done do, or --terminals none"
    )


def _info(folder: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The whole description of a dataset, and the numbers of its frames and episodes."""
    path = folder / "meta" / "info.json"
    info = read_document(path)
    try:
        version = str(info["codebase_version"])
        counts = {key: int(info[key]) for key in ("total_frames", "total_episodes")}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataDamaged(
            f"{path}: not the description of a LeRobot dataset ({error!r})"
        ) from error
    if not version.startswith(("v2.", "v3.")):
        raise ValueError(f"{path}: format {version}, expected v2.* or v3.*; LeRobot converts it")
    return info, counts


def _is_vector(kind: pl.DataType) -> bool:
    """Whether a column holds numbers, one or several a row."""
    if isinstance(kind, (pl.List, pl.Array)):
        return bool(kind.inner.is_numeric())
    return kind.is_numeric()


def _check_frames(folder: Path, found: int, info: Mapping[str, int]) -> None:
    if found != info["total_frames"]:
        raise DataDamaged(
            f"{folder}: {found:,} frames are here, meta/info.json speaks of "
            f"{info['total_frames']:,} of {info['total_episodes']:,} episodes: files are missing"
        )


def _check_complete(folder: Path, frames: pl.DataFrame, info: Mapping[str, int]) -> None:
    episodes = frames["episode_index"].n_unique()
    if episodes != info["total_episodes"]:
        raise DataDamaged(
            f"{folder}: frames of {episodes:,} episodes are here, meta/info.json speaks of "
            f"{info['total_episodes']:,}: files are missing"
        )
    place = pl.int_range(pl.len()).over("episode_index")
    torn = frames.filter(pl.col("frame_index") != place)
    if torn.height:
        row = torn.row(0, named=True)
        raise DataDamaged(
            f"{folder}: episode {row['episode_index']}: frame {row['frame_index']} is missing or "
            "there twice"
        )


def _numbers(folder: Path, frames: pl.DataFrame, key: str) -> np.ndarray:
    """A column as (rows,) or (rows, width)."""
    column = frames[key]
    widths = column.list.len() if isinstance(column.dtype, pl.List) else None
    if widths is not None and widths.n_unique() != 1:
        row = (widths != widths[0]).arg_true()[0]
        raise DataDamaged(
            f"{folder}: '{key}' has rows of different lengths: {widths[0]} numbers in frame 0, "
            f"{widths[row]} in frame {row}"
        )
    if widths is not None:
        column = column.list.to_array(int(widths[0]))
    return column.to_numpy()
