"""`bench plan`: what a whole suite costs on a device."""

from dataclasses import dataclass

from bench.experiment import CostRequest

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan(CostRequest):
    """Hours that a suite takes on one device and on several, per domain and in total.

    Operations of the updates are counted and divided by the device's rate in a table of
    `bench speed`; a device that is not in the table, or not within a factor of two of the width, is
    refused, or estimated from its peak and a utilisation of your own. Rates of simulators are
    stored ones, unless --measure times them. Nothing is trained.
    """

    def run(self) -> int:
        """Print the table."""
        from bench.api.cost import plan

        plan(self).show()
        return 0
