from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.data import DataDamaged, check_arrays, inspect_file, load


def test_sound_arrays_pass(edited: Callable[..., Path], maze_arrays: dict[str, np.ndarray]) -> None:
    ends = check_arrays(edited(), maze_arrays)
    np.testing.assert_array_equal(np.flatnonzero(ends), [40, 81, 122])


def _with(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


CASES: dict[str, tuple[Callable[[dict[str, np.ndarray]], dict[str, np.ndarray | None]], str]] = {
    "nan": (
        lambda a: {"observations": _with(a["observations"], (70, 1), np.nan)},
        r"'observations', row 70, column 1: nan is not finite",
    ),
    "infinite state": (
        lambda a: {"qpos": _with(a["qpos"], (3, 0), -np.inf)},
        r"'qpos', row 3, column 0: -inf is not finite",
    ),
    "range": (
        lambda a: {"actions": _with(a["actions"], (5, 0), 1.5)},
        r"'actions', row 5, column 0: 1.5 lies outside \[-1, 1\]",
    ),
    "terminal value": (
        lambda a: {"terminals": _with(a["terminals"].astype(np.float32), (9,), 0.5)},
        r"'terminals', row 9: 0.5 is neither 0 nor 1",
    ),
    "cut off": (
        lambda a: {key: array[:-1] for key, array in a.items()},
        r"the last row \(121\) of 'terminals' is not 1",
    ),
    "lengths": (
        lambda a: {"actions": a["actions"][:-2]},
        r"'actions' has 121 rows and 'terminals' 123",
    ),
    "missing": (lambda a: {"actions": None}, r"no array 'actions'"),
    "dimensions": (
        lambda a: {"observations": a["observations"][:, :, None]},
        r"'observations' has shape \(123, 2, 1\); expected 2 dimensions",
    ),
    "text": (
        lambda a: {"qvel": np.full(123, "x")},
        r"'qvel' holds <U1, not numbers",
    ),
    "no transitions": (
        lambda a: {"terminals": np.ones(123, bool)},
        r"'terminals', row 0: an episode of a single row",
    ),
    "empty": (
        lambda a: {key: array[:0] for key, array in a.items()},
        r"the arrays have no rows",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_arrays_are_named(
    case: str, edited: Callable[..., Path], maze_arrays: dict[str, np.ndarray]
) -> None:
    change, message = CASES[case]
    path = edited(**change(maze_arrays))
    with pytest.raises(DataDamaged, match=message) as caught:
        inspect_file(path)
    assert str(path) in str(caught.value)
    with pytest.raises(DataDamaged):
        load("pointmaze-medium-navigate-v0", ["task1"], path.parent)


def test_rows_are_counted_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.data._check._BLOCK", 8)
    arrays = {
        "observations": np.zeros((30, 2), np.float32),
        "actions": np.zeros((30, 1), np.float32),
        "terminals": np.arange(30) == 29,
    }
    arrays["actions"][21, 0] = -2
    with pytest.raises(DataDamaged, match="row 21, column 0: -2"):
        check_arrays(Path("f.npz"), arrays)
