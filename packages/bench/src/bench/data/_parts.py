"""The pieces in which a dataset is generated: files, parts of files, and their assembly."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.data._names import SHARD_TRANSITIONS, DatasetName
from bench.data._npz import Array, read_npz, write_npz
from bench.data._recipes import Recipe
from bench.data._record import FileRecord

if TYPE_CHECKING:
    from bench.data._rollouts import Rollout

PART_EPISODES = 5
"""Episodes a process rolls out before it saves them: what an interruption can lose."""


@dataclass(frozen=True, slots=True)
class FilePlan:
    """One file of a dataset: its episodes and where their parts lie.

    Attributes:
        path: the finished file.
        split: `train` or `val`.
        first: number of its first episode within the split.
        episodes: how many episodes it holds.
        parts_dir: folder of the parts.
    """

    path: Path
    split: str
    first: int
    episodes: int
    parts_dir: Path

    @property
    def parts(self) -> list["Part"]:
        """The parts of the file in order."""
        end = self.first + self.episodes
        starts = range(self.first, end, PART_EPISODES)
        return [
            Part(self.split, start, min(PART_EPISODES, end - start), self.parts_dir)
            for start in starts
        ]

    @property
    def receipt(self) -> Path:
        """The note that the file is complete, kept with the parts of the others."""
        return self.parts_dir / f"{self.path.name}.json"

    def assemble(self) -> FileRecord:
        """Join the parts into the file and remove them."""
        paths = [part.path for part in self.parts]
        specs = {}
        for key, array in read_npz(paths[0]).items():
            rows = len(array) // self.parts[0].episodes * self.episodes
            specs[key] = (array.dtype, (rows, *array.shape[1:]))

        def pieces(key: str) -> Iterator[Array]:
            for path in paths:
                yield read_npz(path, [key])[key]

        fingerprint = write_npz(self.path, specs, pieces)
        rows = specs["terminals"][1][0]
        record = FileRecord(self.path.stat().st_size, rows, self.episodes, fingerprint)
        record.write(self.receipt)
        for path in paths:
            path.unlink()
        return record


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive episodes of a split that one process rolls out."""

    split: str
    first: int
    episodes: int
    parts_dir: Path

    @property
    def path(self) -> Path:
        """Where the part is kept until its file is complete."""
        return self.parts_dir / f"{self.split}-{self.first:07d}-{self.episodes}.npz"


def plan_files(
    name: DatasetName, recipe: Recipe, data_dir: Path, parts_dir: Path, transitions: int | None
) -> list[FilePlan]:
    """The files of a dataset: training, then validation, shard by shard."""
    per_episode = recipe.rows - 1
    total = -(-(transitions or name.transitions or recipe.transitions) // per_episode)
    per_file = SHARD_TRANSITIONS // per_episode if name.shards else total
    plans = []
    train_paths, val_paths = name.files(data_dir), name.files(data_dir, validation=True)
    val_first = 0
    for index, first in enumerate(range(0, total, per_file)):
        episodes = min(per_file, total - first)
        validating = max(1, episodes // 10)
        plans.append(FilePlan(train_paths[index], "train", first, episodes, parts_dir))
        plans.append(FilePlan(val_paths[index], "val", val_first, validating, parts_dir))
        val_first += validating
    return plans


def roll_part(environment_id: str, recipe: Recipe, seed: int, part: Part) -> None:
    """Roll out the episodes of a part and save them."""
    # The parts' folder lies in the data folder, where the experts are.
    collector = _collector(environment_id, recipe, part.parts_dir.parent)
    episodes = [collector.episode(seed, part.split, part.first + i) for i in range(part.episodes)]
    joined = {key: np.concatenate([episode[key] for episode in episodes]) for key in episodes[0]}
    specs = {key: (array.dtype, array.shape) for key, array in joined.items()}
    write_npz(part.path, specs, lambda key: [joined[key]])


@lru_cache(maxsize=1)
def _collector(environment_id: str, recipe: Recipe, data_dir: Path) -> "Rollout":
    # Imported by the process that simulates: starting MuJoCo takes a second.
    from bench.data._rollouts import roll_out

    return roll_out(environment_id, recipe, data_dir)
