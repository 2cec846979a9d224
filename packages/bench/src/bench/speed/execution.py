"""Whole updates as one CUDA graph, and the precision of their products."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from bench.speed.workload import Workload
from bench.training.precision import autocast, float32_products

__all__ = ["CapturedUpdates", "precision_context"]

_WARMUP = 3


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
