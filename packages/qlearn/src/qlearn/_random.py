"""Random numbers for many replicas at once, each from its own seed."""

import copy
import hashlib
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["RandomStreams"]


class RandomStreams:
    """One random stream per replica; replica ``r`` depends on ``seeds[r]`` alone.

    A run inside a pack therefore draws the numbers that it draws alone. Draws happen on the
    device and never wait for it. To capture draws in a CUDA graph, register every element of
    :attr:`generators` with the graph.

    Args:
        seeds: one seed in ``[0, 2**63)`` per replica; equal seeds give equal numbers.
        device: where the numbers are drawn. CPU and CUDA give different numbers for one seed.

    Raises:
        ValueError: no seed, or a seed outside the range.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        if not seeds:
            raise ValueError("seeds is empty; give one seed per replica")
        for seed in seeds:
            if not 0 <= seed < 2**63:
                raise ValueError(f"seed {seed} is outside [0, 2**63)")
        self.seeds = tuple(seeds)
        self.device = torch.device(device)
        self.generators = tuple(torch.Generator(self.device).manual_seed(seed) for seed in seeds)

    @property
    def replicas(self) -> int:
        """Number of replicas ``R``."""
        return len(self.seeds)

    def spawn(self, purpose: str) -> "RandomStreams":
        """Fresh streams that depend on the seeds and ``purpose`` only, never on past draws.

        Separate purposes (initial parameters, replay, evaluation) keep separate streams, so that
        evaluating more often does not change what is trained.
        """
        digests = (hashlib.sha256(f"{purpose}:{seed}".encode()).digest() for seed in self.seeds)
        seeds = [int.from_bytes(digest[:8], "little") >> 1 for digest in digests]
        return RandomStreams(seeds, self.device)

    def select(self, replicas: Sequence[int]) -> "RandomStreams":
        """The streams of some replicas: drawing from them moves theirs on and no others."""
        chosen = copy.copy(self)
        chosen.seeds = tuple(self.seeds[replica] for replica in replicas)
        chosen.generators = tuple(self.generators[replica] for replica in replicas)
        return chosen

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Float[Tensor, "R *shape"]:
        """Standard normal numbers."""
        drawn = self._empty(shape, dtype or torch.get_default_dtype())
        for row, generator in zip(drawn, self.generators, strict=True):
            row.normal_(generator=generator)
        return drawn

    def uniform(self, *shape: int, dtype: torch.dtype | None = None) -> Float[Tensor, "R *shape"]:
        """Numbers uniform on ``[0, 1)``."""
        drawn = self._empty(shape, dtype or torch.get_default_dtype())
        for row, generator in zip(drawn, self.generators, strict=True):
            row.uniform_(generator=generator)
        return drawn

    def integers(self, high: int | Int[Tensor, "R"], *shape: int) -> Int[Tensor, "R *shape"]:
        """Integers uniform on ``0 .. high - 1``.

        Args:
            high: exclusive bound, a number or one per replica on the device. Entries below one
                in a tensor count as one, because checking them would wait for the device.
            *shape: shape behind the replica axis.

        Raises:
            ValueError: a number ``high`` below one.
        """
        if isinstance(high, int) and high < 1:
            raise ValueError(f"high is {high}; the range 0 .. high - 1 would be empty")
        drawn = self._empty(shape, torch.int64)
        for row, generator in zip(drawn, self.generators, strict=True):
            row.random_(generator=generator)
        # 63 random bits modulo high: no index is favoured by more than high / 2**63, where torch's
        # own bounded draw takes 32 bits and favours some of 1e8 indices by 2 %.
        if isinstance(high, int):
            return drawn.remainder_(high)
        bound = high.clamp(min=1).reshape(-1, *(1 for _ in shape))
        return drawn.remainder_(bound)

    def state_dict(self) -> dict[str, Tensor]:
        """Position of every stream, as bytes on the CPU ``(R, n)``."""
        return {"generators": torch.stack([g.get_state() for g in self.generators])}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue where :meth:`state_dict` was taken.

        Raises:
            ValueError: the state is of another number of replicas.
        """
        rows = state["generators"].cpu()
        if len(rows) != self.replicas:
            raise ValueError(f"state of {len(rows)} streams given to {self.replicas} replicas")
        for row, generator in zip(rows, self.generators, strict=True):
            generator.set_state(row.clone())

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(self.replicas, *shape, dtype=dtype, device=self.device)
