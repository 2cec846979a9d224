"""Past observations and past actions in a chunk, from recorded episodes and from rings."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlearn import (
    ChunkSampler,
    EpisodeData,
    MappedRows,
    ObservationHistory,
    PrefetchingSampler,
    RandomStreams,
    RingBuffer,
    UnionSampler,
)

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def recorded(lengths: list[int], table=lambda leaf: leaf) -> EpisodeData:
    """Observations count the rows, actions are 1000 more; two leaves."""
    rows = sum(lengths) + len(lengths)
    terminals = torch.zeros(rows)
    terminals[torch.tensor(lengths).add(1).cumsum(0) - 1] = 1
    number = torch.arange(float(rows))[:, None]
    image = number.byte()[:, :, None, None].expand(-1, 2, 2, 1).clone()
    return EpisodeData.from_rows(
        {"state": table(number), "image": table(image)},
        1000 + number,
        terminals,
        torch.ones(1, rows),
    )


@settings(deadline=None, max_examples=60)
@given(LENGTHS, st.integers(1, 4), st.integers(1, 4), st.data())
def test_the_past_of_a_chunk(lengths: list[int], horizon: int, history: int, data) -> None:
    offset = -data.draw(st.integers(0, horizon - 1))
    played = horizon + offset
    if sum(lengths) < played:
        return
    mode = data.draw(st.sampled_from(["any", "within_episode"]))
    if mode == "within_episode" and max(lengths) < played:
        return
    sampler = ChunkSampler(
        recorded(lengths), horizon, 0.9, mode=mode, tasks=[0], history=history, offset=offset
    )
    assert sampler.played == played
    batch = sampler.take(torch.arange(sampler.count)[None])
    starts, begin = [], 0
    for length in lengths:
        starts += [(begin + step, begin, length - step) for step in range(length)]
        begin += length + 1
    rows = [row for row, _, _ in starts]
    if mode == "within_episode":
        wanted = [i for i, (_, _, left) in enumerate(starts) if left >= played]
    else:
        wanted = list(range(len(starts) - played + 1))
    assert sampler.count == len(wanted)
    for place, number in enumerate(wanted):
        row, begin, left = starts[number]
        reached = row + min(left, played)
        now = [max(row - i, begin) for i in range(history - 1, -1, -1)]
        after = [max(reached - i, begin) for i in range(history - 1, -1, -1)]
        for seen, expected in ((batch.observations, now), (batch.next_observations, after)):
            for name in ("state", "image"):
                leaf = seen[name][0, place]
                found = leaf.flatten().tolist() if name == "state" else leaf[..., 0, 0, 0].tolist()
                assert found == (expected if history > 1 or name == "state" else expected[0])
        past = [max(row + i, begin) for i in range(offset, 0)]
        actions = [*past, *rows[number : number + played]]
        assert batch.actions[0, place].tolist() == [1000 + row for row in actions]
        assert batch.valid[0, place] == float(left >= played)
        kept = min(left, played)
        assert float(batch.rewards[0, place]) == pytest.approx(sum(0.9**j for j in range(kept)))


@settings(deadline=None, max_examples=40)
@given(LENGTHS, st.integers(2, 4), st.data())
def test_a_ring_gives_what_recorded_episodes_give(lengths: list[int], history: int, data) -> None:
    """Also when it is full: then as if the data began with the oldest transition."""
    horizon = data.draw(st.integers(1, 3))
    offset = -data.draw(st.integers(0, horizon - 1))
    mode = data.draw(st.sampled_from(["any", "within_episode"]))
    total, spare = sum(lengths), data.draw(st.integers(0, 3))
    whole = recorded(lengths)
    capacity = max(horizon, total - spare)
    options = {"mode": mode, "history": history, "offset": offset}
    ring = RingBuffer(1, capacity, whole.spec, 1, horizon=horizon, discount=0.9, **options)
    begin = 0
    for length in lengths:
        for step in range(length):
            row = begin + step
            seen, after = (
                {name: leaf[row + k][None] for name, leaf in whole.observations.items()}
                for k in (0, 1)
            )
            end = torch.tensor([step == length - 1])
            ring.add(seen, whole.actions[row][None], torch.ones(1), torch.ones(1), end, after)
        begin += length + 1
    if int(ring.count) == 0:
        return
    dropped = max(total - capacity, 0)
    kept, left = [], dropped
    for length in lengths:
        kept.append(length - min(left, length))
        left -= min(left, length)
    first_row = dropped + sum(length == 0 for length in kept)
    rows = slice(first_row, None)
    rest = [length for length in kept if length]
    shorter = recorded(rest)
    assert len(shorter.actions) == len(whole.actions[rows])
    sampler = ChunkSampler(shorter, horizon, 0.9, tasks=[0], **options)
    assert sampler.count == int(ring.count)
    index = torch.arange(sampler.count)[None]
    mine, theirs = ring.take(index), sampler.take(index)
    for side in ("observations", "next_observations"):
        for name in ("state", "image"):
            shifted = getattr(theirs, side)[name] + first_row
            assert torch.equal(getattr(mine, side)[name], shifted)
    for name in ("rewards", "masks", "valid"):
        assert torch.equal(getattr(mine, name), getattr(theirs, name))
    whole_steps = theirs.valid[0] == 1.0  # beyond an end a ring and a file hold other actions
    assert torch.equal(mine.actions[0, whole_steps], theirs.actions[0, whole_steps] + first_row)


def test_mixtures_and_the_disk_know_the_past(tmp_path: Path) -> None:
    del tmp_path
    data = recorded([5, 4])
    options = {"history": 2, "offset": -1}
    offline = ChunkSampler(data, 3, 0.9, tasks=[0], **options)
    ring = RingBuffer(1, 5, data.spec, 1, horizon=3, discount=0.9, **options)
    batch = UnionSampler(offline, ring).sample(RandomStreams([0]), 6)
    assert batch.observations["image"].shape == (1, 6, 2, 2, 2, 1)
    assert batch.actions.shape == (1, 6, 3)
    disk = recorded([5, 4], lambda leaf: MappedRows([leaf[:4], leaf[4:]]))
    with PrefetchingSampler(disk, 3, 0.9, tasks=[0], **options) as ahead:
        read, held = (s.sample(RandomStreams([1]), 8) for s in (ahead, offline))
        for name in ("state", "image"):
            assert torch.equal(read.observations[name], held.observations[name])
    with pytest.raises(ValueError, match=r"\(history, offset\) \(2, -1\), online chunks \(1, 0\)"):
        UnionSampler(offline, RingBuffer(1, 5, data.spec, 1, horizon=2, discount=0.9))


def test_histories_of_actors_are_those_of_the_data() -> None:
    data = recorded([3, 2])
    kept = ObservationHistory(3)
    sampler = ChunkSampler(data, 1, 0.9, tasks=[0], history=3)
    batch = sampler.take(torch.arange(5)[None])
    for step, row in enumerate([0, 1, 2, 4, 5]):
        begins = torch.tensor([row in (0, 4), False])
        seen = {
            name: leaf[row].expand(2, *leaf.shape[1:]) for name, leaf in data.observations.items()
        }
        given_now = kept.add(seen, begins)
        for name in seen:
            assert torch.equal(given_now[name][0], batch.observations[name][0, step])
    assert given_now["state"][1].flatten().tolist() == [2, 4, 5]
    lone = torch.ones(2, 3)
    assert ObservationHistory(1).add(lone, torch.tensor([True, True])) is lone


def test_impossible_pasts_are_refused() -> None:
    data = recorded([4])
    for make in (
        lambda **more: ChunkSampler(data, 2, 0.9, tasks=[0], **more),
        lambda **more: RingBuffer(1, 4, data.spec, 1, horizon=2, discount=0.9, **more),
    ):
        with pytest.raises(ValueError, match="history must be at least 1"):
            make(history=0)
        for offset in (1, -2):
            with pytest.raises(ValueError, match=rf"offset must lie in -1 \.\. 0.*got {offset}"):
                make(offset=offset)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        ObservationHistory(0)
