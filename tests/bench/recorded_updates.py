"""A CUDA graph's part on a CPU: operations are recorded once, and later repeated on what they held.

As with a graph, what the host decided while it was recorded stays decided, and every tensor keeps
its place in memory. Refused are random numbers of other streams than the registered ones, and what
reads a number or makes a tensor of one on the host as far as operations show it (`item` does,
`tolist` of a CPU tensor does not: see `test_capture.py` for the other half).
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qlearn import RandomStreams

T = TypeVar("T")

# What waits for a GPU, or copies from the host's memory.
REFUSED = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.lift_fresh.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.equal.default,
}


class Recorder(TorchDispatchMode):
    """Keeps every operation with its arguments and results."""

    def __init__(self, streams: RandomStreams) -> None:
        super().__init__()
        self.generators = {generator._cdata for generator in streams.generators}
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in REFUSED, f"{func} cannot be captured"
        if torch.Tag.nondeterministic_seeded in func.tags:
            generator = (kwargs or {}).get("generator")
            known = generator is not None and generator._cdata in self.generators
            assert known, f"{func} cannot be captured: another stream"
        results = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, results))
        return results

    @torch.no_grad()
    def repeat(self) -> None:
        """Every operation again, results into the places of the first ones."""
        for func, args, kwargs, results in self.operations:
            again = tree_leaves(func(*args, **kwargs))
            for place, result in zip(tree_leaves(results), again, strict=True):
                if isinstance(place, Tensor) and place.data_ptr() != result.data_ptr():
                    place.copy_(result)


class RecordedUpdates(Generic[T]):
    """In place of `bench.training.capture.CapturedUpdates`."""

    eager_calls = 3

    def __init__(self, update: Callable[[], T], streams: RandomStreams, updates: int = 1) -> None:
        self.update, self.streams, self.updates = update, streams, updates
        self.recorder: Recorder | None = None
        self.result: T
        self.called = self.repeated = 0

    def __call__(self) -> T:
        self.called += 1
        if self.called <= self.eager_calls:
            return self._updates()
        if self.recorder is None:
            with Recorder(self.streams) as self.recorder:
                self.result = self._updates()
        else:
            self.recorder.repeat()
            self.repeated += 1
        return self.result

    def _updates(self) -> T:
        for _ in range(self.updates - 1):
            self.update()
        return self.update()
