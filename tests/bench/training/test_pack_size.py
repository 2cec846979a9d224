"""How many runs are trained as one."""

from collections.abc import Callable

import pytest
import torch

from bench.agents import Problem
from bench.agents.bc import BCConfig
from bench.training.pack_size import PackRate, best_pack, choose

GIB = 2.0**30


def machine(rates: dict[int, float]) -> Callable[[int], PackRate]:
    return lambda replicas: PackRate(replicas, rates[replicas], replicas * GIB)


def test_the_smallest_pack_is_taken_that_larger_ones_hardly_beat() -> None:
    found = choose(machine({1: 100.0, 2: 180.0, 4: 240.0, 8: 246.0}), 40, 2, 1000 * GIB)
    assert (found.replicas, found.processes, found.replica_updates_per_s) == (4, 2, 480.0)
    assert [rate.replicas for rate in found.measured] == [1, 2, 4, 8]


def test_a_pack_that_does_not_fit_is_not_tried() -> None:
    rates = machine({1: 1.0, 2: 2.0, 4: 4.0})
    assert choose(rates, 4, 2, 7.9 * GIB).replicas == 2
    assert choose(rates, 4, 2, 8.0 * GIB).replicas == 4


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (3, [1, 2, 3]), (4, [1, 2, 4])])
def test_all_runs_in_one_pack_is_tried_last(most: int, sizes: list[int]) -> None:
    found = choose(machine({1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}), most, 1, 1000 * GIB)
    assert [rate.replicas for rate in found.measured] == sizes
    assert found.replicas == most


def test_runs_are_spread_over_processes_before_they_are_packed() -> None:
    threads = torch.get_num_threads()
    try:
        found = best_pack(
            {"bc": BCConfig(actor_hidden=(8,))},
            Problem(3, 2, 1),
            4,
            runs=3,
            device=torch.device("cpu"),
            processes=8,
            seconds=0.02,
        )
    finally:
        torch.set_num_threads(threads)
    assert (found.replicas, found.processes) == (1, 3)
    assert found.replica_updates_per_s == 3 * found.measured[0].replica_updates_per_s > 0.0


def test_every_agent_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    # Small networks gain from packs, large ones lose: both count, by the time that they take.
    rates = {"small": {1: 100.0, 2: 190.0, 4: 191.0}, "large": {1: 10.0, 2: 9.0}}

    def measured(agent: str, *given: object, **more: object) -> PackRate:
        replicas = given[3]
        assert isinstance(replicas, int)
        return PackRate(replicas, rates[agent][replicas], GIB)

    monkeypatch.setattr("bench.training.pack_size.measured_pack", measured)
    threads = torch.get_num_threads()
    try:
        found = {
            agents: best_pack(
                dict.fromkeys(agents), Problem(3, 2), 4, runs=4, device=torch.device("cpu"),
                processes=1,
            )
            for agents in (("small",), ("large",), ("small", "large"), ("large", "small"))
        }  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    assert [choice.replicas for choice in found.values()] == [2, 1, 1, 1]
    assert found["small", "large"].replica_updates_per_s == pytest.approx(2.0 / (0.01 + 0.1))


def test_no_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        best_pack({"bc": BCConfig()}, Problem(3, 2, 1), 4, runs=0, device=torch.device("cpu"))
