"""Observations of several leaves are sampled as each leaf alone would be, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qlearn import (
    BalancedSampler,
    ChunkBatch,
    ChunkSampler,
    ChunkSource,
    EpisodeData,
    LeafSpec,
    MappedRows,
    PrefetchingSampler,
    RandomStreams,
    RingBuffer,
    ShardRotation,
    UnionSampler,
    tree_rows,
)

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)
SPEC = {"image": LeafSpec((8, 9, 3), torch.uint8), "state": LeafSpec((2,), torch.float64)}


def leaves(rows: int, seed: int = 0) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {
        "state": torch.randn(rows, 2, generator=source, dtype=torch.float64),
        "image": torch.randint(0, 256, (rows, 8, 9, 3), generator=source, dtype=torch.uint8),
    }


def episodes(lengths: list[int], observations: object) -> EpisodeData:
    rows = sum(lengths) + len(lengths)
    terminals = torch.zeros(rows)
    terminals[torch.tensor(lengths).add(1).cumsum(0) - 1] = 1
    number = torch.arange(rows)
    return EpisodeData.from_rows(
        observations,
        torch.sin(torch.arange(2.0 * rows)).view(rows, 2),
        terminals,
        (number % 5 - 2)[None].float(),
        (number % 7 > 0)[None],
    )


def filled(spec: object, steps: list[tuple[object, Tensor, Tensor, object]], mode: str, **more):
    ring = RingBuffer(2, 6, spec, 2, horizon=3, discount=0.9, mode=mode, **more)
    for now, action, end, after in steps:
        ring.add(now, action, action[:, 0], (action[:, 1] > 0).float(), end, after)
    return ring


def alike(tree: ChunkBatch, leaf: ChunkBatch, name: str) -> None:
    for side in ("observations", "next_observations"):
        given_leaf, wanted = getattr(tree, side)[name], getattr(leaf, side)
        assert given_leaf.dtype == wanted.dtype == SPEC[name].dtype
        assert torch.equal(given_leaf, wanted)
    for field in ("actions", "rewards", "masks", "valid"):
        assert getattr(tree, field).dtype == torch.float32
        torch.testing.assert_close(getattr(tree, field), getattr(leaf, field).float())


@settings(deadline=None, max_examples=40)
@given(
    LENGTHS, st.sampled_from(["any", "within_episode"]), st.integers(0, 2**31), st.integers(4, 9)
)
def test_a_tree_is_its_leaves(lengths: list[int], mode, seed: int, played: int) -> None:
    if max(lengths) < 3:
        return
    rows = leaves(sum(lengths) + len(lengths), seed)
    actions = torch.randn(played, 2, 2)
    ends = torch.rand(played, 2) < 0.2
    before, after = leaves(2 * played, seed + 1), leaves(2 * played, seed + 2)

    def steps(pick) -> list[tuple[object, Tensor, Tensor, object]]:
        return [
            (
                pick(tree_rows(before, slice(2 * n, 2 * n + 2))),
                actions[n],
                ends[n],
                pick(tree_rows(after, slice(2 * n, 2 * n + 2))),
            )
            for n in range(played)
        ]

    def sources(pick, spec: object, dtype: torch.dtype) -> list[ChunkSource]:
        offline = ChunkSampler(episodes(lengths, pick(rows)), 3, 0.9, mode=mode, tasks=[0, 0])
        ring = filled(spec, steps(pick), mode, dtype=dtype)
        return [
            offline,
            ring,
            UnionSampler(offline, ring),
            BalancedSampler(offline, ring),
            UnionSampler(offline, ring, ShardRotation.of(offline, 10**6, 2, "cpu")),
        ]

    trees = sources(lambda tree: tree, SPEC, torch.float32)
    for name, leaf in SPEC.items():
        own = sources(lambda tree, name=name: tree[name], leaf.shape, leaf.dtype)
        for tree_source, leaf_source in zip(trees, own, strict=True):
            first, second = (RandomStreams([seed, 3]) for _ in range(2))
            for _ in range(2):
                alike(tree_source.sample(first, 8), leaf_source.sample(second, 8), name)


def test_a_ring_of_leaves_continues_from_its_state() -> None:
    rows = leaves(22)
    steps = [
        (
            tree_rows(rows, slice(2 * n, 2 * n + 2)),
            torch.full((2, 2), float(n)),
            torch.tensor([n % 4 == 3, n % 5 == 3]),
            tree_rows(rows, slice(2 * n + 2, 2 * n + 4)),
        )
        for n in range(10)
    ]
    whole = filled(SPEC, steps, "within_episode")
    half, other = (filled(SPEC, steps[:5], "within_episode") for _ in range(2))
    other.load_state_dict({name: value.clone() for name, value in half.state_dict().items()})
    for now, action, end, after in steps[5:]:
        other.add(now, action, action[:, 0], (action[:, 1] > 0).float(), end, after)
    assert {n for n in whole.state_dict() if n.startswith("obs")} == {
        "observations:image",
        "observations:state",
    }
    assert whole.state_dict()["observations:image"].dtype == torch.uint8
    for (name, mine), theirs in zip(
        whole.state_dict().items(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), name
    first = whole.sample(RandomStreams([0, 1]), 9)
    second = other.sample(RandomStreams([0, 1]), 9)
    assert torch.equal(first.observations["image"], second.observations["image"])


def test_images_are_read_from_the_disk_as_bytes(tmp_path: Path) -> None:
    lengths = [7, 3, 12]
    rows = leaves(25)
    mapped = {}
    for name, table in rows.items():
        np.save(tmp_path / f"{name}.npy", table.numpy())
        mapped[name] = torch.from_numpy(np.load(tmp_path / f"{name}.npy", mmap_mode="c"))
    disk = {name: MappedRows(list(leaf.split([4, 20, 1]))) for name, leaf in mapped.items()}
    resident, streamed = episodes(lengths, rows), episodes(lengths, disk)
    assert streamed.streamed
    assert not resident.streamed
    assert streamed.spec == resident.spec == SPEC
    assert streamed.nbytes == resident.nbytes - sum(leaf.nbytes for leaf in rows.values())
    assert streamed.to("meta") is streamed
    assert resident.to("meta").observations["image"].device.type == "meta"
    sampler = ChunkSampler(resident, 3, 0.9, tasks=[0, 0])
    first, second = RandomStreams([3, 4]), RandomStreams([3, 4])
    with PrefetchingSampler(streamed, 3, 0.9, tasks=[0, 0]) as ahead:
        for _ in range(5):
            memory, disk_batch = sampler.sample(first, 8), ahead.sample(second, 8)
            for name in SPEC:
                assert disk_batch.observations[name].dtype == SPEC[name].dtype
                for side in ("observations", "next_observations"):
                    mine, theirs = getattr(memory, side)[name], getattr(disk_batch, side)[name]
                    assert torch.equal(mine, theirs)
        assert ahead.restarts == 1
    with pytest.raises(ValueError, match=r"uint8 cannot be shifted or scaled"):
        MappedRows([rows["image"]], shift=torch.zeros(8, 9, 3))


def test_transitions_of_leaves_join() -> None:
    rows = leaves(9)
    before, after = tree_rows(rows, slice(0, 8)), tree_rows(rows, slice(1, 9))
    done = torch.zeros(8)
    done[3] = 1
    data = EpisodeData.from_transitions(before, torch.zeros(8, 1), after, done)
    assert data.spec == SPEC
    assert data.transitions == 8
    assert torch.equal(data.observations["image"][4], rows["image"][4])
    wrong = {**after, "image": after["image"].clone()}
    wrong["image"][5, 0, 0, 0] += 1
    with pytest.raises(ValueError, match=r"next_observations\[5\] differs"):
        EpisodeData.from_transitions(before, torch.zeros(8, 1), wrong, done)
    with pytest.raises(ValueError, match=r"are leaves \['image'\], expected leaves \['image', 'st"):
        EpisodeData.from_transitions(before, torch.zeros(8, 1), {"image": after["image"]}, done)
    with pytest.raises(ValueError, match=r"next_observations\['state'\] has rows of shape \(1,\)"):
        EpisodeData.from_transitions(
            before, torch.zeros(8, 1), {**after, "state": after["state"][:, :1]}, done
        )


def test_leaves_that_do_not_fit_are_named() -> None:
    rows = leaves(4)
    ring = RingBuffer(2, 6, SPEC, 2, discount=0.9)
    now, numbers = tree_rows(rows, slice(0, 2)), torch.zeros(2)
    rest = (torch.zeros(2, 2), numbers, numbers, numbers.bool())
    before = {name: value.clone() for name, value in ring.state_dict().items()}
    floats = {**now, "image": now["image"] / 255}
    with pytest.raises(ValueError, match=r"next_observations\['image'\] of torch.float32 do not"):
        ring.add(now, *rest, floats)
    with pytest.raises(ValueError, match=r"next_observations are leaves \['state'\], expected"):
        ring.add(now, *rest, {"state": now["state"]})
    with pytest.raises(ValueError, match=r"observations\['state'\]: expected one row per replica"):
        ring.add({**now, "state": now["state"][:, :1]}, *rest, now)
    assert all(torch.equal(value, before[name]) for name, value in ring.state_dict().items())
    loud = {**rows, "image": rows["image"].float()}
    with pytest.raises(ValueError, match=r"\['image'\] holds images of float32\[8, 9, 3\] .*255"):
        episodes([3], loud)
    quiet = episodes([3], {**rows, "image": rows["image"].float() / 255})
    assert quiet.spec["image"].dtype == torch.float32
