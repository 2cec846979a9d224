"""The phases of a run, and the method of the first of them."""

from enum import StrEnum
from typing import Literal

__all__ = ["CLONING", "Phase", "PhaseName", "is_cloning"]

PhaseName = Literal["pretrain", "offline", "online"]
"""What users call the phases."""


class Phase(StrEnum):
    """A phase of the tables, in the order in which they follow one another."""

    PRETRAIN = "pretrain"
    OFFLINE = "offline"
    ONLINE = "online"


CLONING = "bc"
"""Behaviour cloning in the registry of agents: the phase `pretrain`, from which others start."""


def is_cloning(agent: str) -> bool:
    """Whether an agent clones the data and reads no rewards."""
    return agent == CLONING
