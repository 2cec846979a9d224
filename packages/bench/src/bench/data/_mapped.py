"""Data that are larger than memory: rows stay in their files, rewards are kept."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from bench.data._load import join, read_labels, read_rows
from bench.data._locate import Location, combined_fingerprint, ensure_record, locate
from bench.data._npz import is_stored, npz_specs, read_npz
from bench.data._record import FileRecord, Source
from bench.errors import BenchError
from bench.storage import atomic_path

_ROWS = ("observations", "actions")


@dataclass(frozen=True, slots=True)
class MappedTaskData:
    """A dataset as `TaskData`, its observations and actions in memory maps, one for each file.

    Attributes:
        dataset: its name.
        tasks: names of the tasks, the first axis of rewards and masks.
        observations: (n_i, O) each, in the order of the files.
        actions: (n_i, A) each, in [-1, 1].
        terminals: (N,), in memory.
        rewards: (T, N), in memory.
        masks: (T, N), in memory.
        fingerprint: SHA-256 of the files' contents.
        source: where the data come from.
        versions: of the simulator that made generated data.
        paths: the files.
    """

    dataset: str
    tasks: tuple[str, ...]
    observations: tuple[Float32[np.ndarray, "_ obs"], ...]
    actions: tuple[Float32[np.ndarray, "_ act"], ...]
    terminals: Bool[np.ndarray, " rows"]
    rewards: Shaped[np.ndarray, "tasks rows"]
    masks: Bool[np.ndarray, "tasks rows"]
    fingerprint: str
    source: Source
    versions: dict[str, str]
    paths: tuple[Path, ...]

    @property
    def transitions(self) -> int:
        """Rows that have a successor."""
        return len(self.terminals) - int(np.sum(self.terminals))


def bytes_in_memory(dataset: str, tasks: int, data_dir: Path | None = None) -> int:
    """Memory that `load` would need for the data, from the files' headers.

    Args:
        dataset: name or path, as of `load`.
        tasks: number of tasks whose rewards are kept.
        data_dir: folder of the data files.

    Raises:
        DataMissing: if the data are not there.
        DataDamaged: if a file is no archive of arrays.
    """
    total = 0
    for path in locate(dataset, data_dir).files:
        specs = npz_specs(path)
        rows = 0
        for key in _ROWS:
            if key in specs and len(specs[key][1]) == 2:
                rows = specs[key][1][0]
                total += 4 * rows * specs[key][1][1]
        own = 4 if "rewards" in specs else 1
        total += rows * (1 + tasks * (own + 1))
    return total


def load_mapped(
    dataset: str, tasks: Sequence[str], data_dir: Path | None = None, *, sparse: bool = False
) -> MappedTaskData:
    """Open a dataset for reading by rows, and make the rewards of its tasks.

    Arrays that are stored uncompressed, as float32, are mapped where they are, after every file has
    been read once and checked. Others (OGBench's own files are compressed) are written once as
    `.npy` files into a folder `.mapped` beside the data; they are checked when that is done and
    not again.

    Args:
        dataset: name or path, as of `load`.
        tasks: names of the tasks.
        data_dir: folder of the data files, by default OGBench's.
        sparse: reward -1 until a task is solved.

    Raises:
        DataMissing: if the data are not there.
        DataDamaged: if a file is not sound; names file, array and row.
        BenchError: if there is no space for what must be written.
        ValueError: for an unknown name, or tasks that cannot be rewarded.
    """
    location = locate(dataset, data_dir)
    record = ensure_record(location)
    entries = [record.files[path.name] for path in location.files]
    _check_space(location, entries)
    maps: dict[str, list[np.ndarray]] = {key: [] for key in _ROWS}
    pieces = []
    for path, entry in zip(location.files, entries, strict=True):
        folder = _folder(path, entry)
        if all((folder / f"{key}.npy").exists() for key in _ROWS):
            found = read_labels(path, dataset, tasks, sparse)
        else:
            found = read_rows(path, dataset, tasks, sparse)
            if not _mappable(path):
                for key in _ROWS:
                    _write(folder / f"{key}.npy", found[key])
            found = {key: value for key, value in found.items() if key not in _ROWS}
        pieces.append(found)
        for key, array in _open(path, folder).items():
            maps[key].append(array)
    return MappedTaskData(
        dataset=dataset,
        tasks=tuple(tasks),
        observations=tuple(maps["observations"]),
        actions=tuple(maps["actions"]),
        **join(iter(pieces), sum(entry.rows for entry in entries)),
        fingerprint=combined_fingerprint(record, location.files),
        source=record.source,
        versions=record.versions,
        paths=location.files,
    )


def _folder(path: Path, entry: FileRecord) -> Path:
    """Where a file's rows are written to; named after the contents, so never out of date."""
    return path.parent / ".mapped" / entry.fingerprint[:32]


def _mappable(path: Path) -> bool:
    """Whether the rows of a file can be mapped where they are."""
    specs = npz_specs(path)
    plain = all(key in specs and specs[key][0] == np.float32 for key in _ROWS)
    return plain and is_stored(path, _ROWS)


def _open(path: Path, folder: Path) -> dict[str, np.ndarray]:
    if (folder / "actions.npy").exists():
        return {key: np.load(folder / f"{key}.npy", mmap_mode="r") for key in _ROWS}
    return read_npz(path, _ROWS)


def _write(path: Path, array: Float32[np.ndarray, "rows columns"]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def _check_space(location: Location, entries: Sequence[FileRecord]) -> None:
    """Refuse to begin what would fill the disk."""
    needed = 0
    for path, entry in zip(location.files, entries, strict=True):
        if not (_folder(path, entry) / "actions.npy").exists() and not _mappable(path):
            specs = npz_specs(path)
            needed += sum(4 * int(np.prod(specs[key][1])) for key in _ROWS if key in specs)
    folder = location.files[0].parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BenchError(
            f"the files of {location.name} are compressed or no float32, so their rows must be "
            f"written once to {folder / '.mapped'} to be read there: {needed / 1e9:.1f} GB, but "
            f"{free / 1e9:.1f} GB are free; make room, or keep the data in memory (--data-memory)"
        )
