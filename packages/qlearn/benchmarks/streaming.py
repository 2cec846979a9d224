"""What a batch costs from memory and from memory-mapped files, and how long training waits for it.

    uv run python packages/qlearn/benchmarks/streaming.py --rows 600000

writes made-up rows of cube-quadruple's size (55 + 5 floats) into two files each, draws batches of
256 chunks of 5 steps for 5 runs, and removes the files.
"""

import argparse
import mmap
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qlearn import ChunkSampler, EpisodeData, MappedRows, PrefetchingSampler, RandomStreams

WIDTHS = {"observations": 55, "actions": 5}
RUNS, BATCH, HORIZON, EPISODE = 5, 256, 5, 1001


def write(folder: Path, rows: int) -> None:
    """Two files for each table."""
    source = np.random.default_rng(0)
    for name, width in WIDTHS.items():
        for half in range(2):
            table = source.standard_normal((rows // 2, width), dtype=np.float32)
            np.save(folder / f"{name}{half}.npy", table)


def forget(folder: Path, tables: dict[str, list[np.ndarray]]) -> None:
    """Take the files out of the page cache, where mapped pages would stay."""
    for maps in tables.values():
        for array in maps:
            pages: Any = array
            pages._mmap.madvise(mmap.MADV_DONTNEED)
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def pieces(folder: Path, name: str) -> list[np.ndarray]:
    """The two files of a table, mapped."""
    maps: list[Any] = [np.load(folder / f"{name}{half}.npy", mmap_mode="c") for half in range(2)]
    for array in maps:
        array._mmap.madvise(mmap.MADV_RANDOM)
    return maps


def milliseconds(sampler: ChunkSampler, batches: int, update: float = 0.0) -> tuple[float, float]:
    """Time per batch, update included, and the part of it that was waited."""
    streams = RandomStreams([1] * RUNS)
    sampler.sample(streams, BATCH)
    waited = getattr(sampler, "waited", 0.0)
    begin = time.perf_counter()
    for _ in range(batches):
        sampler.sample(streams, BATCH)
        time.sleep(update)
    seconds = time.perf_counter() - begin
    return 1e3 * seconds / batches, 1e3 * (getattr(sampler, "waited", 0.0) - waited) / batches


def main() -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--rows", type=int, default=600_000)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--update", type=float, default=0.05, help="seconds of an update")
    given = parser.parse_args()
    torch.set_num_threads(1)
    tasks = list(range(RUNS))
    terminals = torch.zeros(given.rows, dtype=torch.bool)
    terminals[EPISODE - 1 :: EPISODE] = True
    terminals[-1] = True
    rewards = torch.zeros(RUNS, given.rows, dtype=torch.int8)
    masks = torch.ones(RUNS, given.rows, dtype=torch.bool)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(folder, given.rows)
        tables = {name: pieces(folder, name) for name in WIDTHS}
        held = {name: torch.from_numpy(np.concatenate(maps)) for name, maps in tables.items()}
        memory = EpisodeData.from_rows(
            held["observations"], held["actions"], terminals, rewards, masks
        )
        observations, actions = (
            MappedRows([torch.from_numpy(piece) for piece in maps]) for maps in tables.values()
        )
        mapped = EpisodeData.from_rows(observations, actions, terminals, rewards, masks)
        print(f"{memory.nbytes / 1e6:.0f} MB in memory, {mapped.nbytes / 1e6:.0f} MB when mapped")
        spent, _ = milliseconds(ChunkSampler(memory, HORIZON, 0.99, tasks=tasks), given.batches)
        print(f"from memory: {spent:.1f} ms a batch")
        sampler = ChunkSampler(mapped, HORIZON, 0.99, tasks=tasks)
        forget(folder, tables)
        spent, _ = milliseconds(sampler, given.batches)
        print(f"from files that are not in the page cache, not read ahead: {spent:.1f} ms a batch")
        for maps in tables.values():
            for array in maps:
                array.sum()
        spent, _ = milliseconds(sampler, given.batches)
        print(f"from files in the page cache, not read ahead: {spent:.1f} ms a batch")
        for state in ("not in", "in"):
            if state == "not in":
                forget(folder, tables)
            with PrefetchingSampler(mapped, HORIZON, 0.99, tasks=tasks) as ahead:
                _, waited = milliseconds(ahead, given.batches, given.update)
            print(
                f"read ahead of updates of {1e3 * given.update:.0f} ms, {state} the page cache: "
                f"{waited:.2f} ms waited a batch"
            )


if __name__ == "__main__":
    main()
