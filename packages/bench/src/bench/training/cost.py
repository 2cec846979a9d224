"""What a pack costs: arithmetic of its updates and steps of its simulators."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.agents import AGENTS, Problem, draw
from bench.training.cells import Pack
from qlearn import ChunkBatch, RandomStreams

__all__ = ["PackCost", "matmul_rate", "pack_cost", "rehearse", "update_flops"]

_ROWS = 8


class _FlopCounter(TorchDispatchMode):
    """Sums what torch's registry says of every operation.

    ``FlopCounterMode`` also tracks modules, by hooks that `torch.autograd.grad` does not support.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        out = func(*args, **keywords)
        if count := flop_registry.get(func._overloadpacket):
            self.flops += count(*args, **keywords, out_val=out)
        return out


@dataclass(frozen=True, slots=True)
class PackCost:
    """Cost of one pack.

    Attributes:
        flops: floating-point operations of all updates of all replicas.
        simulator_steps: most environment steps that it can take, evaluations included.
    """

    flops: float
    simulator_steps: int


def update_flops(agent: str, config: object, problem: Problem, batch_size: int) -> float:
    """Floating-point operations of one update of one run, counted on a small batch and scaled."""
    with _FlopCounter() as counter:
        rehearse(agent, config, problem)
    return float(counter.flops * batch_size / _ROWS)


def rehearse(agent: str, config: object, problem: Problem) -> None:
    """One update of one run on a few made-up rows.

    Raises:
        ValueError: a setting is out of its range.
    """
    streams = RandomStreams([0], torch.device("cpu"))
    built = AGENTS[agent].agent(config, problem, streams)
    batch = ChunkBatch(
        observations=streams.normal(_ROWS, problem.observation_dim),
        actions=streams.uniform(_ROWS, problem.chunk_dim),
        rewards=streams.uniform(_ROWS),
        masks=torch.ones(1, _ROWS),
        valid=torch.ones(1, _ROWS),
        next_observations=streams.normal(_ROWS, problem.observation_dim),
    )
    built.update(batch, draw(streams, built.noise(_ROWS)))


def pack_cost(pack: Pack, config: object, problem: Problem, episode_steps: int) -> PackCost:
    """Cost of a pack; ``episode_steps`` is the length at which its episodes are cut."""
    protocol = pack.protocol
    per_update = update_flops(pack.agent, config, problem, protocol.batch_size)
    evaluations = 1 if pack.agent == "bc" else -(-pack.steps // protocol.evaluate_every)
    played = evaluations * protocol.episodes * episode_steps + (pack.steps if pack.online else 0)
    return PackCost(
        per_update * pack.updates_at(pack.steps) * len(pack.replica_seeds),
        played * len(pack.cells),
    )


def matmul_rate(device: torch.device, width: int = 512, seconds: float = 0.3) -> float:
    """Floating-point operations per second of a float32 matrix product, here and now."""
    rows = torch.randn(2560, width, device=device)
    kernel = torch.randn(width, width, device=device)
    torch.mm(rows, kernel)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        torch.mm(rows, kernel)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        done += 1
    return done * 2.0 * 2560 * width * width / (time.perf_counter() - started)
