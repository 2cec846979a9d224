"""Where a dataset lies on the disk, and what is known of it."""

import contextlib
import difflib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

import numpy as np

from bench.data._check import check_arrays
from bench.data._errors import DataDamaged, DataMissing
from bench.data._files import check_dataset_name
from bench.data._names import DatasetName, is_dataset_name
from bench.data._npz import fingerprint, read_npz
from bench.data._recipes import RECIPES
from bench.data._record import DataRecord, FileRecord
from bench.machine import with_home


def default_data_dir() -> Path:
    """`$BENCH_DATA_DIR`, or the folder that `ogbench` uses.

    Raises:
        ValueError: neither is known, because there is no home directory.
    """
    if folder := os.environ.get("BENCH_DATA_DIR"):
        return with_home(folder)
    try:
        return with_home("~/.ogbench/data")
    except ValueError as error:
        raise ValueError(f"{error}; --data-dir or BENCH_DATA_DIR says where data lie") from error


def folder_option(data_dir: Path | None) -> str:
    """What a command that is told to the user needs, to work on the same folder."""
    if data_dir is None:
        return ""
    with contextlib.suppress(ValueError):  # there is no default folder
        if data_dir == default_data_dir():
            return ""
    return f" --data-dir {quote(str(data_dir))}"


@dataclass(frozen=True, slots=True)
class Location:
    """Files of a dataset that were found.

    Attributes:
        name: the dataset they belong to; a larger one when they are the first of its files.
        files: the files asked for, in order.
        record_file: where their origin is recorded.
    """

    name: str
    files: tuple[Path, ...]
    record_file: Path


def locate(dataset: str, data_dir: Path | None = None, *, validation: bool = False) -> Location:
    """Find the files of a dataset.

    Ten million transitions are also found as the first ten files of the hundred million.

    Args:
        dataset: name of a dataset or of one of its single tasks, or the path of an `.npz` file.
        data_dir: folder of the data files, see `default_data_dir`.
        validation: the validation files instead of the training files.

    Raises:
        DataMissing: saying what was tried and which command gets the data.
        ValueError: if `dataset` is no dataset name.
    """
    if dataset.endswith(".npz"):  # A path; everything else is a name and never leaves the folder.
        path = with_home(dataset)
        record_file = path.with_suffix(".json")
        path = path.with_name(f"{path.stem}-val.npz") if validation else path
        if not path.exists():
            raise DataMissing(f"there is no file {path}")
        return Location(record_file.stem, (path,), record_file)
    check_dataset_name(dataset)
    data_dir = default_data_dir() if data_dir is None else data_dir
    record_file = data_dir / f"{dataset}.json"
    own = record_file.exists() or (data_dir / f"{dataset}.npz").exists()
    if own and not is_dataset_name(dataset):
        path = data_dir / f"{dataset}{'-val' if validation else ''}.npz"
        if not path.exists():
            raise DataMissing(
                f"{path} is missing, although {record_file} records it: "
                f"`bench data import FILE {dataset}` restores it"
            )
        return Location(dataset, (path,), record_file)
    if not is_dataset_name(dataset):
        raise DataMissing(_unknown_dataset(dataset, data_dir))
    return _published(DatasetName.parse(dataset), data_dir, validation=validation)


def _unknown_dataset(dataset: str, data_dir: Path) -> str:
    """What to say of a name that is neither OGBench's nor of an imported dataset."""
    there = [path.stem for path in data_dir.glob("*.json") if path.with_suffix(".npz").exists()]
    near = difflib.get_close_matches(dataset, there)
    hint = f"; in {data_dir} there is {' and '.join(near)}" if near else ""
    return (
        f"'{dataset}' is neither a .npz file nor imported into {data_dir}{hint}: `bench data "
        f"import FILE {dataset}{folder_option(data_dir)}` imports it, --data-dir sets another "
        "folder (OGBench's datasets have names such as cube-double-play-v0)"
    )


def _published(name: DatasetName, data_dir: Path, *, validation: bool) -> Location:
    """The files of one of OGBench's datasets, or of a larger one that begins with it."""
    tried = []
    for candidate in _candidates(name):
        files = candidate.files(data_dir, validation=validation)[: max(1, name.shards)]
        absent = [path for path in files if not path.exists()]
        if not absent:
            return Location(str(candidate), tuple(files), candidate.record_file(data_dir))
        count = f" ({len(files) - len(absent)} of {len(files)} files there)" if files[1:] else ""
        tried.append(f"{absent[0]}{count}")
    where = folder_option(data_dir)
    commands = [f"`bench data get {name}{where}` downloads it"]
    if name.stem in RECIPES:
        commands.insert(
            0, f"`bench data generate {name}{where}` makes it with OGBench's own recipe"
        )
    commands.append(f"`bench data import FILE {name}{where}` takes it from a file of yours")
    raise DataMissing(
        f"the data '{name}' are not on this machine. Looked for {', then '.join(tried)}. "
        f"{'; '.join(commands)}"
    )


def _candidates(name: DatasetName) -> list[DatasetName]:
    """The dataset itself, then larger ones that begin with it."""
    if name.shards == 0:
        return [name]
    larger = [
        DatasetName.parse(f"{name.stem}-{size}-{name.version}") for size in ("10m", "100m", "1b")
    ]
    return [name, *(other for other in larger if other.shards > name.shards)]


def ensure_record(location: Location) -> DataRecord:
    """The record of files that were found, made and written where there is none.

    Files without a record are read as a whole and recorded, so that they are told apart from
    others from then on.

    Returns:
        The record of the dataset, with an entry for each of the files.

    Raises:
        DataDamaged: if a file's length is not the recorded one, or a new file fails the checks.
    """
    record = DataRecord.read(location.record_file) or DataRecord(location.name, "unknown")
    new = {}
    for file in location.files:
        if file.name not in record.files:
            new[file.name] = inspect_file(file)
        elif (size := file.stat().st_size) != (entry := record.files[file.name]).bytes:
            raise DataDamaged(
                f"{file}: {size} bytes, but {entry.bytes} are recorded in {location.record_file}: "
                "it was cut off or replaced. Delete it and download it again; if the file is "
                "correct, delete the record"
            )
    if new:
        record = replace(record, files=record.files | new)
        # A shared read-only data folder is fine: its files are then looked at every time.
        with contextlib.suppress(OSError):
            record.write(location.record_file)
    return record


def inspect_file(path: Path) -> FileRecord:
    """Read a file as a whole, check it, and take its fingerprint.

    Raises:
        DataDamaged: if it is not sound.
    """
    arrays = read_npz(path, mapped=False)
    ends = check_arrays(path, arrays)
    return FileRecord(path.stat().st_size, len(ends), int(np.sum(ends)), fingerprint(arrays))


def combined_fingerprint(record: DataRecord, files: Sequence[Path]) -> str:
    """One fingerprint for several files in order; that of the file where there is one."""
    parts = [record.files[path.name].fingerprint for path in files]
    return parts[0] if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()
