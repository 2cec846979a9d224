"""Minari's datasets of this machine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.data._errors import DataMissing
from bench.data._files import reading
from bench.data._hdf5 import open_hdf5
from bench.data._tree import Leaf, Tree, leaf_of

_KEYS = ("observations", "actions", "rewards", "terminations", "truncations")
_Bounds = tuple[np.ndarray, np.ndarray]


@contextmanager
def open_minari(dataset: str) -> Iterator[tuple[Path, Tree, _Bounds | None]]:
    """A Minari dataset's name as a path, its episodes, and the bounds of its action space.

    The bounds are None where they are -1 and 1, infinite, or no bounds of vectors.

    Raises:
        ValueError: if Minari is not installed.
        DataMissing: if the dataset is not on this machine.
        DataDamaged: if it cannot be read.
    """
    try:
        import minari
    except ImportError as error:
        raise ValueError(
            "reading Minari datasets needs the package minari: install it, or give the dataset's "
            "main_data.hdf5 instead"
        ) from error
    try:
        found = minari.load_dataset(dataset)
    except (FileNotFoundError, ValueError) as error:
        raise DataMissing(
            f"the Minari dataset '{dataset}' is not on this machine; `minari download {dataset}` "
            f"gets it ({error})"
        ) from error
    place = Path(f"minari:{dataset}")
    bounds = _action_bounds(found.action_space)
    file = Path(found.storage.data_path) / "main_data.hdf5"
    if file.is_file():
        with open_hdf5(file) as tree:
            yield file, tree, bounds
        return
    with reading(place, "Minari dataset"):
        tree = {
            f"episode_{episode.id}": {
                key: _member(place, f"episode_{episode.id}/{key}", getattr(episode, key))
                for key in _KEYS
            }
            for episode in found.iterate_episodes()
        }
    yield place, tree, bounds


def _member(place: Path, key: str, value: Any) -> "Leaf | Tree":
    """Dictionaries and tuples as Minari's HDF5 files have them."""
    if isinstance(value, Mapping):
        return {name: _member(place, f"{key}/{name}", v) for name, v in value.items()}
    if isinstance(value, tuple):
        names = [f"_index_{i}" for i in range(len(value))]
        return {n: _member(place, f"{key}/{n}", v) for n, v in zip(names, value, strict=True)}
    return leaf_of(place, key, np.asarray(value))


def _action_bounds(space: Any) -> _Bounds | None:
    low, high = getattr(space, "low", None), getattr(space, "high", None)
    if low is None or high is None or np.ndim(low) != 1:
        return None
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        return None
    if (low == -1).all() and (high == 1).all():
        return None
    return np.asarray(low, np.float64), np.asarray(high, np.float64)
