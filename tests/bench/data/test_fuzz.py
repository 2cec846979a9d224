"""Hundreds of small faults in files of every layout: refused in words, or without effect."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data import fingerprint, import_data, read_npz
from bench.errors import BenchError

from . import layouts
from .layouts import Arrays, states, transitions, write_hdf5

BYTES = 40  # Mutations of each file.
REFUSED = (ValueError, BenchError, OSError)


def _contents(source: Path, folder: Path) -> str | None:
    """What import makes of a file; None if it refuses it in words."""
    try:
        done = import_data(str(source), "mine", folder, overwrite=True)
    except REFUSED as error:
        refusal = str(error)
    else:
        return fingerprint(read_npz(done.path, mapped=False))
    assert refusal.strip()
    assert "\n" not in refusal
    return None


def _broken(content: bytes, random: np.random.Generator) -> bytes:
    """One fault: bits flipped, bytes cut out, zeroed, repeated, or the end missing."""
    data = bytearray(content)
    place = int(random.integers(len(data)))
    length = int(random.integers(1, 64))
    kind = random.integers(5)
    if kind == 0:
        data[place] ^= 1 << int(random.integers(8))
    elif kind == 1:
        del data[place : place + length]
    elif kind == 2:
        data[place : place + length] = bytes(min(length, len(data) - place))
    elif kind == 3:
        data[place:place] = data[place : place + length]
    else:
        del data[place:]
    return bytes(data)


@pytest.mark.parametrize("layout", ["npz_transitions", "npz_states", "d4rl", "minari", "robomimic"])
def test_broken_bytes(layout: str, tmp_path: Path) -> None:
    source = layouts.COMPLETE[layout](tmp_path)
    content, random = source.read_bytes(), np.random.default_rng(1)
    sound = _contents(source, tmp_path / "d")
    found = []
    for _ in range(BYTES):
        source.write_bytes(_broken(content, random))
        found.append(_contents(source, tmp_path / "d"))
    assert None in found
    if source.suffix == ".npz":  # Archives have sums; what is accepted is what was there.
        assert set(found) <= {None, sound}


def test_broken_bytes_of_parquet(tmp_path: Path) -> None:
    folder = layouts.lerobot(tmp_path)
    random = np.random.default_rng(1)
    for path in (folder / "data/chunk-000/file-000.parquet", folder / "meta/info.json"):
        content = path.read_bytes()
        for _ in range(BYTES):
            path.write_bytes(_broken(content, random))
            _contents(folder, tmp_path / "d")
        path.write_bytes(content)
    assert _contents(folder, tmp_path / "d") is not None


Change = Callable[[np.ndarray, int], Any]


def _put(value: Any, kind: Any = np.float64) -> Change:
    def change(array: np.ndarray, row: int) -> np.ndarray:
        changed = array.astype(kind)
        changed[row] = value
        return changed

    return change


SAME: list[Change] = [
    lambda a, _: a.astype(np.float64),
    lambda a, _: a.astype(a.dtype.newbyteorder(">")),
    lambda a, _: np.asfortranarray(a),
    lambda a, _: a[:, None] if a.ndim == 1 else a,
    lambda a, _: a.astype(np.uint8) if a.dtype == bool else a,
]
OTHER: list[Change] = [
    _put(np.nan),
    _put(np.inf),
    _put(1e300),
    _put(3e38),
    _put(-1e16),
    lambda a, _: a[:-1],
    lambda a, _: np.concatenate([a, a[:1]]),
    lambda a, _: a[:0],
    lambda a, _: a.astype("S8"),
    lambda a, _: a.astype(complex),
    lambda a, _: np.stack([a, a], axis=-1),
    lambda a, _: a.reshape(1, *a.shape),
    lambda a, _: np.float32(0.0),
]
FLAGS: list[Change] = [_put(2), _put(-1), _put(0.5), _put(-128, np.int8), _put(255, np.uint8)]


@pytest.mark.parametrize("kind", ["npz", "hdf5"])
@pytest.mark.parametrize("make", [transitions, states])
def test_changed_arrays(kind: str, make: Callable[[], Arrays], tmp_path: Path) -> None:
    source = tmp_path / f"a.{kind}"

    def written(arrays: Arrays) -> Path:
        if kind == "npz":
            np.savez(source, **arrays)
            return source
        return write_hdf5(source, arrays)

    arrays, random = make(), np.random.default_rng(2)
    sound = _contents(written(arrays), tmp_path / "d")
    assert sound is not None
    for key, array in arrays.items():
        row = int(random.integers(len(array)))
        for number, change in enumerate(SAME):
            changed = written(arrays | {key: change(array, row)})
            assert _contents(changed, tmp_path / "d") == sound, (key, number)
        flags = FLAGS if array.dtype == bool else []
        for number, change in enumerate([*OTHER, *flags]):
            changed = written(arrays | {key: change(array, row)})
            assert _contents(changed, tmp_path / "d") is None, (key, number)


@pytest.mark.parametrize("make", [transitions, states])
def test_missing_and_misspelt_arrays(make: Callable[[], Arrays], tmp_path: Path) -> None:
    arrays = make()
    sound = _contents(_saved(tmp_path, arrays), tmp_path / "d")
    # Without these a file says as much, or says that it has none.
    may_go = {"rewards", "next_observations", "masks"} if make is transitions else {"rewards"}
    may_go |= {"timeouts"}  # Next observations tell the same ends.
    for key in arrays:
        for name in (None, f"{key}_", key.upper(), f" {key}"):
            changed = {k: v for k, v in arrays.items() if k != key}
            changed |= {} if name is None else {name: arrays[key]}
            found = _contents(_saved(tmp_path, changed), tmp_path / "d")
            assert found is None or key in may_go, (key, name)
            assert key != "timeouts" or found == sound


def _saved(folder: Path, arrays: Arrays) -> Path:
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"
