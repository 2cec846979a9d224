"""NumPy archives written piece by piece and read by memory mapping.

OGBench's files are `.npz` archives. Stored (not deflated) members can be mapped into memory, so
that a file larger than memory is read where it lies, and `numpy.load` reads them unchanged.
Members written here begin at multiples of 64 bytes, hence mapped arrays are aligned.
"""

import hashlib
import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Shaped

from bench.data._errors import DataDamaged
from bench.data._files import (
    available_memory,
    check_fits,
    check_keys,
    check_regular,
    reading,
)
from bench.data._tree import Leaf, Tree
from bench.storage import atomic_path

Array = Shaped[np.ndarray, "..."]
Spec = tuple[np.dtype, tuple[int, ...]]
"""Type and shape of an array that is written piece by piece."""

_ALIGNMENT = 64
_LOCAL_HEADER, _ZIP64_EXTRA = 30, 20  # Bytes, by the ZIP application note 6.3, 4.3.7 and 4.5.3.
_PADDING_ID = 0xD935  # The extra-field id that Android's zipalign uses for padding.


def write_npz(
    path: Path, specs: Mapping[str, Spec], pieces: Callable[[str], Iterable[Array]]
) -> str:
    """Write an archive whose arrays come in pieces along their first axis.

    Args:
        path: the file; replaced only when complete.
        specs: type and shape of each array, in the order of the file.
        pieces: the consecutive pieces of the array of that name.

    Returns:
        The fingerprint of the contents, see `fingerprint`.
    """
    digests: dict[str, bytes] = {}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for key, (dtype, shape) in specs.items():
            digest, rows = hashlib.sha256(), 0
            with archive.open(_aligned_member(archive, f"{key}.npy"), "w", force_zip64=True) as out:
                header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(out, header)
                for piece in pieces(key):
                    data = np.ascontiguousarray(piece, dtype=dtype)
                    assert data.shape[1:] == shape[1:], (key, data.shape, shape)
                    rows += len(data)
                    digest.update(data.data.cast("B") if data.size else b"")
                    out.write(data.data.cast("B") if data.size else b"")
            assert rows == shape[0], (key, rows, shape)
            digests[key] = digest.digest()
    return _combine(specs, digests)


def fingerprint(arrays: Mapping[str, Array]) -> str:
    """SHA-256 of names, types, shapes and contents, whatever the file they lie in.

    Compression, order and time stamps of an archive do not matter, so a published file and the
    same arrays written here have one fingerprint.
    """
    specs = {key: (array.dtype, array.shape) for key, array in arrays.items()}
    digests = {
        key: hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).digest()
        for key, array in arrays.items()
    }
    return _combine(specs, digests)


def _combine(specs: Mapping[str, Spec], digests: Mapping[str, bytes]) -> str:
    total = hashlib.sha256()
    for key in sorted(specs):
        dtype, shape = specs[key]
        total.update(f"{key}|{dtype.str}|{shape}|".encode() + digests[key])
    return total.hexdigest()


def _aligned_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """A member whose data will begin at a multiple of 64 bytes, with a fixed time stamp."""
    member = zipfile.ZipInfo(name)
    assert archive.fp is not None
    begin = archive.fp.tell() + _LOCAL_HEADER + len(name) + _ZIP64_EXTRA
    padding = -(begin + 4) % _ALIGNMENT
    member.extra = struct.pack("<HH", _PADDING_ID, padding) + bytes(padding)
    return member


def read_npz(
    path: Path, keys: Iterable[str] | None = None, *, mapped: bool = True
) -> dict[str, Array]:
    """Read arrays of an archive, by memory mapping where they are stored uncompressed.

    Args:
        path: the file.
        keys: the arrays to read, all by default.
        mapped: whether to map rather than read what can be mapped. Reading verifies the
            archive's checksums, mapping does not.

    Raises:
        DataDamaged: if the file is no complete archive of plain arrays, lacks a key, or holds more
            than the memory that is available.
        OSError: if it cannot be opened.
    """
    with _opened(path) as archive:
        members = _members(path, archive)
        wanted = list(members) if keys is None else list(keys)
        absent = [key for key in wanted if key not in members]
        if absent:
            raise DataDamaged(
                f"{path}: no array '{absent[0]}' in it (it holds {', '.join(members)})"
            )
        specs = {key: _spec(path, archive, key, members[key]) for key in wanted}
        maps = {
            key for key in wanted if mapped and members[key].compress_type == zipfile.ZIP_STORED
        }
        check_fits(path, sum(_nbytes(specs[key]) for key in set(wanted) - maps), available_memory())
        return {
            key: _map(path, archive, members[key], specs[key])
            if key in maps
            else _read(archive, members[key])
            for key in wanted
        }


@contextmanager
def open_npz(path: Path) -> Iterator[Tree]:
    """The arrays of an archive by name, to be read while the context lasts.

    Raises:
        DataDamaged: if the file is no archive of arrays, at once or when one is read.
        OSError: if it cannot be opened.
    """
    check_regular(path)
    with _damage_named(path):
        archive = zipfile.ZipFile(path)
    tree: dict[str, Leaf] = {}
    with archive:
        with _damage_named(path):
            for key, member in _members(path, archive).items():
                dtype, shape = _spec(path, archive, key, member)

                def read(member: zipfile.ZipInfo = member) -> Array:
                    with _damage_named(path):
                        return _read(archive, member)

                tree[key] = Leaf(path, key, dtype, shape, read)
        yield tree  # Errors of those who use it are theirs.


def npz_keys(path: Path) -> list[str]:
    """Names of the arrays in an archive.

    Raises:
        DataDamaged: if the file is no archive.
    """
    with _opened(path) as archive:
        return list(_members(path, archive))


def npz_specs(path: Path) -> dict[str, Spec]:
    """Type and shape of each array in an archive, from the arrays' headers alone.

    Raises:
        DataDamaged: if the file is no archive of arrays.
    """
    with _opened(path) as archive:
        members = _members(path, archive)
        return {key: _spec(path, archive, key, member) for key, member in members.items()}


def is_stored(path: Path, keys: Iterable[str]) -> bool:
    """Whether these arrays of an archive are uncompressed, so that they can be mapped.

    Raises:
        DataDamaged: if the file is no archive.
    """
    with _opened(path) as archive:
        members = _members(path, archive)
        return all(
            key in members and members[key].compress_type == zipfile.ZIP_STORED for key in keys
        )


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    check_regular(path)
    with _damage_named(path), zipfile.ZipFile(path) as archive:
        yield archive


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """One error for all that zipfile, zlib and numpy raise for archives that are damaged."""
    try:
        with reading(path, "NumPy archive"):
            yield
    except DataDamaged as error:
        if isinstance(error.__cause__, MemoryError) or error.__cause__ is None:
            raise
        raise DataDamaged(f"{path}: {_diagnosis(path)} ({error.__cause__})") from error.__cause__


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The arrays of an archive by name: no name twice, nothing encrypted, nothing else in it."""
    members: dict[str, zipfile.ZipInfo] = {}
    check_keys(path, archive.namelist())
    for member in archive.infolist():
        key = member.filename.removesuffix(".npy")
        if key in members:
            raise DataDamaged(f"{path}: array '{key}' is in it twice; write the file again")
        if member.flag_bits & 0x1:
            raise DataDamaged(f"{path}: '{key}' is encrypted; write the file without a password")
        if key == member.filename:
            raise DataDamaged(f"{path}: '{key}' in it is no array (arrays end in .npy)")
        members[key] = member
    return members


def _spec(path: Path, archive: zipfile.ZipFile, key: str, member: zipfile.ZipInfo) -> Spec:
    """Type and shape of an array, which must go with the length of its contents."""
    with archive.open(member) as file:
        shape, _, dtype = _read_header(file)
        if dtype.hasobject:
            raise DataDamaged(
                f"{path}: array '{key}' holds Python objects, not numbers, as lists of different "
                "lengths do: store one array of numbers, episodes one behind the other, or leave "
                "it out"
            )
        found, stated = member.file_size - file.tell(), _nbytes((dtype, shape))
    if found != stated or any(length < 0 for length in shape):
        raise DataDamaged(
            f"{path}: array '{key}' of type {dtype} and shape {shape} takes {stated:,} bytes, and "
            f"there are {found:,}: a damaged archive"
        )
    return dtype, shape


def _nbytes(spec: Spec) -> int:
    dtype, shape = spec
    return prod(shape) * dtype.itemsize


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member) as file:
        array: Array = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type from an array's header; the file is then at its first number."""
    if np.lib.format.read_magic(file) == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _map(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, spec: Spec) -> Array:
    assert archive.fp is not None
    archive.fp.seek(member.header_offset)
    header = archive.fp.read(_LOCAL_HEADER)
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    archive.fp.seek(name_length + extra_length, os.SEEK_CUR)
    shape, fortran, dtype = _read_header(archive.fp)
    if (dtype, shape) != spec:
        raise DataDamaged(f"{path}: '{member.filename}' has two conflicting descriptions: damaged")
    if 0 in shape:
        return np.empty(shape, dtype)
    order = "F" if fortran else "C"
    offset = archive.fp.tell()
    # Copy on write: torch takes no arrays that refuse to be written to, and the file stays so.
    return np.memmap(path, dtype, mode="c", offset=offset, shape=shape, order=order)  # type: ignore[call-overload,no-any-return]


def _diagnosis(path: Path) -> str:
    """What a file that is no readable archive most likely is."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "the file is empty"
    if head.lstrip()[:1] == b"<":
        return "this is a web page, not data (a login or error page saved under the data's name?)"
    if head[:2] == b"PK":
        return "a truncated or damaged archive"
    return "not a NumPy archive"
