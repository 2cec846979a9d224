"""The one way in for files that others made: regular files only, known sizes, one kind of error."""

import json
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.data._errors import DataDamaged
from bench.machine import available_memory

__all__ = [
    "available_memory",
    "check_dataset_name",
    "check_fits",
    "check_keys",
    "check_regular",
    "is_plain_name",
    "read_document",
    "reading",
]

_LARGEST_DOCUMENT = 16 << 20  # Bytes; a record of a thousand files takes 0.2 MB.
_LONGEST_KEY = 500
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def is_plain_name(text: str) -> bool:
    """Whether a text can name a dataset or a data file: no folders, no hidden files."""
    return _PLAIN_NAME.fullmatch(text) is not None


def check_dataset_name(dataset: str) -> None:
    """Refuse names that could be paths.

    Raises:
        ValueError: if the name holds anything but letters, digits, dots, dashes and underscores.
    """
    if not is_plain_name(dataset):
        raise ValueError(f"{dataset!r} cannot name a dataset: use letters, digits, '.', '-', '_'")


def check_regular(path: Path) -> None:
    """Refuse what is not a regular file: a pipe or a device would be waited for, or read, for ever.

    Raises:
        DataDamaged: if `path` is a folder, a pipe, a socket or a device.
        OSError: if it is not there or must not be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise DataDamaged(f"{path}: expected a regular file, found {kind}")
    with path.open("rb"):
        pass


def check_keys(path: Path, keys: Iterable[str]) -> None:
    """Refuse names of arrays that a terminal would act upon when they are printed.

    Raises:
        DataDamaged: for names that are not printable, or absurdly long.
    """
    for key in keys:
        if not key.isprintable() or len(key) > _LONGEST_KEY:
            raise DataDamaged(f"{path}: {key[:40]!r} in it cannot name an array")


@contextmanager
def reading(place: str | Path, kind: str) -> Iterator[None]:
    """Everything that an engine (h5py, polars, zipfile, numpy) may raise becomes one `DataDamaged`.

    What a damaged file provokes differs from version to version of these libraries, hence the
    breadth; errors of this package pass unchanged.

    Args:
        place: the file, with the key in it where one is being read.
        kind: what the file was taken for, such as `HDF5 file`.
    """
    try:
        yield
    except DataDamaged:
        raise
    except MemoryError as error:
        raise DataDamaged(f"{place}: too large for the memory of this machine") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataDamaged(f"{place}: not a readable {kind} ({reason[:300]})") from error


def check_fits(place: str | Path, needed: int, available: int) -> None:
    """Refuse to begin reading what cannot be held.

    Args:
        place: the file.
        needed: bytes that its arrays take.
        available: bytes of memory that are free.
    """
    if needed > available:
        raise DataDamaged(
            f"{place}: its arrays take {needed / 1e9:,.1f} GB and {available / 1e9:,.1f} GB of "
            "memory are available; check the file, or import it in parts or on a larger machine"
        )


def read_document(path: Path) -> Any:
    """Parse a JSON file of known, moderate size.

    Raises:
        DataDamaged: if it is not a regular file, too large, or no JSON.
        OSError: if it is not there or cannot be read.
    """
    check_regular(path)
    if (size := path.stat().st_size) > _LARGEST_DOCUMENT:
        raise DataDamaged(f"{path}: {size:,} bytes are too many for a JSON document of this kind")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataDamaged(f"{path}: not a JSON record ({error})") from error
