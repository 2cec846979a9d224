"""Measuring: rate, first latency, memory, arithmetic and the machine's ceiling, taking turns."""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch

from bench.agents import Problem
from bench.experiment import Mode, Precision, is_captured
from bench.speed.peer import Peer
from bench.speed.request import SpeedRequest
from bench.speed.roofline import bandwidth, launches, traffic
from bench.speed.row import SpeedRow
from bench.training.cost import (
    calls_per_second,
    finish,
    matmul_rate,
    peak_memory,
    update_flops,
)
from bench.training.devices import select_device
from bench.training.precision import emulation_warning, float32_products
from bench.training.workload import Workload, agent_config

__all__ = ["measure"]

_CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(slots=True)
class _Entrant:
    """One combination, alive through all turns."""

    agent: str
    width: int
    replicas: int
    precision: Precision
    mode: Mode
    updates: Callable[[], object]
    per_call: int
    first_update_s: float
    memory_mb: float
    flops: float
    bytes: float | None
    launches: int | None
    rates: list[float] = field(default_factory=list)


def measure(
    request: SpeedRequest, tell: Callable[[str], None] = lambda text: None
) -> list[SpeedRow]:
    """Measure every combination of a request.

    Args:
        request: what to measure.
        tell: called with a line before every longer step.

    Raises:
        ValueError: the request is impossible.
        BenchError: a peer's command failed, or there is no compiler.
    """
    request.check()
    device, clock = select_device(request.device), _CLOCKS[request.clock]
    if device.type == "cuda" and request.clock == "cpu":
        raise ValueError("--clock cpu is for CPUs: on a GPU it would measure the launches alone")
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    combinations = list(
        itertools.product(
            request.agents, request.widths, request.replicas, request.precisions, request.modes
        )
    )
    peers = [Peer(command) for command in request.against]
    _check(request, device, tell)
    entrants = []
    for combination in combinations:
        tell("preparing " + ", ".join(map(str, combination)))
        entrants.append(_enter(request, device, *combination))
    ceilings: dict[tuple[Precision, int], list[float]] = {
        (e.precision, e.width): [] for e in entrants
    }
    against: dict[str, list[float]] = {peer.command: [] for peer in peers}
    with ExitStack() as stack:
        for peer in peers:
            stack.enter_context(peer)
        for turn in range(request.turns):
            tell(f"turn {turn + 1} of {request.turns}")
            _measure_turn(entrants, ceilings, request.seconds, device, clock)
            for peer in peers:
                against[peer.command].append(peer.rate(request.seconds))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    copied = bandwidth(device, min(1.0, request.seconds), clock) if request.roofline else None
    rows = [
        _row(e, request.batch, name, statistics.median(ceilings[e.precision, e.width]), copied)
        for e in entrants
    ]
    return rows + [_peer_row(command, rates, name) for command, rates in against.items()]


def _check(request: SpeedRequest, device: torch.device, tell: Callable[[str], None]) -> None:
    """Refuse before anything is measured what this machine cannot do; warn of what is slow."""
    for agent in request.agents:
        agent_config(agent, 1, 1, 1)
    if any(map(is_captured, request.modes)) and device.type != "cuda":
        raise ValueError(
            f"--modes {' '.join(request.modes)}: captured updates need a CUDA device, not "
            f"{device}; use eager or compiled"
        )
    for precision in request.precisions:
        with float32_products(precision, device):
            pass
        if warning := emulation_warning(precision, device):
            tell(f"warning: {warning}")


def _peer_row(command: str, rates: Sequence[float], device: str) -> SpeedRow:
    return SpeedRow(
        agent=command,
        width=None,
        replicas=None,
        batch=None,
        precision=None,
        mode=None,
        device=device,
        threads=torch.get_num_threads(),
        updates_per_s=statistics.median(rates),
        slowest=min(rates),
        fastest=max(rates),
    )


def _measure_turn(
    entrants: list[_Entrant],
    ceilings: dict[tuple[Precision, int], list[float]],
    seconds: float,
    device: torch.device,
    clock: Callable[[], float],
) -> None:
    """Measure every combination once, and the products that bound them."""
    for entrant in entrants:
        with float32_products(entrant.precision, device):
            rate = calls_per_second(entrant.updates, seconds, device, clock)
        entrant.rates.append(rate * entrant.per_call)
    for (precision, width), found in ceilings.items():
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        with float32_products(precision, device):
            found.append(matmul_rate(device, width, min(0.3, seconds), dtype, clock))


def _enter(
    request: SpeedRequest,
    device: torch.device,
    agent: str,
    width: int,
    replicas: int,
    precision: Precision,
    mode: Mode,
) -> _Entrant:
    config = agent_config(agent, width, request.num_critics, request.flow_steps)
    problem = Problem(request.observation_dim, request.action_dim, request.chunk_length)
    flops = replicas * update_flops(agent, config, problem, request.batch)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    workload = Workload.build(agent, config, problem, replicas, request.batch, device, precision)
    per_call = request.per_launch if is_captured(mode) else 1
    started = time.perf_counter()
    with float32_products(precision, device):
        updates = workload.prepared(mode, per_call)
        updates()
        finish(device)
        first = time.perf_counter() - started
        touched = traffic(workload.update) if request.roofline and mode == "eager" else None
        launched = launches(workload.update) if mode == "eager" else None
    return _Entrant(
        agent,
        width,
        replicas,
        precision,
        mode,
        updates,
        per_call,
        first,
        peak_memory(device) / 2**20,
        flops,
        touched,
        launched,
    )


def _row(
    entrant: _Entrant, batch: int, device: str, ceiling: float, copied: float | None
) -> SpeedRow:
    rate = statistics.median(entrant.rates)
    achieved = rate * entrant.flops
    return SpeedRow(
        agent=entrant.agent,
        width=entrant.width,
        replicas=entrant.replicas,
        batch=batch,
        precision=entrant.precision,
        mode=entrant.mode,
        device=device,
        threads=torch.get_num_threads(),
        updates_per_s=rate,
        slowest=min(entrant.rates),
        fastest=max(entrant.rates),
        replica_updates_per_s=rate * entrant.replicas,
        first_update_s=entrant.first_update_s,
        memory_mb=entrant.memory_mb,
        launches=entrant.launches,
        gflops=achieved / 1e9,
        ceiling_gflops=ceiling / 1e9,
        share=achieved / ceiling,
        intensity=None if entrant.bytes is None else entrant.flops / entrant.bytes,
        bandwidth_gb_s=None if copied is None else copied / 1e9,
    )
