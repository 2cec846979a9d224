"""Simulators without a display."""

import os
import sys

__all__ = ["switch_drawing_off"]


def switch_drawing_off() -> None:
    """Keep the simulators of this process from looking for a display, which warns where none is.

    Does nothing where `MUJOCO_GL` is set or dm_control, which reads it, has been imported.
    """
    if "dm_control" not in sys.modules:
        os.environ.setdefault("MUJOCO_GL", "disabled")
