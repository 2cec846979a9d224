"""HDF5 files as trees of arrays. Nothing in a file makes another file be opened."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.data._errors import DataDamaged
from bench.data._files import check_keys, check_regular, reading
from bench.data._tree import Leaf, Tree

_KIND = "HDF5 file"


@contextmanager
def open_hdf5(path: Path) -> Iterator[Tree]:
    """The arrays of an HDF5 file, to be read while the context lasts.

    Raises:
        DataDamaged: if the file cannot be read. Links, groups within themselves, and arrays whose
            contents lie in other files are refused when they are asked for, not before.
    """
    import h5py

    check_regular(path)
    with reading(path, _KIND):
        file = h5py.File(path, "r")
    try:
        with reading(path, _KIND):
            top = _Group(path, "", file, ())
        yield top
    finally:
        file.close()


class _Group(Mapping[str, "Leaf | Tree"]):
    """A group whose members are looked at when they are asked for."""

    def __init__(self, path: Path, prefix: str, group: Any, above: tuple[int, ...]) -> None:
        self._path, self._prefix, self._group = path, prefix, group
        address = int(_address(group))
        if address in above:
            raise DataDamaged(f"{path}: group '{prefix}' lies within itself")
        self._above = (*above, address)
        self._names: list[str] = list(group)
        check_keys(path, self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, key: object) -> bool:
        return key in self._names

    def __getitem__(self, key: str) -> "Leaf | Tree":
        import h5py

        if key not in self._names:
            raise KeyError(key)
        name = f"{self._prefix}/{key}".lstrip("/")
        place = f"{self._path}/{name}"
        with reading(place, _KIND):
            link = self._group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise DataDamaged(
                    f"{place}: a link to another place or file, which is not followed: store the "
                    "array itself (`h5repack` does, or h5py's `copy(..., expand_soft=True)`)"
                )
            member = self._group[key]
            if isinstance(member, h5py.Group):
                return _Group(self._path, name, member, self._above)
            if not isinstance(member, h5py.Dataset):
                raise DataDamaged(f"{place}: neither an array nor a group")
            return _leaf(self._path, name, member)


def _leaf(path: Path, name: str, dataset: Any) -> Leaf:
    place = f"{path}/{name}"
    if dataset.external or dataset.is_virtual:
        raise DataDamaged(
            f"{place}: its contents lie in other files, which are not read: store the array itself"
        )
    if dataset.shape is None:
        raise DataDamaged(f"{place}: an array without a shape")

    def read() -> np.ndarray:
        with reading(place, _KIND):
            return np.asarray(dataset[()])

    return Leaf(path, name, dataset.dtype, tuple(int(n) for n in dataset.shape), read)


def _address(group: Any) -> int:
    import h5py

    return int(h5py.h5o.get_info(group.id).addr)
