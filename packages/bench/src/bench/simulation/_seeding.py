"""Every source of chance in an episode, from one number.

`Env.reset(seed=...)` covers only the environment's own generator. OGBench also draws from NumPy's
global generator (start positions in mazes, teleports) and from action spaces that are rebuilt, and
so reseeded by the system, at every access (the steps before a goal is observed).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.random.mtrand import get_bit_generator, set_bit_generator

__all__ = ["episode_seed", "fixed_action_space", "global_generator", "split_seed"]


def episode_seed(base: int, purpose: int, episode: int) -> int:
    """Derive the seed of one episode.

    Args:
        base: Seed of the replica, >= 0.
        purpose: Separates families of episodes (evaluation, online) under one base seed.
        episode: Number of the episode, >= 0.

    Returns:
        A 32-bit seed that depends on these three numbers only.
    """
    sequence = np.random.SeedSequence(base, spawn_key=(purpose, episode))
    return int(sequence.generate_state(1)[0])


def split_seed(seed: int) -> tuple[int, int, int]:
    """Return independent seeds for the environment, its action space and the global generator."""
    environment, actions, global_ = np.random.SeedSequence(seed).generate_state(3)
    return int(environment), int(actions), int(global_)


@contextmanager
def global_generator(bits: np.random.MT19937) -> Iterator[None]:
    """Let NumPy's global generator draw from `bits`, and put back what was there.

    Swapping the generator costs a third of a microsecond; copying its state would cost as much as
    a step of a point maze.
    """
    outside = get_bit_generator()
    set_bit_generator(bits)
    try:
        yield
    finally:
        set_bit_generator(outside)


def fixed_action_space(environment: Any) -> None:
    """Give an environment one action space instead of a new one at every access.

    Only for classes whose `action_space` is a property (OGBench's manipulation tasks): a space
    that does not outlive the access cannot be seeded, and building it warns every time that the
    float64 bounds are stored in float32.

    Args:
        environment: The innermost environment; its class is replaced by a subclass.
    """
    cls = type(environment)
    if isinstance(getattr(cls, "action_space", None), property):
        environment._fixed_action_space = environment.action_space
        if cls not in _FIXED:
            # The module is kept because it tells whose class this is.
            body = {"action_space": property(_stored_space), "__module__": cls.__module__}
            _FIXED[cls] = type(cls.__name__, (cls,), body)
        environment.__class__ = _FIXED[cls]


_FIXED: dict[type, type] = {}


def _stored_space(environment: Any) -> Any:
    return environment._fixed_action_space
