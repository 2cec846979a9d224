"""What a pack costs: arithmetic of its updates and steps of its simulators."""

import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.agents import AGENTS, Agent, Problem, draw
from bench.agents.settings import hidden_widths
from bench.training.cells import Pack
from qlearn import ChunkBatch, RandomStreams, has_bfloat16_products

__all__ = [
    "PackCost",
    "calls_per_second",
    "finish",
    "made_up",
    "matmul_rate",
    "operations_of",
    "pack_cost",
    "peak_memory",
    "rehearse",
    "update_flops",
    "update_once",
]

_ROWS = 8
_CEILING_ROWS = 2560
_COUNTS: dict[tuple[str, object, Problem], float] = {}


class _FlopCounter(TorchDispatchMode):
    """Sums what torch's registry says of every operation.

    ``FlopCounterMode`` also tracks modules, by hooks that `torch.autograd.grad` does not support.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0.0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import its compiler, for seconds, to keep it out of here

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
    """Floating-point operations of one update of one run.

    Counted on a small batch of small networks and scaled: products of layers whose widths are ``k``
    times some others grow as ``a k + b k^2``, those with inputs and outputs as ``k`` times the
    sizes of the problem, and all of them linearly in the batch. So an agent is counted four times,
    whatever the sizes, and not once for every domain of a suite.
    """
    settings: Any = config
    if problem.policy is not None:  # whose operations no width of ours scales
        return _flops(agent, config, problem) * batch_size / _ROWS
    hidden = hidden_widths(settings)
    factor = math.gcd(*(width for widths in hidden.values() for width in widths)) or 1

    def at(scale: int, observation: int = 1, chunk: int = 1) -> float:
        widths = {n: tuple(w // factor * scale for w in found) for n, found in hidden.items()}
        spread = (1.0,) * chunk if problem.action_spread else ()
        sizes = Problem(observation, chunk, action_spread=spread)
        return _counted(agent, replace(settings, **widths), sizes)

    once, twice = at(1), at(2)
    curve = (twice - 2.0 * once) / 2.0
    line = once - curve
    line += (at(1, observation=2) - once) * (problem.observation_dim - 1)
    line += (at(1, chunk=2) - once) * (problem.chunk_dim - 1)
    return (line * factor + curve * factor**2) * batch_size / _ROWS


def operations_of(config: Any) -> tuple[object, ...]:
    """What of a config decides about an agent's products, to compare it with others.

    A rate or a weight decides by being zero or None alone, LayerNorm not at all, so domains that
    differ in such settings are counted and rehearsed once.
    """
    names = [entry.name for entry in fields(config) if not entry.name.endswith("_layer_norm")]
    values = [getattr(config, name) for name in names]
    return (type(config), *("a number" if isinstance(v, float) and v else v for v in values))


def _counted(agent: str, config: Any, problem: Problem) -> float:
    key = (agent, operations_of(config), problem)
    if key not in _COUNTS:
        _COUNTS[key] = _flops(agent, config, problem)
    return _COUNTS[key]


def _flops(agent: str, config: object, problem: Problem) -> float:
    with _FlopCounter() as counter:
        rehearse(agent, config, problem)
    return float(counter.flops)


def rehearse(agent: str, config: object, problem: Problem) -> Agent:
    """An agent after one update of one run on a few made-up rows.

    Raises:
        ValueError: a setting is out of its range.
    """
    streams = RandomStreams([0], torch.device("cpu"))
    built: Agent = AGENTS[agent].agent(config, problem, streams)
    update_once(built, problem, streams)
    return built


def update_once(agent: Agent, problem: Problem, streams: RandomStreams) -> None:
    """One update on a few made-up rows."""
    agent.update(made_up(problem, streams, _ROWS), draw(streams, agent.noise(_ROWS)))


def made_up(problem: Problem, streams: RandomStreams, rows: int) -> ChunkBatch:
    """Random chunks, for one replica."""
    return ChunkBatch(
        observations=streams.normal(rows, problem.observation_dim),
        actions=streams.uniform(rows, problem.chunk_dim),
        rewards=streams.uniform(rows),
        masks=torch.ones(1, rows),
        valid=torch.ones(1, rows),
        next_observations=streams.normal(rows, problem.observation_dim),
    )


def pack_cost(pack: Pack, config: object, problem: Problem, episode_steps: int) -> PackCost:
    """Cost of a pack; ``episode_steps`` is the length at which its episodes are cut."""
    protocol = pack.protocol
    per_update = update_flops(pack.agent, config, problem, protocol.batch_size)
    evaluations = 1 if pack.clones else -(-pack.steps // protocol.evaluate_every)
    played = evaluations * protocol.episodes * episode_steps + (pack.steps if pack.online else 0)
    return PackCost(
        per_update * pack.updates_at(pack.steps) * len(pack.replica_seeds),
        played * len(pack.cells),
    )


def matmul_rate(
    device: torch.device,
    width: int = 512,
    seconds: float = 0.3,
    dtype: torch.dtype = torch.float32,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Floating-point operations per second of one large matrix product, here and now.

    By the faster of torch's libraries: on an AMD CPU with AVX-512 oneDNN, which products in torch's
    own layers do not use, has twice the rate of MKL. In float32 a GPU's tensor cores take part
    where `torch.set_float32_matmul_precision` allows it.

    Args:
        device: where.
        width: of the kernel, a square matrix.
        seconds: spent on each library.
        dtype: of the factors; bfloat16 stands for float32 on a CPU that has no such products and
            emulates them, see :func:`qlearn.has_bfloat16_products`.
        clock: which time.
    """
    if device.type == "cpu" and dtype == torch.bfloat16 and not has_bfloat16_products():
        dtype = torch.float32
    rows = torch.randn(_CEILING_ROWS, width, device=device, dtype=dtype)
    kernel = torch.randn(width, width, device=device, dtype=dtype)
    out = torch.empty_like(rows)
    products: list[Callable[[], object]] = [lambda: torch.mm(rows, kernel, out=out)]
    onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if device.type == "cpu" and onednn is not None:
        products.append(lambda: onednn(rows, kernel, None, "none", [], ""))
    rates = [calls_per_second(product, seconds, device, clock) for product in products]
    return max(rates) * 2.0 * _CEILING_ROWS * width * width


def calls_per_second(
    call: Callable[[], object],
    seconds: float,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Rate of a function over about ``seconds``, the queue of a GPU waited for at both ends."""
    call()
    finish(device)
    calls, started = 0, clock()
    while clock() - started < seconds or calls == 0:
        call()
        calls += 1
        if calls % 16 == 0:  # a queue without end would make the clock meaningless
            finish(device)
    finish(device)
    return calls / (clock() - started)


def finish(device: torch.device) -> None:
    """Wait until a GPU has done what it was told; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> float:
    """Bytes; of the process on a CPU, where the system counts in KiB (bytes on macOS)."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
