"""Data as training wants them: compact rows and the rewards of several tasks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped

from bench.data._check import REQUIRED, check_arrays
from bench.data._locate import combined_fingerprint, ensure_record, locate
from bench.data._names import DatasetName, is_dataset_name, task_number
from bench.data._npz import npz_keys, read_npz
from bench.data._recognise import check_rows_of_states
from bench.data._record import DataRecord, Source
from bench.data._tasks import reward_columns, task_rewards
from bench.simulation import ArrayTree

ActionRange: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Lowest and highest action, a number for each entry; empty where they are -1 and 1."""


@dataclass(frozen=True, slots=True)
class TaskData:
    """A dataset with the rewards of some of its tasks, in the compact layout.

    Rows are states. The state after action i is row i + 1 of the observations, except that the
    last row of an episode is its final state: it has no action worth learning and no successor.

    Attributes:
        dataset: its name.
        tasks: names of the tasks, the first axis of rewards and masks.
        observations: (N, O); or images (N, ...), or a dictionary of leaves (N, ...) of any types,
            in memory or in memory maps.
        actions: (N, A), in [-1, 1].
        terminals: (N,), true in the last row of each episode.
        rewards: (T, N), the reward of the action in the same row; whole numbers are int8.
        masks: (T, N), false where the task is solved, so that no value follows.
        fingerprint: SHA-256 of the files' contents.
        source: where the data come from: downloaded, generated, imported or unknown.
        versions: of the simulator that made generated data.
        paths: the files.
        action_range: what -1 and 1 of each action stand for where they were scaled, (A,) each; else
            empty.
    """

    dataset: str
    tasks: tuple[str, ...]
    observations: ArrayTree
    actions: Float32[np.ndarray, "rows act"]
    terminals: Bool[np.ndarray, " rows"]
    rewards: Shaped[np.ndarray, "tasks rows"]
    masks: Bool[np.ndarray, "tasks rows"]
    fingerprint: str
    source: Source
    versions: dict[str, str]
    paths: tuple[Path, ...]
    action_range: ActionRange = field(default=((), ()), kw_only=True)

    @property
    def episode_ends(self) -> Int64[np.ndarray, " episodes"]:
        """Row of the final state of each episode."""
        return np.flatnonzero(self.terminals)

    @property
    def leaves(self) -> dict[str, Shaped[np.ndarray, "rows ..."]]:
        """The observations by name; the name of a single array is empty."""
        seen = self.observations
        return dict(seen) if isinstance(seen, dict) else {"": seen}

    @property
    def one_vector(self) -> bool:
        """Whether an observation is one vector, which agents may standardise."""
        return not isinstance(self.observations, dict) and self.observations.ndim == 2

    @property
    def transitions(self) -> int:
        """Rows that have a successor."""
        return len(self.terminals) - int(np.sum(self.terminals))


def load(
    dataset: str,
    tasks: Sequence[str],
    data_dir: Path | None = None,
    *,
    sparse: bool = False,
    validation: bool = False,
) -> TaskData:
    """Read a dataset and make the rewards of its tasks.

    Args:
        dataset: name such as `cube-double-play-v0` or `cube-triple-play-10m-v0`, or the path of an
            `.npz` file that holds its own rewards.
        tasks: names (`task1`, or in full) of the tasks wanted. A file with rewards of its own has
            one task, whatever its name.
        data_dir: folder of the data files, by default OGBench's.
        sparse: reward -1 until a task is solved, instead of minus the number of unsolved parts.
        validation: read the validation files.

    Returns:
        The data, in memory. Several files are joined without being held twice.

    Raises:
        DataMissing: if the data are not there.
        DataDamaged: if a file is not sound; names file, array and row.
        ValueError: for an unknown name, or tasks that cannot be rewarded.
    """
    location = locate(dataset, data_dir, validation=validation)
    record = ensure_record(location)
    pieces = (read_rows(path, dataset, tasks, sparse) for path in location.files)
    if len(location.files) == 1:
        arrays = next(pieces)
    else:
        arrays = join(pieces, sum(record.files[path.name].rows for path in location.files))
    return _task_data(dataset, tasks, arrays, record, location.files)


def load_shards(
    dataset: str,
    tasks: Sequence[str],
    data_dir: Path | None = None,
    *,
    sparse: bool = False,
    validation: bool = False,
) -> Iterator[TaskData]:
    """Read a dataset one file after the other, for what is too large to be held at once.

    Arguments and errors are those of `load`; each yielded dataset is one file, with the
    fingerprint of that file. No episode spans two files.
    """
    location = locate(dataset, data_dir, validation=validation)
    record = ensure_record(location)
    for path in location.files:
        arrays = read_rows(path, dataset, tasks, sparse)
        yield _task_data(dataset, tasks, arrays, record, (path,))


def _task_data(
    dataset: str,
    tasks: Sequence[str],
    arrays: Mapping[str, np.ndarray],
    record: DataRecord,
    files: tuple[Path, ...],
) -> TaskData:
    return TaskData(
        dataset=dataset,
        tasks=tuple(tasks),
        **arrays,
        fingerprint=combined_fingerprint(record, files),
        source=record.source,
        versions=record.versions,
        paths=files,
        action_range=action_range_of(record.recipe.get("action_range"), arrays["actions"].shape[1]),
    )


def action_range_of(bounds: Any, size: int) -> ActionRange:
    """Bounds that actions were scaled from, numbers or one for each of ``size`` entries."""
    if bounds is None:
        return (), ()
    low, high = (np.broadcast_to(np.asarray(bound, np.float64), size) for bound in bounds)
    plain = bool((low == -1.0).all() and (high == 1.0).all())
    return ((), ()) if plain else (tuple(low.tolist()), tuple(high.tolist()))


def read_rows(
    path: Path, dataset: str, tasks: Sequence[str], sparse: bool
) -> dict[str, np.ndarray]:
    """The arrays of one file; read rather than mapped, which verifies its checksums."""
    columns = _label_columns(path, dataset)
    arrays = read_npz(path, [*REQUIRED, *columns], mapped=False)
    terminals = check_arrays(path, arrays)
    rewards, masks = _labels(path, dataset, tasks, sparse, arrays)
    return {
        "observations": np.ascontiguousarray(arrays["observations"], np.float32),
        "actions": np.ascontiguousarray(arrays["actions"], np.float32),
        "terminals": terminals,
        "rewards": rewards,
        "masks": masks,
    }


def read_labels(
    path: Path, dataset: str, tasks: Sequence[str], sparse: bool
) -> dict[str, np.ndarray]:
    """Terminals, rewards and masks of a file whose arrays have been checked before."""
    columns = _label_columns(path, dataset)
    arrays = read_npz(path, ["terminals", *columns], mapped=False)
    rewards, masks = _labels(path, dataset, tasks, sparse, arrays)
    return {"terminals": arrays["terminals"].astype(bool), "rewards": rewards, "masks": masks}


def _ogbench_name(path: Path, dataset: str, keys: Sequence[str]) -> DatasetName | None:
    """The dataset whose tasks reward the rows; None where the file has its own rewards."""
    if "rewards" in keys:
        return None
    plain = Path(dataset).stem if dataset.endswith(".npz") else dataset
    if not is_dataset_name(plain):
        raise ValueError(
            f"{path} holds no rewards, and '{plain}' is not a dataset with known tasks"
        )
    return DatasetName.parse(plain)


def _label_columns(path: Path, dataset: str) -> list[str]:
    """The arrays of a file that rewards and masks come from."""
    keys = npz_keys(path)
    name = _ogbench_name(path, dataset, keys)
    if name is not None:
        return list(reward_columns(name))
    check_rows_of_states(path, keys)
    return [key for key in ("rewards", "masks") if key in keys]


def _labels(
    path: Path,
    dataset: str,
    tasks: Sequence[str],
    sparse: bool,
    arrays: Mapping[str, np.ndarray],
) -> tuple[Shaped[np.ndarray, "tasks rows"], Bool[np.ndarray, "tasks rows"]]:
    """Rewards and masks of a file's rows for each task."""
    name = _ogbench_name(path, dataset, list(arrays))
    if name is not None:
        numbers = [task_number(task) for task in tasks]
        return task_rewards(name, arrays, numbers, sparse=sparse)
    if len(tasks) > 1 or sparse:
        raise ValueError(
            f"{path} holds the rewards of one task: expected one task and no sparse rewards, "
            f"got {len(tasks)} tasks, sparse={sparse}"
        )
    rewards = np.asarray(arrays["rewards"], np.float32)[None]
    masks = arrays.get("masks", np.ones(rewards.shape[1]))
    return rewards, np.asarray(masks, bool)[None]


def join(pieces: Iterator[dict[str, np.ndarray]], rows: int) -> dict[str, np.ndarray]:
    """The pieces one behind the other, without a second copy of them all."""
    joined: dict[str, np.ndarray] = {}
    start = 0
    for piece in pieces:
        end = start + len(piece["terminals"])
        for key, part in piece.items():
            axis = 1 if key in ("rewards", "masks") else 0
            if key not in joined:
                shape = list(part.shape)
                shape[axis] = rows
                joined[key] = np.empty(shape, part.dtype)
            np.moveaxis(joined[key], axis, 0)[start:end] = np.moveaxis(part, axis, 0)
        start = end
    assert start == rows, (start, rows)
    return joined
