"""How many runs to train as one: by measuring, within memory."""

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.agents import Problem
from bench.agents.settings import widest_layer
from bench.experiment import Mode, is_captured
from bench.machine import available_cores, available_memory
from bench.storage import read_run
from bench.suites import Domain, Suite
from bench.training.cost import calls_per_second, peak_memory
from bench.training.domain_sizes import domain_sizes
from bench.training.precision import float32_products
from bench.training.workload import Workload

__all__ = ["PackChoice", "PackRate", "best_pack", "choose", "measured_pack", "measured_size"]

_WORTH = 1.03
"""A larger pack must be faster by this factor: it also ends later and fails together."""
_FILL = 0.8
"""Part of the free memory that a pack may take."""


@dataclass(frozen=True, slots=True)
class PackRate:
    """One number of replicas, measured.

    Attributes:
        replicas: trained as one.
        replica_updates_per_s: updates per second times replicas, of one process; of several
            agents in turn, the harmonic mean.
        memory: bytes that the pack takes.
    """

    replicas: int
    replica_updates_per_s: float
    memory: float


@dataclass(frozen=True, slots=True)
class PackChoice:
    """How to train many runs.

    Attributes:
        replicas: in each pack.
        processes: packs trained at a time; on a CPU each with one thread.
        replica_updates_per_s: of all processes together, if they do not slow one another.
        measured: what the choice rests on.
    """

    replicas: int
    processes: int
    replica_updates_per_s: float
    measured: tuple[PackRate, ...]


def best_pack(
    agents: Mapping[str, Any],
    problem: Problem,
    batch: int,
    *,
    runs: int,
    device: torch.device,
    precision: str = "float32",
    mode: Mode = "eager",
    processes: int | None = None,
    seconds: float = 1.0,
) -> PackChoice:
    """The fastest number of replicas in a pack, by measuring 1, 2, 4, ... on made-up data.

    It takes a few seconds for a small network and minutes at paper size on a CPU. On a CPU it sets
    torch to one thread, since packs then run side by side in one-thread processes. Several agents
    are all measured, and the pack is the one in which equally many updates of each take least time
    together: agents that start from one clone are packed alike.

    Args:
        agents: settings by name in the registry.
        problem: sizes.
        batch: chunks per update and replica.
        runs: how many there are to train, of all agents; a pack never leaves a process without
            work.
        device: where.
        precision: of the matrix products.
        mode: how updates are executed.
        processes: packs at a time; by default one on a GPU and one per usable core of a CPU.
        seconds: length of each measurement.

    Raises:
        ValueError: no runs.
    """
    assert agents
    if runs < 1:
        raise ValueError(f"there must be at least one run to pack, got {runs}")
    processes, free = _places(device, runs, processes)
    most = -(-runs // max(processes, len(agents)))

    def measure(replicas: int) -> PackRate:
        found = [
            measured_pack(
                agent,
                config,
                problem,
                batch,
                replicas,
                device,
                precision=precision,
                mode=mode,
                seconds=seconds,
            )
            for agent, config in agents.items()
        ]
        together = statistics.harmonic_mean([rate.replica_updates_per_s for rate in found])
        return PackRate(replicas, together, max(rate.memory for rate in found))

    return choose(measure, most, processes, _FILL * free)


def _places(device: torch.device, runs: int, processes: int | None) -> tuple[int, float]:
    """Packs at a time, and the free memory in bytes that they share."""
    if device.type == "cuda":
        return processes or 1, float(torch.cuda.mem_get_info(device)[0])
    torch.set_num_threads(1)
    return min(processes or available_cores(), runs), float(available_memory())


def measured_size(
    suite: Suite,
    configs: Mapping[str, Mapping[str, Any]],
    directory: Path,
    *,
    runs: int,
    device: torch.device,
    precision: str,
    mode: Mode,
    processes: int,
) -> int:
    """The largest pack of a plan: that of its run directory, or the best on its widest domain.

    Args:
        suite: of the plan.
        configs: settings by agent and domain.
        directory: of the run; one that exists keeps its packs.
        runs: of all agents, domains and seeds.
        device: where.
        precision: of the matrix products.
        mode: how updates are executed.
        processes: packs at a time.
    """
    if (directory / "run.json").exists():
        known = read_run(directory).settings.get("largest_pack")
        if isinstance(known, int):
            return known

    def width(domain: Domain) -> int:
        return sum(widest_layer(found[domain.name]) for found in configs.values())

    widest = max(suite.domains, key=width)
    choice = best_pack(
        {agent: found[widest.name] for agent, found in configs.items()},
        domain_sizes(widest).problem,
        suite.protocol.batch_size,
        runs=runs,
        device=device,
        precision=precision,
        mode=mode,
        processes=processes,
    )
    return choice.replicas


def choose(
    measure: Callable[[int], PackRate], most: int, processes: int, memory: float
) -> PackChoice:
    """The smallest pack that larger ones hardly beat, among 1, 2, 4, ... and ``most``.

    Stops at the first size that is no faster than the one before, or whose successor would not fit
    into ``memory`` (bytes, shared by all processes).
    """
    measured: list[PackRate] = []
    best: PackRate | None = None
    for replicas in _sizes(most):
        if measured and measured[-1].memory * replicas / measured[-1].replicas * processes > memory:
            break
        measured.append(found := measure(replicas))
        if best is not None and found.replica_updates_per_s < _WORTH * best.replica_updates_per_s:
            break
        best = found
    assert best is not None
    rate = best.replica_updates_per_s * processes
    return PackChoice(best.replicas, processes, rate, tuple(measured))


def measured_pack(
    agent: str,
    config: Any,
    problem: Problem,
    batch: int,
    replicas: int,
    device: torch.device,
    *,
    precision: str = "float32",
    mode: Mode = "eager",
    seconds: float = 1.0,
) -> PackRate:
    """Rate and memory of packs of one size; threads as torch is set."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    before = peak_memory(device) if device.type == "cpu" else 0.0
    workload = Workload.build(agent, config, problem, replicas, batch, device, precision)
    with float32_products(precision, device):
        updates = workload.prepared(mode)
        rate = calls_per_second(updates, seconds, device)
    # A CPU process knows its largest size only, so what an earlier pack took counts for less.
    state = sum(p.numel() * p.element_size() for p in workload.agent.learner.parameters)
    # What a graph holds is reserved, and not allocated between its launches.
    graphs = is_captured(mode)
    peak = float(torch.cuda.max_memory_reserved(device)) if graphs else peak_memory(device)
    memory = max(peak - before, 4.0 * state)
    return PackRate(replicas, rate * replicas, memory)


def _sizes(most: int) -> Iterator[int]:
    size = 1
    while size < most:
        yield size
        size *= 2
    yield most
