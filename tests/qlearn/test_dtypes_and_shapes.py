"""Observations of any type, rewards in float32 or wider; silent broadcasts are refused."""

import pytest
import torch
from torch import Tensor

from qlearn import (
    ChunkSampler,
    EpisodeData,
    RandomStreams,
    RingBuffer,
    UnionSampler,
    ema_update,
    td_loss,
    td_target,
)

DTYPES = [torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]
RETURN = 1.0 + 0.9 + 0.81


def wider(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def recorded(dtype: torch.dtype, *shape: int) -> EpisodeData:
    observations = torch.arange(12).reshape(-1, *(1 for _ in shape)).expand(12, *shape).to(dtype)
    ends = torch.zeros(12)
    ends[[5, 11]] = 1
    return EpisodeData.from_rows(observations, torch.zeros(12, 2), ends, torch.ones(1, 12))


def full_ring(dtype: torch.dtype, *shape: int) -> RingBuffer:
    ring = RingBuffer(
        1, 8, shape if len(shape) > 1 else shape[0], 2, horizon=3, discount=0.9, dtype=dtype
    )
    for n in range(8):
        now, after = (torch.full((1, *shape), n + k).to(dtype) for k in (0, 1))
        end = torch.tensor([n == 7])
        ring.add(now, torch.full((1, 2), 0.25), torch.ones(1), torch.ones(1), end, after)
    return ring


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)], ids=["vector", "image"])
def test_rewards_do_not_take_the_type_of_observations(dtype: torch.dtype, shape) -> None:
    offline = ChunkSampler(recorded(dtype, *shape), 3, 0.9, mode="within_episode", tasks=[0])
    ring = full_ring(dtype, *shape)
    streams = RandomStreams([0])
    for source in (offline, ring, UnionSampler(offline, ring)):
        batch = source.sample(streams, 16)
        assert batch.observations.dtype == batch.next_observations.dtype == dtype
        assert batch.observations.shape == (1, 16, *shape)
        for values in (batch.rewards, batch.masks, batch.valid):
            assert values.dtype == wider(dtype)
        whole = batch.valid == 1.0
        torch.testing.assert_close(
            batch.rewards[whole].double(), torch.full((int(whole.sum()),), RETURN).double()
        )
        assert (batch.actions.reshape(-1) * 4.0).round().unique().numel() <= 2
    assert ring.actions.dtype == (dtype if dtype.is_floating_point else torch.float32)
    assert (ring.actions == 0.25).all()


def test_a_ring_of_integers_does_not_round() -> None:
    ring = RingBuffer(1, 4, 3, 1, discount=0.9, dtype=torch.uint8)
    one, flag = torch.ones(1), torch.zeros(1, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"float32 do not fit a ring of torch\.uint8"):
        ring.add(torch.full((1, 3), 0.7), torch.ones(1, 1), one, one, flag, torch.ones(1, 3))


def test_images_make_episodes_from_transitions() -> None:
    images = torch.randint(0, 256, (9, 3, 4, 4), dtype=torch.uint8)
    done = torch.zeros(8)
    done[3] = 1
    before, after = images[:8].clone(), images[1:].clone()
    after[3] = 7
    data = EpisodeData.from_transitions(before, torch.zeros(8, 1), after, done)
    assert data.observations.shape == (10, 3, 4, 4)
    assert data.observations.dtype == torch.uint8
    assert torch.equal(data.observations[4], torch.full((3, 4, 4), 7, dtype=torch.uint8))
    after[5, 0, 0, 0] += 1
    with pytest.raises(ValueError, match=r"next_observations\[5\] differs"):
        EpisodeData.from_transitions(before, torch.zeros(8, 1), after, done)
    with pytest.raises(ValueError, match=r"rows of shape \(3, 4\), observations of \(3, 4, 4\)"):
        EpisodeData.from_transitions(before, torch.zeros(8, 1), after[..., 0], done)


def test_what_is_no_table_is_named() -> None:
    rows, ends = torch.zeros(4, 2), torch.tensor([0.0, 0.0, 0.0, 1.0])
    named = {"state": rows, "image": rows}
    for observations, message in (
        ({"robot": named}, r"'robot' is itself a mapping, with leaves \['image', 'state'\]"),
        ({**named, "state": rows[:3]}, r"\['state'\] has leading axes \(3,\), .*'image'\] \(4,\)"),
        ({**named, "state": rows.numpy()}, r"observations\['state'\] must be one tensor"),
        (rows.numpy(), "got ndarray: convert arrays by torch.as_tensor"),
        ([[0.0, 1.0]], "got list"),
        (rows[:, 0], r"observations has shape \(4,\); expected \(rows, size\)"),
    ):
        with pytest.raises(ValueError, match=message):
            EpisodeData.from_rows(observations, rows, ends)
        with pytest.raises(ValueError, match=message):
            EpisodeData.from_transitions(observations, rows, observations, ends)
    with pytest.raises(ValueError, match="actions must be one tensor"):
        EpisodeData.from_rows(rows, named, ends)
    with pytest.raises(ValueError, match="only observations may have a shape"):
        RingBuffer(1, 4, (3, 8, 8), (2, 2), discount=0.9)


def test_a_broadcast_is_no_loss() -> None:
    qs, rows = torch.zeros(2, 3, 4), torch.zeros(2, 4)
    for target in (torch.zeros(4), torch.zeros(2, 1), torch.zeros(2, 4, 1), torch.zeros(2, 1, 4)):
        with pytest.raises(ValueError, match="target has shape"):
            td_loss(qs, target)
        with pytest.raises(ValueError, match="valid has shape"):
            td_loss(qs, rows, target)
    assert td_loss(qs, rows, rows).shape == (2,)
    for wrong in (torch.zeros(4), torch.zeros(2, 1), torch.zeros(2, 4, 1)):
        for three in ((wrong, rows, rows), (rows, wrong, rows), (rows, rows, wrong)):
            with pytest.raises(ValueError, match="differ in shape"):
                td_target(*three, discount=0.9)


def test_averages_are_of_their_own_parameters() -> None:
    targets: list[Tensor] = [torch.ones(2, 3), torch.ones(3)]
    with pytest.raises(ValueError, match=r"target 1 has shape \(3,\), its online parameter \(1,\)"):
        ema_update(targets, [torch.zeros(2, 3), torch.zeros(1)], 0.5)
    assert all(bool((target == 1.0).all()) for target in targets)
