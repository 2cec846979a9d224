"""What a GPU needs of an update, on a CPU: the same operations each time, and all on one device."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.agents import AGENTS, Measuring, draw
from qlearn import ChunkSampler, EpisodeData, RandomStreams, RingBuffer, UnionSampler

from ..recorded_updates import RecordedUpdates
from .small_agents import PROBLEM as SIZES
from .small_agents import ROWS, batch_of, build, small
from .test_traces import CASES, SEEDS

PROBLEM = replace(SIZES, action_spread=(0.3, 0.7))  # kernels with a scale per component
UPDATES = 9
ALL = CASES | {
    "trqam--scheduled": (
        "trqam",
        {"budget_schedule": "cosine", "budget_end": 0.1, "budget_steps": UPDATES},
    ),
    "trqam--kernel-adams-bashforth": ("trqam", {"kernel": "adams_bashforth"}),
}


@pytest.mark.parametrize("onednn", [True, False], ids=["onednn", "batched"])
@pytest.mark.parametrize("case", ALL)
def test_recorded_updates_are_eager_ones(
    case: str, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not onednn:
        monkeypatch.setattr("qlearn._arithmetic._HAS_ONEDNN", False)  # a GPU's operations
    name, settings = ALL[case]

    def updated(recorded: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        agent: Any = build(name, SEEDS, PROBLEM, **settings)
        streams = RandomStreams(SEEDS).spawn("batches")

        def update() -> Mapping[str, Tensor]:
            return agent.update(batch_of(streams), draw(streams, agent.noise(ROWS)))

        updates = RecordedUpdates(update, streams) if recorded else update
        for _ in range(UPDATES):
            metrics = updates()
        if isinstance(updates, RecordedUpdates):
            assert updates.repeated == UPDATES - 4
        return dict(metrics), agent.state_dict() | agent.learner.state_dict()

    for mine, eager in zip(updated(True), updated(False), strict=True):
        assert mine.keys() == eager.keys()
        for key, value in eager.items():
            torch.testing.assert_close(mine[key], value, rtol=0.0, atol=0.0, msg=key)


class MetaStreams(RandomStreams):
    """Of numbers that do not exist, on a device that refuses to mix with the CPU and to be read."""

    def __init__(self) -> None:
        super().__init__(SEEDS)
        self.device = torch.device("meta")
        self.generators = (None,) * len(SEEDS)  # type: ignore[assignment]

    def spawn(self, purpose: str) -> RandomStreams:
        return MetaStreams()


class NoAdam:
    """In place of torch's, which does not know the device."""

    def __init__(self, parameters: list[Tensor], **settings: Any) -> None:
        self.state: dict[Tensor, dict[str, Tensor]] = {p: {} for p in parameters}

    def step(self) -> None:
        pass


class OneDevice(TorchDispatchMode):
    """Refuses tensors of the host, also those that are moved to the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        assert all(x.device.type == "meta" for x in tensors), f"{func} reads the host's memory"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", ALL)
def test_an_agent_stays_on_its_device_and_reads_nothing_from_it(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, settings = ALL[case]
    streams = MetaStreams()
    monkeypatch.setattr("torch.optim.Adam", NoAdam)
    agent: Any = AGENTS[name].agent(small(name, **settings), SIZES, streams)
    with OneDevice():
        found = dict(agent.update(batch_of(streams), draw(streams, agent.noise(ROWS))))
        found |= agent.update(batch_of(streams), draw(streams, agent.noise(ROWS)))
        observations = streams.normal(ROWS, SIZES.observation_dim)
        found["action"] = agent.act(observations, draw(streams, agent.acting_noise(ROWS)))
        if isinstance(agent, Measuring):
            found |= agent.measure(batch_of(streams), streams)
    found |= agent.state_dict() | agent.learner.state_dict()
    assert {value.device.type for value in found.values()} == {"meta"}


@pytest.mark.parametrize("mode", ["any", "within_episode"])
def test_sampling_stays_on_its_device_and_reads_nothing_from_it(mode: Any) -> None:
    ends = torch.zeros(303).index_fill(0, torch.tensor([100, 201, 302]), 1.0)
    data = EpisodeData.from_rows(torch.zeros(303, 4), torch.zeros(303, 2), ends)
    offline = ChunkSampler(data, 5, 0.99, mode=mode, tasks=[0, 0])
    ring = RingBuffer(2, 50, 4, 2, horizon=5, discount=0.99, mode=mode)
    both = UnionSampler(offline, ring)
    ring.to("meta")
    for name, value in vars(offline).items():
        if isinstance(value, Tensor | EpisodeData):
            setattr(offline, name, value.to("meta"))
    row = torch.zeros(2, device="meta")
    for _ in range(6):
        ring.add(row.expand(4, 2).T, row.expand(2, 2), row, row, row.bool(), row.expand(4, 2).T)
    for source in (offline, ring, both):
        with OneDevice():
            batch = source.sample(MetaStreams(), 16)
        assert batch.observations.shape == (2, 16, 4)
        assert batch.observations.device.type == "meta"


def test_both_checks_can_fail() -> None:
    numbers = torch.zeros(2, device="meta")
    with pytest.raises(RuntimeError, match="meta"):
        numbers[0].item()
    for mixed in (lambda: numbers + torch.zeros(2), lambda: torch.zeros(2).to("meta")):
        with OneDevice(), pytest.raises(AssertionError, match="the host's memory"):
            mixed()
    calls = 0

    def counted_on_the_host() -> Tensor:
        nonlocal calls
        calls += 1
        return torch.zeros(()) + calls

    updates = RecordedUpdates(counted_on_the_host, RandomStreams(SEEDS))
    assert [float(updates()) for _ in range(6)] == [1.0, 2.0, 3.0, 4.0, 4.0, 4.0]
    refused = (lambda: torch.ones(1).item(), lambda: torch.randn(1), lambda: torch.tensor(1.0))
    for update in refused:
        recorded = RecordedUpdates(update, RandomStreams(SEEDS))
        with pytest.raises(AssertionError, match="cannot be captured"):
            [recorded() for _ in range(4)]
