"""Three ways to run the same updates: operation by operation, compiled, or as one CUDA graph."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bench.agents import Agent
from bench.errors import BenchError
from bench.speed.workload import Workload
from bench.training.precision import autocast, float32_products

__all__ = ["CapturedUpdates", "compile_agent", "has_compiler", "precision_context"]

_WARMUP = 3


def compile_agent(agent: Agent) -> None:
    """Compile an agent's losses with their gradients, and its gradient clipping, in place.

    What stays outside is one fused optimiser call and a few updates of scalars per replica.

    Raises:
        BenchError: there is no compiler for the agent's device.
    """
    parameter = agent.learner.parameters[0]
    if not has_compiler(parameter.device):
        raise BenchError(
            "torch.compile needs a C++ compiler (g++ or clang) for the CPU and Triton for a GPU; "
            "install one, or leave out the mode compiled"
        )
    target: Any = agent
    target.losses = torch.compile(target.losses, fullgraph=True, dynamic=False)
    guard: Any = agent.learner.guard
    guard.forward = torch.compile(guard.forward, fullgraph=True, dynamic=False)


def has_compiler(device: torch.device) -> bool:
    """Whether `torch.compile` can generate code for a device."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return bool(has_triton())
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError):
        return False
    return True


class CapturedUpdates:
    """Several whole updates, sampling and noise included, as one CUDA graph.

    One launch then costs the host microseconds, whatever the number of kernels. The random streams
    are registered with the graph, so every replay draws new numbers, the ones that eager updates
    would draw. Captured addresses are those of parameters, optimiser state and metrics, so load a
    checkpoint before, or by copying into them.

    Args:
        workload: on a CUDA device; it is updated a few times before the capture.
        updates: per launch.

    Raises:
        ValueError: the workload is not on a CUDA device, or ``updates`` is below one.
    """

    def __init__(self, workload: Workload, updates: int = 1) -> None:
        device = workload.streams.device
        if device.type != "cuda":
            raise ValueError(f"a CUDA graph needs a CUDA device, the workload is on {device}")
        if updates < 1:
            raise ValueError(f"updates must be at least 1, got {updates}")
        self.updates = updates
        self.graph = torch.cuda.CUDAGraph()
        for generator in workload.streams.generators:
            self.graph.register_generator_state(generator)
        # First on a side stream: allocations, cuBLAS workspaces and Adam's state come into being.
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(_WARMUP):
                workload.update()
        torch.cuda.current_stream(device).wait_stream(side)
        with torch.cuda.graph(self.graph):
            for _ in range(updates):
                self.metrics: Mapping[str, Tensor] = workload.update()

    def __call__(self) -> Mapping[str, Tensor]:
        """Run the updates; the metrics of the last one, overwritten by the next call."""
        self.graph.replay()
        return self.metrics


@contextlib.contextmanager
def precision_context(precision: str, device: torch.device) -> Iterator[None]:
    """Matrix products in `float32`, `tf32` (GPU) or `bfloat16`.

    Raises:
        ValueError: the device has no such products.
    """
    with float32_products(precision, device), autocast(precision, device):
        yield


Updates = Callable[[], object]
"""One or several updates of a workload."""
