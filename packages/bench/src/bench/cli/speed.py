"""`bench speed`: updates per second against the limit of the machine."""

from dataclasses import dataclass

from bench.speed import SpeedRequest

__all__ = ["Speed"]


@dataclass(frozen=True)
class Speed(SpeedRequest):
    """Measure updates per second of agents on made-up data, in every combination asked for.

    The combinations take turns in one process, so that a busy machine slows all of them alike;
    figures are medians over the turns. Sizes are those of the paper's cube-single.
    """

    def run(self) -> int:
        """Measure, print and write."""
        from bench.api.cost import measure_speed

        measure_speed(self).show()
        return 0
