"""A domain's rows for training: in memory where they fit, else on the disk and read ahead."""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from bench.data import MappedTaskData, TaskData, bytes_in_memory, load, load_mapped
from bench.machine import available_memory
from bench.simulation import map_arrays
from bench.training.policy import Normalizer
from bench.training.request_checks import amount_of_bytes
from qlearn import EpisodeData, MappedRows, tree_leaves

__all__ = ["TrainingData", "amount_of_bytes", "load_fitting", "memory_limit"]

_BLOCK = 1 << 18  # Rows looked at together, which bounds the memory of a pass over a file.


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Episodes ready for sampling.

    Attributes:
        episodes: in memory on the training device, or on the disk.
        normalizer: that their observations have been through.
        action_std: standard deviation of every action entry ``(A,)`` over all rows.
    """

    episodes: EpisodeData
    normalizer: Normalizer
    action_std: tuple[float, ...]

    @classmethod
    def of(
        cls, data: TaskData | MappedTaskData, device: torch.device, *, standardise: bool
    ) -> "TrainingData":
        """Normalise data and put them where they are sampled from.

        Args:
            data: loaded or mapped.
            device: of the training.
            standardise: shift and scale observations by their mean and standard deviation.
        """
        if isinstance(data, MappedTaskData):
            return cls._mapped(data, standardise=standardise)
        if not data.one_vector:
            return cls._of_leaves(data, device)
        observations = data.observations
        normalizer = Normalizer.identity(observations.shape[1])
        if standardise:
            normalizer = Normalizer.fit(observations)
            observations = normalizer(observations)
        episodes = EpisodeData.from_rows(
            torch.from_numpy(observations),
            torch.from_numpy(data.actions),
            torch.from_numpy(data.terminals),
            torch.from_numpy(data.rewards),
            torch.from_numpy(data.masks),
        )
        std = data.actions.std(0, dtype=np.float64)
        return cls(episodes.to(device), normalizer, tuple(std.tolist()))

    @classmethod
    def _of_leaves(cls, data: TaskData, device: torch.device) -> "TrainingData":
        """Images and named leaves, each as it is: whoever reads them knows what scale they need."""
        episodes = EpisodeData.from_rows(
            map_arrays(_table, data.observations),
            _table(data.actions),
            torch.from_numpy(data.terminals),
            torch.from_numpy(data.rewards),
            torch.from_numpy(data.masks),
        )
        std = data.actions.std(0, dtype=np.float64)
        return cls(episodes.to(device), Normalizer.none(), tuple(std.tolist()))

    @classmethod
    def _mapped(cls, data: MappedTaskData, *, standardise: bool) -> "TrainingData":
        normalizer = Normalizer.identity(data.observations[0].shape[1])
        pieces = [torch.from_numpy(piece) for piece in data.observations]
        observations = MappedRows(pieces)
        if standardise:
            normalizer = Normalizer.of_moments(*_moments(data.observations))
            observations = MappedRows(
                pieces,
                shift=torch.from_numpy(normalizer.shift),
                scale=torch.from_numpy(normalizer.scale),
            )
        _, action_std = _moments(data.actions)
        for array in (*data.observations, *data.actions):
            _expect_random_access(array)
        episodes = EpisodeData.from_rows(
            observations,
            MappedRows([torch.from_numpy(piece) for piece in data.actions]),
            torch.from_numpy(data.terminals),
            torch.from_numpy(data.rewards),
            torch.from_numpy(data.masks),
        )
        return cls(episodes, normalizer, tuple(action_std.tolist()))

    @property
    def streamed(self) -> bool:
        """Whether the rows stay on the disk."""
        return self.episodes.streamed

    def describe(self) -> str:
        """Where the rows are, and the memory that they take."""
        held = f"{self.episodes.nbytes / 1e6:,.0f} MB"
        if not self.streamed:
            return f"{held} in memory on {self.episodes.ends.device}"
        rows = [leaf for _, leaf in tree_leaves(self.episodes.observations)]
        rows.append(self.episodes.actions)
        mapped = sum(table.nbytes for table in rows if isinstance(table, MappedRows))
        return f"{mapped / 1e6:,.0f} MB of rows on the disk, read ahead; {held} in memory"


def load_fitting(
    dataset: str,
    tasks: Sequence[str],
    data_dir: Path | None,
    limit: int,
    *,
    sparse: bool,
) -> TaskData | MappedTaskData:
    """Load a dataset, or map it where it would take more than ``limit`` bytes.

    Raises:
        DataMissing: if the data are not there.
        DataDamaged: if a file is not sound.
        ValueError: for an unknown name, or tasks that cannot be rewarded.
    """
    if bytes_in_memory(dataset, len(tasks), data_dir) <= limit:
        return load(dataset, tasks, data_dir, sparse=sparse)
    return load_mapped(dataset, tasks, data_dir, sparse=sparse)


def memory_limit(text: str, device: torch.device, processes: int) -> int:
    """Bytes that a data set may take in each process.

    Args:
        text: an amount such as `8GB` or `500MB`, 0 to read everything from the disk, or `auto`:
            half of what is available of this machine's memory and of the device's.
        device: of the training.
        processes: that share the memory.

    Raises:
        ValueError: the text is no amount.
    """
    limit = None if text == "auto" else amount_of_bytes("--data-memory", text)
    if limit is None:
        available = available_memory()
        if device.type == "cuda":
            available = min(available, int(torch.cuda.mem_get_info(device)[0]))
        return available // (2 * processes)
    return limit


def _moments(
    pieces: Sequence[Float32[np.ndarray, "_ columns"]],
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the rows of all pieces, in two passes, in float64."""
    rows = sum(len(piece) for piece in pieces)
    mean = sum(block.sum(0) for block in _blocks(pieces)) / rows
    square = sum(((block - mean) ** 2).sum(0) for block in _blocks(pieces)) / rows
    return np.asarray(mean), np.sqrt(square)


def _blocks(pieces: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    for piece in pieces:
        for start in range(0, len(piece), _BLOCK):
            yield piece[start : start + _BLOCK].astype(np.float64)


def _table(array: np.ndarray) -> torch.Tensor | MappedRows:
    """An array as rows in memory, or on the disk where it is a memory map."""
    if not isinstance(array, np.memmap):
        return torch.from_numpy(array)
    _expect_random_access(array)
    return MappedRows([torch.from_numpy(array)])


def _expect_random_access(array: np.ndarray) -> None:
    """Tell the system not to read on behind every row: that would cost 32 times the reading."""
    pages = getattr(array, "_mmap", None)
    if pages is not None and hasattr(mmap, "MADV_RANDOM"):
        pages.madvise(mmap.MADV_RANDOM)
