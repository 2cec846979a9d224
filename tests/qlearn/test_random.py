import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlearn import RandomStreams

SEEDS = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4)
SHAPE = st.lists(st.integers(1, 20), min_size=0, max_size=3).map(tuple)


@given(SEEDS, SHAPE)
def test_a_replica_in_a_pack_draws_what_it_draws_alone(seeds: list[int], shape) -> None:
    pack = RandomStreams(seeds)
    high = torch.arange(len(seeds)) + 5
    packed = [pack.normal(*shape), pack.uniform(*shape), pack.integers(high, *shape)]
    for r, seed in enumerate(seeds):
        solo = RandomStreams([seed])
        alone = [solo.normal(*shape), solo.uniform(*shape), solo.integers(r + 5, *shape)]
        for one, many in zip(alone, packed, strict=True):
            assert torch.equal(one[0], many[r])


@given(SEEDS)
def test_state_continues_where_it_was_taken(seeds: list[int]) -> None:
    streams = RandomStreams(seeds)
    streams.normal(7)
    state = streams.state_dict()
    expected = streams.uniform(5)
    other = RandomStreams([1] * len(seeds))
    other.load_state_dict(state)
    assert torch.equal(other.uniform(5), expected)
    assert state["generators"].shape[0] == len(seeds)


def test_spawned_streams_depend_on_seed_and_purpose_only() -> None:
    fresh, used = RandomStreams([3, 4]), RandomStreams([3, 4])
    used.normal(100)
    assert torch.equal(fresh.spawn("replay").normal(9), used.spawn("replay").normal(9))
    replay, evaluation = fresh.spawn("replay").normal(9), fresh.spawn("evaluation").normal(9)
    assert not torch.isclose(replay, evaluation).any()
    assert not torch.isclose(replay[0], replay[1]).any()
    assert not torch.isclose(fresh.normal(9), replay).any()


def test_draws_have_their_laws() -> None:
    streams = RandomStreams([0, 1])
    normal, uniform = streams.normal(200_000), streams.uniform(200_000)
    assert normal.mean(1).abs().max() < 0.01
    assert (normal.var(1) - 1).abs().max() < 0.02
    assert uniform.min() >= 0.0
    assert uniform.max() < 1.0
    assert (uniform.mean(1) - 0.5).abs().max() < 0.005
    assert (uniform.var(1) - 1 / 12).abs().max() < 0.001
    assert torch.corrcoef(normal)[0, 1].abs() < 0.01


def test_integers_are_uniform_below_their_bound() -> None:
    drawn = RandomStreams([0, 1]).integers(torch.tensor([7, 3]), 70_000)
    for r, high in enumerate((7, 3)):
        counts = drawn[r].bincount(minlength=high).double()
        assert len(counts) == high
        expected = 70_000 / high
        statistic = ((counts - expected) ** 2 / expected).sum()
        # Chi-square with 6 and 2 degrees of freedom; 99.9 % points 22.5 and 13.8, 0.1 % above 0.
        assert 0.0 < statistic < (22.5, 13.8)[r]


def test_a_bound_below_one_on_the_device_gives_zeros() -> None:
    assert RandomStreams([0]).integers(torch.tensor([0]), 5).tolist() == [[0] * 5]


def test_double_precision_uses_all_its_bits() -> None:
    drawn = RandomStreams([0]).normal(64, dtype=torch.float64)
    assert drawn.dtype == torch.float64
    assert not torch.equal(drawn, drawn.float().double())


@pytest.mark.parametrize("seeds", [[], [-1], [2**63]])
def test_impossible_seeds_are_refused(seeds: list[int]) -> None:
    with pytest.raises(ValueError, match="seed"):
        RandomStreams(seeds)


def test_other_refusals() -> None:
    streams = RandomStreams([0])
    with pytest.raises(ValueError, match="would be empty"):
        streams.integers(0, 3)
    with pytest.raises(ValueError, match="state of 2 streams"):
        streams.load_state_dict(RandomStreams([0, 1]).state_dict())


def test_selected_streams_move_alone() -> None:
    streams, reference = RandomStreams([3, 4, 5]), RandomStreams([3, 4, 5])
    drawn = streams.select([2, 0]).normal(4)
    expected = reference.normal(4)
    assert torch.equal(drawn, expected[[2, 0]])
    later = streams.normal(4)
    assert torch.equal(later[1], expected[1])
    assert torch.equal(later[[0, 2]], reference.normal(4)[[0, 2]])
