"""Updates as one CUDA graph: a launch instead of thousands."""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from bench.errors import BenchError
from qlearn import RandomStreams

__all__ = ["CapturedUpdates", "check_capture"]

_T = TypeVar("_T")


class CapturedUpdates(Generic[_T]):
    """Several whole updates, sampling and noise included, as one CUDA graph.

    One launch then costs the host microseconds, whatever the number of kernels. The random streams
    are registered with the graph, so every replay draws new numbers, the ones that eager updates
    would draw: every call performs ``updates`` updates, the first few of them eagerly.

    Captured addresses are those of parameters, optimiser state and whatever else ``update`` changes
    in place, so load a checkpoint before the first call, or by copying into them. Whatever
    ``update`` decides on the host is decided once, at the capture.

    Args:
        update: samples, draws and learns, on a CUDA device.
        streams: everything that it draws from.
        updates: per call.

    Raises:
        ValueError: the streams are not on a CUDA device, or ``updates`` is below one.
    """

    eager_calls = 3
    """Calls before the capture: allocations, cuBLAS workspaces and Adam's state come into being."""

    def __init__(self, update: Callable[[], _T], streams: RandomStreams, updates: int = 1) -> None:
        check_capture(streams.device)
        if updates < 1:
            raise ValueError(f"updates must be at least 1, got {updates}")
        self.update, self.streams, self.updates = update, streams, updates
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: _T
        self._called = 0

    def __call__(self) -> _T:
        """Perform the updates.

        Returns:
            What the last of them returned; tensors in it are overwritten by the next call.

        Raises:
            BenchError: the device refuses the capture; nothing of it was performed.
        """
        if self._graph is None:
            self._called += 1
            if self._called <= self.eager_calls:
                return self._eagerly()
            self._graph = self._captured()
        self._graph.replay()
        return self._result

    def _eagerly(self) -> _T:
        # On a stream beside the usual one, as the capture will be.
        device = self.streams.device
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            result = self._updates()
        torch.cuda.current_stream(device).wait_stream(side)
        return result

    def _captured(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for generator in self.streams.generators:
            graph.register_generator_state(generator)
        try:
            # Other threads, of evaluations, may go on with what they do.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._result = self._updates()
        except RuntimeError as error:
            raise BenchError(
                f"the update could not be captured in a CUDA graph: {error}; leave out --capture, "
                "the same command goes on without it"
            ) from error
        return graph

    def _updates(self) -> _T:
        for _ in range(self.updates - 1):
            self.update()
        return self.update()


def check_capture(device: torch.device) -> None:
    """Refuse a device that has no graphs.

    Raises:
        ValueError: it is not a CUDA device.
    """
    if device.type != "cuda":
        raise ValueError(f"a CUDA graph needs a CUDA device, not {device}; leave out --capture")
