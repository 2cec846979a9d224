"""Names of datasets, environments and tasks, as OGBench spells them, and where their files lie.

A dataset is named `<environment>-<kind>[-<size>]-v0`, e.g. `cube-double-play-v0` or
`cube-triple-play-10m-v0`. OGBench publishes its large sets as directories of files of one million
transitions: `cube-triple-play-100m-v0/cube-triple-play-v0-000.npz`, and so on. Sizes below two
million are one file here: `pointmaze-medium-navigate-100k-v0.npz`.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from bench.standard_sizes import size_text

SHARD_TRANSITIONS = 1_000_000
"""Transitions in each file of a sharded dataset."""

_PATTERN = re.compile(
    r"(?P<environment>[a-z0-9]+(?:-[a-z0-9]+)*?)-(?P<kind>play|noisy|navigate|stitch|explore)"
    r"(?:-(?P<number>[1-9][0-9]*)(?P<unit>[kmb]))?"
    r"(?:-singletask(?:-task(?P<task>[1-9]))?)?-(?P<version>v[0-9]+)"
)
_MOST = 10_000_000_000  # Transitions; the largest published set has a tenth of that.
_UNITS = {"k": 1_000, "m": 1_000_000, "b": 1_000_000_000}


@dataclass(frozen=True, slots=True)
class DatasetName:
    """A parsed dataset name.

    Attributes:
        environment: the environment without its version, e.g. `cube-double`.
        kind: how the data were collected, e.g. `play`.
        size: the size as written in the name, e.g. `10m`; empty for the published default.
        version: e.g. `v0`.
        transitions: the size as a number of transitions; None for the published default.
    """

    environment: str
    kind: str
    size: str
    version: str
    transitions: int | None

    @classmethod
    def parse(cls, text: str) -> "DatasetName":
        """Parse a dataset name, or the name of one of its single tasks.

        Args:
            text: e.g. `cube-double-play-v0` or `cube-double-play-singletask-task1-v0`.

        Raises:
            ValueError: if `text` is not a name of this form, or stands for more transitions than
                anybody has.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(
                f"'{text[:100]}' is not a dataset name: expected <environment>-<kind>[-<size>]-v0, "
                "for example cube-double-play-v0 or pointmaze-medium-navigate-100k-v0"
            )
        number, unit = match["number"], match["unit"]
        if number and (len(number) > 11 or int(number) * _UNITS[unit] > _MOST):
            raise ValueError(
                f"'{text[:100]}' stands for more than the {_MOST:,} transitions that a dataset may "
                "have here"
            )
        return cls(
            environment=match["environment"],
            kind=match["kind"],
            size=f"{number}{unit}" if number else "",
            version=match["version"],
            transitions=int(number) * _UNITS[unit] if number else None,
        )

    def __str__(self) -> str:
        return "-".join(filter(None, (self.environment, self.kind, self.size, self.version)))

    @property
    def stem(self) -> str:
        """The name without size and version, the key of the recipe: `cube-double-play`."""
        return f"{self.environment}-{self.kind}"

    @property
    def environment_id(self) -> str:
        """Gymnasium id of the goal-conditioned environment: `cube-double-v0`."""
        return f"{self.environment}-{self.version}"

    @property
    def shards(self) -> int:
        """Number of files; 0 for a dataset that is one file and not a directory of shards."""
        if self.transitions is None or self.transitions < 2 * SHARD_TRANSITIONS:
            return 0
        return -(-self.transitions // SHARD_TRANSITIONS)

    def task(self, number: int) -> str:
        """Full name of a single task: `cube-double-play-singletask-task1-v0`."""
        return f"{self.environment}-{self.kind}-singletask-task{number}-{self.version}"

    def resized(self, transitions: int) -> "DatasetName":
        """The dataset of another size, in thousands of transitions.

        Raises:
            ValueError: if `transitions` is no positive multiple of 1,000.
        """
        return replace(self, size=size_text(transitions), transitions=transitions)

    def files(self, data_dir: Path, *, validation: bool = False) -> list[Path]:
        """Paths of the dataset's files in OGBench's layout, whether they exist or not."""
        suffix = "-val.npz" if validation else ".npz"
        if self.shards == 0:
            return [data_dir / f"{self}{suffix}"]
        base = f"{self.stem}-{self.version}"
        digits = max(3, len(str(self.shards - 1)))
        return [data_dir / str(self) / f"{base}-{i:0{digits}d}{suffix}" for i in range(self.shards)]

    def record_file(self, data_dir: Path) -> Path:
        """Path of the JSON that says where the data come from."""
        return data_dir / f"{self}.json"


def is_dataset_name(text: str) -> bool:
    """Whether `DatasetName.parse` understands a text."""
    return _PATTERN.fullmatch(text) is not None


def task_number(task: str) -> int:
    """Number (1 to 5) of a task given as `task3`, `3` or a full single-task name.

    Raises:
        ValueError: if `task` names no task.
    """
    match = re.fullmatch(r"(?:.*-singletask-)?(?:task)?([1-5])(?:-v[0-9]+)?", task)
    if match is None:
        raise ValueError(
            f"'{task}' names no task: expected task1 to task5, or a full name such as "
            "cube-double-play-singletask-task1-v0"
        )
    return int(match[1])
