"""Episodes from files of other layouts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from bench.data._check import check_finite
from bench.data._errors import DataDamaged
from bench.data._npz import read_npz

Tables = Mapping[str, Any]
"""Arrays by key; an array may be a mapping of arrays itself (dictionary observations)."""

_ENDS = {
    "terminals": ("terminals", "terminations", "dones"),
    "timeouts": ("timeouts", "truncations"),
}


@dataclass(frozen=True, slots=True)
class ForeignEpisode:
    """One episode of L transitions.

    Attributes:
        observations: (L + 1, O), the final one included.
        actions: (L, A), as found.
        rewards: (L,); None where there are none.
        terminated: whether the episode ended in a terminal state rather than being cut off.
    """

    observations: Float[np.ndarray, "states obs"]
    actions: Float[np.ndarray, "steps act"]
    rewards: Float[np.ndarray, " steps"] | None
    terminated: bool


def read_tables(path: Path) -> list[tuple[str, Tables]]:
    """The arrays of an npz or HDF5 file: one table, or one for each episode.

    Args:
        path: `.npz`; `.hdf5` or `.h5` with arrays at the top (as D4RL has them) or in groups
            `episode_0`, `episode_1`, ... (as Minari has them).

    Returns:
        Name (for messages) and arrays of each table.

    Raises:
        DataDamaged: if the file cannot be read.
        ValueError: for another kind of file.
    """
    if path.suffix == ".npz":
        return [("", read_npz(path, mapped=False))]
    if path.suffix not in (".hdf5", ".h5"):
        raise ValueError(
            f"{path}: expected a file .npz, .hdf5 or .h5, the folder of a LeRobot dataset, or "
            "minari:DATASET"
        )
    import h5py

    try:
        with h5py.File(path) as file:
            groups = [key for key in file if key.startswith("episode_")]
            if not groups:
                return [("", _read_group(file))]
            groups.sort(key=lambda key: int(key.removeprefix("episode_")))
            return [(key, _read_group(file[key])) for key in groups]
    except (OSError, KeyError, ValueError) as error:
        raise DataDamaged(f"{path}: not a readable HDF5 file ({error})") from error


def _read_group(group: Any) -> dict[str, Any]:
    return {
        key: _read_group(value) if hasattr(value, "keys") else value[()]
        for key, value in group.items()
        if hasattr(value, "keys") or value.ndim
    }


def read_minari(dataset: str) -> list[tuple[str, Tables]]:
    """The episodes of a Minari dataset on this machine, one table each.

    Raises:
        ValueError: if Minari is not installed, or the dataset is not on this machine.
    """
    try:
        import minari
    except ImportError as error:
        raise ValueError(
            "reading Minari datasets needs the package minari: install it, or give the dataset's "
            "main_data.hdf5 instead"
        ) from error
    try:
        episodes = minari.load_dataset(dataset).iterate_episodes()
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"the Minari dataset '{dataset}' is not on this machine; `minari download {dataset}` "
            f"gets it ({error})"
        ) from error
    keys = ("observations", "actions", "rewards", "terminations", "truncations")
    return [
        (f"episode_{episode.id}", {key: getattr(episode, key) for key in keys})
        for episode in episodes
    ]


def split_episodes(
    path: Path, tables: Sequence[tuple[str, Tables]], observation_keys: Sequence[str]
) -> Iterator[ForeignEpisode]:
    """Cut tables into episodes.

    A table is one episode when it has a state more than actions, as in Minari. Else it has one row
    for each transition, and an episode ends where `terminals` or `timeouts` say so, or where the
    next observation is not that of the next row. Without next observations, the last row of an
    episode that was cut off only gives its final state.

    Args:
        path: the file, for messages.
        tables: arrays by key.
        observation_keys: which entries of a dictionary observation to join, in this order.

    Raises:
        DataDamaged: naming file, array and row.
        ValueError: if the observation keys do not fit.
    """
    for name, table in tables:
        place = path / name if name else path
        states = _observations(place, table, observation_keys)
        actions = _matrix(place, table, "actions")
        rewards = _matrix(place, table, "rewards")[:, 0] if "rewards" in table else None
        terminals, timeouts = (
            _flags(table, kind, len(actions)) for kind in ("terminals", "timeouts")
        )
        lengths = {"actions": len(actions), "terminals": len(terminals), "timeouts": len(timeouts)}
        lengths |= {} if rewards is None else {"rewards": len(rewards)}
        if len(set(lengths.values())) > 1 or len(states) - len(actions) not in (0, 1):
            raise DataDamaged(f"{place}: lengths differ: observations {len(states)}, {lengths}")
        if len(actions) == 0:
            raise DataDamaged(f"{place}: the arrays have no rows")
        if len(states) == len(actions) + 1:
            yield ForeignEpisode(states, actions, rewards, bool(terminals[-1]))
            continue
        follows = None
        if "next_observations" in table:
            follows = _observations(place, table, observation_keys, "next_observations")
            if follows.shape != states.shape:
                raise DataDamaged(
                    f"{place}: 'next_observations' has shape {follows.shape}, 'observations' "
                    f"{states.shape}"
                )
        yield from _cut(states, follows, actions, rewards, terminals, timeouts)


def _cut(
    states: np.ndarray,
    follows: np.ndarray | None,
    actions: np.ndarray,
    rewards: np.ndarray | None,
    terminals: np.ndarray,
    timeouts: np.ndarray,
) -> Iterator[ForeignEpisode]:
    ends = terminals | timeouts
    ends[-1] = True
    if follows is not None:
        ends[:-1] |= (follows[:-1] != states[1:]).any(axis=1)
    start = 0
    for end in np.flatnonzero(ends):
        stop = int(end) + 1
        if follows is not None:
            path = np.concatenate([states[start:stop], follows[end][None]])
        elif terminals[end]:
            # The terminal state itself is not in the file; no value is ever taken of it.
            path = np.concatenate([states[start:stop], states[end][None]])
        else:
            path = states[start:stop]
        steps = len(path) - 1
        if steps:
            yield ForeignEpisode(
                path,
                actions[start : start + steps],
                None if rewards is None else rewards[start : start + steps],
                bool(terminals[end]),
            )
        start = stop


def _observations(
    place: Path, table: Tables, keys: Sequence[str], name: str = "observations"
) -> Float[np.ndarray, "rows obs"]:
    found = table.get(name)
    if not isinstance(found, Mapping):
        if keys:
            raise ValueError(f"{place}: '{name}' has no entries {', '.join(keys)}; it is an array")
        return _matrix(place, table, name)
    if not keys:
        raise ValueError(
            f"{place}: '{name}' has the entries {', '.join(found)}; say which to join, and in "
            "which order"
        )
    return np.concatenate([_matrix(place, found, key) for key in keys], axis=1)


def _matrix(place: Path, table: Tables, key: str) -> Float[np.ndarray, "rows columns"]:
    if key not in table or isinstance(table[key], Mapping):
        raise DataDamaged(f"{place}: no array '{key}' (it holds {', '.join(table)})")
    array: Shaped[np.ndarray, "rows ..."] = np.asarray(table[key])
    if array.dtype.kind not in "fiub" or array.ndim not in (1, 2):
        raise DataDamaged(
            f"{place}: '{key}' has type {array.dtype} and shape {array.shape}; expected numbers "
            "in one or two dimensions, rows first"
        )
    check_finite(place, key, array)
    return array.astype(np.float32).reshape(len(array), -1)


def _flags(table: Tables, kind: str, rows: int) -> Shaped[np.ndarray, " rows"]:
    for key in _ENDS[kind]:
        if key in table:
            return np.asarray(table[key]).astype(bool).reshape(-1)
    return np.zeros(rows, bool)
