import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qlearn import ChunkSampler, EpisodeData, RandomStreams

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=6)


def episodes(lengths: list[int], tasks: int = 1) -> EpisodeData:
    """Observation = row number, action = 1000 + row, rewards and masks told apart by task."""
    rows = sum(lengths) + len(lengths)
    terminals = torch.zeros(rows)
    terminals[torch.tensor(lengths).add(1).cumsum(0) - 1] = 1
    number = torch.arange(float(rows))
    return EpisodeData.from_rows(
        number[:, None],
        1000 + number[:, None],
        terminals,
        torch.stack([torch.arange(rows) % 3 - 2 - task for task in range(tasks)]).to(torch.int8),
        torch.stack([(torch.arange(rows) + task) % 4 > 0 for task in range(tasks)]),
    )


def transition_rows(lengths: list[int]) -> list[tuple[int, int]]:
    """(row, episode) of every transition, written out."""
    rows, row = [], 0
    for episode, length in enumerate(lengths):
        rows += [(row + i, episode) for i in range(length)]
        row += length + 1
    return rows


def test_published_batch(chunked) -> None:
    data = EpisodeData.from_transitions(
        chunked["dataset/observations"],
        chunked["dataset/actions"],
        chunked["dataset/next_observations"],
        chunked["dataset/terminals"],
        chunked["dataset/rewards"][None],
        chunked["dataset/masks"][None],
    )
    horizon = chunked.config["horizon_length"]
    sampler = ChunkSampler(data, horizon, chunked.config["discount"], tasks=[0])
    batch = sampler.starting_at(chunked["dataset/idxs"].long()[None])
    assert torch.equal(batch.observations[0], chunked["batch/observations"])
    assert torch.equal(batch.actions[0], chunked["batch/actions"].flatten(1))
    assert torch.equal(batch.next_observations[0], chunked["batch/next_observations"][:, -1])
    assert torch.equal(batch.masks[0], chunked["batch/masks"][:, -1])
    assert torch.equal(batch.valid[0], chunked["batch/valid"][:, -1])
    torch.testing.assert_close(
        batch.rewards[0], chunked["batch/rewards"][:, -1], rtol=1e-6, atol=1e-6
    )
    assert sampler.count == 128 - horizon + 1
    assert set(batch.valid.unique().tolist()) == {0.0, 1.0}


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 4), st.floats(0, 1))
def test_every_chunk_is_what_its_definition_says(
    lengths: list[int], horizon: int, discount: float
) -> None:
    rows = transition_rows(lengths)
    if len(rows) < horizon:
        return
    data = episodes(lengths, tasks=2)
    assert data.transitions == len(rows)
    sampler = ChunkSampler(data, horizon, discount, tasks=[1, 0])
    batch = sampler.take(torch.arange(sampler.count).expand(2, -1))
    assert batch.rewards.shape == (2, len(rows) - horizon + 1)
    for replica, task in enumerate((1, 0)):
        for start in range(len(rows) - horizon + 1):
            chunk = rows[start : start + horizon]
            kept = [row for row, episode in chunk if episode == chunk[0][1]]
            reward = sum(discount**j * float(data.rewards[task, row]) for j, row in enumerate(kept))
            at = (replica, start)
            assert batch.observations[at] == chunk[0][0]
            assert batch.actions[at].tolist() == [1000 + row for row, _ in chunk]
            assert batch.rewards[at].item() == pytest.approx(reward, rel=1e-5, abs=1e-6)
            assert batch.masks[at] == float(all(data.masks[task, row] for row in kept))
            assert batch.valid[at] == float(len(kept) == horizon)
            assert batch.next_observations[at] == kept[-1] + 1


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 4))
def test_chunks_within_episodes_are_all_of_them_once(lengths: list[int], horizon: int) -> None:
    rows = transition_rows(lengths)
    expected = [
        rows[start][0]
        for start in range(len(rows) - horizon + 1)
        if rows[start][1] == rows[start + horizon - 1][1]
    ]
    data = episodes(lengths)
    if not expected:
        with pytest.raises(ValueError, match="no chunk"):
            ChunkSampler(data, horizon, 0.9, mode="within_episode", tasks=[0])
        return
    sampler = ChunkSampler(data, horizon, 0.9, mode="within_episode", tasks=[0])
    assert sampler.count == len(expected)
    batch = sampler.take(torch.arange(sampler.count)[None])
    assert batch.observations[0, :, 0].tolist() == expected
    assert batch.valid.min() == 1.0


@pytest.mark.parametrize("mode", ["any", "within_episode"])
def test_sampling_is_uniform_over_the_chunks(mode) -> None:
    sampler = ChunkSampler(episodes([1, 5, 2, 7, 3]), 3, 0.9, mode=mode, tasks=[0, 0])
    batch = sampler.sample(RandomStreams([0, 1]), 20_000)
    for replica in range(2):
        _, counts = batch.observations[replica, :, 0].unique(return_counts=True)
        assert len(counts) == sampler.count
        expected = 20_000 / sampler.count
        statistic = float(((counts - expected) ** 2 / expected).sum())
        # Chi-square with 15 or 8 degrees of freedom: 99.9 % points 37.7 and 26.1.
        assert 0.5 < statistic < (37.7 if mode == "any" else 26.1)


def test_a_pack_samples_what_its_replicas_sample_alone() -> None:
    data = episodes([9, 4, 6], tasks=3)
    pack = ChunkSampler(data, 2, 0.9, tasks=[2, 0]).sample(RandomStreams([7, 8]), 50)
    for r, (seed, task) in enumerate(((7, 2), (8, 0))):
        solo = ChunkSampler(data, 2, 0.9, tasks=[task]).sample(RandomStreams([seed]), 50)
        for name in ("observations", "actions", "rewards", "masks", "valid", "next_observations"):
            assert torch.equal(getattr(solo, name)[0], getattr(pack, name)[r])


@settings(deadline=None)
@given(LENGTHS, st.booleans())
def test_transitions_and_rows_describe_the_same_episodes(
    lengths: list[int], cut_at_the_end: bool
) -> None:
    whole = episodes(lengths)
    rows = torch.tensor([row for row, _ in transition_rows(lengths)])
    ends = torch.tensor(lengths).cumsum(0) - 1
    terminals = torch.zeros(len(rows)).index_fill(0, ends, 1.0)
    if cut_at_the_end:
        terminals[-1] = 0.0
    rebuilt = EpisodeData.from_transitions(
        whole.observations[rows],
        whole.actions[rows],
        whole.observations[rows + 1],
        terminals,
        whole.rewards[:, rows],
        whole.masks[:, rows],
    )
    assert torch.equal(rebuilt.observations, whole.observations)
    assert torch.equal(rebuilt.ends, whole.ends)
    assert torch.equal(rebuilt.actions[rows], whole.actions[rows])
    assert torch.equal(rebuilt.rewards[:, rows], whole.rewards[:, rows])
    assert rebuilt.rewards.dtype == torch.int8


def test_without_rewards_nothing_is_stored_for_them() -> None:
    data = EpisodeData.from_rows(
        torch.zeros(1001, 2), torch.zeros(1001, 1), torch.arange(1001) == 1000
    )
    assert data.rewards.untyped_storage().nbytes() == 1
    assert data.nbytes == 4 * 1001 * 3 + 8 + 2
    batch = ChunkSampler(data, 5, 0.9, tasks=[0]).sample(RandomStreams([0]), 10)
    assert batch.rewards.abs().max() == 0.0
    assert batch.masks.min() == 1.0


def test_100m_transitions_of_cube_quadruple_fit_in_26_gb() -> None:
    """Bytes of 1000 episodes of 1000 steps, times 100."""
    rows = 1001 * 1000
    number = torch.arange(rows)
    data = EpisodeData.from_rows(
        torch.zeros(rows, 55),
        torch.zeros(rows, 5),
        (number + 1) % 1001 == 0,
        torch.zeros(5, rows, dtype=torch.int8),
        torch.ones(5, rows, dtype=torch.bool),
    )
    sampler = ChunkSampler(data, 5, 0.995, tasks=range(5))
    tables = sum(t.nbytes for t in (sampler.bounds, sampler.shifts))
    assert data.transitions == 1_000_000
    assert 24e9 < 100 * (data.nbytes + tables) < 26e9


def test_moving_and_relabelling_share_the_episodes() -> None:
    data = episodes([3, 4])
    rows = len(data.observations)
    two = data.with_tasks(torch.zeros(2, rows), torch.ones(2, rows))
    assert two.tasks == 2
    assert two.observations is data.observations
    moved = data.to("meta")
    assert moved.observations.device.type == "meta"
    assert moved.ends.device.type == "meta"


def arrays(count: int = 6) -> dict[str, Tensor]:
    number = torch.arange(float(count))[:, None]
    return {
        "observations": number,
        "actions": number,
        "next_observations": number + 1,
        "terminals": torch.zeros(count),
        "rewards": torch.zeros(1, count),
        "masks": torch.ones(1, count),
    }


def test_transitions_that_do_not_join_are_refused_by_row() -> None:
    given = arrays()
    given["next_observations"][3] += 0.5
    with pytest.raises(ValueError, match=r"next_observations\[3\] differs from observations\[4\]"):
        EpisodeData.from_transitions(**given)
    given["terminals"][3] = 1
    assert EpisodeData.from_transitions(**given).ends.tolist() == [4, 6]


@pytest.mark.parametrize("name", ["actions", "next_observations", "terminals", "rewards", "masks"])
def test_arrays_of_other_lengths_are_refused_by_name(name: str) -> None:
    given = arrays()
    given[name] = given[name][..., :-1] if name in ("rewards", "masks") else given[name][:-1]
    with pytest.raises(ValueError, match=name):
        EpisodeData.from_transitions(**given)


def test_other_refusals() -> None:
    rows = torch.zeros(4, 1)
    with pytest.raises(ValueError, match="mark the last row"):
        EpisodeData.from_rows(rows, rows, torch.tensor([0, 1, 0, 0]))
    with pytest.raises(ValueError, match="ends in row 2 has one row"):
        EpisodeData.from_rows(rows, rows, torch.tensor([0, 1, 1, 1]))
    ends = torch.tensor([0, 0, 0, 1])
    with pytest.raises(ValueError, match="rewards has 3 rows"):
        EpisodeData.from_rows(rows, rows, ends, torch.zeros(1, 3), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="one shape"):
        EpisodeData.from_rows(rows, rows, ends, torch.zeros(2, 4), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="no transitions"):
        EpisodeData.from_transitions(**arrays(0))
    data = episodes([3])
    with pytest.raises(ValueError, match="longest episode 3"):
        ChunkSampler(data, 4, 0.9, tasks=[0])
    with pytest.raises(ValueError, match=r"task 1 given, the data has rewards for 0 \.\. 0"):
        ChunkSampler(data, 1, 0.9, tasks=[0, 1])
    with pytest.raises(ValueError, match="horizon"):
        ChunkSampler(data, 0, 0.9, tasks=[0])
    with pytest.raises(ValueError, match="discount"):
        ChunkSampler(data, 1, 1.1, tasks=[0])
    with pytest.raises(ValueError, match="mode"):
        ChunkSampler(data, 1, 0.9, mode="all", tasks=[0])
