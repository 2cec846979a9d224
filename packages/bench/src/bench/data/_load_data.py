"""Data of any origin for fine-tuning a policy of the user's own: observations keep their leaves."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from bench.data._episodes import Bounds, Episode, read_actions, read_episodes
from bench.data._errors import DataDamaged, DataMissing
from bench.data._flags import read_column, read_flags, read_leaf
from bench.data._import import action_bounds, check_memory, recognised
from bench.data._layout import Choices, Layout
from bench.data._leaf_files import is_leaf_folder, new_folder, read_leaf_folder
from bench.data._load import ActionRange, TaskData, action_range_of, load
from bench.data._locate import default_data_dir
from bench.data._recognise import recognise
from bench.data._tree import Leaf, Tree, leaf_of, nested
from bench.machine import with_home

__all__ = ["DataSource", "load_data"]

DataSource: TypeAlias = str | Path | TaskData | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""Path or name of data, data at hand, or arrays: in one dictionary, or in one for each episode."""

_ARRAYS = Path("arrays")
_TASK = ("task1",)


def load_data(
    source: DataSource,
    *,
    observation_keys: Sequence[str] = (),
    layout: Literal["auto", "ogbench", "transitions"] = "auto",
    terminals: str | None = None,
    timeouts: str | None = None,
    next_observations: str | None = None,
    rewards: Literal["stored", "success"] = "stored",
    action_range: tuple[ArrayLike, ArrayLike] | Literal["as_stored"] | None = None,
    store: str | Path | None = None,
    mapped: bool | None = None,
    data_dir: str | Path | None = None,
) -> TaskData:
    """Read episodes whose observations may be images and named leaves.

    The layouts are those of :func:`bench.data.import_data`: OGBench's rows of states; transitions,
    as D4RL, Gymnasium and d3rlpy name their arrays; episodes, as Minari has them; robomimic's
    demonstrations; LeRobot's folders, with their images and videos. An observation that is a
    dictionary stays one: its entries are named as in the file, ``a/b`` for an entry of an entry.
    Images stay bytes; floats are float32.

    Args:
        source: an `.npz`, `.hdf5` or `.h5` file, the folder of a LeRobot dataset, a folder that
            ``store`` wrote, `minari:<dataset>`, the name of an imported dataset, or arrays: a
            dictionary of them, with observations as an array or a dictionary, or a list of such
            dictionaries, one for each episode.
        observation_keys: entries of the observations to read; all by default.
        layout: `ogbench` if every row is a state, `transitions` if every row is a transition.
        terminals: key of the flags of true ends; `none` if no episode ends in a terminal state.
        timeouts: key of the flags of cut-off ends; `none` if no episode was cut off.
        next_observations: key of the states after the transitions; `none` to leave them unread.
        rewards: `stored`, or `success`: 1 for the transition into a terminal state and 0 else, for
            demonstrations that end where the task is done.
        action_range: lowest and highest action, a number or one for each entry; actions are scaled
            to [-1, 1] from there, and those that a trained policy plays are scaled back.
            `as_stored` leaves them as they are; by default they must lie in [-1, 1].
        store: folder to write what was read into, an array file for each leaf, episode by episode;
            it is read from there by memory mapping where it would take more than half of the
            memory, and can be the source next time.
        mapped: whether a stored folder's observations and actions stay on the disk; None to decide
            by their size.
        data_dir: where datasets are looked for by name.

    Returns:
        The data of one task, ``observations`` being an array ``(N, ...)`` or a dictionary of them.

    Raises:
        DataMissing: if there is no such file, folder or dataset.
        DataDamaged: if the data are not sound, naming file, array and row.
        ValueError: for arguments that do not fit, a file that leaves something open, data without
            rewards, or a package that is needed to read them and not installed.
    """
    if isinstance(source, TaskData):
        return source
    choices = Choices(
        layout, tuple(observation_keys), terminals, timeouts, next_observations, keep_leaves=True
    )
    place, name = _place(source)
    if isinstance(source, str | Path) and not str(source).startswith("minari:"):
        if is_leaf_folder(place):
            return read_leaf_folder(place, mapped=mapped)
        if not place.exists():
            return _named(str(source), data_dir)
    as_stored = isinstance(action_range, str)
    if as_stored and action_range != "as_stored":
        raise ValueError(f"action_range is {action_range!r}; expected two bounds or 'as_stored'")
    bounds = None if isinstance(action_range, str) else action_bounds(action_range)
    with _opened(source, place, choices) as (found, own):
        bounds = None if as_stored else bounds or own
        pieces = _pieces(place, found, bounds, as_stored, rewards)
        if store is None:
            check_memory(place, found)
            joined = _joined(place, list(pieces))
            size = joined["actions"].shape[1]
            return _in_memory(name, place, joined, action_range_of(bounds, size))
        record = {"dataset": name, "tasks": _TASK, "layout": found.name}
        _store(Path(store), place, pieces, record, bounds)
    return read_leaf_folder(Path(store), mapped=mapped)


def _place(source: Any) -> tuple[Path, str]:
    """Where a source lies, for messages, and what to call its data."""
    if not isinstance(source, str | Path):
        return _ARRAYS, str(_ARRAYS)
    if str(source).startswith("minari:"):
        return Path(source), Path(source).name
    place = with_home(str(source))
    return place, place.stem


def _store(
    folder: Path,
    place: Path,
    pieces: Iterator[dict[str, np.ndarray]],
    record: Mapping[str, Any],
    bounds: Bounds | None,
) -> None:
    """Write what comes, piece by piece."""
    with new_folder(folder) as writer:
        for piece in pieces:
            writer.append(piece)
            size = piece["actions"].shape[1]
        if not writer.begun:
            raise DataDamaged(f"{place}: there is no episode with a transition in it")
        writer.finish({**record, "action_range": action_range_of(bounds, size)})


def _named(source: str, data_dir: str | Path | None) -> TaskData:
    """A dataset by its name, as suites find it."""
    try:
        return load(source, list(_TASK), None if data_dir is None else Path(data_dir))
    except DataMissing as error:
        folder = Path(data_dir) if data_dir is not None else default_data_dir()
        raise DataMissing(
            f"there is no file or folder {source}, nor a dataset of that name in {folder}"
        ) from error


@contextmanager
def _opened(source: Any, place: Path, choices: Choices) -> Iterator[tuple[Layout, Bounds | None]]:
    if isinstance(source, str | Path):
        with recognised(place, str(source), choices, ogbench=False) as found:
            yield found
        return
    if isinstance(source, Mapping):
        yield recognise(place, _tree("", source), choices), None
        return
    if not isinstance(source, Sequence) or not all(isinstance(e, Mapping) for e in source):
        raise ValueError(
            f"data is {type(source).__name__}; expected a path, the name of a dataset, a "
            "dictionary of arrays, or a list of such dictionaries, one for each episode"
        )
    episodes = {f"episode_{i}": _tree(f"episode_{i}", e) for i, e in enumerate(source)}
    if not episodes:
        raise ValueError("data is an empty list; expected an episode at least")
    yield recognise(place, episodes, choices), None


def _tree(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Leaf | Tree]:
    """Arrays at hand as those of a file."""
    found: dict[str, Leaf | Tree] = {}
    for key, value in arrays.items():
        name = f"{prefix}/{key}".lstrip("/")
        if isinstance(value, Mapping):
            found[str(key)] = _tree(name, value)
        else:
            # Tensors of the CPU are arrays to NumPy.
            found[str(key)] = leaf_of(_ARRAYS, name, np.asarray(value))
    return nested(found)


def _pieces(
    place: Path, layout: Layout, bounds: Bounds | None, as_stored: bool, rewards: str
) -> Iterator[dict[str, np.ndarray]]:
    """Rows of states with everything that belongs to them, one episode or several at a time."""
    if layout.states:
        yield _states(place, layout.states, bounds, as_stored, rewards)
        return
    for number, episode in enumerate(
        read_episodes(place, layout.tables, bounds, leaves=True, as_stored=as_stored)
    ):
        if len(episode.actions):
            yield _rows(place, number, episode, rewards)


def _rows(place: Path, number: int, episode: Episode, rewards: str) -> dict[str, np.ndarray]:
    steps = len(episode.actions)
    rows = np.arange(steps + 1)
    ended = (rows == steps - 1) & episode.terminated
    if rewards == "success":
        column = ended.astype(np.float32)
    elif episode.rewards is None:
        raise _no_rewards(f"{place}: episode {number}")
    else:
        column = np.pad(episode.rewards, (0, 1))
    seen = episode.observations
    leaves = seen if isinstance(seen, dict) else {"": seen}
    return {
        **{f"observations/{n}" if n else "observations": leaf for n, leaf in leaves.items()},
        "actions": np.pad(episode.actions, ((0, 1), (0, 0))),
        "terminals": rows == steps,
        "rewards": column.astype(np.float32),
        "masks": ~ended,
    }


def _states(
    place: Path, states: Mapping[str, Leaf], bounds: Bounds | None, as_stored: bool, rewards: str
) -> dict[str, np.ndarray]:
    """Arrays that are rows of states already, as OGBench has them."""
    ends = read_flags(states["terminals"])
    seen = {key: leaf for key, leaf in states.items() if key.split("/")[0] == "observations"}
    arrays = {key: read_leaf(leaf) for key, leaf in sorted(seen.items())}
    arrays["actions"] = read_actions(states["actions"], bounds, as_stored=as_stored)
    arrays["terminals"] = ends
    masks = read_flags(states["masks"]) if "masks" in states else np.ones(len(ends), bool)
    if rewards == "success":
        arrays["rewards"] = (~masks).astype(np.float32)
    elif "rewards" in states:
        arrays["rewards"] = read_column(states["rewards"])
    else:
        raise _no_rewards(str(place))
    arrays["masks"] = masks
    for name, array in arrays.items():
        if len(array) != len(ends):
            raise DataDamaged(
                f"{place}: '{name}' has {len(array)} rows and 'terminals' {len(ends)}"
            )
    if len(ends) == 0 or not ends[-1]:
        raise DataDamaged(f"{place}: the last row of 'terminals' is not 1: an episode is cut off")
    single = np.flatnonzero(ends & np.concatenate([[True], ends[:-1]]))
    if len(single):
        raise DataDamaged(
            f"{place}: 'terminals', row {single[0]}: an episode of a single row has no transition"
        )
    return arrays


def _no_rewards(place: str) -> ValueError:
    return ValueError(
        f"{place}: there are no rewards, and fine-tuning maximises them: add an array 'rewards' "
        "with one number a step, or give rewards='success' if an episode's true end is a success"
    )


def _joined(place: Path, pieces: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if not pieces:
        raise DataDamaged(f"{place}: there is no episode with a transition in it")
    first = {name: (array.dtype, array.shape[1:]) for name, array in pieces[0].items()}
    for number, piece in enumerate(pieces):
        for name, array in piece.items():
            if (array.dtype, array.shape[1:]) != first[name]:
                raise DataDamaged(
                    f"{place}: '{name}' of episode {number} has rows of {array.dtype} "
                    f"{array.shape[1:]}, that of the first {first[name][0]} {first[name][1]}"
                )
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in first}


def _in_memory(
    name: str, place: Path, arrays: Mapping[str, np.ndarray], action_range: ActionRange
) -> TaskData:
    digest = hashlib.sha256()
    for key, array in arrays.items():
        digest.update(f"{key}{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    seen = {k.partition("/")[2]: a for k, a in arrays.items() if k.split("/")[0] == "observations"}
    return TaskData(
        dataset=name,
        tasks=_TASK,
        observations=seen.get("", seen),
        actions=arrays["actions"],
        terminals=arrays["terminals"],
        rewards=arrays["rewards"][None],
        masks=arrays["masks"][None],
        fingerprint=digest.hexdigest(),
        source="imported",
        versions={},
        paths=(place,),
        action_range=action_range,
    )
