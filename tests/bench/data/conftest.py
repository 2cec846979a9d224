import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("MUJOCO_GL", "disabled")

from bench.data import RECIPES, DatasetName, Recipe, generate, read_npz, write_npz

FAMILIES = (
    "pointmaze-medium-navigate-v0",
    "cube-double-play-v0",
    "scene-play-v0",
    "puzzle-3x3-play-v0",
)


def short(dataset: str, rows: int = 41) -> Recipe:
    """The published recipe with short episodes."""
    return replace(RECIPES[DatasetName.parse(dataset).stem], rows=rows)


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    specs = {key: (array.dtype, array.shape) for key, array in arrays.items()}
    write_npz(path, specs, lambda key: [arrays[key]])


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short episodes (and one for validation) of every family."""
    folder = tmp_path_factory.mktemp("data")
    for dataset in FAMILIES:
        generate(dataset, folder, transitions=120, recipe=short(dataset), processes=1)
    return folder


@pytest.fixture
def maze_arrays(tiny_dir: Path) -> dict[str, np.ndarray]:
    arrays = read_npz(tiny_dir / f"{FAMILIES[0]}.npz", mapped=False)
    return {key: array.copy() for key, array in arrays.items()}


@pytest.fixture
def edited(tmp_path: Path, maze_arrays: dict[str, np.ndarray]) -> Callable[..., Path]:
    """A maze file with some of its arrays replaced (or left out, where None is given)."""

    def make(**changes: np.ndarray | None) -> Path:
        arrays = {k: v for k, v in (maze_arrays | changes).items() if v is not None}
        path = tmp_path / "pointmaze-medium-navigate-v0.npz"
        np.savez(path, **arrays)
        return path

    return make
