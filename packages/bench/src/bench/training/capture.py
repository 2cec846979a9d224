"""Updates as one CUDA graph: a launch instead of thousands."""

import gc
import warnings
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from bench.errors import BenchError
from qlearn import RandomStreams

__all__ = ["CapturedUpdates"]

_T = TypeVar("_T")


class CapturedUpdates(Generic[_T]):
    """Several whole updates, sampling and noise included, as one CUDA graph.

    The host then launches the graph, whatever the number of its kernels, and sets two numbers of
    every random stream. The streams are registered with the graph, so every replay draws new
    numbers, the ones that eager updates would draw: every call performs ``updates`` updates, the
    first few of them eagerly.

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
        if streams.device.type != "cuda":
            raise ValueError(f"only CUDA devices capture updates in a graph, not {streams.device}")
        if updates < 1:
            raise ValueError(f"updates must be at least 1, got {updates}")
        self.update, self.streams, self.updates = update, streams, updates
        # One for the eager calls and the capture: memory and workspaces are kept by stream.
        self._stream = torch.cuda.Stream(streams.device)  # type: ignore[no-untyped-call]
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
        with torch.cuda.device(self.streams.device):
            if self._graph is None:
                self._called += 1
                if self._called <= self.eager_calls:
                    return self._eagerly()
                self._graph = self._captured()
            self._graph.replay()
        return self._result

    def _eagerly(self) -> _T:
        usual = torch.cuda.current_stream()
        self._stream.wait_stream(usual)
        with torch.cuda.stream(self._stream):
            result = self._updates()
        usual.wait_stream(self._stream)
        return result

    def _captured(self) -> torch.cuda.CUDAGraph:
        gc.collect()  # what an earlier graph still holds
        graph = torch.cuda.CUDAGraph()
        for generator in self.streams.generators:
            graph.register_generator_state(generator)
        # Other threads, of evaluations, may go on with what they do.
        capture = torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local")
        try:
            with warnings.catch_warnings():
                # An empty graph is only warned of, and would learn nothing from here on.
                warnings.filterwarnings("error", message=".*CUDA Graph is empty")
                with capture:
                    self._result = self._updates()
        except (RuntimeError, UserWarning) as error:
            raise BenchError(
                f"the update could not be captured in a CUDA graph: {error}; resume the run "
                "without --capture"
            ) from error
        return graph

    def _updates(self) -> _T:
        for _ in range(self.updates - 1):
            self.update()
        return self.update()
