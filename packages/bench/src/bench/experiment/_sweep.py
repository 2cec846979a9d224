"""The request of a grid over settings."""

from dataclasses import dataclass

from bench.experiment._offline import OfflineRequest

__all__ = ["SweepRequest"]


@dataclass(frozen=True)
class SweepRequest(OfflineRequest):
    """The offline phase at every point of a grid.

    Attributes:
        over: what to sweep, as name=value,value,...; several make a grid. An agent's setting or
            one of steps, pretrain-steps, evaluate-every, episodes. Widths as 256x256,512x512.
    """

    over: tuple[str, ...] = ()
