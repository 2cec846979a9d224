"""What a data file holds, in figures that fit on a screen."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from bench.data._check import check_arrays
from bench.data._names import DatasetName
from bench.data._npz import read_npz
from bench.data._tasks import reward_columns, task_rewards

_SHADES = " .:-=+*#%@"


@dataclass(frozen=True, slots=True)
class ArraySummary:
    """Type, shape and range of one array."""

    dtype: str
    shape: tuple[int, ...]
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """How much of a dataset solves a task.

    Attributes:
        task: number of the task.
        rows: fraction of the rows whose state solves it.
        episodes: fraction of the episodes that solve it at some time.
        mean_reward: mean reward of a row.
    """

    task: int
    rows: float
    episodes: float
    mean_reward: float


@dataclass(frozen=True, slots=True)
class FileSummary:
    """Contents of one data file.

    Attributes:
        arrays: by key.
        lengths: transitions of each episode: shortest, median, longest.
        episodes: number of episodes.
        tasks: one entry for each task; empty where the tasks are not known.
        picture: where the agent (or the first object) has been, seen from above, as text lines.
    """

    arrays: dict[str, ArraySummary]
    episodes: int
    lengths: tuple[int, float, int]
    tasks: tuple[TaskSummary, ...]
    picture: tuple[str, ...]


def summarise(path: Path, dataset: str) -> FileSummary:
    """Check a data file and summarise it.

    Args:
        path: the file.
        dataset: its dataset, whose tasks are evaluated; any other text for data without tasks.

    Raises:
        DataDamaged: if the file is not sound.
    """
    arrays = read_npz(path)
    ends = np.flatnonzero(check_arrays(path, arrays))
    lengths = np.diff(ends, prepend=-1) - 1
    try:
        name: DatasetName | None = DatasetName.parse(dataset)
        rewarded = name is not None and set(reward_columns(name)) <= set(arrays)
    except ValueError:
        name, rewarded = None, False
    tasks = _task_summaries(name, arrays, ends) if name is not None and rewarded else ()
    return FileSummary(
        arrays={
            key: ArraySummary(str(a.dtype), a.shape, float(a.min()), float(a.max()))
            for key, a in arrays.items()
        },
        episodes=len(ends),
        lengths=(int(lengths.min()), float(np.median(lengths)), int(lengths.max())),
        tasks=tasks,
        picture=_picture(name, arrays),
    )


def _task_summaries(
    name: DatasetName, arrays: Mapping[str, Shaped[np.ndarray, "rows ..."]], ends: np.ndarray
) -> tuple[TaskSummary, ...]:
    numbers = range(1, 6)
    rewards, masks = task_rewards(name, arrays, list(numbers))
    starts = np.concatenate([[0], ends[:-1] + 1])
    return tuple(
        TaskSummary(
            task=number,
            rows=float(1 - masks[i].mean()),
            episodes=float(np.logical_or.reduceat(~masks[i], starts).mean()),
            mean_reward=float(rewards[i].mean(dtype=np.float64)),
        )
        for i, number in enumerate(numbers)
    )


def _picture(
    name: DatasetName | None, arrays: Mapping[str, Shaped[np.ndarray, "rows ..."]]
) -> tuple[str, ...]:
    """Density of a planar position: of the agent in a maze, of the first object on a table."""
    if name is None or "qpos" not in arrays:
        return ()
    family = name.environment.split("-")[0]
    first = 14 if family in ("cube", "scene") else 0 if "maze" in family else None
    if first is None:
        return ()
    x, y = np.asarray(arrays["qpos"][:, first]), np.asarray(arrays["qpos"][:, first + 1])
    counts, _, _ = np.histogram2d(y, x, bins=(16, 40))
    # Logarithmic shades: a point waits at goals far longer than it spends on the way.
    level = np.log1p(counts) / np.log1p(counts.max())
    shades = np.ceil(level * (len(_SHADES) - 1)).astype(int)
    return tuple("".join(_SHADES[s] for s in row) for row in shades[::-1])
