"""The user's own data, brought into OGBench's file layout."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from bench.data._check import REQUIRED, check_arrays
from bench.data._describe import Arrays, describe_ends, describe_layout, describe_values
from bench.data._episodes import Bounds, Episode, read_actions, read_episodes
from bench.data._errors import DataMissing
from bench.data._files import available_memory, check_dataset_name, check_fits
from bench.data._flags import read_column, read_flags, read_matrix, read_numbers
from bench.data._hdf5 import open_hdf5
from bench.data._layout import Choices, Layout
from bench.data._lerobot import is_lerobot, read_lerobot
from bench.data._minari import open_minari
from bench.data._names import DatasetName, is_dataset_name
from bench.data._npz import open_npz, write_npz
from bench.data._recipes import RECIPES
from bench.data._recognise import recognise
from bench.data._record import DataRecord, FileRecord
from bench.data._tree import Leaf, nested
from bench.machine import with_home


@dataclass(frozen=True, slots=True)
class Imported:
    """A dataset that was imported.

    Attributes:
        path: the file.
        recognised: three lines: the layout and the arrays that were read; the episodes and their
            ends; the ranges of the values.
    """

    path: Path
    recognised: tuple[str, str, str]


def import_data(
    source: str,
    dataset: str,
    data_dir: Path,
    *,
    layout: Literal["auto", "ogbench", "transitions"] = "auto",
    observation_keys: Sequence[str] = (),
    terminals: str | None = None,
    timeouts: str | None = None,
    next_observations: str | None = None,
    action_range: tuple[ArrayLike, ArrayLike] | None = None,
    overwrite: bool = False,
) -> Imported:
    """Bring data of another origin into `<data_dir>/<dataset>.npz`.

    Layouts that are recognised: OGBench's rows of states; transitions, as D4RL, Gymnasium and
    d3rlpy name their arrays; episodes, as Minari has them; robomimic's demonstrations; LeRobot's
    folders. What a file leaves open is refused, with the argument that decides it.

    Args:
        source: an `.npz`, `.hdf5` or `.h5` file, `minari:<dataset>`, or the folder of a LeRobot
            dataset.
        dataset: name to give it; letters, digits, dots, dashes and underscores.
        data_dir: folder of the data files.
        layout: `ogbench` if every row is a state, `transitions` if it is a transition.
        observation_keys: entries of a dictionary observation to join, in this order; `a/b` for an
            entry of an entry. All by default, in the order of Gymnasium's `FlattenObservation`.
        terminals: key of the flags of true ends; `none` if no episode ends in a terminal state.
        timeouts: key of the flags of cut-off ends; `none` if no episode was cut off.
        next_observations: key of the next states; `none` to leave them unread.
        action_range: lowest and highest action in the source, numbers or one for each entry, from
            where actions are scaled to [-1, 1].
        overwrite: replace a dataset of that name.

    Raises:
        DataDamaged: if the data are not sound, naming file, array and row.
        ValueError: arguments that do not fit, a name that is taken or that of a published dataset
            of other sizes, or a file that leaves something open.
        DataMissing: there is no such file.
        OSError: a file cannot be read or written.
    """
    check_dataset_name(dataset)
    choices = Choices(layout, tuple(observation_keys), terminals, timeouts, next_observations)
    target = data_dir / f"{dataset}.npz"
    given, place = action_bounds(action_range), _place(source, target, overwrite=overwrite)
    with recognised(place, source, choices, ogbench=is_dataset_name(dataset)) as (found, own):
        bounds = given or own
        arrays, episodes = _read(place, found, bounds)
    arrays["terminals"] = ends = check_arrays(place, arrays)
    if is_dataset_name(dataset):
        _check_published(place, DatasetName.parse(dataset), arrays)
    lines = (describe_layout(found), describe_ends(arrays, episodes), describe_values(arrays))
    scaled = None if bounds is None else [bound.tolist() for bound in bounds]
    keys = list(observation_keys)
    recipe = {"observation_keys": keys, "action_range": scaled, "recognised": list(lines)}
    origin = source if source.startswith("minari:") else place.name
    files = {target.name: _write(target, arrays, ends)}
    record = DataRecord(dataset, "imported", origin, recipe, {}, files)
    record.write(data_dir / f"{dataset}.json")
    return Imported(target, lines)


def _read(
    place: Path, found: Layout, bounds: Bounds | None
) -> tuple[dict[str, np.ndarray], list[Episode]]:
    """The arrays of a data file, and the episodes where the source has them apart."""
    check_memory(place, found)
    if found.states:
        return _as_found(found.states, bounds), []
    episodes = list(read_episodes(place, found.tables, bounds))
    return _joined(place, episodes), episodes


def _place(source: str, target: Path, *, overwrite: bool) -> Path:
    """Where the source lies, if it is there and the target may be written."""
    place = Path(source)
    if not source.startswith("minari:"):
        place = with_home(source)
        if not place.exists():
            raise DataMissing(f"there is no file or folder {place} to import")
        if target.exists() and target.samefile(place):
            raise ValueError(f"{place} is the file to be written: give the dataset another name")
    if target.exists() and not overwrite:
        raise ValueError(f"{target} exists: replace it with --overwrite, or choose another name")
    return place


def _write(target: Path, arrays: Mapping[str, np.ndarray], ends: np.ndarray) -> FileRecord:
    """Write the arrays of a data file."""
    specs = {key: (array.dtype, array.shape) for key, array in arrays.items()}
    fingerprint = write_npz(target, specs, lambda key: [arrays[key]])
    return FileRecord(target.stat().st_size, len(ends), int(ends.sum()), fingerprint)


def action_bounds(action_range: tuple[ArrayLike, ArrayLike] | None) -> Bounds | None:
    if action_range is None:
        return None
    low, high = (np.asarray(bound, np.float64) for bound in action_range)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ValueError(
            f"action range from {low.tolist()} to {high.tolist()}: expected finite numbers, each "
            "lowest one below its highest; an environment with unbounded actions needs a version "
            "with bounds (gymnasium.wrappers.TransformAction)"
        )
    return low, high


@contextmanager
def recognised(
    place: Path, source: str, choices: Choices, *, ogbench: bool
) -> Iterator[tuple[Layout, Bounds | None]]:
    """The layout of a source, open for reading, and the action range that the source states."""
    if source.startswith("minari:"):
        with open_minari(source.removeprefix("minari:")) as (path, tree, own):
            yield recognise(path, tree, choices), own
    elif is_lerobot(place):
        yield read_lerobot(place, choices), None
    elif place.suffix == ".npz":
        with open_npz(place) as tree:
            tree = nested(tree) if choices.keep_leaves else tree
            yield recognise(place, tree, choices, ogbench=ogbench), None
    elif place.suffix in (".hdf5", ".h5"):
        with open_hdf5(place) as tree:
            yield recognise(place, tree, choices, ogbench=ogbench), None
    else:
        near = [above for above in place.parents[:3] if is_lerobot(above)]
        hint = f"; {near[0]} is such a folder" if near else ""
        raise ValueError(
            f"{place}: expected a file .npz, .hdf5 or .h5, the folder of a LeRobot dataset (that "
            f"with meta/info.json), or minari:DATASET{hint}"
        )


def check_memory(place: Path, layout: Layout) -> None:
    """Refuse what cannot be held: as stored, as float32, and joined for the file."""
    leaves = [leaf for table in layout.tables for leaf in table.leaves()]
    leaves += layout.states.values()
    numbers = sum(leaf.rows * leaf.width for leaf in leaves)
    needed = sum(leaf.nbytes for leaf in leaves) + 8 * numbers
    check_fits(place, needed, available_memory())


def _check_published(place: Path, name: DatasetName, arrays: Arrays) -> None:
    """Refuse data that are not of the sizes of the published dataset whose name they would bear."""
    other = f"or they are other data: give them a name of your own, not '{name}'"
    if name.shards:
        raise ValueError(
            f"{place}: '{name}' is a folder of {name.shards} files, which import cannot write; "
            f"copy the files there yourself, {other}"
        )
    recipe = RECIPES.get(name.stem)
    stated = name.transitions or (recipe.transitions if recipe else None)
    found = len(arrays["terminals"]) - int(arrays["terminals"].sum())
    # The last episode may go beyond the number: they are all of one length.
    episode = recipe.rows - 1 if recipe else 1
    if stated is not None and found != -(-stated // episode) * episode:
        raise ValueError(
            f"{place}: {found:,} transitions, but '{name}' stands for {stated:,}: the file is not "
            f"whole, {other}"
        )
    from bench.simulation import make  # Imported here: MuJoCo takes a second to start.

    try:
        environment = make(name.task(1))
    except ValueError:
        return  # Of that form, but nothing that OGBench publishes.
    environment.close()
    widths = {
        "observations": environment.observation_shape,
        "actions": environment.action_low.shape,
    }
    for key, width in widths.items():
        if arrays[key].shape[1:] != width:
            raise ValueError(
                f"{place}: a row of '{key}' has shape {arrays[key].shape[1:]}, in "
                f"{name.environment_id} {width}: a key is missing, {other}"
            )


def _as_found(states: dict[str, Leaf], bounds: Bounds | None) -> Arrays:
    """Rows as OGBench has them, states of the simulator included, in its types."""
    arrays: Arrays = {}
    for key, leaf in states.items():
        if key == "actions":
            arrays[key] = read_actions(leaf, bounds)
        elif key in ("terminals", "masks"):
            arrays[key] = read_flags(leaf)
        elif key == "rewards":
            arrays[key] = read_column(leaf)
        else:
            whole = key == "button_states"
            arrays[key] = read_numbers(leaf).astype(np.int64) if whole else read_matrix(leaf)
    return arrays


def _joined(place: Path, found: Sequence[Episode]) -> Arrays:
    """Episodes one behind the other, each with a row for its final state."""
    episodes = [episode for episode in found if len(episode.actions)]
    if not episodes:
        raise ValueError(f"{place}: there is no episode with a transition in it")
    columns: dict[str, list[np.ndarray]] = {key: [] for key in (*REQUIRED, "rewards", "masks")}
    first = episodes[0]
    widths = (first.observations.shape[1], first.actions.shape[1])
    for number, episode in enumerate(episodes):
        found_widths = (episode.observations.shape[1], episode.actions.shape[1])
        if found_widths != widths:
            raise ValueError(
                f"{place}: episode {number} has {found_widths[0]} observations and "
                f"{found_widths[1]} actions in a row, the first episode {widths[0]} and {widths[1]}"
            )
        if (episode.rewards is None) != (first.rewards is None):
            raise ValueError(f"{place}: some episodes have rewards and some, as {number}, do not")
        steps = len(episode.actions)
        rows = np.arange(steps + 1)
        columns["observations"].append(episode.observations)
        columns["actions"].append(np.pad(episode.actions, ((0, 1), (0, 0))))
        columns["terminals"].append(rows == steps)
        columns["masks"].append(~((rows == steps - 1) & episode.terminated))
        if episode.rewards is not None:
            columns["rewards"].append(np.pad(episode.rewards, (0, 1)))
    if not columns["rewards"]:
        del columns["rewards"], columns["masks"]
    return {key: np.concatenate(pieces) for key, pieces in columns.items()}
