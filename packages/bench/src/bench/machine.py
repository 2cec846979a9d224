"""What simulators and their worker processes find on a machine: cores, variables, no display."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["available_cores", "environment_variables", "switch_drawing_off"]


def available_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def environment_variables(**values: str) -> Iterator[None]:
    """Set variables that libraries read when a process that is started here imports them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def switch_drawing_off() -> None:
    """Keep the simulators of this process from looking for a display, which warns where none is.

    Does nothing where `MUJOCO_GL` is set or dm_control, which reads it, has been imported.
    """
    if "dm_control" not in sys.modules:
        os.environ.setdefault("MUJOCO_GL", "disabled")
