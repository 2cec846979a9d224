"""Numbers and flags of a foreign file, checked as what they will be used for."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from bench.data._check import check_flags, check_numbers
from bench.data._errors import DataDamaged
from bench.data._tree import Leaf

_FAR = 1e6  # Smaller constants with a little noise are no clocks.
_STEPS = 16  # Distinct float32 numbers that a column must at least have room for.


def read_numbers(leaf: Leaf) -> Shaped[np.ndarray, "rows columns"]:
    """Rows of numbers in their own type; those of one number may be stored without a second axis.

    Raises:
        DataDamaged: if they are no numbers, no vectors, not finite in float32, or absurdly large.
    """
    _expect_numbers(leaf)
    if len(leaf.shape) not in (1, 2) or not leaf.width:
        raise DataDamaged(
            f"{leaf.file}: '{leaf.key}' has type {leaf.dtype} and shape {leaf.shape}; expected "
            "vectors: numbers in one or two dimensions, rows first"
        )
    array = leaf.read()
    check_numbers(leaf.file, leaf.key, array)
    return array.reshape(len(array), leaf.width)


def read_matrix(leaf: Leaf) -> Float32[np.ndarray, "rows columns"]:
    """As `read_numbers`, in float32.

    Raises:
        DataDamaged: also for a column far from zero whose differences float32 cannot hold, as those
            of times in seconds since 1970.
    """
    found = read_numbers(leaf)
    if found.dtype.itemsize == 8 and len(found):
        largest = np.abs(found).max(axis=0).astype(np.float64)
        spread = found.max(axis=0).astype(np.float64) - found.min(axis=0)
        lost = (
            (largest > _FAR) & (spread > 0) & (spread < _STEPS * np.finfo(np.float32).eps * largest)
        )
        if lost.any():
            column = int(np.flatnonzero(lost)[0])
            raise DataDamaged(
                f"{leaf.file}: '{leaf.key}', column {column}: values of up to "
                f"{largest[column]:.6g} that differ by {spread[column]:.3g} at most are all but "
                "equal in float32: subtract an offset"
            )
    return found.astype(np.float32)


def read_leaf(leaf: Leaf) -> Shaped[np.ndarray, "rows ..."]:
    """Rows of any shape as networks read them: floats in float32, whole numbers in their own type.

    A number a row becomes a vector of one.

    Raises:
        DataDamaged: if they are no numbers, not finite in float32, or absurdly large.
    """
    _expect_numbers(leaf)
    if leaf.dtype.kind == "f" and len(leaf.shape) <= 2:
        return read_matrix(leaf)
    if not leaf.shape or not leaf.width:
        raise DataDamaged(f"{leaf.file}: '{leaf.key}' has shape {leaf.shape}; expected rows first")
    array = leaf.read()
    check_numbers(leaf.file, leaf.key, array)
    if array.ndim == 1:
        array = array[:, None]
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def read_joined(leaves: Sequence[Leaf]) -> Float32[np.ndarray, "rows columns"]:
    """Several leaves side by side.

    Raises:
        DataDamaged: as `read_matrix`, or if their rows differ in number.
    """
    parts = [read_matrix(leaf) for leaf in leaves]
    if len({len(part) for part in parts}) > 1:
        counts = ", ".join(f"'{leaf.key}' {leaf.rows}" for leaf in leaves)
        raise DataDamaged(f"{leaves[0].file}: lengths differ: {counts}")
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def read_column(leaf: Leaf) -> Float32[np.ndarray, " rows"]:
    """One number in each row, stored as (N,) or (N, 1).

    Raises:
        DataDamaged: as `read_matrix`, or if rows hold several numbers.
    """
    _expect_column(leaf)
    return read_matrix(leaf)[:, 0]


def read_flags(leaf: Leaf) -> Bool[np.ndarray, " rows"]:
    """One flag in each row: a boolean, or a number that is 0 or 1.

    Raises:
        DataDamaged: naming file, key and row of what is neither.
    """
    _expect_numbers(leaf)
    _expect_column(leaf)
    array: Shaped[np.ndarray, " rows"] = leaf.read().reshape(-1)
    check_flags(leaf.file, leaf.key, array)
    return array.astype(bool)


def _expect_numbers(leaf: Leaf) -> None:
    if leaf.dtype.kind not in "fiub":
        raise DataDamaged(
            f"{leaf.file}: '{leaf.key}' has type {leaf.dtype} and shape {leaf.shape}; expected "
            "numbers"
        )


def _expect_column(leaf: Leaf) -> None:
    if leaf.shape[1:] not in ((), (1,)) or not leaf.shape:
        raise DataDamaged(
            f"{leaf.file}: '{leaf.key}' has shape {leaf.shape}; expected one value in each row"
        )
