"""Rows of a table that is larger than memory, read where they lie when they are asked for."""

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

__all__ = ["MappedRows"]

_ROWS_PER_THREAD = 256  # Below that a thread costs more than the pages it waits for.


class MappedRows:
    """A table ``(N, *row)`` in several pieces, usually memory maps of files.

    Indexing reads the rows asked for and nothing else, sorted by place and in parallel, since what
    is not in the page cache is waited for. Stands in for a tensor in :class:`EpisodeData`. Rows
    keep their type: images of ``torch.uint8`` are read as such.

    Args:
        pieces: tables ``(n_i, *row)`` that follow one another; never copied. `torch.from_numpy`
            makes them of NumPy's memory maps, `torch.from_file` of files.
        shift: subtracted from every row ``(*row)``; of floating-point tables only.
        scale: every row is divided by it after that ``(*row)``.
        threads: rows are read by so many threads at a time.

    Raises:
        ValueError: no pieces, pieces of another type or shape than the first, or a shift or scale
            of integers.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        pieces: Sequence[Shaped[Tensor, "..."]],
        *,
        shift: Float[Tensor, "..."] | None = None,
        scale: Float[Tensor, "..."] | None = None,
        threads: int = 8,
    ) -> None:
        if not pieces:
            raise ValueError("no pieces")
        first = pieces[0]
        for number, piece in enumerate(pieces):
            if piece.ndim < 2:
                raise ValueError(
                    f"piece {number} has shape {tuple(piece.shape)}; expected (rows, size)"
                )
            if piece.dtype != first.dtype:
                raise ValueError(
                    f"piece {number} has type {piece.dtype}, the first {first.dtype}; expected one "
                    "type"
                )
            if piece.shape[1:] != first.shape[1:]:
                raise ValueError(
                    f"piece {number} has rows of shape {tuple(piece.shape[1:])}, the first "
                    f"{tuple(first.shape[1:])}"
                )
        if not first.is_floating_point() and not (shift is None and scale is None):
            raise ValueError(
                f"a table of {first.dtype} cannot be shifted or scaled: it would be rounded"
            )
        self.pieces = tuple(pieces)
        self.starts = [0, *itertools.accumulate(len(piece) for piece in pieces)]
        self.shape = torch.Size((self.starts[-1], *first.shape[1:]))
        self.dtype = first.dtype
        self.shift, self.scale = shift, scale
        self._threads = threads
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="rows")

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Size of all pieces together, on the disk."""
        return sum(piece.nbytes for piece in self.pieces)

    def __getitem__(self, rows: Int[Tensor, "*shape"]) -> Shaped[Tensor, "..."]:
        """The rows of these numbers, in their order."""
        wanted, order = rows.reshape(-1).cpu().sort(stable=True)
        found = torch.empty(len(wanted), *self.shape[1:], dtype=self.dtype)
        parts = min(self._threads, math.ceil(len(wanted) / _ROWS_PER_THREAD))
        if parts <= 1:
            self._read(wanted, order, found)
        else:
            jobs = [
                self._readers.submit(self._read, part, places, found)
                for part, places in zip(
                    wanted.tensor_split(parts), order.tensor_split(parts), strict=True
                )
            ]
            for job in jobs:
                job.result()
        return found.view(*rows.shape, *self.shape[1:])

    def _read(self, wanted: Tensor, places: Tensor, found: Tensor) -> None:
        """Put the sorted rows ``wanted`` into the rows ``places`` of ``found``."""
        cuts = torch.searchsorted(wanted, torch.tensor(self.starts)).tolist()
        for piece, start, low, high in zip(
            self.pieces, self.starts[:-1], cuts[:-1], cuts[1:], strict=True
        ):
            if low < high:
                rows = piece.index_select(0, wanted[low:high] - start)
                if self.shift is not None:
                    rows -= self.shift
                if self.scale is not None:
                    rows /= self.scale
                found[places[low:high]] = rows
