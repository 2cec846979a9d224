"""`bench speed`: how fast agents train, and how near that is to the limit of the machine.

Needs torch and nothing else, so ``python -m bench.speed`` runs from a source checkout on a machine
without the simulator. Importing the package imports no torch.
"""

from bench.speed.request import SpeedRequest

__all__ = ["SpeedRequest"]
