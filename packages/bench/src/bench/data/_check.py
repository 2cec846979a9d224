"""What must hold of the arrays of a dataset before anything is trained on them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped

from bench.data._errors import DataDamaged
from bench.simulation import LARGEST_NUMBER

REQUIRED = ("observations", "actions", "terminals")
LARGEST = LARGEST_NUMBER

_DIMENSIONS = {"observations": 2, "actions": 2, "terminals": 1, "rewards": 1, "masks": 1}
_BLOCK = 1 << 18  # Rows looked at together, which bounds the memory a mapped file needs.
_TOLERANCE = 1e-5  # Of the action range: rounding of float32 and of foreign normalisations.


def check_arrays(
    path: Path, arrays: Mapping[str, Shaped[np.ndarray, "rows ..."]]
) -> Bool[np.ndarray, " rows"]:
    """Check the arrays of a file in OGBench's layout.

    Shapes and lengths agree, numbers are finite in float32 and no larger than `LARGEST`, actions
    lie in [-1, 1], terminals and masks are 0 or 1, the last row ends an episode, and every episode
    has a transition.

    Args:
        path: the file, for the message.
        arrays: observations (N, O), actions (N, A), terminals, rewards and masks (N,), others with
            N rows.

    Returns:
        The terminals as booleans.

    Raises:
        DataDamaged: naming file, array and row.
    """
    for key in REQUIRED:
        if key not in arrays:
            raise DataDamaged(f"{path}: no array '{key}' (it holds {', '.join(arrays)})")
    terminals = arrays["terminals"]
    for key, array in arrays.items():
        if array.ndim != _DIMENSIONS.get(key, array.ndim) or array.ndim == 0:
            raise DataDamaged(
                f"{path}: '{key}' has shape {array.shape}; expected "
                f"{_DIMENSIONS.get(key, 'at least 1')} dimensions, rows first"
            )
        if len(array) != len(terminals):
            raise DataDamaged(
                f"{path}: '{key}' has {len(array)} rows and 'terminals' {len(terminals)}"
            )
        if key in ("observations", "actions") and not array.shape[1]:
            raise DataDamaged(f"{path}: '{key}' has shape {array.shape}: no numbers in a row")
        check_numbers(path, key, array)
    check_actions(path, arrays["actions"])
    for key in ("terminals", "masks"):
        if key in arrays:
            check_flags(path, key, arrays[key])
    ends = np.asarray(terminals).astype(bool)
    if not len(ends):
        raise DataDamaged(f"{path}: the arrays have no rows")
    if not ends[-1]:
        raise DataDamaged(
            f"{path}: the last row ({len(ends) - 1}) of 'terminals' is not 1: "
            "the last episode is cut off"
        )
    single = np.flatnonzero(ends & np.concatenate([[True], ends[:-1]]))
    if len(single):
        raise DataDamaged(
            f"{path}: 'terminals', row {single[0]}: an episode of a single row has no transition"
        )
    return ends


def check_numbers(path: Path, key: str, array: Shaped[np.ndarray, "rows ..."]) -> None:
    """Refuse what float32 training cannot compute with, naming file, array and row.

    NaN, infinities, and numbers beyond `LARGEST`, in whatever type they are stored.

    Raises:
        DataDamaged: also if the array holds no real numbers.
    """
    if array.dtype.kind not in "fiub":
        raise DataDamaged(f"{path}: '{key}' holds {array.dtype}, not numbers")
    if array.dtype.kind == "b" or (array.dtype.kind in "iu" and array.dtype.itemsize < 8):
        return
    if array.dtype.kind == "f":
        _refuse(path, key, array, lambda block: ~np.isfinite(block), "is not finite")
    if array.dtype != np.float16:
        complaint = f"is larger than {LARGEST:g}, and float32 sums of squares would overflow"
        _refuse(path, key, array, lambda block: abs(_wide(block)) > LARGEST, complaint)


def check_flags(path: Path, key: str, flags: Shaped[np.ndarray, " rows"]) -> None:
    """Refuse flags that are neither 0 nor 1, naming file and row."""
    _refuse(path, key, flags, lambda b: (b != 0) & (b != 1), "is neither 0 nor 1")


def check_actions(
    path: Path,
    actions: Shaped[np.ndarray, "rows act"],
    first_row: int = 0,
    *,
    key: str = "actions",
) -> None:
    """Refuse actions outside [-1, 1], naming file and row, counted from `first_row`."""
    limit = 1.0 + _TOLERANCE
    complaint = "lies outside [-1, 1]"
    _refuse(path, key, actions, lambda b: abs(_wide(b)) > limit, complaint, first_row)


def _wide(block: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """In a type whose every number has a magnitude: that of int8's -128 is no int8."""
    return block if block.dtype.kind == "f" else block.astype(np.float64)


def _refuse(
    path: Path,
    key: str,
    array: Shaped[np.ndarray, "rows ..."],
    is_bad: Callable[[np.ndarray], np.ndarray],
    complaint: str,
    first_row: int = 0,
) -> None:
    for start in range(0, len(array), _BLOCK):
        bad = is_bad(array[start : start + _BLOCK])
        if bad.any():
            place = np.argwhere(bad)[0]
            value = array[start : start + _BLOCK][tuple(place)]
            row = [int(i) for i in (first_row + start + place[0], *place[1:])]
            where = f"row {row[0]}" + (f", column {row[1]}" if len(row) > 1 else "")
            raise DataDamaged(f"{path}: '{key}', {where}: {value} {complaint}")
