"""The user's own data, brought into OGBench's file layout."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped
from numpy.typing import ArrayLike

from bench.data._check import REQUIRED, check_actions, check_arrays
from bench.data._errors import DataDamaged, DataMissing
from bench.data._foreign import ForeignEpisode, Tables, read_minari, read_tables, split_episodes
from bench.data._lerobot import is_lerobot, read_lerobot
from bench.data._names import DatasetName, is_dataset_name
from bench.data._npz import write_npz
from bench.data._recipes import RECIPES
from bench.data._record import DataRecord, FileRecord

_Bound = Float64[np.ndarray, "..."]
_TRANSITION_KEYS = {"next_observations", "timeouts", "truncations", "terminations", "dones"}


def import_data(
    source: str,
    dataset: str,
    data_dir: Path,
    *,
    observation_keys: Sequence[str] = (),
    action_range: tuple[ArrayLike, ArrayLike] | None = None,
    overwrite: bool = False,
) -> Path:
    """Bring data of another origin into `<data_dir>/<dataset>.npz`.

    Three layouts are recognised. With `observations`, `actions` and `terminals` alone (and whatever
    other arrays there are), rows are taken as OGBench has them: every state, an episode's final
    state in a row of its own that `terminals` marks. With `next_observations`, `timeouts`,
    `truncations` or `terminations`, rows are transitions, as in D4RL; `terminals` then marks true
    ends and masks the value behind them. In HDF5, groups `episode_<i>` are episodes with a state
    more than actions, as in Minari.

    Args:
        source: an `.npz`, `.hdf5` or `.h5` file, `minari:<dataset>`, or the folder of a LeRobot
            dataset.
        dataset: name to give it; letters, digits, dots, dashes and underscores.
        data_dir: folder of the data files.
        observation_keys: entries of a dictionary observation to join, in this order.
        action_range: lowest and highest action in the source, a number or one for each entry;
            actions are scaled to [-1, 1] from there, and the range is recorded.
        overwrite: replace a dataset of that name.

    Returns:
        The file.

    Raises:
        DataDamaged: if the data are not sound, naming file, array and row.
        ValueError: for arguments that do not fit, a name that is taken, or that of a published
            dataset of other sizes.
        DataMissing: if there is no such file.
        OSError: if a file cannot be read or written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", dataset):
        raise ValueError(f"'{dataset}' cannot name a dataset: use letters, digits, '.', '-', '_'")
    bounds = None
    if action_range is not None:
        low, high = (np.asarray(bound, np.float64) for bound in action_range)
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
            raise ValueError(f"action range {action_range}: expected the lowest below the highest")
        bounds = (low, high)
    target = data_dir / f"{dataset}.npz"
    if target.exists() and not overwrite:
        raise ValueError(f"{target} exists: replace it with --overwrite, or choose another name")
    if source.startswith("minari:"):
        place, tables = Path(source), read_minari(source.removeprefix("minari:"))
    else:
        place = Path(source).expanduser()
        if not place.exists():
            raise DataMissing(f"there is no file or folder {place} to import")
        tables = read_lerobot(place, observation_keys) if is_lerobot(place) else read_tables(place)

    tables = [(name, _with_scaled_actions(place / name, table, bounds)) for name, table in tables]
    if _has_rows_of_states(tables):
        arrays = _as_found(tables[0][1])
    else:
        arrays = _joined(place, list(split_episodes(place, tables, observation_keys)))
    arrays["terminals"] = ends = check_arrays(place, arrays)
    if is_dataset_name(dataset):
        _check_published(place, DatasetName.parse(dataset), arrays)
    specs = {key: (array.dtype, array.shape) for key, array in arrays.items()}
    fingerprint = write_npz(target, specs, lambda key: [arrays[key]])
    entry = FileRecord(target.stat().st_size, len(ends), int(ends.sum()), fingerprint)
    settings: dict[str, Any] = {"observation_keys": list(observation_keys)}
    settings["action_range"] = None if bounds is None else [bound.tolist() for bound in bounds]
    origin = source if source.startswith("minari:") else place.name
    record = DataRecord(dataset, "imported", origin, settings, {}, {target.name: entry})
    record.write(data_dir / f"{dataset}.json")
    return target


def _check_published(
    place: Path, name: DatasetName, arrays: dict[str, Shaped[np.ndarray, "rows ..."]]
) -> None:
    """Refuse data that are not of the sizes of the published dataset whose name they would bear."""
    other = f"or they are other data: give them a name of your own, not '{name}'"
    if name.shards:
        raise ValueError(
            f"{place}: '{name}' is a folder of {name.shards} files, which import does not write; "
            f"put such files there yourself, {other}"
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


def _has_rows_of_states(tables: Sequence[tuple[str, Tables]]) -> bool:
    """Whether a file is in OGBench's layout already."""
    if len(tables) != 1 or tables[0][0]:
        return False
    table = tables[0][1]
    return set(REQUIRED) <= set(table) and not _TRANSITION_KEYS & set(table)


def _with_scaled_actions(
    place: Path, table: Tables, bounds: tuple[_Bound, _Bound] | None
) -> Tables:
    """The table with its actions scaled to [-1, 1], which they must lie in."""
    actions = table.get("actions")
    if not isinstance(actions, np.ndarray) or actions.dtype.kind not in "fiu":
        return table  # The checks of the layout say what is wrong.
    if bounds is not None and not ((bounds[0] == -1).all() and (bounds[1] == 1).all()):
        low, high = bounds
        columns = actions.shape[1] if actions.ndim > 1 else 1
        if low.ndim and len(low) != columns:
            raise ValueError(
                f"{place}: 'actions' has {columns} entries in a row, the action range {len(low)}"
            )
        actions = 2 * (actions - low) / (high - low) - 1
    try:
        check_actions(place, actions)
    except DataDamaged as error:
        advice = (
            "say which range they come from, with --env ID or --action-range LOWEST HIGHEST"
            if bounds is None
            else f"scaled from the range {' to '.join(str(bound.tolist()) for bound in bounds)}"
        )
        raise DataDamaged(f"{error} ({advice})") from None
    return {**table, "actions": np.clip(actions, -1, 1).astype(np.float32)}


def _as_found(table: Tables) -> dict[str, Shaped[np.ndarray, "rows ..."]]:
    """Rows as OGBench has them, states of the simulator included, in its types."""
    types = {"masks": bool, "button_states": np.int64}
    arrays = {key: np.asarray(found) for key, found in table.items()}
    for key, array in arrays.items():
        if array.dtype.kind in "fiub" and key != "terminals":  # The rest is for the checks.
            arrays[key] = array.astype(types.get(key, np.float32))
    return arrays


def _joined(
    place: Path, episodes: Sequence[ForeignEpisode]
) -> dict[str, Shaped[np.ndarray, "rows ..."]]:
    """Episodes one behind the other, each with a row for its final state."""
    if not episodes:
        raise ValueError(f"{place}: there is no episode with a transition in it")
    columns: dict[str, list[np.ndarray]] = {key: [] for key in (*REQUIRED, "rewards", "masks")}
    widths = (episodes[0].observations.shape[1], episodes[0].actions.shape[1])
    for number, episode in enumerate(episodes):
        found = (episode.observations.shape[1], episode.actions.shape[1])
        if found != widths:
            raise ValueError(
                f"{place}: episode {number} has {found[0]} observations and {found[1]} actions in "
                f"a row, the first episode {widths[0]} and {widths[1]}"
            )
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
