"""The next batches, read while the current one is learned from."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from qlearn._chunks import ChunkBatch, map_batches
from qlearn._episodes import EpisodeData
from qlearn._random import RandomStreams
from qlearn._sampler import ChunkMode, ChunkSampler

__all__ = ["PrefetchingSampler"]


@dataclass(frozen=True, slots=True)
class _Ready:
    """A batch that was read ahead, with the positions of the streams before and after its draw."""

    before: Tensor
    size: int
    after: Tensor
    batch: ChunkBatch
    arrived: torch.cuda.Event | None


class PrefetchingSampler(ChunkSampler):
    """A :class:`ChunkSampler` whose data lie on the disk; gives the same batches, bit for bit.

    Every chunk of the whole data set is equally likely in every row of every batch, as in memory:
    the distribution does not know of files. A thread of its own copies the streams, draws the
    indices of the next batches from the copy, reads the rows, and moves them to ``device``. A batch
    is handed out only if the streams then stand where the copy stood when it was drawn; else the
    thread starts again from where they stand. So a wrong guess costs time and never changes a
    number, and the streams are all that a checkpoint needs to continue.

    Use it as a context manager, or call :meth:`close`. Attributes `waited` (seconds that callers
    waited for batches), `batches` (handed out) and `restarts` (of the thread) tell how well it did.

    Args:
        data: episodes with :class:`MappedRows` for observations (or leaves of them) and actions.
        horizon: chunk length ``H``.
        discount: per step, for the reward sum inside a chunk.
        mode: as of :class:`ChunkSampler`.
        tasks: task of each replica.
        device: where batches are wanted.
        between: draws from the streams what the caller draws between two batches.
        depth: batches that are kept ready.
        history: as of :class:`ChunkSampler`.
        offset: likewise.
    """

    def __init__(
        self,
        data: EpisodeData,
        horizon: int,
        discount: float,
        *,
        mode: ChunkMode = "any",
        tasks: Sequence[int],
        device: torch.device | str = "cpu",
        between: Callable[[RandomStreams], object] = lambda streams: None,
        depth: int = 4,
        history: int = 1,
        offset: int = 0,
    ) -> None:
        super().__init__(
            data, horizon, discount, mode=mode, tasks=tasks, history=history, offset=offset
        )
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.device = torch.device(device)
        self.between, self.depth = between, depth
        self.waited, self.batches, self.restarts = 0.0, 0, 0
        self._worker: _Worker | None = None

    def sample(self, streams: RandomStreams, batch: int) -> ChunkBatch:
        """``batch`` chunks for each replica, with replacement, from the replica's own stream.

        Raises:
            OSError: the data could not be read.
        """
        begin = time.perf_counter()
        here = streams.state_dict()["generators"]
        ready = None if self._worker is None else self._worker.take()
        if ready is None or ready.size != batch or not torch.equal(ready.before, here):
            self.close()
            self._worker = _Worker(self, streams, batch)
            self.restarts += 1
            ready = self._worker.take()
        streams.load_state_dict({"generators": ready.after})
        if ready.arrived is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(ready.arrived)
            map_batches(lambda tensor: _used_by(current, tensor), ready.batch)
        self.waited += time.perf_counter() - begin
        self.batches += 1
        return ready.batch

    def take(self, index: Int[Tensor, "R B"]) -> ChunkBatch:
        """Chunks by number, read now and waited for."""
        begin = time.perf_counter()
        batch = self.read(index)
        self.waited += time.perf_counter() - begin
        self.batches += 1
        return batch

    def read(self, index: Int[Tensor, "R B"]) -> ChunkBatch:
        """Chunks by number, on :attr:`device`."""
        return on_device(super().take(index.cpu()), self.device)

    def close(self) -> None:
        """End the thread; the next batch starts another."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def __enter__(self) -> "PrefetchingSampler":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Worker:
    """The thread that reads ahead, from where the streams stand when it is made."""

    def __init__(self, sampler: PrefetchingSampler, streams: RandomStreams, batch: int) -> None:
        self._sampler, self._batch = sampler, batch
        self._streams = RandomStreams(streams.seeds, streams.device)
        self._streams.load_state_dict(streams.state_dict())
        self._ready: queue.Queue[_Ready | BaseException] = queue.Queue(sampler.depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def take(self) -> _Ready:
        found = self._ready.get()
        if isinstance(found, BaseException):
            self._ready.put(found)  # for whoever asks again
            raise found
        return found

    def stop(self) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            try:  # The thread may wait for a free place.
                self._ready.get_nowait()
            except queue.Empty:
                self._thread.join(timeout=0.01)

    def _run(self) -> None:
        try:
            if self._sampler.device.type == "cuda":
                # On a stream of its own, or every index would wait for the updates in the queue.
                side = torch.cuda.Stream(self._sampler.device)  # type: ignore[no-untyped-call]
                with torch.cuda.stream(side):
                    self._read_ahead()
            else:
                self._read_ahead()
        except BaseException as error:  # for the thread that asks next
            self._ready.put(error)

    def _read_ahead(self) -> None:
        sampler, streams = self._sampler, self._streams
        while not self._stopped.is_set():
            before = streams.state_dict()["generators"]
            index = streams.integers(sampler.count, self._batch)
            after = streams.state_dict()["generators"]
            batch = sampler.read(index)
            arrived = None
            if sampler.device.type == "cuda":
                arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
                arrived.record()
            self._ready.put(_Ready(before, self._batch, after, batch, arrived))
            sampler.between(streams)


def on_device(batch: ChunkBatch, device: torch.device) -> ChunkBatch:
    """The batch on ``device``, by way of pinned memory where that is a GPU."""
    if device.type != "cuda":
        return batch
    return map_batches(lambda t: t.pin_memory().to(device, non_blocking=True), batch)


def _used_by(stream: torch.cuda.Stream, tensor: Tensor) -> Tensor:
    tensor.record_stream(stream)
    return tensor
