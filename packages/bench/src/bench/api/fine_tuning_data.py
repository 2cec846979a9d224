"""Data of a fine-tuning: from a file, a name, or arrays at hand."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bench.data import TaskData, check_arrays, load

__all__ = ["FineTuningData", "given_data"]

FineTuningData: TypeAlias = str | Path | TaskData | Mapping[str, Any]
"""Path of an `.npz` file, name of a data set, loaded data, or arrays by name."""

_ARRAYS = ("observations", "actions", "rewards", "terminals")
_NAME = "arrays"


def given_data(data: FineTuningData, folder: Path | None = None) -> TaskData:
    """Data in memory.

    Args:
        data: see :data:`FineTuningData`. Arrays are rows of episodes one after the other:
            `observations (N, O)`, `actions (N, A)` in [-1, 1], `rewards (N,)` and `terminals (N,)`,
            true in the last row of each episode, which holds its last observation; and `masks
            (N,)`, false where the task ended, all true by default.
        folder: where names are looked for.

    Raises:
        ValueError: arrays that are missing or do not fit together, or no data at all.
        BenchError: a file is missing or damaged.
    """
    if isinstance(data, TaskData):
        return data
    if isinstance(data, str | Path):
        return load(str(data), ["task1"], folder)
    if not isinstance(data, Mapping):
        raise ValueError(
            f"data is {type(data).__name__}; expected the path of a file, the name of a data set, "
            f"or a mapping of arrays {', '.join(_ARRAYS)}"
        )
    return _of_arrays({name: np.asarray(array) for name, array in data.items()})


def _of_arrays(arrays: Mapping[str, np.ndarray]) -> TaskData:
    missing = [name for name in _ARRAYS if name not in arrays]
    if missing:
        raise ValueError(
            f"data has no {' and no '.join(missing)} (it holds {', '.join(arrays)}); expected "
            f"arrays {', '.join(_ARRAYS)}"
        )
    terminals = check_arrays(Path(_NAME), dict(arrays))
    rows = len(terminals)
    rewards = np.asarray(arrays["rewards"], np.float32)
    masks = np.asarray(arrays.get("masks", np.ones(rows)), bool)
    for name, column in (("rewards", rewards), ("masks", masks)):
        if column.shape != (rows,):
            raise ValueError(
                f"data['{name}'] has shape {column.shape}, expected one number per row, ({rows},)"
            )
    if not np.isfinite(rewards).all():
        raise ValueError("data['rewards'] are not all finite")
    columns = {
        "observations": np.ascontiguousarray(arrays["observations"], np.float32),
        "actions": np.ascontiguousarray(arrays["actions"], np.float32),
        "terminals": terminals,
        "rewards": rewards[None],
        "masks": masks[None],
    }
    digest = hashlib.sha256()
    for name, column in columns.items():
        digest.update(f"{name}{column.dtype}{column.shape}".encode())
        digest.update(np.ascontiguousarray(column).tobytes())
    return TaskData(
        dataset=_NAME,
        tasks=("task1",),
        **columns,
        fingerprint=digest.hexdigest(),
        source="unknown",
        versions={},
        paths=(Path(_NAME),),
    )
