import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data import DataDamaged, fingerprint, read_npz, write_npz

from .conftest import save

ARRAYS = {
    "observations": np.arange(21, dtype=np.float32).reshape(7, 3),
    "terminals": np.array([0, 0, 1, 0, 0, 0, 1], dtype=bool),
    "button_states": np.arange(14).reshape(7, 2),
}


@given(
    cuts=st.lists(st.integers(0, 50), max_size=5),
    columns=st.integers(0, 4),
    dtype=st.sampled_from(["float32", "int64", "bool"]),
)
def test_pieces_give_the_file_that_numpy_reads(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], columns: int, dtype: str
) -> None:
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    whole = (np.arange(50 * columns) % 7).reshape(50, columns).astype(dtype)
    edges = [0, *sorted(cuts), 50]

    def pieces(key: str) -> Iterator[np.ndarray]:
        assert key == "x"
        return (whole[a:b] for a, b in pairwise(edges))

    digest = write_npz(path, {"x": (whole.dtype, whole.shape)}, pieces)
    with np.load(path, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["x"], whole)
        assert file["x"].dtype == whole.dtype
    assert digest == fingerprint({"x": whole})


def test_mapped_arrays_are_aligned_and_equal(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(path, ARRAYS)
    mapped = read_npz(path)
    for key, array in ARRAYS.items():
        assert isinstance(mapped[key], np.memmap)
        assert mapped[key].flags.aligned
        assert mapped[key].offset % 64 == 0
        np.testing.assert_array_equal(mapped[key], array)


def test_files_of_numpy_are_mapped_or_read(tmp_path: Path) -> None:
    fortran = {"x": np.asfortranarray(np.arange(6.0).reshape(2, 3))}
    np.savez(tmp_path / "stored.npz", **ARRAYS, **fortran)
    np.savez_compressed(tmp_path / "deflated.npz", **ARRAYS, **fortran)
    stored, deflated = read_npz(tmp_path / "stored.npz"), read_npz(tmp_path / "deflated.npz")
    for key, array in (ARRAYS | fortran).items():
        assert isinstance(stored[key], np.memmap)
        assert not isinstance(deflated[key], np.memmap)
        np.testing.assert_array_equal(stored[key], array)
        np.testing.assert_array_equal(deflated[key], array)


def test_the_fingerprint_is_of_the_contents(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", **dict(reversed(ARRAYS.items())))
    assert fingerprint(read_npz(tmp_path / "a.npz")) == fingerprint(ARRAYS)
    other = {key: array.copy() for key, array in ARRAYS.items()}
    other["observations"][3, 1] += 1
    assert fingerprint(other) != fingerprint(ARRAYS)
    reshaped = ARRAYS | {"observations": ARRAYS["observations"].reshape(3, 7)}
    assert fingerprint(reshaped) != fingerprint(ARRAYS)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(path, ARRAYS)
    before = path.read_bytes()

    def pieces(key: str) -> Iterator[np.ndarray]:
        yield ARRAYS[key][:3]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_npz(path, {"observations": (np.dtype("f4"), (7, 3))}, pieces)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9, 0.999])
def test_truncated_files_are_named(tmp_path: Path, fraction: float) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **ARRAYS)
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(DataDamaged, match=r"a\.npz: (the file is empty|a truncated)"):
        read_npz(path)


def test_a_flipped_byte_is_found_when_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(path, ARRAYS)
    offset = read_npz(path)["observations"].offset
    content = bytearray(path.read_bytes())
    content[offset + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataDamaged, match=r"a\.npz: .*CRC"):
        read_npz(path, mapped=False)


def test_what_is_no_archive_is_said(tmp_path: Path) -> None:
    page = tmp_path / "page.npz"
    page.write_text("\n<!DOCTYPE html><title>Sign in</title>")
    with pytest.raises(DataDamaged, match="web page"):
        read_npz(page)
    other = tmp_path / "other.npz"
    other.write_bytes(b"\x93NUMPY what")
    with pytest.raises(DataDamaged, match="not a NumPy archive"):
        read_npz(other)


def test_python_objects_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([{"a": 1}], dtype=object))
    for mapped in (True, False):
        with pytest.raises(DataDamaged, match=r"a\.npz"):
            read_npz(path, mapped=mapped)


def test_missing_keys_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(path, ARRAYS)
    with pytest.raises(DataDamaged, match=r"no array 'qpos' in it \(it holds observations"):
        read_npz(path, ["qpos"])


def test_stored_members_are_not_compressed(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(path, ARRAYS)
    with zipfile.ZipFile(path) as archive:
        assert {m.compress_type for m in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.testzip() is None
