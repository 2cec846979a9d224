"""Rows on the disk give the batches that rows in memory give."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlearn import (
    BalancedSampler,
    ChunkBatch,
    ChunkSampler,
    ChunkSource,
    EpisodeData,
    MappedRows,
    PrefetchingSampler,
    RandomStreams,
    RingBuffer,
    ShardRotation,
    UnionSampler,
)

FIELDS = ("observations", "actions", "rewards", "masks", "valid", "next_observations")
LENGTHS = (7, 3, 12, 5, 9, 4)


def tables(rows: int) -> tuple[np.ndarray, np.ndarray]:
    source = np.random.default_rng(0)
    return (
        source.normal(size=(rows, 5)).astype(np.float32),
        source.uniform(-1, 1, (rows, 2)).astype(np.float32),
    )


def both(folder: Path) -> tuple[EpisodeData, EpisodeData]:
    """The same episodes in memory, and in three files that are cut anywhere."""
    rows = sum(LENGTHS) + len(LENGTHS)
    terminals = torch.zeros(rows)
    terminals[torch.tensor(LENGTHS).add(1).cumsum(0) - 1] = 1
    rewards = -torch.randint(0, 5, (2, rows), dtype=torch.int8)
    masks = torch.rand(2, rows) < 0.8
    mapped = []
    for name, table in zip("oa", tables(rows), strict=True):
        pieces = []
        for number, piece in enumerate(np.split(table, [4, 29])):
            np.save(folder / f"{name}{number}.npy", piece)
            pieces.append(np.load(folder / f"{name}{number}.npy", mmap_mode="c"))
        mapped.append(MappedRows([torch.from_numpy(piece) for piece in pieces]))
    resident = (torch.from_numpy(table) for table in tables(rows))
    return (
        EpisodeData.from_rows(*resident, terminals, rewards, masks),
        EpisodeData.from_rows(*mapped, terminals, rewards, masks),
    )


def equal(first: ChunkBatch, second: ChunkBatch) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in FIELDS)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(any),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_rows_of_pieces_are_rows_of_the_whole(sizes: list[int], threads: int, random) -> None:
    rows = sum(sizes)
    table = np.arange(3.0 * rows, dtype=np.float32).reshape(rows, 3)
    mapped = MappedRows(torch.from_numpy(table).split(sizes), threads=threads)
    wanted = torch.tensor([[random.randrange(rows) for _ in range(5)] for _ in range(4)])
    assert torch.equal(mapped[wanted], torch.from_numpy(table)[wanted])
    assert mapped.shape == table.shape
    assert mapped.nbytes == table.nbytes


def test_many_rows_are_read_by_several_threads() -> None:
    table, _ = tables(5_000)
    shift, scale = table.mean(0), table.std(0)
    pieces = torch.from_numpy(table).tensor_split([1, 700, 4_000])
    mapped = MappedRows(
        pieces, shift=torch.from_numpy(shift), scale=torch.from_numpy(scale), threads=3
    )
    wanted = torch.from_numpy(np.random.default_rng(1).integers(0, 5_000, (2, 2_000)))
    assert torch.equal(mapped[wanted], torch.from_numpy((table - shift) / scale)[wanted])


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([], "no pieces"),
        ([torch.zeros(2)], r"piece 0 has shape \(2,\)"),
        ([torch.zeros(2, 2), torch.zeros(2, 2).double()], r"piece 1 has type torch.float64"),
        ([torch.zeros(2, 2), torch.zeros(2, 3)], r"piece 1 has rows of shape \(3,\)"),
    ],
)
def test_pieces_that_do_not_fit_are_refused(pieces: list[torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MappedRows(pieces)


@pytest.mark.parametrize("mode", ["any", "within_episode"])
@pytest.mark.parametrize("depth", [1, 3])
def test_batches_are_those_of_the_sampler_in_memory(mode, depth: int, tmp_path: Path) -> None:
    resident, mapped = both(tmp_path)
    first, second = RandomStreams([3, 4]), RandomStreams([3, 4])
    memory = ChunkSampler(resident, 3, 0.9, mode=mode, tasks=[0, 1])
    with PrefetchingSampler(
        mapped,
        3,
        0.9,
        mode=mode,
        tasks=[0, 1],
        depth=depth,
        between=lambda streams: streams.normal(6),
    ) as disk:
        for _ in range(50):
            assert equal(memory.sample(first, 8), disk.sample(second, 8))
            # The caller's own draws come between two batches, as an update's noise does.
            assert torch.equal(first.normal(6), second.normal(6))
        assert disk.restarts == 1
        # A draw that was not foreseen, and another batch size: slower, and the same numbers.
        assert torch.equal(first.uniform(2), second.uniform(2))
        for size in (8, 5, 5):
            assert equal(memory.sample(first, size), disk.sample(second, size))
            assert torch.equal(first.normal(6), second.normal(6))
        assert disk.restarts == 3
        assert disk.batches == 53


def test_it_continues_from_the_streams_alone(tmp_path: Path) -> None:
    resident, mapped = both(tmp_path)
    streams = RandomStreams([7])
    with PrefetchingSampler(mapped, 2, 0.9, tasks=[1]) as disk:
        for _ in range(10):
            disk.sample(streams, 4)
        saved = streams.state_dict()
        following = [disk.sample(streams, 4) for _ in range(10)]
    again = RandomStreams([0])
    again.load_state_dict(saved)
    with PrefetchingSampler(mapped, 2, 0.9, tasks=[1]) as disk:
        assert all(equal(batch, disk.sample(again, 4)) for batch in following)
    again.load_state_dict(saved)
    memory = ChunkSampler(resident, 2, 0.9, tasks=[1])
    assert all(equal(batch, memory.sample(again, 4)) for batch in following)


def test_every_chunk_is_equally_likely(tmp_path: Path) -> None:
    _, mapped = both(tmp_path)
    with PrefetchingSampler(mapped, 3, 0.9, mode="within_episode", tasks=[0]) as disk:
        chunks = sum(length - 2 for length in LENGTHS)
        assert disk.count == chunks
        drawn = disk.sample(RandomStreams([0]), 400 * chunks).observations[0, :, 0]
    values, counts = drawn.unique(return_counts=True)
    assert len(values) == chunks
    # Chi-squared with 27 degrees of freedom: 27 +- 4 standard deviations of 7.3.
    statistic = float(((counts - 400.0) ** 2 / 400.0).sum())
    assert 5.0 < statistic < 57.0


class Slow(MappedRows):
    """A disk that takes ten milliseconds."""

    def __getitem__(self, rows):
        time.sleep(0.01)
        return super().__getitem__(rows)


def test_reading_goes_on_while_the_caller_works() -> None:
    rows = 40
    observations, actions = map(torch.from_numpy, tables(rows))
    terminals = torch.zeros(rows)
    terminals[-1] = 1
    data = EpisodeData.from_rows(Slow([observations]), MappedRows([actions]), terminals)
    streams = RandomStreams([0])
    with PrefetchingSampler(data, 1, 0.9, tasks=[0]) as disk:
        disk.sample(streams, 4)
        before = disk.waited
        begin = time.perf_counter()
        for _ in range(20):
            time.sleep(0.04)
            disk.sample(streams, 4)
        # Read one after the other, 20 batches of two reads would have been waited 0.4 s for.
        assert disk.waited - before < 0.2 * (time.perf_counter() - begin)
        begin, before = time.perf_counter(), disk.waited
        for _ in range(20):
            disk.sample(streams, 4)
        # Where the caller does nothing, it does wait, and that is seen.
        assert disk.waited - before > 0.5 * (time.perf_counter() - begin)
    assert all(thread.name != "prefetch" for thread in threading.enumerate())


class Broken(MappedRows):
    def __getitem__(self, rows):
        raise OSError("the disk is gone")


def test_a_failed_read_reaches_the_caller() -> None:
    observations, actions = map(torch.from_numpy, tables(10))
    terminals = torch.zeros(10)
    terminals[-1] = 1
    data = EpisodeData.from_rows(MappedRows([observations]), Broken([actions]), terminals)
    with PrefetchingSampler(data, 1, 0.9, tasks=[0]) as disk:
        for _ in range(2):
            with pytest.raises(OSError, match="the disk is gone"):
                disk.sample(RandomStreams([0]), 2)


def test_a_union_with_experience(tmp_path: Path) -> None:
    resident, mapped = both(tmp_path)
    ring = RingBuffer(1, 20, 5, 2, horizon=2, discount=0.9)
    for value in range(6):
        row = torch.full((1,), float(value))
        ring.add(row.expand(1, 5), row.expand(1, 2), row, row, row > 99, row.expand(1, 5))
    memory = ChunkSampler(resident, 2, 0.9, tasks=[0])
    disk = PrefetchingSampler(mapped, 2, 0.9, tasks=[0])
    shards = [ShardRotation.of(sampler, 15, 3, "cpu") for sampler in (memory, disk)]
    pairs: list[tuple[ChunkSource, ChunkSource]] = [
        (UnionSampler(memory, ring), UnionSampler(disk, ring)),
        (UnionSampler(memory, ring, shards[0]), UnionSampler(disk, ring, shards[1])),
        (
            BalancedSampler(memory, ring, 0.5, shards[0]),
            BalancedSampler(disk, ring, 0.5, shards[1]),
        ),
    ]
    for one, other in pairs:
        first, second = RandomStreams([1]), RandomStreams([1])
        for _ in range(5):
            assert equal(one.sample(first, 16), other.sample(second, 16))
