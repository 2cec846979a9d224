from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlearn import (
    BalancedSampler,
    ChunkSampler,
    EpisodeData,
    RandomStreams,
    RingBuffer,
    ShardRotation,
    UnionSampler,
)

ENDS = st.lists(st.booleans(), min_size=1, max_size=30)


@dataclass
class History:
    """What a replica was given, in order; observation n is n + 1000 * replica."""

    replica: int
    ends: list[bool] = field(default_factory=list)

    def chunks(self, capacity: int, horizon: int, mode: str) -> list[int]:
        """First transitions of all chunks that are still stored."""
        count = len(self.ends)
        starts = range(max(0, count - capacity), count - horizon + 1)
        if mode == "any":
            return list(starts)
        return [s for s in starts if not any(self.ends[s : s + horizon - 1])]


def fill(ring: RingBuffer, ends: list[list[bool]]) -> list[History]:
    histories = [History(r) for r in range(ring.replicas)]
    for n, flags in enumerate(zip(*ends, strict=True)):
        number = torch.tensor([[n + 1000.0 * r] for r in range(ring.replicas)])
        ring.add(
            number,
            -number,
            number[:, 0] % 5,
            (number[:, 0] % 4 > 0).float(),
            torch.tensor(flags),
            number + 0.5,
        )
        for history, flag in zip(histories, flags, strict=True):
            history.ends.append(flag)
    return histories


@settings(deadline=None, max_examples=150)
@given(ENDS, st.integers(1, 4), st.integers(0, 6), st.sampled_from(["any", "within_episode"]))
def test_the_ring_holds_exactly_the_newest_chunks(
    ends: list[bool], horizon: int, spare: int, mode
) -> None:
    capacity = horizon + spare
    ring = RingBuffer(2, capacity, 1, 1, horizon=horizon, discount=0.5, mode=mode)
    histories = fill(ring, [ends, ends[::-1]])
    widest = int(ring.count.max())
    batch = ring.take(torch.arange(widest).expand(2, -1)) if widest else None
    for r, history in enumerate(histories):
        starts = history.chunks(capacity, horizon, mode)
        assert int(ring.count[r]) == len(starts)
        for i, start in enumerate(starts):
            numbers = [start + j + 1000 * r for j in range(horizon)]
            flags = history.ends[start : start + horizon]
            kept = flags.index(True) + 1 if True in flags else horizon
            assert batch.observations[r, i] == numbers[0]
            assert batch.actions[r, i].tolist() == [-n for n in numbers]
            assert batch.valid[r, i] == float(kept == horizon)
            assert batch.next_observations[r, i] == numbers[kept - 1] + 0.5
            assert batch.masks[r, i] == float(all(n % 4 for n in numbers[:kept]))
            assert batch.rewards[r, i] == sum(
                0.5**j * (n % 5) for j, n in enumerate(numbers[:kept])
            )


@pytest.mark.parametrize("added", [5, 8, 13])
def test_every_slot_is_sampled_and_equally_often(added: int) -> None:
    ring = RingBuffer(1, 8, 1, 1, discount=0.9)
    fill(ring, [[False] * added])
    drawn = ring.sample(RandomStreams([0]), 16_000).observations[0, :, 0]
    values, counts = drawn.unique(return_counts=True)
    stored = min(added, 8)
    assert values.tolist() == list(range(added - stored, added))
    assert (counts / (16_000 / stored) - 1).abs().max() < 0.1


def test_state_resumes_exactly() -> None:
    ends = [[n % 3 == 2 for n in range(11)], [False] * 11]
    for mode in ("any", "within_episode"):
        ring, other = (RingBuffer(2, 6, 1, 1, horizon=2, discount=0.9, mode=mode) for _ in range(2))
        fill(ring, ends)
        other.load_state_dict(ring.state_dict())
        assert other.size == 6
        for buffer in (ring, other):
            buffer.add(
                torch.full((2, 1), 7.0),
                torch.zeros(2, 1),
                torch.zeros(2),
                torch.ones(2),
                torch.tensor([False, True]),
                torch.zeros(2, 1),
            )
        one, two = (b.sample(RandomStreams([3, 4]), 64) for b in (ring, other))
        assert torch.equal(one.observations, two.observations)
        assert torch.equal(one.valid, two.valid)


def test_an_empty_ring_is_refused_and_a_ring_without_whole_chunks_is_invalid() -> None:
    ring = RingBuffer(1, 8, 1, 1, horizon=3, discount=0.9, mode="within_episode")
    with pytest.raises(ValueError, match="holds 0 transitions, a chunk needs 3"):
        ring.sample(RandomStreams([0]), 4)
    fill(ring, [[True] * 8])
    assert ring.sample(RandomStreams([0]), 4).valid.tolist() == [[0.0] * 4]


def offline(tasks: list[int], horizon: int = 2) -> ChunkSampler:
    rows = torch.arange(13.0)[:, None] - 100
    data = EpisodeData.from_rows(rows, rows, torch.arange(13) == 12)
    return ChunkSampler(data, horizon, 0.9, tasks=tasks)


@pytest.mark.parametrize("mode", ["any", "within_episode"])
def test_union_is_uniform_over_both(mode) -> None:
    ring = RingBuffer(2, 6, 1, 1, horizon=2, discount=0.9, mode=mode)
    union = UnionSampler(offline([0, 0]), ring)
    streams = RandomStreams([0, 1])
    before = union.sample(streams, 500)
    assert before.observations.max() < 0
    assert before.valid.min() == 1.0
    # Replica 1's episode ends in the middle, which costs one chunk within episodes.
    histories = fill(ring, [[False] * 9, [n == 5 for n in range(9)]])
    batch = union.sample(streams, 24_000)
    for r, history in enumerate(histories):
        values, counts = batch.observations[r, :, 0].unique(return_counts=True)
        online = [s + 1000 * r for s in history.chunks(6, 2, mode)]
        assert values.tolist() == [*range(-100, -89), *online]
        assert (counts / (24_000 / len(counts)) - 1).abs().max() < 0.1
        assert (batch.actions[r, :, 0].abs() == batch.observations[r, :, 0].abs()).all()


def test_balanced_batches_have_their_share() -> None:
    ring = RingBuffer(1, 6, 1, 1, horizon=2, discount=0.9)
    balanced = BalancedSampler(offline([0]), ring)
    with pytest.raises(ValueError, match="collect more"):
        balanced.sample(RandomStreams([0]), 8)
    fill(ring, [[False] * 9])
    batch = balanced.sample(RandomStreams([0]), 9)
    assert (batch.observations[0, :, 0] < 0).tolist() == [True] * 4 + [False] * 5
    assert batch.rewards.shape == (1, 9)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="capacity 2 cannot hold a chunk of 3"):
        RingBuffer(1, 2, 1, 1, horizon=3, discount=0.9)
    with pytest.raises(ValueError, match="at least 1"):
        RingBuffer(1, 2, 0, 1, discount=0.9)
    ring = RingBuffer(2, 4, 3, 1, discount=0.9)
    row = torch.zeros(2)
    with pytest.raises(ValueError, match=r"one row per replica, \(2, 3\), got \(2, 2\)"):
        ring.add(torch.zeros(2, 2), torch.zeros(2, 1), row, row, row.bool(), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="1 replicas offline, 2 replicas online"):
        UnionSampler(offline([0]), RingBuffer(2, 4, 1, 1, horizon=2, discount=0.9))
    with pytest.raises(ValueError, match="cannot be mixed"):
        BalancedSampler(offline([0]), RingBuffer(1, 4, 1, 1, horizon=2, discount=0.8))
    with pytest.raises(ValueError, match="share"):
        BalancedSampler(offline([0]), RingBuffer(1, 4, 1, 1, horizon=2, discount=0.9), share=2.0)


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def numbered(lengths: list[int], horizon: int, mode) -> ChunkSampler:
    """Transition n has observation n; the final row of an episode has none of its own."""
    rows, ends, n = [], [], 0
    for length in lengths:
        rows += [*range(n, n + length), -1]
        ends += [0] * length + [1]
        n += length
    table = torch.tensor(rows, dtype=torch.float32)[:, None]
    data = EpisodeData.from_rows(table, table, torch.tensor(ends))
    return ChunkSampler(data, horizon, 0.9, mode=mode, tasks=[0])


@settings(deadline=None, max_examples=200)
@given(LENGTHS, st.integers(1, 3), st.integers(1, 12), st.sampled_from(["any", "within_episode"]))
def test_a_shard_has_the_chunks_that_lie_in_it(
    lengths: list[int], horizon: int, size: int, mode
) -> None:
    total = sum(lengths)
    if total < horizon:
        return
    try:
        sampler = numbered(lengths, horizon, mode)
    except ValueError:
        return  # no chunk at all
    begins = [size * k for k in range(max(1, total // size))]
    wholes = []
    for begin, end in zip(begins, [*begins[1:], total], strict=True):
        starts = range(begin, end - horizon + 1)
        if mode == "within_episode":
            inner = [sum(lengths[:e]) for e in range(1, len(lengths))]
            starts = [s for s in starts if not any(s < e < s + horizon for e in inner)]
        wholes.append(list(starts))
    if not all(wholes):
        with pytest.raises(ValueError, match="has no chunk of"):
            ShardRotation.of(sampler, size, 5, "cpu")
        return
    shards = ShardRotation.of(sampler, size, 5, "cpu")
    for step in range(0, 10 * len(wholes) + 5, 5):
        first, count = shards.at(torch.tensor(step))
        drawn = sampler.take(first + torch.arange(int(count))[None]).observations[0, :, 0]
        assert drawn.tolist() == wholes[step // 5 % len(wholes)]
        assert all(
            torch.equal(a, b)
            for a, b in zip((first, count), shards.at(torch.tensor(step + 4)), strict=True)
        )


@pytest.mark.parametrize("mode", ["any", "within_episode"])
def test_experience_has_the_published_share_of_a_union_with_shards(mode) -> None:
    # Published: one shard and the experience in a buffer, another shard every 50 steps.
    shard, batch, steps = 200, 64, 100
    sampler = numbered([50] * 20, 1, mode)
    ring = RingBuffer(1, steps, 1, 1, discount=0.9, mode=mode)
    shards = ShardRotation.of(sampler, shard, 10, "cpu")
    union, everything = UnionSampler(sampler, ring, shards), UnionSampler(sampler, ring)
    streams = RandomStreams([0])
    seen = [0, 0]
    expected = [0.0, 0.0]
    for step in range(1, steps + 1):
        flag = torch.tensor([step % 25 == 0])
        ring.add(
            torch.full((1, 1), -5.0), torch.zeros(1, 1), *torch.ones(2, 1), flag, torch.zeros(1, 1)
        )
        for k, (source, data) in enumerate(((union, shard), (everything, 1_000))):
            drawn = source.sample(streams, batch).observations[0, :, 0]
            seen[k] += int((drawn == -5).sum())
            expected[k] += batch * step / (data + step)
            if k == 0:
                own = drawn[drawn >= 0]
                assert ((own // shard) == step // 10 % 5).all()
    # Four standard deviations of a sum of coin tosses.
    for count, mean in zip(seen, expected, strict=True):
        assert abs(count - mean) < 4 * mean**0.5
    assert abs(expected[0] / expected[1] - 1) > 1
    assert step / (shard + step) == pytest.approx(1 / 3)


def test_balanced_batches_take_their_share_of_a_shard() -> None:
    sampler = numbered([10] * 4, 2, "any")
    ring = RingBuffer(1, 8, 1, 1, horizon=2, discount=0.9)
    balanced = BalancedSampler(sampler, ring, 0.5, ShardRotation.of(sampler, 10, 3, "cpu"))
    fill(ring, [[False] * 7])  # the third shard
    drawn = balanced.sample(RandomStreams([0]), 400).observations[0, :, 0]
    assert drawn[:200].unique().tolist() == list(range(20, 29))
    assert drawn[200:].unique().tolist() == list(range(6))


def test_impossible_shards_are_refused() -> None:
    sampler = numbered([4, 4], 3, "any")
    with pytest.raises(ValueError, match="at least 1, got 0 and 5"):
        ShardRotation.of(sampler, 0, 5, "cpu")
    with pytest.raises(ValueError, match="shard 0 of 2 transitions has no chunk of 3 steps"):
        ShardRotation.of(sampler, 2, 5, "cpu")
