"""Data of named leaves on the disk: a folder with one array file for each, to be mapped.

    folder/
      data.json                     what is in it, with the SHA-256 of every file
      actions.npy                   (N, A)
      terminals.npy rewards.npy masks.npy   (N,)
      observations.npy              (N, ...), or
      observations.<leaf>.npy       (N, *leaf) for each leaf, in its own type

The files are NumPy's, so anything can read them; data larger than memory are read row by row where
they lie.
"""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np

from bench.data._errors import DataDamaged, DataMissing
from bench.data._files import available_memory, check_regular, read_document, reading
from bench.data._load import TaskData
from bench.storage import temporary_path, write_json

__all__ = ["LeafWriter", "is_leaf_folder", "new_folder", "read_leaf_folder"]

_RECORD = "data.json"
_COLUMNS = ("actions", "terminals", "rewards", "masks")
_SEEN = "observations"


class LeafWriter:
    """Writes arrays piece by piece, without knowing how many rows there will be.

    Args:
        folder: new and empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}
        self._kinds: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        self._rows: dict[str, int] = {}

    @property
    def begun(self) -> bool:
        """Whether there are rows."""
        return bool(self._files)

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Add rows to each of the arrays; the names are the same at every call.

        Raises:
            DataDamaged: rows of another type or shape than the first ones.
        """
        for name, array in arrays.items():
            if name not in self._files:
                self._files[name] = (self._folder / _file_name(name)).open("wb")
                self._kinds[name] = (array.dtype, array.shape[1:])
                self._rows[name] = 0
                self._write_header(name)
            dtype, shape = self._kinds[name]
            if (array.dtype, array.shape[1:]) != (dtype, shape):
                raise DataDamaged(
                    f"'{name}': rows of {array.dtype} {array.shape[1:]} follow rows of {dtype} "
                    f"{shape}; expected one type and shape in all episodes"
                )
            self._files[name].write(np.ascontiguousarray(array).tobytes())
            self._rows[name] += len(array)

    def finish(self, record: Mapping[str, Any]) -> None:
        """Complete the files and describe them."""
        digests = {}
        for name, file in self._files.items():
            file.seek(0)
            self._write_header(name)
            file.close()
            digests[_file_name(name)] = _digest(self._folder / _file_name(name))
        leaves = [n.removeprefix(f"{_SEEN}/") if n != _SEEN else "" for n in self._files]
        seen = [n for n, full in zip(leaves, self._files, strict=True) if full not in _COLUMNS]
        fingerprint = hashlib.sha256(
            "".join(f"{n}{d}" for n, d in sorted(digests.items())).encode()
        )
        whole = {**record, "format": 1, "leaves": seen, "files": digests}
        write_json(self._folder / _RECORD, {**whole, "fingerprint": fingerprint.hexdigest()})

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files.values():
            file.close()

    def _write_header(self, name: str) -> None:
        """NumPy leaves room in its headers for a longer first axis, so they keep their length."""
        dtype, shape = self._kinds[name]
        header = {
            "descr": dtype.str,
            "fortran_order": False,
            "shape": (self._rows[name], *shape),
        }
        np.lib.format.write_array_header_1_0(self._files[name], header)


@contextmanager
def new_folder(folder: Path) -> Iterator[LeafWriter]:
    """A writer into a folder that appears when it is complete.

    Raises:
        ValueError: there is something of that name.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists; load it by its own path, or choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(folder)
    temporary.mkdir()
    writer = LeafWriter(temporary)
    try:
        yield writer
        temporary.rename(folder)
    finally:
        writer.close()
        shutil.rmtree(temporary, ignore_errors=True)


def is_leaf_folder(place: Path) -> bool:
    """Whether a folder was written by :class:`LeafWriter`."""
    return (place / _RECORD).is_file() and (place / "actions.npy").is_file()


def read_leaf_folder(folder: Path, *, mapped: bool | None = None) -> TaskData:
    """The data of a folder, in memory maps where they would take more than half of the memory.

    Args:
        folder: written by :class:`LeafWriter`.
        mapped: whether observations and actions stay on the disk; None to decide by their size.

    Raises:
        DataMissing: a file is not there.
        DataDamaged: a file is not what the folder's record says.
    """
    record = read_document(folder / _RECORD)
    try:
        names, files, fingerprint = record["leaves"], record["files"], str(record["fingerprint"])
        tasks, dataset = tuple(map(str, record["tasks"])), str(record["dataset"])
        leaves = [_SEEN if not name else f"{_SEEN}/{name}" for name in names]
        low, high = (tuple(map(float, b)) for b in record.get("action_range", ((), ())))
        unlisted = [n for n in (*leaves, *_COLUMNS) if _file_name(n) not in files]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataDamaged(f"{folder / _RECORD}: not a record of leaves ({error!r})") from error
    if unlisted or not leaves or record.get("format") != 1:
        raise DataDamaged(f"{folder / _RECORD}: not a complete record of format 1")
    sizes = [(folder / _file_name(name)) for name in (*leaves, "actions")]
    for path in (folder / _file_name(name) for name in (*leaves, *_COLUMNS)):
        if not path.exists():
            raise DataMissing(f"{path} is missing: part of the data is elsewhere")
    if mapped is None:
        mapped = sum(path.stat().st_size for path in sizes) > available_memory() // 2
    arrays = {name: _read(folder, name, mapped) for name in (*leaves, "actions")}
    arrays |= {name: _read(folder, name, False) for name in _COLUMNS[1:]}
    rows = len(arrays["terminals"])
    for name, array in arrays.items():
        if len(array) != rows:
            raise DataDamaged(f"{folder}: '{name}' has {len(array)} rows, 'terminals' {rows}")
    if {len(low), len(high)} - {0, arrays["actions"].shape[-1]} or len(low) != len(high):
        raise DataDamaged(f"{folder / _RECORD}: 'action_range' is not of the actions")
    seen = {n: arrays[full] for n, full in zip(names, leaves, strict=True)}
    return TaskData(
        dataset=dataset,
        tasks=tasks,
        observations=seen[""] if "" in seen else dict(sorted(seen.items())),
        actions=arrays["actions"],
        terminals=arrays["terminals"].astype(bool),
        rewards=arrays["rewards"][None],
        masks=arrays["masks"].astype(bool)[None],
        fingerprint=fingerprint,
        source="imported",
        versions={},
        paths=(folder,),
        action_range=(low, high),
    )


def _read(folder: Path, name: str, mapped: bool) -> np.ndarray:
    path = folder / _file_name(name)
    check_regular(path)
    with reading(path, "NumPy array"):
        # Copy on write: torch takes no arrays that refuse to be written to.
        array: np.ndarray = np.load(path, mmap_mode="c" if mapped else None, allow_pickle=False)
    if array.dtype.kind not in "fiub":
        raise DataDamaged(f"{path}: holds {array.dtype}, not numbers")
    return array


def _file_name(name: str) -> str:
    """Of an array; names of leaves may hold anything."""
    top, _, leaf = name.partition("/")
    return f"{top}.{quote(leaf, safe='')}.npy" if leaf else f"{top}.npy"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
